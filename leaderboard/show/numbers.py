"""Numbers as text, the same in tables, sentences and drawings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.scoring.results import no_interval
from leaderboard.show.grid import MISSING

if TYPE_CHECKING:
    from benchmark.scoring.results import MetricValue
    from benchmark.scoring.statistics import Difference
    from leaderboard.compare.ranks import Mean


def score_text(score: MetricValue, unit: str, digits: int | None = None) -> str:
    """A score with its interval, or with why there is none."""
    digits = digits_of(score["value"], unit) if digits is None else digits
    value, low, high = (f"{score[end]:.{digits}f}" for end in ("value", "low", "high"))
    return f"{value} [{no_interval(score, unit) or f'{low}, {high}'}]"


def difference_text(found: Difference, unit: str, step: str = "") -> str:
    """A difference with its interval, or with why there is none; no sign for what rounds to 0.

    Args:
        found: the difference.
        unit: of the metric.
        step: what a difference of it is counted in, if that is to be said.
    """
    digits = max(digits_of(end, unit) for end in (found.low, found.high))
    value, low, high = (_signed(end, digits) for end in (found.value, found.low, found.high))
    step = f" {step}" if step else ""
    return f"{value}{step} [{no_interval(found, unit) or f'{low}, {high}'}]"


def tau_text(tau: Mean) -> str:
    """A rank correlation with its interval, or with what stands for one that is not known."""
    known = tau.low is not None and tau.high is not None
    ends = f"{tau.low:+.2f}, {tau.high:+.2f}" if known else "not known"
    return f"{tau.value:+.2f} [{ends}]"


def step_of(unit: str) -> str:
    """What a difference of scores in some unit is counted in."""
    return "points" if unit == "%" else unit


def digits_of(value: float, unit: str) -> int:
    """Decimals to show: one of a percentage, of other units enough for three digits."""
    return 1 if unit == "%" or abs(value) >= 10 else 2 if abs(value) >= 1 else 3


def _signed(value: float, digits: int) -> str:
    text = f"{value:+.{digits}f}"
    return text[1:] if not float(text) else text


def p_text(p_value: float | None) -> str:
    """A p-value; a dash where nothing was tested."""
    if p_value is None:
        return MISSING
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"
