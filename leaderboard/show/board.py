"""A board as grids of text: what stands in a cell, and what its marks mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from benchmark.scoring.results import FEWEST_CLUSTERS, no_interval
from leaderboard.compare.contamination import ITSELF, judge
from leaderboard.compare.ranks import Mean, Summary, SummaryRow, summarise
from leaderboard.read.board import BEST, Board, Cell, Row, Table
from leaderboard.read.names import list_some, printable
from leaderboard.show.grid import MISSING, Grid, GridRow, Item
from leaderboard.show.numbers import score_text
from leaderboard.show.published import published_grid

ONE_SEED = "¹"
AT_EDGE = "²"
BY_UTTERANCE = "³"
UNTRAINED = "†"
OVERLAP = "‡"
UNDISCLOSED = "§"

FACTS = ("family", "parameters", "MACs/s", "throughput")
"""Columns of a summary that are about the encoder, and no score."""

_MOST_NOTES = 20


def board_grids(board: Board, *, with_published: bool = False, stacked: bool = False) -> list[Grid]:
    """Summaries first, then every task, then, visibly apart, what others published."""
    found = [summary_grid(summary, stacked=stacked) for summary in summarise(board)]
    found += [table_grid(table) for table in board.tables]
    return found + ([published_grid()] if with_published else [])


def table_grid(table: Table) -> Grid:
    """One task: a column per layer choice."""
    better = "lower" if table.lower_is_better else "higher"
    protocol = f"protocol {table.protocol} version {table.protocol_version}"
    if table.protocol_sha256:
        protocol += f" ({table.protocol_sha256[:8]})"
    details = [f"corpus {table.corpus} ({table.content}), {protocol}{_engine(table)}"]
    if table.lexicon:
        details.append(f"words by lexicon and n-gram {table.lexicon[:8]}")
    if table.skipped:
        count = len(table.skipped)
        noun = "utterance" if count == 1 else "utterances"
        details.append(f"{count} {noun} left out for bad audio: {list_some(table.skipped)}")
    if table.corpus_note:
        details.append(f"corpus note: {table.corpus_note}")
    runs = [(table, row, cell) for row in table.rows for cell in row.cells.values()]
    notes = [f"{row.label}: {row.note}" for row in table.rows if row.note]
    return Grid(
        title=f"{table.downstream} version {table.version}: {table.metric} in {table.unit} "
        f"{arrow(table)} ({better} is better)",
        details=tuple(details),
        labels=("upstream",),
        columns=tuple(f"{layer} {arrow(table)}" for layer in table.layers),
        groups=("",) * len(table.layers),
        rows=tuple(
            GridRow(
                (label_of(row.label, row.untrained),),
                tuple(score_item(table, row, layer) for layer in table.layers),
            )
            for row in table.rows
        ),
        bold=bold_of(runs),
        footnotes=(*footnotes_of(runs), *notes),
    )


def summary_grid(summary: Summary, *, stacked: bool = False) -> Grid:
    """All tasks: last layer beside weighted sum, ranks, overall score, and what the encoder costs.

    Args:
        summary: of a group of tables.
        stacked: the layer choices of an upstream below each other, for narrow terminals.
    """
    corpora = "the published corpora" if summary.corpora == "published" else summary.corpora
    runs = [
        (table, row, cell)
        for entry in summary.rows
        for table, row in zip(summary.tables, entry.rows, strict=True)
        if row is not None
        for layer in summary.layers
        if (cell := row.cell(layer)) is not None
    ]
    facts = _facts(summary)
    means = [name for name, of in _MEANS.items() if any(of(row) for row in summary.rows)]
    tasks = [_task(summary, table) for table in summary.tables]
    rows: list[GridRow] = []
    for position, entry in enumerate(summary.rows):
        known = [items[position] for items in facts.values()]
        rows += (_stacked if stacked else _unstacked)(summary, entry, means, known)
    if stacked:
        columns = [*tasks, *means, *facts]
        groups = [""] * len(columns)
    else:
        columns = [*(list(summary.layers) * (len(tasks) + len(means))), *facts]
        groups = [group for group in (*tasks, *means) for _ in summary.layers] + [""] * len(facts)
    notes = list(summary.notes)
    if means:
        notes.insert(0, f"{' and '.join(means)}: [low, high] is a 95 % bootstrap interval")
    notes += best_notes([table.downstream for table in summary.tables if BEST in table.layers])
    if "MACs/s" in facts:
        notes.append("MACs/s: multiply-accumulate operations of the encoder per second of audio")
    if "throughput" in facts:
        notes.append("throughput: seconds of audio encoded per second, where the newest run was")
    return Grid(
        title=f"All tasks on {corpora}, protocol {summary.protocol} "
        f"version {summary.protocol_version}",
        details=tuple(
            f"{table.downstream} version {table.version}: {table.metric} in {table.unit}, corpus "
            f"{table.corpus} ({table.content})"
            + (f", protocol content {table.protocol_sha256[:8]}" if table.protocol_sha256 else "")
            + _engine(table)
            + (f", {len(table.skipped)} utterances left out" if table.skipped else "")
            for table in summary.tables
        ),
        labels=("upstream", "layers") if stacked else ("upstream",),
        columns=tuple(columns),
        groups=tuple(groups),
        rows=tuple(rows),
        bold=bold_of(runs),
        footnotes=(*footnotes_of(runs), *notes),
    )


def arrow(table: Table) -> str:
    """Which way is better."""
    return "↓" if table.lower_is_better else "↑"


def headline(table: Table) -> str:
    """What a table is about, in one line."""
    return (
        f"{table.downstream}: {table.metric} in {table.unit} {arrow(table)}, corpus {table.corpus} "
        f"({table.content}), protocol {table.protocol} v{table.protocol_version}"
    )


def _engine(table: Table) -> str:
    """Said from the second version on, as all results of the first are of one kind."""
    return "" if table.engine in ("", "1") else f", engine version {table.engine}"


def notes_of(board: Board) -> list[str]:
    """A board's notes, as many as a reader will go through, and how many more there are."""
    rest = len(board.notes) - _MOST_NOTES
    more = [f"{rest} more runs are left out for others of the same cell"] if rest > 0 else []
    return [*board.notes[:_MOST_NOTES], *more]


