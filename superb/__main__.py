"""``python -m superb``."""

from superb.cli import main

if __name__ == "__main__":
    main()
