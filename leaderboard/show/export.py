"""Results in the formats of others: the metadata of a Hugging Face model card, and tidy CSV."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmark.errors import SuperbError, unknown
from benchmark.scoring.results import Result, load_results, no_interval, shown_score
from leaderboard.read.board import MAIN_LAYERS, Row, Table
from leaderboard.read.collect import read_board, warn_left_out
from leaderboard.read.fields import find_metric
from leaderboard.read.names import printable
from leaderboard.show.board_csv import safe_cell

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_HUB_TASKS: Final = {"wer": "automatic-speech-recognition", "accuracy": "audio-classification"}
"""Task ids of the Hugging Face Hub by the metric that ranks; the others are ``other`` there too."""

_METRICS: Final = {"wer": "WER", "cer": "CER", "accuracy": "accuracy"}

_HUB_CORPUS: Final = re.compile(r"hf:(?P<id>[\w.-]+/[\w.-]+)(:(?P<config>.+))?")
_HUB_COMMIT: Final = re.compile(
    r"https://huggingface\.co/datasets/.+/tree/(?P<commit>[0-9a-f]{40})"
)


def model_card(folder: Path | str, upstream: str) -> str:
    """Front matter of a model card with the ``model-index`` of one upstream.

    Last layer and weighted sum are given, every metric of each task, in percent. The interval is
    in a metric's name, which readers see, and with everything that a score depends on in its
    arguments. A dataset that is not on the Hub has the sha256 of its content as revision.

    Args:
        folder: of results.
        upstream: its name, or its label in the leaderboard where several encoders have one name.

    Returns:
        YAML between two lines of hyphens, to be put at the start of the card's README.md.

    Raises:
        SuperbError: for an unknown upstream, one name for several encoders, and one that has no
            finished result.
    """
    # Here, as importing it takes longer than everything else that the CSV needs.
    from huggingface_hub import ModelCardData

    board, runs = read_board(folder)
    warn_left_out(board.problems)
    rows = _rows_of(board.tables, upstream)
    results = [
        entry
        for table, row in rows
        for layer in MAIN_LAYERS
        if (cell := row.cell(layer))
        for entry in _eval_results(table, runs[cell.run_id].result)
    ]
    if not results:
        raise SuperbError(
            f"no run of {upstream} on the last layer or the weighted sum finished; a model card "
            "holds scores. Make some with: superb run --downstream all --upstream "
            f"{rows[0][1].upstream}"
        )
    card = ModelCardData(model_name=rows[0][1].upstream, eval_results=results)
    return f"---\n{card.to_yaml()}\n---\n"


def tidy_csv(folder: Path | str) -> str:
    """All results of a folder as CSV, one row per result and metric, in full precision.

    The columns are those of `benchmark.scoring.results.load_results`.

    Raises:
        SuperbError: when there is no such folder, or no JSON file in it.
    """
    table = load_results(folder)
    text: str = table.map(safe_cell).to_csv(index=False, lineterminator="\n")
    return text


def _rows_of(tables: tuple[Table, ...], upstream: str) -> list[tuple[Table, Row]]:
    """The rows of one encoder, at most one a table."""
    everything = [(table, row) for table in tables for row in table.rows]
    found = [(table, row) for table, row in everything if row.label == upstream]
    if not found:
        found = [(table, row) for table, row in everything if row.upstream == upstream]
    if not found:
        names = {printable(row.upstream) for _, row in everything}
        raise unknown("upstream", upstream, names, "These have results here.")
    if len({(row.weights, row.precision, row.storage) for _, row in found}) > 1:
        labels = sorted({printable(row.label) for _, row in found})
        raise SuperbError(
            f"{upstream!r} has results of several encoders or settings here, and a model card is "
            f"about one: {', '.join(labels)}. Give one of these with --upstream, or keep the "
            "results of the others in another folder."
        )
    return found


def _eval_results(table: Table, result: Result) -> Iterator[EvalResult]:
    from huggingface_hub import EvalResult

    for metric, score in result.metrics.items():
        name = _METRICS.get(metric, metric)
        unit = find_metric(result, metric).unit
        share = f"{100 * score['confidence']:g} %"
        why = no_interval(score, unit)
        interval = f"{share} interval [{score['low']:.1f}, {score['high']:.1f}]"
        ends = shown_score(score, unit)
        arguments: dict[str, Any] = {
            "unit": "percent" if unit == "%" else unit,
            "low": ends["low"],
            "high": ends["high"],
            "confidence": None if why else score["confidence"],
            "interval_over": None
            if why
            else "utterances"
            if score.get("by_utterance")
            else "speakers",
            "layers": result.layer,
            "protocol": table.protocol,
            "protocol_version": table.protocol_version,
            "protocol_sha256": table.protocol_sha256,
            "task_version": table.version,
            "learning_rate": result.learning_rate,
            "seeds": list(result.seeds),
            "run_id": result.run_id,
            "superb": result.provenance.get("superb"),
        }
        yield EvalResult(
            task_type=_HUB_TASKS.get(table.metric, "other"),
            task_name=table.title or table.downstream,
            **_dataset(result),
            metric_type=metric,
            metric_value=score["value"],
            metric_name=f"{table.downstream} test {name} in {unit}, frozen encoder, layers "
            f"{result.layer}, {f'no interval: {why}' if why else interval}, protocol "
            f"{table.protocol}",
            metric_args={key: value for key, value in arguments.items() if value is not None},
        )


def _dataset(result: Result) -> dict[str, Any]:
    """A corpus in the words of the Hub; the commit there, or else the sha256 of the content."""
    name = str(result.corpus["name"])
    place = _HUB_CORPUS.fullmatch(name)
    commit = _HUB_COMMIT.fullmatch(str(result.corpus.get("source", "")))
    return {
        "dataset_type": place["id"] if place else name,
        "dataset_name": place["id"] if place else name,
        "dataset_config": place["config"] if place else None,
        "dataset_split": "test",
        "dataset_revision": commit["commit"] if commit else str(result.corpus["sha256"]),
    }
