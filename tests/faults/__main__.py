"""Check all faults and print the table of docs/reliability.md: ``python -m tests.faults``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.faults.table import FAULTS


def main() -> int:
    """Print a Markdown table; the exit code is the number of faults that superb gets wrong."""
    wrong = 0
    print("| | What | Given | What superb does | |\n|---|---|---|---|---|")
    for number, row in enumerate(FAULTS, start=1):
        with tempfile.TemporaryDirectory() as folder:
            try:
                row.check(Path(folder))
                verdict = "right"
            except AssertionError as error:
                wrong += 1
                verdict = "**wrong**"
                print(f"{row.check.__name__}: {error}", file=sys.stderr)
        print(f"| {number} | {row.kind} | {row.given} | {row.then} | {verdict} |")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
