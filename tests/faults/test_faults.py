"""Every row of docs/reliability.md holds."""

from __future__ import annotations

import pytest

from tests.faults.table import FAULTS


@pytest.mark.parametrize("row", FAULTS, ids=lambda row: f"{row.kind}-{row.check.__name__}")
def test_fault(row, tmp_path):
    row.check(tmp_path)
