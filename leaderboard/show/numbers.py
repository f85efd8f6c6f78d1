"""Numbers as text, the same in tables, sentences and drawings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.scoring.results import no_interval
from leaderboard.show.grid import MISSING

if TYPE_CHECKING:
    from benchmark.scoring.results import MetricValue
    from benchmark.scoring.statistics import Difference


def score_text(score: MetricValue, unit: str, digits: int = 1) -> str:
    """A score with its interval, or with why there is none."""
    value, low, high = (f"{score[end]:.{digits}f}" for end in ("value", "low", "high"))
    return f"{value} [{no_interval(score, unit) or f'{low}, {high}'}]"


def difference_text(found: Difference, unit: str, step: str = "") -> str:
    """A difference with its interval, or with why there is none; no sign for what rounds to 0.

    Args:
        found: the difference.
        unit: of the metric.
        step: what a difference of it is counted in, if that is to be said.
    """
    value, low, high = map(_signed, (found.value, found.low, found.high))
    step = f" {step}" if step else ""
    return f"{value}{step} [{no_interval(found, unit) or f'{low}, {high}'}]"


def step_of(unit: str) -> str:
    """What a difference of scores in some unit is counted in."""
    return "points" if unit == "%" else unit


def _signed(value: float) -> str:
    text = f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def p_text(p_value: float | None) -> str:
    """A p-value; a dash where nothing was tested."""
    if p_value is None:
        return MISSING
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"
