"""From a folder of result files to a board: a pure function, the same files give the same board.

Only what is comparable stands in one table: the same task and task version, the same corpus by
content, of which one channel was heard and the same utterances were left out, the same protocol by
content, the same version of the engine. Reads JSON alone: no torch, no pandas.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmark.core import Metric
from benchmark.errors import SuperbError, unknown
from benchmark.scoring.results import (
    MetricValue,
    Result,
    card_metrics,
    no_interval,
    read_result,
    read_results,
    result_files,
)
from leaderboard.read.board import BEST, MAIN_LAYERS, Board, Cell, Row, Table
from leaderboard.read.fields import (
    audio_of,
    base_of,
    channel_of,
    columns_of,
    engine_of,
    identity_of,
    is_trained,
    labels_of,
    layer_count,
    lexicon_of,
    over_reruns,
    score_of,
    skipped_utterances,
    source_of,
    train_seconds,
    weights_of,
)
from leaderboard.read.names import printable, told_apart

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A result and its JSON file."""

    path: Path
    result: Result


class _RowKey(NamedTuple):
    """What the runs of one row have in common.

    An encoder is the same whatever version of code and libraries computed it, as far as its
    results tell.
    """

    upstream: str
    weights: str
    precision: str
    storage: str
    device: str


def collect(folder: Path | str) -> Board:
    """Read a folder of results.

    Files that cannot be read, that were written by a newer version or that do not match their
    checksum are left out and named.

    Raises:
        SuperbError: when it does not exist or holds no result files.
    """
    return arrange(*read_results(folder, history=False))


def read_board(folder: Path | str, *, history: bool = False) -> tuple[Board, dict[str, Run]]:
    """The board of a folder, and the run behind each of its run ids.

    Args:
        folder: of results.
        history: with the validations during training, which take most of the time to read.

    Raises:
        SuperbError: when the folder does not exist or holds no result that can be read.
    """
    runs: dict[str, Run] = {}
    problems: list[str] = []
    for path in result_files(folder):
        try:
            result = read_result(path, history=history)
        except SuperbError as error:
            problems.append(str(error))
            continue
        if result.run_id in runs:
            problems.append(f"{path} holds the same run as {runs[result.run_id].path}.")
        else:
            runs[result.run_id] = Run(path, result)
    if not runs:
        raise SuperbError(f"no result in {folder} can be read. {' '.join(problems)}")
    return arrange((run.result for run in runs.values()), problems), runs


def tables_of(board: Board, downstreams: Sequence[str]) -> list[Table]:
    """The tables of these tasks; all if none is named.

    Raises:
        SuperbError: for a task that the board does not have.
    """
    tasks = {table.downstream for table in board.tables}
    for task in downstreams:
        if task not in tasks:
            raise unknown("task in these results", task, map(printable, tasks))
    return [table for table in board.tables if not downstreams or table.downstream in downstreams]


def notes_about(board: Board, run_ids: Collection[str]) -> list[str]:
    """What a board notes of some runs, and each file that it had to leave out."""
    notes = [note for note in board.notes if any(run_id in note for run_id in run_ids)]
    return notes + [f"left out: {problem}" for problem in board.problems]


def warn_left_out(problems: Iterable[str]) -> None:
    """Log the files that were left out, for output that has no place to name them."""
    for problem in problems:
        _log.warning("left out: %s", problem)


def arrange(results: Iterable[Result], problems: Sequence[str] = ()) -> Board:
    """Sort results into tables.

    Of several runs for one cell, one that finished counts before one that failed, then the one
    with more seeds, then the one with more metrics (of transcripts with a language model too), then
    the newer one; a note names each that is left out.
    """
    groups: dict[tuple[object, ...], list[Result]] = {}
    notes: list[str] = []
    # Oldest first; the id settles equal times.
    found = sorted(results, key=lambda result: (result.created, result.run_id))
    for result in found:
        groups.setdefault(_group_key(result), []).append(result)
    encoders = _encoders(found)  # for results that were written before these were told
    tables = [
        _table(part, encoders, notes)
        for key in sorted(groups, key=repr)
        for part in _by_audio(groups[key])
    ]
    return Board(tuple(tables), tuple(sorted(notes)), tuple(problems))


_Encoders = Mapping[tuple[str, str], str]


def _encoders(results: Sequence[Result]) -> _Encoders:
    """Name and fingerprint → the weights that the newest result with that fingerprint tells."""
    named = ((_named(result), weights_of(result)) for result in results)
    return {name: weights for name, weights in named if weights}


