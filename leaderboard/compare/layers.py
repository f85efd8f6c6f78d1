"""What the other layers add to the last: paired differences, single layers, and learned weights.

Learned weights alone mislead. The weighted sum adds up hidden states whose norms may differ
tenfold, so that a layer of small norm can have a large weight and still contribute little, and a
layer that would do best alone need not get the largest weight. Hence weight, norm, their product
and the score of each layer by itself stand side by side, with the rank correlation of weights and
scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.errors import SuperbError, unknown
from benchmark.scoring.results import Result
from leaderboard.compare.difference import Pair, notes_about, pair_results, read_board
from leaderboard.compare.encoders import LEVEL, short_p, signed
from leaderboard.read.collect import MAIN_LAYERS, Cell, Row, Table
from leaderboard.show.grid import headline
from leaderboard.show.render import printable

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class LayerRow:
    """One encoder on one task.

    Attributes:
        upstream: its label.
        last: score of the last layer on test, in percent; None without a finished run.
        weighted_sum: likewise.
        pair: weighted sum minus last layer; None when there is nothing to pair.
        p_value: of `pair`, adjusted for all encoders and tasks of the study (Holm 1979).
        why_not: in words, when `pair` is None.
        weights: learned weight of each layer, mean over seeds; empty without a learned sum.
        norms: mean L2 norm of the frames of each layer; empty when not known.
        scores: test score of each layer by itself, in percent; None where it was not run.
        best: number of the layer with the best score on *valid*; None unless all layers were run.
        weight_correlation: Spearman's, of weights and scores turned so that more is better; None
            when scores are missing or there are fewer than three layers.
        product_correlation: likewise, of weight times norm.
    """

    upstream: str
    last: float | None
    weighted_sum: float | None
    pair: Pair | None
    p_value: float | None
    why_not: str
    weights: tuple[float, ...]
    norms: tuple[float, ...]
    scores: tuple[float | None, ...]
    best: int | None
    weight_correlation: float | None
    product_correlation: float | None

    @property
    def products(self) -> tuple[float, ...]:
        """Weight times norm of each layer, as shares of their sum; empty when not known."""
        products = [weight * norm for weight, norm in zip(self.weights, self.norms, strict=False)]
        total = sum(products)
        return tuple(product / total for product in products) if total > 0 else ()


@dataclass(frozen=True)
class LayerTable:
    """All encoders on one task.

    Attributes:
        table: the board's table they stand in.
        rows: in the order of the board.
    """

    table: Table
    rows: tuple[LayerRow, ...]


@dataclass(frozen=True)
class LayerStudy:
    """Every task of a folder.

    Attributes:
        tables: in the order of the board.
        comparisons: how many pairs p-values were adjusted for.
        notes: what a reader must know besides.
    """

    tables: tuple[LayerTable, ...]
    comparisons: int
    notes: tuple[str, ...]


def study_layers(folder: Path | str, downstreams: Sequence[str] = ()) -> LayerStudy:
    """Compare the last layer with the weighted sum for every encoder in a folder of results.

    Args:
        folder: of results.
        downstreams: tasks; all that the folder has if none.

    Raises:
        SuperbError: when there is no such folder or task, or no encoder has both results.
    """
    board, files = read_board(folder)
    tasks = {table.downstream for table in board.tables}
    for task in downstreams:
        if task not in tasks:
            raise unknown("task in these results", task, map(printable, tasks))
    tables = [table for table in board.tables if not downstreams or table.downstream in downstreams]
    results = {run_id: result for run_id, (_, result) in files.items()}
    pairs = {
        (position, number): _pair(row, files)
        for position, table in enumerate(tables)
        for number, row in enumerate(table.rows)
    }
    paired = {key: pair for key, pair in pairs.items() if isinstance(pair, Pair)}
    if not paired:
        raise SuperbError(
            f"no upstream in {folder} has results of both its last layer and the weighted sum to "
            "pair: " + " ".join(sorted({why for why in pairs.values() if isinstance(why, str)}))
            + " Make some with: superb run --upstream hubert --downstream ks "
            f"--layers last,weighted-sum,each --output {folder}"
        )  # fmt: skip
    results_shown = {
        cell.run_id for table in tables for row in table.rows for cell in row.cells.values()
    }
    from benchmark.scoring.statistics import holm

    adjusted = dict(
        zip(paired, holm([pair.difference.p_value for pair in paired.values()]), strict=True)
    )
    return LayerStudy(
        tuple(
            LayerTable(
                table,
                tuple(
                    _layer_row(table, row, pairs[key], adjusted.get(key), results)
                    for number, row in enumerate(table.rows)
                    for key in [(position, number)]
                ),
            )
            for position, table in enumerate(tables)
        ),
        len(paired),
        tuple(notes_about(board, results_shown)),
    )


def show(study: LayerStudy, console: Console) -> None:
    """Print a table for each task."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    for entry in study.tables:
        table = entry.table
        console.print(Text(printable(headline(table)), style="bold"))
        grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        grid.add_column("upstream", overflow="fold", min_width=12)
        for column in ("last", "sum", "sum − last [95 %]", "p", "best", "ρ w", "ρ w·n"):
            grid.add_column(column, justify="right", no_wrap=True)
        for row in entry.rows:
            separated = row.p_value is not None and row.p_value < LEVEL
            grid.add_row(
                Text(printable(row.upstream)),
                _number(row.last),
                _number(row.weighted_sum),
                Text(_difference(row), style="bold" if separated else ""),
                "" if row.p_value is None else short_p(row.p_value),
                "–" if row.best is None else f"{row.best}: {_number(row.scores[row.best])}",
                _correlation(row.weight_correlation),
                _correlation(row.product_correlation),
            )
        console.print(grid)
    for line in (*_footnotes(study), *(f"note: {note}" for note in study.notes)):
        console.print(Text(printable(line), style="dim"), soft_wrap=True)