def notes_below(board: Board) -> list[str]:
    """What stands below all tables: notes, and files that were left out."""
    lines = [f"note: {note}" for note in notes_of(board)]
    lines += [f"left out: {problem}" for problem in board.problems]
    if not board.tables:
        lines.insert(0, "no result could be read")
    return [printable(line) for line in lines]


def label_of(label: str, untrained: bool) -> str:
    """A name, marked when its weights are random."""
    return label + (f" {UNTRAINED}" if untrained else "")


def _task(summary: Summary, table: Table) -> str:
    """The heading of a task's columns, with its corpus where that tells it from another."""
    alike = [other for other in summary.tables if other.downstream == table.downstream]
    corpus = f" {table.corpus} {table.content}" if len(alike) > 1 else ""
    return f"{table.downstream}{corpus} {table.metric} {arrow(table)}"


def score_item(table: Table, row: Row | None, layer: str) -> Item:
    """A run with its interval and its marks; ``–`` without a run, ``failed`` without a score."""
    cell = row.cell(layer) if row else None
    if row is None or cell is None:
        return Item(MISSING)
    score = cell.score
    if score is None:
        return Item("failed")
    marks = ONE_SEED if cell.seeds == 1 else ""
    marks += AT_EDGE if cell.learning_rate_at_edge else ""
    marks += BY_UTTERANCE if score.get("by_utterance", False) else ""
    verdict = judge(row.trained_on, table.corpus).verdict
    marks += {"clean": "", "overlap": OVERLAP, "undisclosed": UNDISCLOSED}[verdict]
    return Item(score_text(score, table.unit), marks, cell.not_separated)


def best_notes(columns: Sequence[str]) -> list[str]:
    """That these columns have another layer choice in place of the sum; nothing where none has."""
    if not columns:
        return []
    return [
        f"{', '.join(columns)}: no head is trained; in place of the weighted sum stands the layer "
        "that is best on valid"
    ]


_Runs = Sequence[tuple[Table, Row, Cell]]


def bold_of(runs: _Runs) -> str:
    """What bold means; "" where nothing is."""
    if not any(cell.not_separated for _, _, cell in runs):
        return ""
    return "best of its column, or not separated from the best (intervals overlap)"


def footnotes_of(runs: _Runs) -> list[str]:
    """What the marks of a grid mean, only those that are there."""
    finished = [run for run in runs if run[2].score is not None]
    lines: list[str] = []
    every = [(table.unit, cell.score) for table, _, cell in runs if cell.score is not None]
    reasons = sorted({no_interval(score, unit) for unit, score in every} - {""})
    scores = [score for unit, score in every if not no_interval(score, unit)]
    by_utterance = [score.get("by_utterance", False) for score in scores]
    if scores:
        shares = sorted({f"{100 * score['confidence']:g} %" for score in scores})
        over = _speakers(finished)
        if all(by_utterance):
            over = "utterances"
        elif any(by_utterance):
            over += f", or over utterances where marked {BY_UTTERANCE}"
        if any(cell.over_reruns for _, _, cell in finished):
            over += ", and over reruns where there are several seeds"
        lines.append(f"[low, high]: {' or '.join(shares)} interval over {over}")
    if reasons:
        lines.append(
            f"[{'], ['.join(reasons)}]: no interval, it would say nothing (one takes "
            f"{FEWEST_CLUSTERS} speakers, and answers that differ); nothing is told apart by it"
        )
    if any(cell.seeds == 1 for _, _, cell in finished):
        lines.append(f"{ONE_SEED} one seed: no estimate of seed variance")
    if any(cell.learning_rate_at_edge for _, _, cell in finished):
        lines.append(f"{AT_EDGE} best learning rate at an edge of the grid: the score may be low")
    if any(by_utterance):
        lines.append(
            f"{BY_UTTERANCE} interval over utterances for want of known speakers: "
            "nothing is said of other speakers"
        )
    if any(row.untrained for _, row, _ in runs):
        lines.append(f"{UNTRAINED} untrained: random weights, a floor for the others")
    return [*lines, *_contamination(finished)]