def _named(result: Result) -> tuple[str, str]:
    return str(result.upstream["name"]), identity_of(result, "upstream", "fingerprint")


def _group_key(result: Result) -> tuple[object, ...]:
    skipped = skipped_utterances(result)
    return (
        result.downstream["name"],
        result.downstream["version"],
        columns_of(result),
        result.corpus["name"],
        result.corpus["sha256"],
        (len(skipped), skipped),  # the whole corpus comes first
        channel_of(result),
        result.protocol["name"],
        str(result.protocol["version"]),
        identity_of(result, "protocol", "sha256"),
        engine_of(result),
        lexicon_of(result),
        str(result.identity.get("labels", "")),
    )


def _by_audio(results: Sequence[Result]) -> list[list[Result]]:
    """Results on the same audio; those that do not say which stand apart in case of doubt."""
    known = sorted({audio_of(result) for result in results} - {""})
    if len(known) < 2:
        return [list(results)]
    parts = [[result for result in results if audio_of(result) == audio] for audio in ("", *known)]
    return [part for part in parts if part]


def _table(results: Sequence[Result], encoders: _Encoders, notes: list[str]) -> Table:
    newest = results[-1]
    card = newest.downstream
    runs: dict[_RowKey, dict[str, list[Result]]] = {}
    for result in results:
        runs.setdefault(_row_key(result, encoders), {}).setdefault(result.layer, []).append(result)
    namesakes: dict[str, list[_RowKey]] = {}
    for key in runs:
        namesakes.setdefault(key.upstream, []).append(key)
    sources: dict[str, dict[str, str]] = {}
    for result in results:  # the newest says where they are now
        name, weights, *_ = _row_key(result, encoders)
        sources.setdefault(name, {})[weights] = source_of(result)
    names = {name: told_apart(name, own) for name, own in sources.items()}
    labels = {
        key: _label(names[key.upstream][key.weights], key, namesakes[key.upstream]) for key in runs
    }
    chosen: dict[_RowKey, dict[str, Result]] = {}
    for key, by_layer in runs.items():
        for layer, candidates in by_layer.items():
            *others, best = sorted(candidates, key=_worth)
            chosen.setdefault(key, {})[layer] = best
            notes += [
                f"{card['name']}, {labels[key]}, {layer}: run {other.run_id} of {other.created} "
                f"is left out for {_reason(best, other)} {best.run_id} of {best.created}"
                for other in others
            ]
    notes += [
        f"{card['name']}, {labels[key]}: one encoder, by different code or libraries: "
        + ", ".join(
            f"{layer} (run {own.run_id}, fingerprint {_named(own)[1][:8]})"
            for layer, own in cells.items()
        )
        for key, cells in chosen.items()
        if len(set(map(_named, cells.values()))) > 1
    ]
    layers = _layers(layer for cells in chosen.values() for layer in cells)
    metrics = card_metrics(newest)
    lower = metrics[0].direction == "lower"
    close = {
        layer: _not_separated(
            [cells[layer] for cells in chosen.values() if layer in cells], metrics[0]
        )
        for layer in layers
    }
    rows = [_row(key, labels[key], cells, close) for key, cells in chosen.items()]
    rows.sort(key=lambda row: _rank(row, layers, lower))
    return Table(
        downstream=str(card["name"]),
        base=base_of(newest),
        labels=labels_of(newest),
        train_s=train_seconds(newest),
        title=str(card.get("title", "")),
        version=int(card["version"]),
        needs=columns_of(newest),
        metrics=metrics,
        corpus=str(newest.corpus["name"]),
        corpus_sha256=str(newest.corpus["sha256"]),
        audio_sha256=max(map(audio_of, results)),
        corpus_note=str(newest.corpus.get("note", "")),
        skipped=skipped_utterances(newest),
        channel=channel_of(newest),
        protocol=str(newest.protocol["name"]),
        protocol_version=str(newest.protocol["version"]),
        protocol_sha256=identity_of(newest, "protocol", "sha256"),
        engine=engine_of(newest),
        layers=layers,
        rows=tuple(rows),
        lexicon=lexicon_of(newest),
    )


def _row_key(result: Result, encoders: _Encoders) -> _RowKey:
    settings = (str(result.identity.get(name, "")) for name in ("precision", "storage", "device"))
    name, fingerprint = _named(result)
    weights = weights_of(result) or encoders.get((name, fingerprint), fingerprint)
    return _RowKey(name, weights, *settings)


