"""Why two results differ: what they do not share, and the test utterances that came out otherwise.

Everything is told that the files say, each with whether it can move a score. What moved it is not:
one run that differs in a single thing tells that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from benchmark.core import Record
from benchmark.errors import SuperbError
from benchmark.protocol import content
from benchmark.scoring.results import Result, card_metrics
from leaderboard.compare.difference import Pair, Scored, pair
from leaderboard.read.fields import (
    base_of,
    learning_rate_of,
    metric_of,
    skipped_utterances,
    weights_of,
)

Effect = Literal["yes", "rounding", "maybe", "no"]
"""Whether something can change a score; ``rounding``: by what arithmetic leaves in the last digits,
which training may amplify; ``maybe``: only where the code that is used differs."""

ABSENT: Final = "–"

# Parts of the identity that name something; what it holds stands beside the name.
_NAMES: Final = ("upstream.name", "corpus.name", "protocol.name", "protocol.version")
_ROUNDING: Final = ("precision", "storage", "device")


@dataclass(frozen=True)
class Apart:
    """One thing that two results do not share.

    Attributes:
        name: of what it is, as in the result file.
        a: its value in the first.
        b: its value in the second.
        effect: whether it can change a score.
    """

    name: str
    a: str
    b: str
    effect: Effect


@dataclass(frozen=True)
class Changed:
    """A test utterance that came out otherwise.

    Attributes:
        utterance: its id.
        speaker: of it, or both speakers.
        a: the first value of its metric in the first result, mean over seeds: errors, or a score.
        b: in the second.
        reference: what was said.
        a_hypothesis: what the first seed of the first result heard; "" where tables hold none.
        b_hypothesis: likewise of the second.
    """

    utterance: str
    speaker: str
    a: float
    b: float
    reference: str
    a_hypothesis: str
    b_hypothesis: str


@dataclass(frozen=True)
class Causes:
    """Two results, apart.

    Attributes:
        a: the first.
        b: the second.
        apart: what they do not share, what can change a score first.
        metric: that is looked at.
        pair: the paired difference; None where they cannot be paired.
        unpaired: why not; "" where they can.
        shared: how many test utterances both have.
        changed: those that came out otherwise, the largest change first.
    """

    a: Result
    b: Result
    apart: tuple[Apart, ...]
    metric: str
    pair: Pair | None
    unpaired: str
    shared: int
    changed: tuple[Changed, ...]


def causes(a: Path | str, b: Path | str) -> Causes:
    """Hold two results beside each other.

    Args:
        a: JSON file of a result.
        b: JSON file of another, of the same task by any head.

    Raises:
        SuperbError: when a file is damaged, or they are of different tasks.
    """
    first, second = Scored(a), Scored(b)
    if base_of(first.result) != base_of(second.result):
        raise SuperbError(
            f"{a} is of {first.result.downstream['name']} and {b} of "
            f"{second.result.downstream['name']}: results of one task can be told apart"
        )
    metric = metric_of(first.result)
    found, why = None, ""
    try:
        found = pair(first, second, any_rules=True)
    except SuperbError as error:
        why = str(error)
    shared, changed = _changes(first, second, metric)
    order: list[Effect] = ["yes", "rounding", "maybe", "no"]
    apart = sorted(_apart(first.result, second.result), key=lambda one: order.index(one.effect))
    return Causes(first.result, second.result, tuple(apart), metric, found, why, shared, changed)


def _apart(a: Result, b: Result) -> Iterator[Apart]:
    """What differs, in the order of the files."""
    for name, one, other in _differing(_told(a.identity), _told(b.identity)):
        if name == "protocol.sha256":
            continue  # its values follow
        effect: Effect = "no" if name in _NAMES else "rounding" if name in _ROUNDING else "yes"
        if name == "upstream.fingerprint" and weights_of(a) == weights_of(b) != "":
            effect = "maybe"  # other code or libraries computed the same weights
        yield Apart(name, one, other, effect)
    if "" not in (weights_of(a), weights_of(b)) and weights_of(a) != weights_of(b):
        yield Apart("encoder.weights_sha256", weights_of(a), weights_of(b), "yes")
    for name, one, other in _differing(_told(content(a.protocol)), _told(content(b.protocol))):
        yield Apart(f"protocol {name}", one, other, "yes")
    for part, own in _CARDS.items():
        cards = [
            {key: value for key, value in getattr(result, part).items() if key not in own}
            for result in (a, b)
        ]
        for name, one, other in _differing(*map(_told, cards)):
            audio = part == "corpus" and name == "audio_sha256"
            yield Apart(f"{part} {name}", one, other, "yes" if audio else "no")
    if learning_rate_of(a) != learning_rate_of(b):
        yield Apart("learning_rate, chosen", learning_rate_of(a), learning_rate_of(b), "yes")
    left_out = [", ".join(skipped_utterances(result)) or ABSENT for result in (a, b)]
    if left_out[0] != left_out[1]:
        yield Apart("skipped_audio", left_out[0], left_out[1], "yes")
    for name, one, other in _differing(_told(a.provenance), _told(b.provenance)):
        yield Apart(name, one, other, _of_origin(name))
    yield from (
        Apart(name, str(getattr(a, name)), str(getattr(b, name)), "no")
        for name in ("schema", "created")
        if getattr(a, name) != getattr(b, name)
    )


# Cards, and what of them is in the identity or told otherwise.
_CARDS: Final[Mapping[str, tuple[str, ...]]] = {
    "upstream": ("name",),
    "downstream": ("name", "version"),
    "corpus": ("name", "sha256"),
}


def _of_origin(name: str) -> Effect:
    if name in ("commit", "dirty", "superb"):
        return "maybe"
    if name in ("command", "cpus") or name.startswith("file."):
        return "no"  # what it asked for is in the identity
    return "rounding"  # versions of packages, processor, card


def _told(values: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Values by their dotted names, as text."""
    told: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            told |= _told(value, f"{before}{key}.")
        else:
            told[f"{before}{key}"] = _text(value)
    return told


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(own)}" for key, own in value.items())
    return ABSENT if value is None or value == "" else str(value)


def _differing(a: Mapping[str, str], b: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    for name in dict.fromkeys((*a, *b)):
        one, other = a.get(name, ABSENT), b.get(name, ABSENT)
        if one != other:
            yield name, one, other


def _changes(first: Scored, second: Scored, metric: str) -> tuple[int, tuple[Changed, ...]]:
    """How many utterances both have, and those that came out otherwise."""
    one, other = _by_utterance(first), _by_utterance(second)
    if metric not in {own.name for own in card_metrics(second.result)}:
        return 0, ()  # of another metric: nothing to set beside one another
    both = [name for name in one if name in other]
    lower = card_metrics(first.result)[0].direction == "lower"
    changed = []
    for name in both:
        a, b = one[name], other[name]
        before, after = _mean(a, metric), _mean(b, metric)
        texts = a[0].hypothesis, b[0].hypothesis
        if before != after or texts[0] != texts[1]:
            speaker = " and ".join(filter(None, a[0].clusters))
            changed.append(
                Changed(name, speaker, before, after, a[0].reference, texts[0], texts[1])
            )
    sign = 1 if lower else -1
    changed.sort(key=lambda c: (-abs(c.b - c.a), sign * (c.a - c.b), c.utterance))
    return len(both), tuple(changed)


def _by_utterance(scored: Scored) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for _, row in sorted(scored.rows.items()):
        found.setdefault(row.id, []).append(row)
    return found


def _mean(records: list[Record], metric: str) -> float:
    values = [record.values[metric][0] for record in records]
    return sum(values) / len(values)
