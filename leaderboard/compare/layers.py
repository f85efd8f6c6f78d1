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

from benchmark.errors import SuperbError
from benchmark.scoring.results import Result
from leaderboard.compare.difference import Pair, adjusted, pair_results
from leaderboard.read.board import BEST, MAIN_LAYERS, Row, Table
from leaderboard.read.collect import Run, notes_about, read_board, tables_of
from leaderboard.read.fields import layer_count, score_of, valid_of
from leaderboard.read.names import printable


@dataclass(frozen=True)
class LayerRow:
    """One encoder on one task.

    Attributes:
        upstream: its label.
        last: score of the last layer on test, in percent; None without a finished run.
        weighted_sum: likewise.
        pair: weighted sum minus last layer; None when there is nothing to pair.
        p_value: of `pair`, adjusted for all encoders and tasks of the study (Holm 1979); None
            without one, and over too few speakers to test anything.
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
    board, runs = read_board(folder)
    tables = tables_of(board, downstreams)
    entries = [(table, row, _pair(row, runs)) for table in tables for row in table.rows]
    tests = [pair.p_value if isinstance(pair, Pair) else None for *_, pair in entries]
    if not any(isinstance(pair, Pair) for *_, pair in entries):
        reasons = sorted({why for _, _, why in entries if isinstance(why, str)})
        raise SuperbError(
            f"no upstream in {folder} has results of both its last layer and the weighted sum to "
            f"pair: {' '.join(reasons)} Make some with: superb run --upstream hubert --downstream "
            f"{printable(tables[0].downstream)} --layers last,weighted-sum,each --output {folder}"
        )
    rows = [
        (table, _layer_row(table, row, pair, p_value, runs))
        for (table, row, pair), p_value in zip(entries, adjusted(tests), strict=True)
    ]
    shown = {cell.run_id for table in tables for cell in table.cells}
    return LayerStudy(
        tuple(
            LayerTable(table, tuple(row for owner, row in rows if owner is table))
            for table in tables
        ),
        sum(p_value is not None for p_value in tests),
        tuple(notes_about(board, shown)),
    )


def _pair(row: Row, runs: Mapping[str, Run]) -> Pair | str:
    """The paired difference, or why there is none."""
    cells = [row.cell(layer) for layer in MAIN_LAYERS]
    missing = [layer for layer, cell in zip(MAIN_LAYERS, cells, strict=True) if cell is None]
    if missing:
        return f"{row.label} has no {' and no '.join(missing)}."
    done = [cell for cell in cells if cell is not None]
    if any(cell.status == "failed" for cell in done):
        return f"{row.label} failed."
    if layer_count(_any_result(row, runs)) == 1:
        return f"{row.label} has one layer only."
    try:
        return pair_results(*(runs[cell.run_id].path for cell in done))
    except SuperbError as error:  # one encoder less is no reason to show none
        return str(error)


def _any_result(row: Row, runs: Mapping[str, Run]) -> Result:
    return runs[next(iter(row.cells.values())).run_id].result


def _layer_row(
    table: Table, row: Row, pair: Pair | str, p_value: float | None, runs: Mapping[str, Run]
) -> LayerRow:
    from benchmark.scoring.statistics import spearman

    finished = {
        layer: runs[cell.run_id].result
        for layer, cell in row.cells.items()
        if cell.status == "finished"
    }
    mixed = finished.get(MAIN_LAYERS[1]) or finished.get(BEST)
    weights = tuple(mixed.layer_weights or ()) if mixed else ()
    any_result = _any_result(row, runs)
    norms = tuple((mixed or any_result).layer_norms or ())
    single = single_layers(finished, layer_count(any_result))
    scores = tuple(map(_value, single))
    known = [score for score in scores if score is not None]
    complete = len(known) == len(scores) >= 3
    turned = [-score if table.lower_is_better else score for score in known]
    built = LayerRow(
        upstream=row.label,
        last=_value(finished.get("last")),
        weighted_sum=_value(mixed),
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


def _value(result: Result | None) -> float | None:
    score = score_of(result) if result else None
    return score["value"] if score else None


def single_layers(finished: Mapping[str, Result], layers: int) -> list[Result | None]:
    """The run on each layer by itself; the run called ``last`` is that of the last one."""
    single = [finished.get(str(index)) for index in range(layers)]
    if single and single[-1] is None:
        single[-1] = finished.get("last")
    return single


def _best_on_valid(single: Sequence[Result | None], lower_is_better: bool) -> int | None:
    """Chosen on valid, as the best of many on test would flatter itself."""
    means = [valid_of(result) if result else None for result in single]
    known = [mean for mean in means if mean is not None]
    if len(means) < 2 or len(known) < len(means):
        return None
    return known.index(min(known) if lower_is_better else max(known))