def _label(label: str, key: _RowKey, same: Sequence[_RowKey]) -> str:
    """What the encoder is called, with what tells this row from others of it."""
    parts: list[str] = []
    if len({(row.precision, row.storage, row.device) for row in same}) > 1:
        if key.precision not in ("", "float32"):
            parts.append(key.precision)
        if key.storage not in ("", "float16"):
            parts.append(f"stored as {key.storage}")
        # A processor or a GPU is as good as the other: only said where nothing else differs.
        alone = len({row.device for row in same if row._replace(device=key.device) == key}) == 1
        if key.device not in ("", "cpu", "cuda") or (key.device and not alone):
            parts.append(key.device)
    return f"{label} ({', '.join(parts)})" if parts else label


def _worth(result: Result) -> tuple[object, ...]:
    finished = result.status == "finished"
    return (finished, len(result.seeds), len(result.metrics), result.created, result.run_id)


def _reason(best: Result, other: Result) -> str:
    if best.run_id == other.run_id and best.created == other.created:
        return "another copy,"
    if best.status != other.status:
        return "the finished"
    if len(best.seeds) != len(other.seeds):
        return f"that of {len(best.seeds)} instead of {len(other.seeds)} seeds,"
    if len(best.metrics) != len(other.metrics):  # a language model adds one and changes no other
        return "that with more metrics,"
    return "the newer"


def _layers(present: Iterable[str]) -> tuple[str, ...]:
    """The two main columns, then numbered layers by number, then the others by name."""
    others = sorted(
        set(present) - set(MAIN_LAYERS),
        key=lambda layer: (0, int(layer), "") if _is_number(layer) else (1, 0, layer),
    )
    main = MAIN_LAYERS[:1] if BEST in others else MAIN_LAYERS
    return (*main, *others)


def _is_number(layer: str) -> bool:
    return layer.isascii() and layer.removeprefix("-").isdigit()


def _not_separated(results: Sequence[Result], metric: Metric) -> set[str]:
    """Run ids of the best score and of those whose interval overlaps its interval.

    A score without an interval is told from no other.
    """

    def ends(score: MetricValue) -> tuple[float, float]:
        unknown = no_interval(score, metric.unit)
        return (-math.inf, math.inf) if unknown else (score["low"], score["high"])

    scores = {result.run_id: score for result in results if (score := score_of(result))}
    if len(scores) < 2:  # alone, it is the best of nothing
        return set()
    pick = min if metric.direction == "lower" else max
    lowest, highest = ends(pick(scores.values(), key=lambda score: score["value"]))
    return {
        run_id
        for run_id, (low, high) in ((run_id, ends(score)) for run_id, score in scores.items())
        if low <= highest and high >= lowest
    }


def _row(
    key: _RowKey, label: str, cells: Mapping[str, Result], close: Mapping[str, set[str]]
) -> Row:
    newest = max(cells.values(), key=lambda result: (result.created, result.run_id))
    card: Mapping[str, Any] = newest.upstream
    return Row(
        **key._asdict(),
        label=label,
        source=source_of(newest),
        untrained=card.get("family") == "untrained",
        note=str(card.get("note", "")),
        family=str(card.get("family", "")),
        layers=layer_count(newest),
        parameters=_whole(newest.encoder.get("parameters")),
        macs=_number(newest.encoder.get("macs")),
        throughput=_number(newest.encoder.get("throughput")),
        trained_on=_names(card.get("trained_on")),
        cells={
            layer: Cell(
                status=result.status,
                metrics=result.metrics,
                score=score_of(result),
                seeds=len(result.seeds) if is_trained(result) else 0,
                over_reruns=over_reruns(result),
                learning_rate=result.learning_rate,
                learning_rate_at_edge=result.learning_rate_at_edge,
                not_separated=result.run_id in close[layer],
                run_id=result.run_id,
                fingerprint=identity_of(result, "upstream", "fingerprint"),
                created=result.created,
                lm_sha256=identity_of(result, "lm", "model"),
            )
            for layer, result in cells.items()
        },
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _names(value: object) -> tuple[str, ...] | None:
    return tuple(sorted(str(name) for name in value)) if isinstance(value, list) else None


def _rank(row: Row, layers: Sequence[str], lower: bool) -> tuple[object, ...]:
    """By the weighted sum, then by the last layer, then by the other columns, then by name."""
    keys: list[tuple[int, float]] = []
    for layer in (*reversed(MAIN_LAYERS), *layers):
        cell = row.cell(layer)
        if cell is None or cell.score is None:
            keys.append((1, 0.0))
        else:
            keys.append((0, cell.score["value"] * (1 if lower else -1)))
    settings = (row.precision, row.storage, row.device)
    return (*keys, row.upstream, row.weights, *settings)
