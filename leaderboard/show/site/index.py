"""The first page of a site: all tasks, all encoders, what is new, and what to take along."""

from __future__ import annotations

from leaderboard.compare.ranks import SummaryRow
from leaderboard.compare.twins import twins_of
from leaderboard.read.board import MAIN_LAYERS, Table
from leaderboard.show.board import notes_of
from leaderboard.show.numbers import score_text
from leaderboard.show.report.markup import Html, element, join
from leaderboard.show.report.studies import studies_of
from leaderboard.show.report.tables import sortable, summaries, twin_section
from leaderboard.show.site.addresses import run_link, task_page
from leaderboard.show.site.content import Content
from leaderboard.show.site.downloads import FILES
from leaderboard.show.site.feed import newest_runs
from leaderboard.show.site.layout import Place
from leaderboard.show.variants import study_lines

_NEW = 8


def index_text(content: Content, place: Place, title: str, about_pairs: str) -> str:
    """All of it.

    Args:
        content: of the site.
        place: of the page.
        title: of the leaderboard.
        about_pairs: which encoders have pages of comparisons, in words.
    """
    cells = sum(len(table.cells) for table in content.board.tables)
    lead = (
        f"{cells} results of {len(content.encoders)} frozen speech encoders in "
        f"{len(content.board.tables)} tables: last layer beside weighted sum, every score with "
        "its interval."
    )

    def named(row: SummaryRow) -> Html:
        return place.link(row.label, content.encoder(row.upstream, row.weights).page)

    return place.write(
        title,
        [
            summaries(content.board, named, hint="where a score comes from: on the task's page"),
            twin_section(
                twins_of(content.board, content.runs, content.board.tables, MAIN_LAYERS[1])
            ),
            _studies(content),
            _tasks(content, place),
            _encoders(content, place, about_pairs),
            _news(content, place),
            _downloads(place),
            _notes(content),
        ],
        lead=lead,
    )


def _tasks(content: Content, place: Place) -> Html:
    rows = []
    for name, tables in content.tasks.items():
        for table in tables:
            rows.append(
                element(
                    "tr",
                    element("th", place.link(name, task_page(name)), scope="row", data_value=name),
                    _words(table.title or name),
                    _words(f"{table.corpus} ({table.content})"),
                    _words(f"{table.protocol} version {table.protocol_version}"),
                    element("td", str(len(table.rows)), data_value=str(len(table.rows))),
                    _words(_best(table)),
                )
            )
    headings = ["task", "what", "corpus", "protocol", "encoders", "first row"]
    return _section("tasks", "Tasks", sortable("tasks", headings, rows))


def _best(table: Table) -> str:
    """The first row with its score, which others may tie with."""
    row = table.rows[0]
    scores = [cell.score for cell in row.cells.values() if cell.score is not None]
    if not scores:
        return ""
    pick = min if table.lower_is_better else max
    best = pick(scores, key=lambda score: score["value"])
    return f"{row.label}: {table.metric} {score_text(best, table.unit)} {table.unit}"


def _encoders(content: Content, place: Place, about_pairs: str) -> Html:
    rows = []
    for encoder, own in content.encoders.items():
        row = own[-1][1]
        count = str(sum(len(each.cells) for _, each in own))
        heard = (
            "not disclosed" if row.trained_on is None else ", ".join(row.trained_on) or "nothing"
        )
        rows.append(
            element(
                "tr",
                element(
                    "th",
                    place.link(encoder.label, encoder.page),
                    scope="row",
                    data_value=encoder.label,
                ),
                _words(row.family),
                element("td", count, data_value=count),
                _words(heard),
            )
        )
    headings = ["upstream", "family", "results", "trained on"]
    return _section(
        "encoders", "Encoders", element("p", about_pairs), sortable("encoders", headings, rows)
    )


def _studies(content: Content) -> Html | None:
    lines = [line for study in studies_of(content.board) for line in study_lines(study)]
    if not lines:
        return None
    return _section(
        "studies", "Heads and labels", element("ul", *(element("li", line) for line in lines))
    )


def _news(content: Content, place: Place) -> Html:
    entries = [
        element(
            "li",
            element("time", new.result.created[:10], datetime=new.result.created),
            " ",
            place.link(new.title, run_link(new.encoder, new.result.run_id)),
        )
        for new in newest_runs(content, _NEW)
    ]
    return _section("new", "Newest results", element("ul", *entries))


def _downloads(place: Place) -> Html:
    entries = [
        element("li", place.link(name, f"downloads/{name}"), f": {what}")
        for name, what in FILES.items()
    ]
    feed = element("li", place.link("feed.xml", "feed.xml"), ": new results, for a feed reader")
    return _section("downloads", "Take it along", element("ul", *entries, feed))


def _notes(content: Content) -> Html | None:
    lines = notes_of(content.board)
    lines += [f"left out: {problem}" for problem in content.board.problems]
    if not lines:
        return None
    return _section("notes", "Notes", element("ul", *(element("li", line) for line in lines)))


def _words(text: str) -> Html:
    return element("td", text, class_="words", data_value=text)


def _section(name: str, title: str, *children: Html | None) -> Html:
    return join(element("section", element("h2", title, id=name), *children, aria_labelledby=name))
