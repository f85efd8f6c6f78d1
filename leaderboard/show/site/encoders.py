"""The page of an encoder: its card, all of its scores and where they come from, its layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmark.scoring.results import Result
from leaderboard.read.board import Cell, Row, Table
from leaderboard.read.fields import identity_of, weights_of
from leaderboard.show.board import score_item
from leaderboard.show.report.details import layers_and_rates
from leaderboard.show.report.markup import Html, element, join
from leaderboard.show.report.provenance import facts
from leaderboard.show.report.tables import plain_cell, protocol_of, sortable, title_of
from leaderboard.show.site.addresses import Encoder, anchor, pair_page, task_page
from leaderboard.show.site.content import Content
from leaderboard.show.site.layout import Place, facts_list

# Of the card, what a reader asks first.
_CARD = ("family", "licence", "source", "revision", "paper", "layers", "dim", "sample_rate")


def encoder_text(
    content: Content, encoder: Encoder, others: Sequence[Encoder], place: Place
) -> str:
    """All of it.

    Args:
        content: of the site.
        encoder: whose page it is.
        others: those that a page compares it with.
        place: of the page.
    """
    rows = content.encoders[encoder]
    newest = max(
        (content.runs[cell.run_id].result for _, row in rows for cell in row.cells.values()),
        key=lambda result: (result.created, result.run_id),
    )
    return place.write(
        encoder.label,
        [
            _card(encoder, rows[-1][1], newest),
            _scores(rows, place),
            _layers(content, rows),
            _origins(content, rows),
            _pairs(encoder, others, place),
        ],
        lead=str(newest.upstream.get("note") or ""),
    )


def _card(encoder: Encoder, row: Row, newest: Result) -> Html:
    card = newest.upstream
    heard = "not disclosed" if row.trained_on is None else ", ".join(row.trained_on) or "nothing"
    told = [(name.replace("_", " "), str(card.get(name) or "")) for name in _CARD]
    told += [
        ("parameters", "" if row.parameters is None else f"{row.parameters:,}"),
        ("trained on", heard),
        ("weights", weights_of(newest)),
        ("fingerprint", identity_of(newest, "upstream", "fingerprint")),
    ]
    return _section("card", "Card", element("div", facts_list(told), class_="facts"))


def _cells(rows: Sequence[tuple[Table, Row]]) -> Iterator[tuple[Table, Row, str, Cell]]:
    for table, row in rows:
        for layer in table.layers:
            if layer in row.cells:
                yield table, row, layer, row.cells[layer]


def _scores(rows: Sequence[tuple[Table, Row]], place: Place) -> Html:
    shown = []
    for table, row, layer, cell in _cells(rows):
        value = None if cell.score is None else repr(float(cell.score["value"]))
        protocol = protocol_of(table.protocol, table.protocol_version)
        link = place.link(table.downstream, task_page(table.downstream))
        features = ", ".join(filter(None, (row.precision, row.storage, row.device)))
        shown.append(
            element(
                "tr",
                element("th", link, scope="row", data_value=table.downstream),
                _words(layer),
                _words(f"{table.metric} {table.unit} {'↓' if table.lower_is_better else '↑'}"),
                plain_cell(score_item(table, row, layer), value),
                _words(f"{table.corpus} ({table.content})"),
                _words(protocol),
                _words(features),
                element(
                    "td",
                    element(
                        "a",
                        cell.created[:10],
                        href=f"#from-{cell.run_id}",
                        aria_label=f"{cell.created[:10]}: where the score of {table.downstream}, "
                        f"{layer} comes from",
                    ),
                    data_value=cell.created,
                ),
                id=anchor(cell.run_id),
            )
        )
    headings = ["task", "layers", "metric", "score", "corpus", "protocol", "features", "made"]
    tight = element("div", sortable("scores", headings, shown), class_="tight")
    return _section("scores", "All scores", tight)


def _words(text: str) -> Html:
    return element("td", text, class_="words", data_value=text)


def _layers(content: Content, rows: Sequence[tuple[Table, Row]]) -> Html:
    parts = [
        join(element("h3", title_of(table)), layers_and_rates(table, row, content.runs))
        for table, row in rows
    ]
    return _section("layers", "Layers and learning rates", *parts)


def _origins(content: Content, rows: Sequence[tuple[Table, Row]]) -> Html:
    entries = []
    for table, _, layer, cell in _cells(rows):
        run = content.runs[cell.run_id]
        told = facts(run.path.relative_to(content.folder).as_posix(), run.result)
        entries.append(
            element(
                "details",
                element("summary", f"{table.downstream} on {table.corpus}, {layer}"),
                facts_list(told),
                id=f"from-{cell.run_id}",
            )
        )
    return _section("origins", "Where each score comes from", *entries)


def _pairs(encoder: Encoder, others: Sequence[Encoder], place: Place) -> Html | None:
    if not others:
        return None
    links = [element("li", place.link(other.label, pair_page(encoder, other))) for other in others]
    return _section("pairs", "Compared with", element("ul", *links, class_="columns"))


def _section(name: str, title: str, *children: Html | None) -> Html:
    return element("section", element("h2", title, id=name), *children, aria_labelledby=name)
