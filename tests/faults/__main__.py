"""Check all faults and write their table: ``python -m tests.faults docs/reliability.md``."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.faults.table import FAULTS, lines

BEGIN, END = "<!-- faults -->\n", "<!-- end of faults -->\n"


def main() -> int:
    """Print the table, or put it into a page; the exit code is 1 if anything is wrong."""
    started, verdicts = time.monotonic(), []
    for row in FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                row.check(Path(folder))
                verdicts.append("right")
            except AssertionError as error:
                verdicts.append("**wrong**")
                print(f"{row.kind}, {row.check.__name__}: {error}", file=sys.stderr)
    table = "".join(lines(verdicts))
    if len(sys.argv) > 1:
        page = Path(sys.argv[1])
        text = page.read_text(encoding="utf-8")
        before, after = text.partition(BEGIN)[0], text.partition(END)[2]
        page.write_text(f"{before}{BEGIN}{table}{END}{after}", encoding="utf-8")
    else:
        print(table, end="")
    right = verdicts.count("right")
    print(f"{right} of {len(FAULTS)} right, {time.monotonic() - started:.0f} s", file=sys.stderr)
    return int(right < len(FAULTS))


if __name__ == "__main__":
    sys.exit(main())
