"""The paired difference of two results on the same test utterances."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.errors import SuperbError
from benchmark.scoring.results import (
    DamagedResultError,
    Result,
    read_result,
    read_tallies,
    result_files,
)
from leaderboard.read.collect import Board, arrange, list_some, skipped_utterances

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


def paired_difference(
    a: Path | str, b: Path | str, *, metric: str | None = None, confidence: float = 0.95
) -> Difference:
    """Score of result b minus score of result a, with a paired interval over speakers.

    As `pair_results`, which says more.
    """
    return pair_results(a, b, metric=metric, confidence=confidence).difference


def pair_results(
    a: Path | str, b: Path | str, *, metric: str | None = None, confidence: float = 0.95
) -> Pair:
    """Compare two results utterance by utterance.

    For what the weighted sum adds, `a` is the run on the last layer. Pairing makes the interval
    far narrower than two separate ones suggest: two scores whose intervals overlap may well
    differ.

    Args:
        a: JSON file of a result.
        b: JSON file of another, of the same task, corpus, protocol and seeds, with the same
            utterances left out, if any.
        metric: one of the task's; the ranking one by default.
        confidence: of the interval.

    Raises:
        SuperbError: when the two cannot be compared.
    """
    from benchmark.scoring.statistics import difference, matched_pairs, mcnemar

    first, second = (read_result(path, history=False) for path in (a, b))
    metric = metric or str(first.downstream["metrics"][0])
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
    a_counts = [a_rows[key].counts[metric] for key in keys]
    b_counts = [b_rows[key].counts[metric] for key in keys]
    found = difference(
        [top for top, _ in a_counts],
        [bottom for _, bottom in a_counts],
        [top for top, _ in b_counts],
        [bottom for _, bottom in b_counts],
        [a_rows[key].speaker for key in keys],
        confidence=confidence,
        seeds=len(first.seeds),
    )
    identical = a_counts == b_counts and all(
        a_rows[key].hypothesis == b_rows[key].hypothesis for key in keys
    )
    if identical:
        found = dataclasses.replace(found, low=0.0, high=0.0)
    answers = len(first.seeds) == 1 and all(
        bottom == 1 and top <= 1 for top, bottom in (*a_counts, *b_counts)
    )
    test = mcnemar if answers else matched_pairs
    return Pair(
        metric=metric,
        difference=found,
        check="McNemar" if answers else "matched pairs",
        check_p_value=test(_by_utterance(keys, a_counts), _by_utterance(keys, b_counts)),
        identical=identical,
    )


def read_board(
    folder: Path | str, *, history: bool = False
) -> tuple[Board, dict[str, tuple[Path, Result]]]:
    """The board of a folder, and the file and result behind each of its run ids.

    Args:
        folder: of results.
        history: with the validations during training, which take most of the time to read.

    Raises:
        SuperbError: when the folder does not exist or holds no result that can be read.
    """
    files: dict[str, tuple[Path, Result]] = {}
    problems: list[str] = []
    for path in result_files(folder):
        try:
            result = read_result(path, history=history)
        except SuperbError as error:
            problems.append(str(error))
            continue
        if result.run_id in files:
            problems.append(f"{path} holds the same run as {files[result.run_id][0]}.")
        else:
            files[result.run_id] = (path, result)
    if not files:
        raise SuperbError(f"no result in {folder} can be read. {' '.join(problems)}")
    return arrange((result for _, result in files.values()), problems), files


def notes_about(board: Board, run_ids: Collection[str]) -> list[str]:
    """What a board notes of some runs, and each file that it had to leave out."""
    notes = [note for note in board.notes if any(run_id in note for run_id in run_ids)]
    return notes + [f"left out: {problem}" for problem in board.problems]


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
    differing = [f"{name} ({one} and {other})" for name, (one, other) in pairs.items()]
    differing = [
        text for text, (one, other) in zip(differing, pairs.values(), strict=True) if one != other
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
