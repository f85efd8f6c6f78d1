"""All faults, in the order of docs/reliability.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from tests.faults import case, scores, sounds, weights, words

_KINDS: Final = {module.__name__.rpartition(".")[2]: module for module in
                 (words, sounds, weights, scores)}  # fmt: skip
FAULTS: Final = sorted(case.FAULTS, key=lambda row: list(_KINDS).index(row.kind))
TITLES: Final = {
    "words": "Manifests, transcripts, labels",
    "sounds": "Recordings",
    "weights": "Checkpoints",
    "scores": "Scores, result files, tables",
}


def lines(verdicts: Sequence[str]) -> Iterator[str]:
    """A Markdown table of each kind, with the verdict on each row."""
    kind = ""
    for number, (row, verdict) in enumerate(zip(FAULTS, verdicts, strict=True), start=1):
        if row.kind != kind:
            kind = row.kind
            yield f"\n### {TITLES[kind]}\n\n| | Given | What superb does | |\n|--:|---|---|---|\n"
        given, then = (text.replace("|", "\\|") for text in (row.given, row.then))
        yield f"| {number} | {given} | {then} | {verdict} |\n"
    yield "\n"