def _speakers(finished: _Runs) -> str:
    """Speakers, and how many there are of each task where all of its scores agree."""
    counts: dict[str, set[object]] = {}
    for table, _, cell in finished:
        if cell.score is not None and not cell.score.get("by_utterance", False):
            counts.setdefault(table.downstream, set()).add(cell.score.get("clusters"))
    known = {task: own for task, (own, *more) in counts.items() if own and not more}
    if len(known) < len(counts) or not known:
        return "speakers"
    if len(set(known.values())) == 1:
        return f"{next(iter(known.values()))} speakers"
    return f"speakers ({', '.join(f'{task} {number}' for task, number in known.items())})"


def _contamination(finished: _Runs) -> list[str]:
    """Which training data overlap with which corpus, once for all upstreams that share them."""
    overlaps: dict[tuple[str, str, str], dict[str, None]] = {}
    undisclosed: dict[str, None] = {}
    for table, row, _ in finished:
        found = judge(row.trained_on, table.corpus)
        if found.verdict == "undisclosed":
            undisclosed.setdefault(row.label)
        for heard, reason in zip(found.heard, found.reasons, strict=True):
            overlaps.setdefault((table.corpus, heard, reason), {}).setdefault(row.label)
    lines = [
        f"{OVERLAP} trained on {_shared(corpus, reason)}: {list_some(list(names))} "
        f"(card: {heard}; {reason})"
        for (corpus, heard, reason), names in sorted(overlaps.items())
    ]
    if undisclosed:
        names = list_some(list(undisclosed))
        lines.append(f"{UNDISCLOSED} training data undisclosed, so neither clean nor not: {names}")
    return lines


def _shared(corpus: str, reason: str) -> str:
    if reason == ITSELF:
        return f"{corpus}, in whole or in part"
    return f"a corpus that may share recordings with {corpus}"


def _facts(summary: Summary) -> dict[str, list[Item]]:
    """What is known of the encoders, row by row; a column that no result fills is left out."""
    facts: dict[str, list[Item]] = {}
    for entry in summary.rows:
        row = entry.newest
        known = {
            "family": row.family,
            "parameters": "" if row.parameters is None else _amount(row.parameters),
            "MACs/s": "" if row.macs is None else _amount(row.macs),
            "throughput": "" if row.throughput is None else f"{row.throughput:.1f}",
        }
        for name, text in known.items():
            facts.setdefault(name, []).append(Item(text or MISSING))
    return {
        name: items for name, items in facts.items() if any(item.text != MISSING for item in items)
    }


def _amount(number: float) -> str:
    """A count with a unit prefix: 94.4 M."""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f} {prefix}"
    return f"{number:g}"


_MEANS: Mapping[str, Callable[[SummaryRow], Mapping[str, Mean]]] = {
    "mean rank ↓": lambda entry: entry.mean_rank,
    "overall ↑": lambda entry: entry.overall,
}


def _mean_item(name: str, entry: SummaryRow, layer: str) -> Item:
    mean = _MEANS[name](entry).get(layer)
    if mean is None:
        return Item("")
    digits = 0 if name.startswith("overall") else 1
    value = f"{mean.value:.{digits}f}"
    if mean.low is None or mean.high is None:
        return Item(value)
    return Item(f"{value} [{mean.low:.{digits}f}, {mean.high:.{digits}f}]")


def _name(entry: SummaryRow) -> str:
    return label_of(entry.label, entry.newest.untrained)


def _stacked(
    summary: Summary, entry: SummaryRow, means: Sequence[str], known: Sequence[Item]
) -> list[GridRow]:
    rows: list[GridRow] = []
    for layer in summary.layers:
        items = [
            *_layer_items(summary, entry, layer),
            *(_mean_item(name, entry, layer) for name in means),
            *([Item("")] * len(known) if rows else known),
        ]
        rows.append(GridRow(("" if rows else _name(entry), layer), tuple(items)))
    return rows


def _unstacked(
    summary: Summary, entry: SummaryRow, means: Sequence[str], known: Sequence[Item]
) -> list[GridRow]:
    by_layer = [_layer_items(summary, entry, layer) for layer in summary.layers]
    items = [
        *(item for items in zip(*by_layer, strict=True) for item in items),
        *(_mean_item(name, entry, layer) for name in means for layer in summary.layers),
        *known,
    ]
    return [GridRow((_name(entry),), tuple(items))]


def _layer_items(summary: Summary, entry: SummaryRow, layer: str) -> list[Item]:
    pairs = zip(summary.tables, entry.rows, strict=True)
    return [score_item(table, row, layer) for table, row in pairs]
