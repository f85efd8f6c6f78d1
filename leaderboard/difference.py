"""The paired difference of two results on the same test utterances."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.errors import SuperbError
from benchmark.results import Result, read_result, read_tallies
from leaderboard.collect import list_some, skipped_utterances

if TYPE_CHECKING:
    from benchmark.core import Tally
    from benchmark.statistics import Interval


def paired_difference(
    a: Path | str, b: Path | str, *, metric: str | None = None, confidence: float = 0.95
) -> Interval:
    """Score of result b minus score of result a, with a paired interval over speakers.

    For what the weighted sum adds, `a` is the run on the last layer. Pairing makes the interval
    far narrower than two separate ones suggest: two scores whose intervals overlap may well
    differ.

    Args:
        a: JSON file of a result.
        b: JSON file of another, of the same task, corpus, protocol and seeds, with the same
            utterances left out, if any.
        metric: one of the task's; the ranking one by default.
        confidence: of the interval.

    Returns:
        The difference in percentage points.

    Raises:
        SuperbError: when the two cannot be compared.
    """
    # Here, so that a leaderboard that asks for no difference does not wait for numpy.
    from benchmark.statistics import difference

    first, second = read_result(a), read_result(b)
    _refuse_incomparable(first, second)
    metric = metric or str(first.downstream["metrics"][0])
    if metric not in first.metrics or metric not in second.metrics:
        known = ", ".join(sorted(set(first.metrics) & set(second.metrics))) or "none"
        raise SuperbError(f"no metric {metric!r} in both results; those in both: {known}")
    a_rows, b_rows = _rows(read_tallies(a)), _rows(read_tallies(b))
    if a_rows.keys() != b_rows.keys():
        odd = len(a_rows.keys() ^ b_rows.keys())
        raise SuperbError(f"{a} and {b} do not hold the same test utterances: {odd} differ")
    # Seed by seed, the utterances sorted within each, as the statistics want them stacked.
    keys = sorted(a_rows)
    a_counts = [a_rows[key].counts[metric] for key in keys]
    b_counts = [b_rows[key].counts[metric] for key in keys]
    return difference(
        [top for top, _ in a_counts],
        [bottom for _, bottom in a_counts],
        [top for top, _ in b_counts],
        [bottom for _, bottom in b_counts],
        [a_rows[key].speaker for key in keys],
        confidence=confidence,
        seeds=len(first.seeds),
    )


def _rows(tallies: dict[int, list[Tally]]) -> dict[tuple[int, str], Tally]:
    return {(seed, tally.utterance): tally for seed, rows in tallies.items() for tally in rows}


def _refuse_incomparable(a: Result, b: Result) -> None:
    pairs = {
        "status": (a.status, b.status),
        "downstream": (a.downstream["name"], b.downstream["name"]),
        "task version": (a.downstream["version"], b.downstream["version"]),
        "corpus": (a.corpus["sha256"], b.corpus["sha256"]),
        "protocol": (a.identity.get("protocol"), b.identity.get("protocol")),
        "seeds": (sorted(a.seeds), sorted(b.seeds)),
    }
    skipped = (skipped_utterances(a), skipped_utterances(b))
    differing = [f"{name} ({one} and {other})" for name, (one, other) in pairs.items()]
    differing = [
        text for text, (one, other) in zip(differing, pairs.values(), strict=True) if one != other
    ]
    if skipped[0] != skipped[1]:
        one, other = map(list_some, skipped)
        differing.append(f"the utterances left out ({one or 'none'} and {other or 'none'})")
    if differing:
        raise SuperbError(f"results {a.run_id} and {b.run_id} differ in {'; '.join(differing)}")
    if a.status != "finished":
        raise SuperbError(f"results {a.run_id} and {b.run_id} failed: there is nothing to compare")
