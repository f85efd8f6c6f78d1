"""Every row of docs/reliability.md holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.table import FAULTS, lines

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


@pytest.mark.parametrize("row", FAULTS, ids=lambda row: f"{row.kind}-{row.check.__name__}")
def test_fault(row, tmp_path):
    row.check(tmp_path)


def test_the_page_has_every_row():
    table = "".join(lines(["right"] * len(FAULTS)))
    assert table in PAGE.read_text(encoding="utf-8"), "python -m tests.faults docs/reliability.md"
