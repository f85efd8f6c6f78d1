"""What is shown of one upstream in one table when a reader opens it: drawings and mistakes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from benchmark.errors import SuperbError
from benchmark.scoring.results import Result, no_interval, read_records
from leaderboard.compare.difference import SUMS, pair_results
from leaderboard.compare.layers import single_layers
from leaderboard.read.board import BEST, MAIN_LAYERS, Row, Table
from leaderboard.read.collect import Run
from leaderboard.read.fields import find_metric, is_trained, layer_count, score_of
from leaderboard.show.numbers import difference_text, score_text, step_of
from leaderboard.show.report import charts
from leaderboard.show.report.analysis import (
    Aligned,
    Confusions,
    Mistake,
    Seeds,
    Share,
    Slot,
    by_length,
    by_slot,
    by_speaker,
    confusions,
    error_tradeoff,
    one_answer_each,
    phone_confusions,
    score_shares,
    worst,
)
from leaderboard.show.report.markup import Html, element, join

MISTAKES: Final = 6
"""Utterances shown of each upstream."""

_SPEAKERS = 24  # lines of the chart of speakers; the worst ones if there are more
_CLASSES = 100  # above it a confusion matrix has cells of less than three pixels
_PAIRS = 10
# statistics of scores of trials → what a target is, and what any other
_TRIALS: Final = {
    **dict.fromkeys(("equal-error-rate", "detection-cost"), ("same", "different")),
    "maximum-term-weighted-value": ("held", "not held"),
}


def layers_and_rates(table: Table, row: Row, runs: Mapping[str, Run]) -> Html:
    """Drawings of the layers and of the learning rates."""
    results = {
        layer: runs[row.cells[layer].run_id].result for layer in table.layers if layer in row.cells
    }
    trained = {layer: result for layer, result in results.items() if is_trained(result)}
    rates = (
        element("h4", "Learning rates"),
        element("div", *_rates(table, trained), class_="figures"),
    )
    return join(
        element("h4", "Layers"),
        element("div", *_layers(table, results), class_="figures"),
        *(rates if trained else ()),
        *_folds(table, results),
    )


def gain(table: Table, row: Row, runs: Mapping[str, Run]) -> Html | None:
    """What the sum, or the best layer, adds to the last, paired; None without both."""
    cells = [row.cell(layer) for layer in MAIN_LAYERS]
    paths = [runs[cell.run_id].path for cell in cells if cell and cell.status == "finished"]
    if len(paths) < 2:
        return None
    chosen = "Best layer on valid" if BEST in row.cells else "Weighted sum"
    try:
        found = pair_results(*paths).difference
    except SuperbError as error:
        return element("p", f"{chosen} − last: not known. {error}")
    units = "utterances" if found.by_utterance else "speakers"
    return element(
        "p",
        f"{chosen} − last: {difference_text(found, table.unit)} {step_of(table.unit)} of "
        f"{table.metric}, paired interval over {units}",
    )


def analysed(row: Row) -> str | None:
    """The layer choice whose mistakes are shown; None when none finished."""
    finished = [layer for layer, cell in row.cells.items() if cell.status == "finished"]
    return next(
        (layer for layer in (MAIN_LAYERS[1], BEST, MAIN_LAYERS[0], *finished) if layer in finished),
        None,
    )


def read_mistakes(table: Table, row: Row, runs: Mapping[str, Run]) -> tuple[Seeds, list[Mistake]]:
    """Counts of all test utterances, and the worst ones.

    Raises:
        SuperbError: when the file of the utterances is missing or damaged, or an utterance by
            itself has no score.
    """
    layer = analysed(row)
    if layer is None:
        return {}, []
    run = runs[row.cells[layer].run_id]
    statistic = find_metric(run.result, table.metric).statistic
    if statistic in _TRIALS:
        return read_records(run.path), []
    if statistic not in SUMS:
        raise SuperbError(f"{table.metric} ({statistic}) is not made of scores of utterances")
    records = read_records(run.path)
    return records, worst(records, table.metrics[0], MISTAKES)


def mistakes(
    table: Table, row: Row, records: Seeds, bad: Sequence[Mistake], playable: Mapping[str, str]
) -> Html:
    """Drawings of where it errs, and the worst utterances.

    Args:
        table: where the row stands.
        row: the upstream.
        records: counts of the run that is analysed.
        bad: its worst utterances.
        playable: key of the recording by id of the utterance.
    """
    layer = analysed(row)
    if layer is None:
        return element("p", "No run finished, so there are no answers to look at.")
    if table.metrics[0].statistic in _TRIALS:
        return join(
            element("h4", f"Trials of {layer}"),
            element("div", *_trials(table, records), class_="figures"),
        )
    figures = [_speakers(table, by_speaker(records, table.metrics[0]))]
    below: Html | None = None
    if not table.lower_is_better and one_answer_each(records, table.metric):
        found = confusions(records)
        figures.insert(0, _confusions(found, f"Confusion matrix, {len(found.names)} classes"))
        below = _pairs(found)
    else:
        if not any(mistake.turns for mistake in bad):
            figures.insert(0, _lengths(table, by_length(records, table.metrics[0])))
        if phones := phone_confusions(records):
            pairs, manners = phones
            figures.insert(0, _confusions(manners, "Phones by manner of articulation"))
            below = _pairs(pairs)
        figures = [*_slots(by_slot(records)), *figures]
    return join(
        element("h4", f"Mistakes of {layer}"),
        element("div", *figures, class_="figures"),
        below,
        element("h4", f"Worst utterances of {layer}"),
        _worst(table, bad, playable),
    )


def _figure(drawing: Html | None, caption: str) -> Html:
    return element("figure", drawing, element("figcaption", caption))


def _layers(table: Table, results: Mapping[str, Result]) -> list[Html]:
    figures: list[Html] = []
    for layer, result in results.items():
        if result.layer_scores:
            scored = list(result.layer_scores)
            title = f"{table.metric} of each layer on valid"
            names = [str(place) for place in range(len(scored))]
            drawing = charts.bars(scored, names, title, "layer", f"{table.metric} {table.unit}")
            figures.append(_figure(drawing, f"{title}, by which the best is chosen"))
        if result.layer_weights:
            weights = list(result.layer_weights)
            title = f"Weights of {layer}"
            names = [str(place) for place in range(len(weights))]
            even = 1 / len(weights)
            drawing = charts.bars(weights, names, title, "layer", "weight", reference=even)
            figures.append(_figure(drawing, f"{title}, mean over seeds; dashed: all equal"))
        for looked in result.attention:
            if not looked["symbols"]:
                continue
            said = "".join(looked["symbols"])
            title = f"Attention of {layer}: {said}"
            drawing = charts.attention(looked["symbols"], looked["weights"], title)
            figures.append(_figure(drawing, f"What each character of “{said}” looked at, {layer}"))
    norms = next((result.layer_norms for result in results.values() if result.layer_norms), None)
    if norms:
        title = "Mean L2 norm of the frames"
        names = [str(place) for place in range(len(norms))]
        figures.append(
            _figure(
                charts.bars(list(norms), names, title, "layer", "norm"), f"{title} of each layer"
            )
        )
    layers = max((layer_count(result) for result in results.values()), default=0)
    scores = [
        charts.Point(
            place, score["value"], f"layer {place}: {score_text(score, table.unit)}", "finished",
            *((None, None) if no_interval(score, table.unit) else (score["low"], score["high"])),
        )
        for place, result in enumerate(single_layers(results, layers))
        if result and (score := score_of(result))
    ]  # fmt: skip
    if len(scores) > 1:
        title = f"{table.metric} of single layers"
        ticks = {point.x: f"{point.x:g}" for point in scores}
        drawing = charts.points(scores, ticks, title, "layer", f"{table.metric} {table.unit}")
        figures.append(_figure(drawing, f"Test {title}, with intervals"))
    else:
        command = element("code", "superb run --layers each")
        note = element("p", "Single layers are scored with ", command, ".", class_="note")
        figures.append(note)
    return figures


def _folds(table: Table, results: Mapping[str, Result]) -> list[Html]:
    """The score of each fold, of which the score is the mean; nothing without folds."""
    figures = []
    for layer, result in results.items():
        if result.status != "finished" or not result.folds:
            continue
        title = f"{table.metric} of each fold, {layer}"
        scores = [(fold, fold["metrics"][table.metric]) for fold in result.folds]
        entries = [
            (
                fold["fold"],
                value,
                f"{fold['fold']}: {value:.1f} {table.unit}, {fold['utterances']} utterances",
            )
            for fold, value in scores
        ]
        drawing = charts.rows(entries, title, f"{table.metric} {table.unit}")
        figures.append(_figure(drawing, f"Test {title}; the score is their mean"))
    if not figures:
        return []
    return [element("h4", "Folds"), element("div", *figures, class_="figures")]


def _rates(table: Table, results: Mapping[str, Result]) -> list[Html]:
    figures: list[Html] = []
    training: list[Html] = []
    for layer, result in results.items():
        tried = [point for point in result.learning_rate_curve if point["learning_rate"] > 0]
        values = [
            charts.Point(
                math.log10(point["learning_rate"]),
                point["valid"],
                f"{point['learning_rate']:g}: {point['valid']:.2f} %, {point['status']} after "
                f"{point['updates']} updates",
                "chosen" if point["learning_rate"] in _chosen(result) else point["status"],
            )
            for point in tried
            if point["valid"] is not None
        ]
        lost = [f"{point['learning_rate']:g}" for point in tried if point["valid"] is None]
        title = f"Valid {table.metric} by learning rate, {layer}"
        chosen = "chosen in some fold" if result.folds else "chosen"
        caption = f"{title}. ◆ {chosen}, ● finished, ○ stopped early, × failed"
        if lost:
            caption += f"; without a score: {', '.join(lost)}"
        drawing = None
        if values:
            every = math.ceil(len(tried) / 7)
            ticks = {
                math.log10(point["learning_rate"]): f"{point['learning_rate']:g}"
                for point in tried[::every]
            }
            ticks.update({max(point.x for point in values): ""} if every > 1 else {})
            y_label = f"{table.metric} {table.unit}"
            drawing = charts.points(values, ticks, title, "learning rate", y_label)
        figures.append(_figure(drawing, caption))
        training += _training(table, layer, result)
    return [*figures, *training]


def _chosen(result: Result) -> set[object]:
    """The learning rate that was chosen; of several folds, each of theirs."""
    return {fold["learning_rate"] for fold in result.folds} or {result.learning_rate}


def _training(table: Table, layer: str, result: Result) -> list[Html]:
    """One curve per learning rate, the mean over the seeds that were validated at an update."""
    scores: dict[float, dict[int, list[float]]] = {}
    for entry in result.history:
        if entry["valid"] is not None:
            by_update = scores.setdefault(entry["learning_rate"], {})
            by_update.setdefault(entry["update"], []).append(entry["valid"])
    if not scores:
        return []
    series = [
        (
            f"{rate:g}",
            rate in _chosen(result),
            [
                charts.Point(update, sum(values) / len(values), "")
                for update, values in sorted(by_update.items())
            ],
        )
        for rate, by_update in sorted(scores.items())
    ]
    title = f"Valid {table.metric} during training, {layer}"
    drawing = charts.lines(series, title, "updates", f"{table.metric} {table.unit}")
    return [_figure(drawing, f"{title}; one curve per learning rate, thick: chosen")]


def _speakers(table: Table, shares: Sequence[Share]) -> Html:
    if [share.name for share in shares] in ([], [""]):
        return element("p", "The speakers of this corpus are not known.", class_="note")
    sign = -1 if table.lower_is_better else 1
    shown = sorted(shares, key=lambda share: (sign * share.value, share.name))[:_SPEAKERS]
    title = f"Speakers by {table.metric}, worst first"
    if len(shown) < len(shares):
        title += f" (the worst {len(shown)} of {len(shares)})"
    entries = [
        (
            share.name or "unknown",
            share.value,
            f"{share.name or 'unknown'}: {share.value:.1f} {table.unit}, "
            f"{share.utterances} utterances",
        )
        for share in shown
    ]
    return _figure(charts.rows(entries, title, f"{table.metric} {table.unit}"), title)


def _lengths(table: Table, shares: Sequence[Share]) -> Html:
    title = f"{table.metric.upper()} by number of words in the reference"
    drawing = charts.bars(
        [share.value for share in shares],
        [share.name for share in shares],
        title,
        "words",
        f"{table.metric} {table.unit}",
        tooltips=[
            f"{share.name} words: {share.value:.1f} {table.unit}, {share.utterances} utterances"
            for share in shares
        ],
    )
    return _figure(drawing, title)


def _trials(table: Table, records: Seeds) -> list[Html]:
    """How scores of targets and of others lie, and which errors trade for which."""
    names = _TRIALS[table.metrics[0].statistic]
    shares = score_shares(records, table.metric)
    series = [
        (name, name == names[0], [charts.Point(*place, "") for place in own])
        for name, own in zip(names, shares, strict=True)
    ]
    title = f"Scores of trials, {' and '.join(names)}"
    rates = error_tradeoff(records, table.metric)
    return [
        _figure(charts.lines(series, title, "score", "% of its trials"), title),
        _figure(
            charts.tradeoff(rates, "Misses and false alarms at every threshold"),
            "Misses and false alarms at every threshold, on normal deviates; dashed: equal",
        ),
    ]


def _slots(found: Sequence[Slot]) -> list[Html]:
    """How well each kind of slot is found, and its values spelled; nothing where there is none."""
    if not found:
        return []
    figures = []
    for title, unit, rows in (
        ("F1 of each slot, worst first", "F1 %", sorted((slot.f1, slot) for slot in found)),
        (
            "Character errors in the values of each slot, worst first",
            "CER %",
            sorted(((slot.value_errors, slot) for slot in found), reverse=True),
        ),
    ):
        entries = [
            (
                slot.name,
                value,
                f"{slot.name}: in {slot.said} utterances, heard in {slot.heard}, rightly in "
                f"{slot.both}; {slot.value_errors:.1f} % of characters of its values wrong",
            )
            for value, slot in rows
        ]
        figures.append(_figure(charts.rows(entries[:_SPEAKERS], title, unit), title))
    return figures


def _confusions(found: Confusions, title: str) -> Html:
    if len(found.names) > _CLASSES:
        note = f"{len(found.names)} classes are too many to draw; the list has the worst pairs."
        return element("p", note, class_="note")
    drawing = charts.heat_map(found.counts, found.names, title)
    return _figure(drawing, f"{title}: rows are references, columns hypotheses, all seeds together")


def _pairs(found: Confusions) -> Html | None:
    pairs = found.worst(_PAIRS)
    if not pairs:
        return element("p", "Nothing was confused.")
    text = ", ".join(f"{reference} → {taken} ({count})" for reference, taken, count in pairs)
    return element("p", f"Confused most often: {text}")


def _worst(table: Table, bad: Sequence[Mistake], playable: Mapping[str, str]) -> Html:
    if not bad:
        return element("p", "Every utterance came out right.")
    lines = any(mistake.turns for mistake in bad)
    key = (
        element(
            "p",
            "Of the first seed: who speaks when, by the reference above and by the answer below.",
            class_="note",
        )
        if lines
        else element(
            "p",
            "Of the first seed: ",
            _word(Aligned("substitute", "reference", "hypothesis")),
            " substituted, ",
            _word(Aligned("delete", "left out", "")),
            " deleted, ",
            _word(Aligned("insert", "", "added")),
            " inserted.",
            class_="note",
        )
    )
    entries: list[Html] = []
    for mistake in bad:
        player = None
        if mistake.utterance in playable:
            player = element(
                "button",
                "Play",
                type="button",
                class_="play",
                data_audio=playable[mistake.utterance],
                aria_label=f"Play {mistake.utterance}",
                aria_pressed="false",
            )
        entries.append(
            element(
                "li",
                element(
                    "p",
                    player,
                    element("code", mistake.utterance),
                    f" {mistake.speaker}" if mistake.speaker else None,
                    f" · {table.metric} {mistake.score:.0f} {table.unit}",
                    class_="source",
                ),
                _time_line(mistake)
                if mistake.turns
                else element("p", *_words(mistake.words), class_="words"),
            )
        )
    return join(key, element("ol", *entries, class_="worst"))


def _time_line(mistake: Mistake) -> Html:
    assert mistake.turns is not None
    return element("figure", charts.time_line(*mistake.turns, f"Who speaks in {mistake.utterance}"))


def _words(words: Sequence[Aligned]) -> list[Html]:
    pieces: list[Html] = []
    for word in words:
        pieces += [_word(word), Html(" ")]
    return pieces or [element("em", "nothing")]


def _word(word: Aligned) -> Html:
    """Signs, a stroke through and a line below say without the colour what was done."""
    if word.operation == "equal":
        return element("span", word.reference)
    gone = element("del", f"−{word.reference}") if word.reference else None
    new = element("ins", f"+{word.hypothesis}") if word.hypothesis else None
    return element("span", gone, Html(" ") if gone and new else None, new, class_="changed")
