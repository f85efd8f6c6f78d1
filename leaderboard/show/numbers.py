"""Numbers as text, the same in tables, sentences and drawings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmark.scoring.results import MetricValue
    from benchmark.scoring.statistics import Difference


def score_text(score: MetricValue, digits: int = 1) -> str:
    """A score with its interval."""
    value, low, high = (f"{score[end]:.{digits}f}" for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def difference_text(found: Difference, unit: str = "") -> str:
    """A difference with its interval; no sign for what rounds to 0."""
    value, low, high = map(_signed, (found.value, found.low, found.high))
    return f"{value}{unit} [{low}, {high}]"


def step_of(unit: str) -> str:
    """What a difference of scores in some unit is counted in."""
    return "points" if unit == "%" else unit


def _signed(value: float) -> str:
    text = f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def p_text(p_value: float) -> str:
    """A p-value."""
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"
