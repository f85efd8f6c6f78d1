"""From a folder of results to one HTML file; the same files give the same bytes."""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template
from typing import Final, TypeAlias

from benchmark.errors import SuperbError
from leaderboard.compare.twins import twins_of
from leaderboard.compare.variants import Study
from leaderboard.read.board import MAIN_LAYERS, Board, Cell, Row, Table
from leaderboard.read.collect import Run, read_board, warn_left_out
from leaderboard.show.board import label_of, notes_of, table_grid
from leaderboard.show.report import audio, details
from leaderboard.show.report.analysis import Mistake, Seeds
from leaderboard.show.report.markup import Html, element, embedded_json, join
from leaderboard.show.report.provenance import pooled
from leaderboard.show.report.studies import studies_of, study_sections, study_title
from leaderboard.show.report.tables import (
    about_bars,
    footnotes,
    protocol_of,
    score_table,
    summaries,
    title_of,
    twin_section,
)

DETAILED: Final = 10
"""Upstreams per table whose drawings and mistakes are in the report; scores are there for all."""

Recordings: TypeAlias = Callable[[Table], Mapping[str, bytes]]
"""From a table to the encoded audio of its test utterances by id; empty where there is none."""


def write_report(
    folder: Path | str,
    output: Path | str,
    *,
    detailed: int = DETAILED,
    recordings: Recordings | None = None,
) -> Path:
    """Write the report of a folder of results, in place of an older one only when complete.

    Args:
        folder: of results.
        output: the HTML file.
        detailed: how many upstreams per table get drawings and mistakes, the best first.
        recordings: where the audio of the utterances shown is found; None to embed none.

    Raises:
        SuperbError: when there are no results, or the file cannot be written.
    """
    output = Path(output)
    if output.is_dir():
        raise SuperbError(f"{output} is a folder; give a file, such as {output / 'report.html'}")
    text = build_report(folder, detailed=detailed, recordings=recordings)
    temporary = output.with_name(f".{output.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="utf-8", newline="\n")
            temporary.replace(output)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise SuperbError(
            f"the report {output} cannot be written: {error.strerror}. "
            "Choose a file that you can write to with --output."
        ) from error
    return output


def build_report(
    folder: Path | str, *, detailed: int = DETAILED, recordings: Recordings | None = None
) -> str:
    """The report as text; see `write_report`."""
    if detailed < 0:
        raise SuperbError(f"the number of upstreams with details is at least 0; got {detailed}")
    board, runs = read_board(folder, history=True)
    warn_left_out(board.problems)
    shown = {cell.run_id for table in board.tables for cell in table.cells}
    sections = [
        _section(place, table, runs, detailed, recordings(table) if recordings else {})
        for place, table in enumerate(board.tables)
    ]
    studies = studies_of(board)
    wanted = _wanted(sections)
    playable = audio.embed(wanted)
    data = {
        **pooled({run_id: runs[run_id] for run_id in sorted(shown)}, Path(folder)),
        "audio": playable,
    }
    script = asset("sort.js") + asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template(asset("page.html")).substitute(
        script_hash=f"'sha256-{digest}'",
        style=asset("style.css"),
        script=script,
        data=embedded_json(data),
        summary=_summary(board, len(shown)),
        navigation=_navigation(board, studies),
        filters=_filters(board),
        sections=join(
            summaries(board, hint="where a score comes from: press it in the table of its task"),
            twin_section(twins_of(board, runs, board.tables, MAIN_LAYERS[1])),
            study_sections(studies),
            *(section.html(playable) for section in sections),
        ),
        notes=_notes(board, {key for key, _ in wanted}, len(playable)),
    )


def _section(
    place: int, table: Table, runs: Mapping[str, Run], detailed: int, stored: Mapping[str, bytes]
) -> _Section:
    rows = table.rows[:detailed]
    mistakes: list[tuple[Seeds, list[Mistake]] | SuperbError] = []
    for row in rows:
        try:
            mistakes.append(details.read_mistakes(table, row, runs))
        except SuperbError as error:
            mistakes.append(error)
    return _Section(f"table-{place}", table, runs, rows, mistakes, stored)


@cache
def asset(name: str) -> str:
    """The text of a file beside this one: style and scripts, which a site has too."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


@dataclass(frozen=True)
class _Section:
    """One table of the board, with what its best upstreams got wrong.

    Attributes:
        id: of its element.
        table: what it shows.
        runs: by run id.
        rows: those that get details.
        mistakes: of each of these, or why they are not known.
        stored: recordings of its utterances by id.
    """

    id: str
    table: Table
    runs: Mapping[str, Run]
    rows: Sequence[Row]
    mistakes: Sequence[tuple[Seeds, list[Mistake]] | SuperbError]
    stored: Mapping[str, bytes]

    def audio_key(self, utterance: str) -> str:
        """The name of a recording in the report: ids are unique in a corpus, not over corpora."""
        return f"{self.table.corpus_sha256[:8]}/{utterance}"

    def stored_at(self, rank: int) -> list[tuple[str, bytes]]:
        """Key and recording of the worst utterance of each row, the next worst, and so on."""
        lists = [entry[1] for entry in self.mistakes if not isinstance(entry, SuperbError)]
        names = [bad[rank].utterance for bad in lists if rank < len(bad)]
        return [(self.audio_key(name), self.stored[name]) for name in names if name in self.stored]

    def html(self, playable: Mapping[str, str]) -> Html:
        """The table and the details below it."""
        table, grid = self.table, table_grid(self.table)
        title = f"{self.id}-title"

        def named(place: int) -> Html | str:
            name = grid.rows[place].labels[0]
            if place >= len(self.rows):
                return name
            return element("a", name, href=f"#{self._detail_id(place)}")

        return element(
            "section",
            element("h2", title_of(table), id=title),
            *(element("p", line) for line in (grid.title, *grid.details)),
            score_table(table, grid, title, named, _button),
            footnotes(grid, about_bars(table)),
            self._details(playable),
            id=self.id,
            aria_labelledby=title,
            data_task=table.downstream,
            data_protocol=protocol_of(table.protocol, table.protocol_version),
            data_corpus=table.corpus,
        )

    def _detail_id(self, place: int) -> str:
        return f"{self.id}-row-{place}"

    def _details(self, playable: Mapping[str, str]) -> Html | None:
        table = self.table
        if not self.rows:
            return None
        entries: list[Html] = []
        for place, (row, found) in enumerate(zip(self.rows, self.mistakes, strict=True)):
            if isinstance(found, SuperbError):
                answers = element("p", f"The answers cannot be shown: {found}")
            else:
                records, bad = found
                keys = {mistake.utterance: self.audio_key(mistake.utterance) for mistake in bad}
                heard = {name: key for name, key in keys.items() if key in playable}
                answers = details.mistakes(table, row, records, bad, heard)
            entries.append(
                element(
                    "details",
                    element("summary", f"{label_of(row.label, row.untrained)}, {table.downstream}"),
                    details.gain(table, row, self.runs),
                    details.layers_and_rates(table, row, self.runs),
                    answers,
                    id=self._detail_id(place),
                    data_name=row.label.lower(),
                )
            )
        rest = len(table.rows) - len(self.rows)
        more = f"Details are here for the best {len(self.rows)} of {len(table.rows)} upstreams; "
        more += "more with superb report --details."
        return join(
            element("h3", "Layers, learning rates and mistakes"),
            element("p", more, class_="note") if rest else None,
            *entries,
        )


def _wanted(sections: Sequence[_Section]) -> list[tuple[str, bytes]]:
    """Recordings of the utterances shown, the worst of every upstream first."""
    ranks = range(details.MISTAKES)
    return [pair for rank in ranks for section in sections for pair in section.stored_at(rank)]


def _button(cell: Cell, parts: Sequence[Html]) -> Html:
    """A score that tells where it comes from when it is pressed."""
    return element(
        "button",
        *parts,
        type="button",
        class_="score",
        data_run=cell.run_id,
        aria_haspopup="dialog",
    )


def _summary(board: Board, runs: int) -> Html:
    upstreams = {row.upstream for table in board.tables for row in table.rows}
    created = (cell.created for table in board.tables for cell in table.cells)
    newest = max(created, default="")
    text = f"{runs} results of {len(upstreams)} upstreams in {len(board.tables)} tables"
    return element("p", text + (f", the newest of {newest}" if newest else ""))


def _navigation(board: Board, studies: Sequence[Study]) -> Html:
    targets = [(f"study-{place}", study_title(study)) for place, study in enumerate(studies)]
    targets += [(f"table-{place}", title_of(table)) for place, table in enumerate(board.tables)]
    return join(*(element("li", element("a", text, href=f"#{id}")) for id, text in targets))


def _filters(board: Board) -> Html:
    choices = {
        "task": [table.downstream for table in board.tables],
        "protocol": [protocol_of(t.protocol, t.protocol_version) for t in board.tables],
        "corpus": [table.corpus for table in board.tables],
    }
    selects = [
        element(
            "label",
            f"{name} ",
            element(
                "select",
                element("option", "all", value=""),
                *(element("option", value, value=value) for value in sorted(set(values))),
                id=f"filter-{name}",
            ),
        )
        for name, values in choices.items()
    ]
    search = element("label", "upstream ", element("input", type="search", id="filter-upstream"))
    return join(search, *selects)


def _notes(board: Board, wanted: set[str], embedded: int) -> Html:
    lines = notes_of(board)
    lines += [f"left out: {problem}" for problem in board.problems]
    if wanted:
        lines.append(
            f"recordings: {embedded} of the {len(wanted)} shown of the bundled corpus "
            f"are in this file, which holds at most {audio.LIMIT_BYTES / 1e6:g} MB of them"
        )
    return join(*(element("li", line) for line in lines))