def _pair(row: Row, files: Mapping[str, tuple[Path, Result]]) -> Pair | str:
    """The paired difference, or why there is none."""
    cells = [row.cells.get(layer) for layer in MAIN_LAYERS]
    missing = [layer for layer, cell in zip(MAIN_LAYERS, cells, strict=True) if cell is None]
    if missing:
        return f"{row.label} has no {' and no '.join(missing)}."
    done = [cell for cell in cells if cell is not None]
    if any(cell.status == "failed" for cell in done):
        return f"{row.label} failed."
    if _layer_count(row, files) == 1:
        return f"{row.label} has one layer only."
    try:
        return pair_results(*(files[cell.run_id][0] for cell in done))
    except SuperbError as error:  # one encoder less is no reason to show none
        return str(error)


def _layer_count(row: Row, files: Mapping[str, tuple[Path, Result]]) -> int:
    cell: Cell = next(iter(row.cells.values()))
    return int(files[cell.run_id][1].upstream.get("layers", 0))


def _layer_row(
    table: Table,
    row: Row,
    pair: Pair | str,
    p_value: float | None,
    results: Mapping[str, Result],
) -> LayerRow:
    from benchmark.scoring.statistics import spearman

    finished = {
        layer: results[cell.run_id]
        for layer, cell in row.cells.items()
        if cell.status == "finished"
    }
    test = {layer: result.metrics[table.metric]["value"] for layer, result in finished.items()}
    any_result = results[next(iter(row.cells.values())).run_id]
    mixed = finished.get("weighted-sum")
    weights = tuple(mixed.layer_weights or ()) if mixed else ()
    norms = tuple((mixed or any_result).layer_norms or ())
    single = _single_layers(finished, int(any_result.upstream.get("layers", 0)))
    scores = tuple(
        None if result is None else result.metrics[table.metric]["value"] for result in single
    )
    known = [score for score in scores if score is not None]
    complete = len(known) == len(scores) >= 3
    turned = [-score if table.lower_is_better else score for score in known]
    built = LayerRow(
        upstream=row.label,
        last=test.get("last"),
        weighted_sum=test.get("weighted-sum"),
        pair=pair if isinstance(pair, Pair) else None,
        p_value=p_value,
        why_not="" if isinstance(pair, Pair) else pair,
        weights=weights,
        norms=norms,
        scores=scores,
        best=_best_on_valid(single, table.lower_is_better),
        weight_correlation=None,
        product_correlation=None,
    )
    if not complete or len(weights) != len(scores):
        return built
    products = built.products
    return replace(
        built,
        weight_correlation=spearman(weights, turned),
        product_correlation=spearman(products, turned) if products else None,
    )


def _single_layers(finished: Mapping[str, Result], layers: int) -> list[Result | None]:
    """The run on each layer by itself; the run called ``last`` is that of the last one."""
    single = [finished.get(str(index)) for index in range(layers)]
    if single and single[-1] is None:
        single[-1] = finished.get("last")
    return single


def _best_on_valid(single: Sequence[Result | None], lower_is_better: bool) -> int | None:
    """Chosen on valid, as the best of many on test would flatter itself."""
    if len(single) < 2:
        return None
    means: list[float] = []
    for result in single:
        valid = [seed["valid"] for seed in result.per_seed] if result else []
        known = [value for value in valid if value is not None]
        if not known or len(known) < len(valid):
            return None
        means.append(sum(known) / len(known))
    return means.index(min(means) if lower_is_better else max(means))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _correlation(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"


def _difference(row: LayerRow) -> str:
    if row.pair is None:
        return "same: one layer" if len(row.scores) == 1 else "–"
    found = row.pair.difference
    return f"{signed(found.value)} [{signed(found.low)}, {signed(found.high)}]"


def _footnotes(study: LayerStudy) -> list[str]:
    rows = [row for entry in study.tables for row in entry.rows]
    lines = [
        "sum − last: weighted sum minus last layer, paired by utterance, over speakers; p adjusted "
        f"for {study.comparisons} comparison{'s' if study.comparisons > 1 else ''} (Holm)."
    ]
    if any(row.best is not None for row in rows):
        lines.append("best: number and test score of the single layer that is best on valid.")
    else:
        lines.append("best: not known; add --layers each to superb run.")
    if any(row.weight_correlation is not None for row in rows):
        lines.append(
            "ρ: rank correlation of learned weights w, or of w times the norm n of the layer, "
            "with the scores of single layers; of few layers it says little."
        )
    lines += dict.fromkeys(row.why_not for row in rows if row.why_not and len(row.scores) > 1)
    return lines
