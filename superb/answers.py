"""Answers for a reader: a table on the terminal, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark.answers import Answer, Span
from benchmark.errors import SuperbError
from leaderboard.read.names import printable
from leaderboard.show.escape import no_formula
from superb.predict import Prediction

_FORMATS: Final = (".csv", ".json")
# Of all values of what is told apart, those that are shown of one recording.
_SHOWN: Final = 5
_COLUMNS: Final = ("recording", "answer", "confidence", "spans", "probabilities", "resampled")


def format_of(output: Path) -> str:
    """``csv`` or ``json``, by the name of a file.

    Raises:
        SuperbError: it is neither.
    """
    suffix = output.suffix.lower()
    if suffix not in _FORMATS:
        raise SuperbError(f"--output {output}: its name must end in {' or '.join(_FORMATS)}")
    return suffix[1:]


def as_json(predictions: Sequence[Prediction]) -> str:
    """All that is known of each answer."""
    records = []
    for own in predictions:
        record: dict[str, Any] = asdict(own.answer)
        if own.answer.attention is None:
            del record["attention"]
        records.append(record | {"resampled_from_hz": dict(own.sample_rates)})
    return json.dumps(records, indent=1, ensure_ascii=False) + "\n"


def as_csv(predictions: Sequence[Prediction]) -> str:
    """A row for each answer; of probabilities the highest, of spans ``text start end``."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for own in predictions:
        answer = own.answer
        cells = (
            answer.utterance,
            answer.text,
            "" if answer.confidence is None else f"{answer.confidence:.4f}",
            "; ".join(
                f"{_named(span)} {span.start_s:.3f} {span.end_s:.3f}" for span in answer.spans
            ),
            "; ".join(
                f"{what}={value} {share:.4f}"
                for what, values in answer.probabilities.items()
                for value, share in _likeliest(values)
            ),
            "; ".join(f"{name} {rate} Hz" for name, rate in own.sample_rates.items()),
        )
        writer.writerow([no_formula(printable(cell)) for cell in cells])
    return text.getvalue()


def shown_text(answer: Answer) -> str:
    """The text for a reader, who cannot see that there is none."""
    return answer.text if answer.text.strip() else "(empty: nothing was recognised)"


def show_answers(predictions: Sequence[Prediction], console: Console) -> None:
    """Print a table of answers; of a single one, its parts in time and probabilities too."""
    sure = any(own.answer.confidence is not None for own in predictions)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("recording", overflow="fold", max_width=console.width // 2)
    table.add_column("answer", overflow="fold")
    if sure:
        table.add_column("confidence", justify="right", no_wrap=True)
    for own in predictions:
        cells = [own.answer.utterance, shown_text(own.answer)]
        cells += [_share(own.answer.confidence)] * sure
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console.print(table)
    if len(predictions) == 1:
        _show_parts(predictions[0].answer, console)
    elif any(own.answer.spans or own.answer.probabilities for own in predictions):
        console.print(Text("times and probabilities: --output FILE.json", style="dim"))
    rates: dict[str, int] = {}
    for own in predictions:
        rates |= own.sample_rates
    for name, rate in list(rates.items())[:_SHOWN]:
        console.print(Text(printable(f"resampled, was {rate} Hz: {name}"), style="dim"))
    if len(rates) > _SHOWN:
        console.print(Text(f"resampled likewise: {len(rates) - _SHOWN} more", style="dim"))


def _show_parts(answer: Answer, console: Console) -> None:
    if answer.spans:
        sure = any(span.confidence is not None for span in answer.spans)
        table = Table("from s", "to s", "heard", *["confidence"] * sure, box=SIMPLE_HEAD)
        for column in (0, 1, *[3] * sure):
            table.columns[column].justify = "right"
        for span in answer.spans:
            shares = [_share(span.confidence)] * sure
            cells = [f"{span.start_s:.2f}", f"{span.end_s:.2f}", _named(span), *shares]
            table.add_row(*(Text(printable(cell)) for cell in cells))
        console.print(table)
    for what, values in answer.probabilities.items():
        likeliest = ", ".join(f"{value} {_share(share)}" for value, share in _likeliest(values))
        rest = len(values) - _SHOWN
        more = f" and {rest} more" if rest > 0 else ""
        console.print(Text(printable(f"{what}: {likeliest}{more}")))


def _likeliest(values: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(values.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN]


def _named(span: Span) -> str:
    return f"{span.text} ({span.label})" if span.label else span.text


def _share(confidence: float | None) -> str:
    return "–" if confidence is None else f"{confidence:.3f}"
