"""Studies of heads and of labels: the table, a curve for each encoder, and what they say."""

from __future__ import annotations

from collections.abc import Sequence

from leaderboard.compare.variants import Study, find_studies
from leaderboard.read.board import Board
from leaderboard.show.curves import DIFFERS, chart_of
from leaderboard.show.report import charts
from leaderboard.show.report.markup import Html, element, join
from leaderboard.show.report.tables import footnotes, plain_cell, protocol_of, sortable
from leaderboard.show.variants import study_grid, study_lines


def studies_of(board: Board) -> list[Study]:
    """All that a board holds, by heads first."""
    return [*find_studies(board, "heads"), *find_studies(board, "labels")]


def study_title(study: Study) -> str:
    """What it is about, in a few words."""
    first = study.tables[0]
    protocol = protocol_of(first.protocol, first.protocol_version)
    return f"{study.subject} by {DIFFERS[study.by]} on {first.corpus}, protocol {protocol}"


def study_sections(studies: Sequence[Study]) -> Html:
    """One section for each; their scores are those of the tables below."""
    return join(*(_section(place, study) for place, study in enumerate(studies)))


def _section(place: int, study: Study) -> Html:
    grid = study_grid(study)
    chart = chart_of(study)
    rows = []
    for (_, label, cells), shown in zip(study.rows, grid.rows, strict=True):
        found = [row.cell(study.layer) if row else None for row in cells]
        values = [repr(float(c.score["value"])) if c and c.score else None for c in found]
        rows.append(
            element(
                "tr",
                element("th", shown.labels[0], scope="row", data_value=label),
                *map(plain_cell, shown.items, values),
                data_name=label.lower(),
            )
        )
    first = study.tables[0]
    title = f"study-{place}-title"
    drawn = None
    if chart is not None:
        caption = "; ".join([*chart.notes, "lines that cross are ranks that flip"])
        drawn = element("figure", charts.comparison(chart), element("figcaption", caption))
    return element(
        "section",
        element("h2", study_title(study), id=title),
        element("p", grid.title),
        *(element("p", line) for line in grid.details),
        sortable(title, [*grid.labels, *grid.columns], rows),
        element(
            "div",
            drawn,
            element("ul", *(element("li", line) for line in study_lines(study)), class_="says"),
            class_="figures",
        ),
        footnotes(grid, "where a score comes from: press it in the table of its task"),
        class_="summary",
        id=f"study-{place}",
        aria_labelledby=title,
        data_task=first.base,
        data_protocol=protocol_of(first.protocol, first.protocol_version),
        data_corpus=first.corpus,
    )
