"""All faults, in the order of docs/reliability.md."""

from __future__ import annotations

from tests.faults import scores, sounds, weights, words  # noqa: F401 - they fill the list
from tests.faults.case import FAULTS

__all__ = ["FAULTS"]
