"""Pages of two encoders each: paired comparisons on every task that both have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from benchmark.errors import SuperbError
from leaderboard.compare.difference import Scored, pair
from leaderboard.compare.encoders import Comparison, Comparisons, Paired, judged
from leaderboard.read.board import MAIN_LAYERS, Row, Table
from leaderboard.read.collect import Run
from leaderboard.show.comparison import footnotes, in_words
from leaderboard.show.numbers import difference_text, p_text, score_text, step_of
from leaderboard.show.report.charts import difference_bar
from leaderboard.show.report.markup import Html, element, join
from leaderboard.show.report.tables import sortable
from leaderboard.show.site.addresses import Encoder, run_link, task_page
from leaderboard.show.site.content import Content
from leaderboard.show.site.layout import Place

Two = tuple[Encoder, Encoder]


def choose_pairs(content: Content, most: int) -> list[Two]:
    """Pairs of encoders that share a table: of the best of each table, as many as there may be.

    The number of all pairs grows with the square of that of encoders. So the best two of every
    table are paired, then the best three, and so on, as long as there are at most `most` pairs.
    """
    chosen: dict[Two, None] = {}
    longest = max(len(table.rows) for table in content.board.tables)
    for size in range(2, longest + 1):
        more: dict[Two, None] = {}
        for table in content.board.tables:
            if len(table.rows) < size:
                continue
            encoders = [content.encoder(r.upstream, r.weights) for r in table.rows[:size]]
            for other in encoders[:-1]:
                two = _sorted(other, encoders[-1])
                if other != encoders[-1] and two not in chosen:
                    more[two] = None
        if len(chosen) + len(more) > most:
            break
        chosen |= more
    return list(chosen)


def compare_pairs(content: Content, wanted: list[Two]) -> dict[Two, Comparisons]:
    """Paired comparisons of all of them.

    Table by table and layer choice by layer choice, so that each table of utterances is read once
    and only those of one column are in memory.
    """
    found: dict[Two, list[Paired]] = {two: [] for two in wanted}
    notes: dict[Two, dict[str, None]] = {two: {} for two in wanted}
    for table in content.board.tables:
        for layer in dict.fromkeys(table.stands_for(layer) for layer in MAIN_LAYERS):
            for two, a, b in _in_column(content, table, layer, wanted):
                try:
                    found[two].append(Paired(table, layer, a[0], b[0], pair(a[1], b[1])))
                except SuperbError as error:
                    notes[two].setdefault(str(error))
    return {two: Comparisons(judged(found[two]), tuple(notes[two])) for two in wanted}


def _in_column(
    content: Content, table: Table, layer: str, wanted: Sequence[Two]
) -> Iterator[tuple[Two, tuple[Row, Scored], tuple[Row, Scored]]]:
    """Pairs of finished runs in one column, one row for each encoder: the best."""
    rows: dict[Encoder, Row] = {}
    for row in table.rows:
        cell = row.cells.get(layer)
        if cell is not None and cell.status == "finished":
            rows.setdefault(content.encoder(row.upstream, row.weights), row)
    both = [(a, b) for a, b in wanted if a in rows and b in rows]
    scored = {one: _scored(content.runs, rows[one], layer) for two in both for one in two}
    for a, b in both:
        yield (a, b), (rows[a], scored[a]), (rows[b], scored[b])


def _scored(runs: Mapping[str, Run], row: Row, layer: str) -> Scored:
    run = runs[row.cells[layer].run_id]
    return Scored(run.path, run.result)


def _sorted(a: Encoder, b: Encoder) -> Two:
    return (a, b) if a < b else (b, a)


def pair_text(two: Two, found: Comparisons, place: Place) -> str:
    """All of the page."""
    a, b = two
    links = element("p", place.link(a.label, a.page), " · ", place.link(b.label, b.page))
    if not found.pairs:
        why = [element("p", line) for line in found.notes] or [
            element("p", "No layer choice of both finished on the same test set.")
        ]
        return place.write(f"{a.label} and {b.label}", [element("section", links, *why)])
    ends: dict[str, float] = {}
    for one in found.pairs:
        difference = one.pair.difference
        reach = max(abs(difference.low), abs(difference.high), abs(difference.value), 1e-9)
        ends[one.table.unit] = max(ends.get(one.table.unit, 0.0), reach)
    rows = [_row(two, one, ends[one.table.unit], place) for one in found.pairs]
    headings = ["task", "layers", "metric", a.label, b.label, "difference", "p", "better"]
    tested = sum(one.p_value is not None for one in found.pairs)
    words = [element("li", in_words(one, tested)) for one in found.pairs]
    notes = [element("li", line) for line in (*footnotes(found, checks=False), *found.notes)]
    scale = ", ".join(f"{reach:.3g} {step_of(unit)}" for unit, reach in ends.items())
    notes.append(
        element(
            "li",
            f"bars: the difference and its interval, zero in the middle, the ends {scale} from it",
        )
    )
    return place.write(
        f"{a.label} and {b.label}",
        [
            element(
                "section",
                element("h2", "Paired on the same test utterances", id="differences"),
                links,
                element("p", f"difference: {b.label} − {a.label}"),
                sortable("differences", headings, rows),
                element("ul", *notes, class_="footnotes"),
                aria_labelledby="differences",
            ),
            element(
                "section",
                element("h2", "In words", id="words"),
                element("ul", *words),
                aria_labelledby="words",
            ),
        ],
    )


def _row(two: Two, one: Comparison, reach: float, place: Place) -> Html:
    table, difference = one.table, one.pair.difference
    task = place.link(table.downstream, task_page(table.downstream))
    cells = []
    for encoder, cell in zip(two, (one.a_cell, one.b_cell), strict=True):
        assert cell.score is not None  # only finished runs are compared
        value, _, rest = score_text(cell.score, table.unit).partition(" ")
        score = join(value, element("span", f" {rest}", class_="range"))
        link = element("a", score, href=place.to(run_link(encoder, cell.run_id)))
        cells.append(element("td", link, data_value=repr(float(cell.score["value"]))))
    text, _, rest = difference_text(difference, table.unit).partition(" ")
    return element(
        "tr",
        element("th", task, scope="row", data_value=table.downstream),
        element("td", one.layer, class_="words", data_value=one.layer),
        element(
            "td",
            f"{table.metric} {table.unit} {'↓' if table.lower_is_better else '↑'}",
            class_="words",
            data_value=table.metric,
        ),
        *cells,
        element(
            "td",
            element("span", text, class_="value"),
            element("span", f" {rest}", class_="range"),
            difference_bar(difference, table.unit, reach),
            class_="close" if one.better else None,
            data_value=repr(float(difference.value)),
        ),
        element("td", p_text(one.p_value), data_value=repr(one.p_value) if one.p_value else None),
        element("td", one.better or "not told apart", class_="words"),
    )
