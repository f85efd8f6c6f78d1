"""The paired difference of two results on the same test utterances."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.errors import SuperbError
from benchmark.scoring.results import DamagedResultError, Result, read_result, read_tallies
from leaderboard.read.fields import counts_of, metric_of, skipped_utterances
from leaderboard.read.names import list_some

if TYPE_CHECKING:
    from benchmark.core import Tally
    from benchmark.scoring.statistics import Difference


@dataclass(frozen=True)
class Pair:
    """Two results on the same utterances.

    Attributes:
        metric: that was compared.
        difference: score of b minus score of a, over speakers.
        check: the field's usual test beside it, which takes utterances for independent:
            ``McNemar`` for right and wrong answers, ``matched pairs`` for error counts and for
            right answers added up over several seeds.
        check_p_value: its two-sided p-value.
        identical: True when both gave the same answer to every utterance. The interval is then
            [0, 0]: on these utterances there is one system, not two.
    """

    metric: str
    difference: Difference
    check: str
    check_p_value: float
    identical: bool


def pair_results(a: Path | str, b: Path | str, *, metric: str | None = None) -> Pair:
    """Compare two results utterance by utterance.

    For what the weighted sum adds, `a` is the run on the last layer. Pairing makes the interval
    far narrower than two separate ones suggest: two scores whose intervals overlap may well
    differ.

    Args:
        a: JSON file of a result.
        b: JSON file of another, of the same task, corpus, protocol and seeds, with the same
            utterances left out, if any.
        metric: one of the task's; the ranking one by default.

    Raises:
        SuperbError: when the two cannot be compared.
    """
    from benchmark.scoring.statistics import difference, matched_pairs, mcnemar

    first, second = (read_result(path, history=False) for path in (a, b))
    metric = metric or metric_of(first)
    _refuse_incomparable(first, second, metric)
    if metric not in first.metrics or metric not in second.metrics:
        known = ", ".join(sorted(set(first.metrics) & set(second.metrics))) or "none"
        raise SuperbError(f"no metric {metric!r} in both results; those in both: {known}")
    a_rows, b_rows = _rows(a), _rows(b)
    if a_rows.keys() != b_rows.keys():
        odd = len(a_rows.keys() ^ b_rows.keys())
        raise SuperbError(
            f"{a} and {b} do not hold the same test utterances: {odd} differ. "
            "Run both on the same corpus."
        )
    # Seed by seed, the utterances sorted within each, as the statistics want them stacked.
    keys = sorted(a_rows)
    a_counts = [counts_of(a_rows[key], metric) for key in keys]
    b_counts = [counts_of(b_rows[key], metric) for key in keys]
    found = difference(
        [top for top, _ in a_counts],
        [bottom for _, bottom in a_counts],
        [top for top, _ in b_counts],
        [bottom for _, bottom in b_counts],
        [a_rows[key].speaker for key in keys],
        seeds=len(first.seeds),
    )
    identical = a_counts == b_counts and all(
        a_rows[key].hypothesis == b_rows[key].hypothesis for key in keys
    )
    if identical:
        found = dataclasses.replace(found, low=0.0, high=0.0)
    answers = len(first.seeds) == 1 and right_or_wrong((*a_counts, *b_counts))
    test = mcnemar if answers else matched_pairs
    return Pair(
        metric=metric,
        difference=found,
        check="McNemar" if answers else "matched pairs",
        check_p_value=test(_by_utterance(keys, a_counts), _by_utterance(keys, b_counts)),
        identical=identical,
    )


def right_or_wrong(counts: Iterable[tuple[int, int]]) -> bool:
    """Whether every utterance is one answer that is right or wrong, rather than several words."""
    return all(bottom == 1 and top <= 1 for top, bottom in counts)


def _rows(path: Path | str) -> dict[tuple[int, str], Tally]:
    try:
        tallies = read_tallies(path)
    except DamagedResultError as error:
        raise SuperbError(f"{error} The superb run that made it writes it anew.") from error
    return {(seed, tally.utterance): tally for seed, rows in tallies.items() for tally in rows}


def _by_utterance(keys: Sequence[tuple[int, str]], counts: Sequence[tuple[int, int]]) -> list[int]:
    """Numerators added over seeds, in a fixed order of utterances."""
    sums: dict[str, int] = {}
    for (_, utterance), (top, _) in zip(keys, counts, strict=True):
        sums[utterance] = sums.get(utterance, 0) + top
    return [sums[utterance] for utterance in sorted(sums)]


def _refuse_incomparable(a: Result, b: Result, metric: str) -> None:
    # earlier results do not all say
    audio = (a.corpus.get("audio_sha256"), b.corpus.get("audio_sha256"))
    pairs = {
        "status": (a.status, b.status),
        "downstream": (a.downstream["name"], b.downstream["name"]),
        "task version": (a.downstream["version"], b.downstream["version"]),
        "corpus": (a.corpus["sha256"], b.corpus["sha256"]),
        "audio": audio if all(audio) else (None, None),
        "protocol": (a.identity.get("protocol"), b.identity.get("protocol")),
        "engine version": (a.identity.get("engine"), b.identity.get("engine")),
        "seeds": (sorted(a.seeds), sorted(b.seeds)),
    }
    skipped = (skipped_utterances(a), skipped_utterances(b))
    differing = [
        f"{name} ({one} and {other})" for name, (one, other) in pairs.items() if one != other
    ]
    if metric.endswith("_lm") and a.identity.get("lm") != b.identity.get("lm"):
        differing.append("the language model")
    if skipped[0] != skipped[1]:
        one, other = map(list_some, skipped)
        differing.append(f"the utterances left out ({one or 'none'} and {other or 'none'})")
    if differing:
        raise SuperbError(
            f"{_name(a)} and {_name(b)} cannot be paired: they differ in {'; '.join(differing)}. "
            "Run both on the same data with the same protocol and --seeds."
        )
    if a.status != "finished":
        raise SuperbError(f"{_name(a)} and {_name(b)} failed: there is nothing to compare")


def _name(result: Result) -> str:
    return f"{result.upstream['name']}, {result.layer} (run {result.run_id})"
