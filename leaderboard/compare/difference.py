"""The paired difference of two results on the same test utterances."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmark.errors import SuperbError
from benchmark.scoring.results import (
    FEWEST_CLUSTERS,
    DamagedResultError,
    Result,
    read_records,
    read_result,
)
from leaderboard.read.fields import (
    base_of,
    channel_of,
    columns_of,
    counts_of,
    find_metric,
    metric_of,
    skipped_utterances,
)
from leaderboard.read.names import list_some

if TYPE_CHECKING:
    from benchmark.core import Record
    from benchmark.scoring.statistics import Difference


SUMS: Final = ("ratio", "mean")
"""Statistics to which each utterance adds something by itself."""


@dataclass(frozen=True)
class Pair:
    """Two results on the same utterances.

    Attributes:
        metric: that was compared.
        difference: score of b minus score of a, over speakers.
        check: the field's usual test beside it, which takes utterances for independent:
            ``McNemar`` for right and wrong answers, ``matched pairs`` for error counts and for
            right answers added up over several seeds; "" where the metric is no ratio of sums.
        check_p_value: its two-sided p-value; None without a check.
        identical: True when both gave the same answer to every utterance. The interval is then
            [0, 0]: on these utterances there is one system, not two.
    """

    metric: str
    difference: Difference
    check: str
    check_p_value: float | None
    identical: bool

    @property
    def p_value(self) -> float | None:
        """Of the difference; None over too few speakers to test anything."""
        few = self.difference.clusters < FEWEST_CLUSTERS
        return None if few else self.difference.p_value


def adjusted(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values corrected for their number (Holm 1979); what was not tested does not count."""
    from benchmark.scoring.statistics import holm

    known = iter(holm([p_value for p_value in p_values if p_value is not None]))
    return [None if p_value is None else next(known) for p_value in p_values]


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
    return pair(Scored(a), Scored(b), metric=metric)


class Scored:
    """A result, and its test utterances once somebody asks for them.

    Attributes:
        path: of the JSON file.
        result: what it holds, without the history.
    """

    def __init__(self, path: Path | str, result: Result | None = None) -> None:
        self.path = Path(path)
        self.result = result or read_result(path, history=False)
        self._totals: dict[str, Totals] = {}

    @cached_property
    def rows(self) -> dict[tuple[int, str, str], Record]:
        """By seed, fold and id.

        Raises:
            SuperbError: when the table is missing or damaged.
        """
        try:
            records = read_records(self.path, self.result)
        except DamagedResultError as error:
            raise SuperbError(f"{error} The superb run that made it writes it anew.") from error
        return {(seed, row.fold, row.id): row for seed, rows in records.items() for row in rows}

    @cached_property
    def ordered(self) -> tuple[list[tuple[int, str, str]], list[Record]]:
        """Keys and rows, seed by seed, the utterances sorted within each."""
        keys = sorted(self.rows)
        return keys, [self.rows[key] for key in keys]

    def totals(self, metric: str) -> Totals:
        """What its utterances add to a metric, computed once."""
        if metric not in self._totals:
            _, rows = self.ordered
            answers = right_or_wrong(counts_of(record, metric) for record in rows)
            once = len({record.id for record in rows}) == len(rows)
            self._totals[metric] = Totals(_by_utterance(rows, metric), answers and once)
        return self._totals[metric]


class Totals(NamedTuple):
    """What utterances add to a metric.

    Attributes:
        sums: numerators added over seeds and folds, in a fixed order of utterances.
        answers: whether each is there once, as one answer that is right or wrong.
    """

    sums: list[float]
    answers: bool


def pair(
    first: Scored, second: Scored, *, metric: str | None = None, any_rules: bool = False
) -> Pair:
    """Compare two results that are read already; see `pair_results`.

    Args:
        first: the result a.
        second: the result b.
        metric: one of the task's; the ranking one by default.
        any_rules: True where head, protocol and engine may differ, so that the difference is of
            all of it together.
    """
    from benchmark.scoring.statistics import difference_of

    metric = metric or metric_of(first.result)
    _refuse_incomparable(first.result, second.result, metric, any_rules)
    both = set(first.result.metrics) & set(second.result.metrics)
    if metric not in both:
        known = ", ".join(sorted(both)) or "none"
        raise SuperbError(f"no metric {metric!r} in both results; those in both: {known}")
    (a_keys, one), (b_keys, other) = first.ordered, second.ordered
    if a_keys != b_keys:
        odd = len(first.rows.keys() ^ second.rows.keys())
        raise SuperbError(
            f"{first.path} and {second.path} do not hold the same test utterances: {odd} differ. "
            "Run both on the same corpus."
        )
    ranked = find_metric(first.result, metric)
    found = difference_of(one, other, ranked, seeds=len(first.result.seeds))
    identical = all(
        a.values[metric] == b.values[metric] and a.hypothesis == b.hypothesis
        for a, b in zip(one, other, strict=True)
    )
    if identical:
        found = dataclasses.replace(found, low=0.0, high=0.0)
    check, check_p_value = "", None
    if ranked.statistic in SUMS:
        check, check_p_value = _check(first.totals(metric), second.totals(metric))
    return Pair(metric, found, check, check_p_value, identical)


def _check(a: Totals, b: Totals) -> tuple[str, float]:
    """The field's usual test on counts, and its p-value."""
    from benchmark.scoring.statistics import matched_pairs, mcnemar

    if a.answers and b.answers:
        return "McNemar", mcnemar(a.sums, b.sums)
    return "matched pairs", matched_pairs(a.sums, b.sums)


def right_or_wrong(counts: Iterable[tuple[float, float]]) -> bool:
    """Whether every utterance is one answer that is right or wrong, rather than several words."""
    return all(bottom == 1 and top in (0, 1) for top, bottom in counts)


def _by_utterance(records: Sequence[Record], metric: str) -> list[float]:
    """Numerators added over seeds and folds, in a fixed order of utterances."""
    sums: dict[str, float] = {}
    for record in records:
        sums[record.id] = sums.get(record.id, 0) + counts_of(record, metric)[0]
    return [sums[place] for place in sorted(sums)]


def _refuse_incomparable(a: Result, b: Result, metric: str, any_rules: bool) -> None:
    # earlier results do not all say
    audio = (a.corpus.get("audio_sha256"), b.corpus.get("audio_sha256"))
    pairs = {
        "status": (a.status, b.status),
        "downstream": (a.downstream["name"], b.downstream["name"]),
        "task version": (a.downstream["version"], b.downstream["version"]),
        "columns": (columns_of(a), columns_of(b)),
        "corpus": (a.corpus["sha256"], b.corpus["sha256"]),
        "audio": audio if all(audio) else (None, None),
        "channel": (channel_of(a) or "the mean of all", channel_of(b) or "the mean of all"),
        "protocol": (a.identity.get("protocol"), b.identity.get("protocol")),
        "engine version": (a.identity.get("engine"), b.identity.get("engine")),
        "seeds": (sorted(a.seeds), sorted(b.seeds)),
    }
    if any_rules:
        pairs["downstream"] = (base_of(a), base_of(b))
        del pairs["protocol"], pairs["engine version"]
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
