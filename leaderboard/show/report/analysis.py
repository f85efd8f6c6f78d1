"""What the test utterances of one run say: where it errs, and on whom. Numbers only."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final, Literal, NamedTuple, cast

from benchmark.arpabet import CLASSES, class_of, without_stress
from benchmark.core import Metric, Record
from benchmark.scoring import slots
from leaderboard.compare.difference import right_or_wrong
from leaderboard.read.fields import counts_of

# From which second to which somebody speaks.
_SPAN: Final = re.compile(r"(\d+\.\d\d)-(\d+\.\d\d)")

Operation = Literal["equal", "substitute", "delete", "insert"]
Seeds = Mapping[int, Sequence[Record]]
NOTHING: Final = "–"


@dataclass(frozen=True)
class Share:
    """A part of the test set, with its score.

    Attributes:
        name: of the part.
        value: its score, in the unit of the metric, over all seeds.
        utterances: how many different ones.
    """

    name: str
    value: float
    utterances: int


@dataclass(frozen=True)
class Aligned:
    """A word of the reference beside the one of the hypothesis that stands for it.

    Attributes:
        operation: what turns the one into the other.
        reference: "" for an insertion.
        hypothesis: "" for a deletion.
    """

    operation: Operation
    reference: str
    hypothesis: str


class Turn(NamedTuple):
    """Somebody speaks, from second to second."""

    speaker: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Mistake:
    """A test utterance that came out badly.

    Attributes:
        utterance: its id.
        speaker: who speaks.
        score: over all seeds, in the unit of the metric.
        words: reference and hypothesis of the first seed, aligned.
        turns: who speaks when by the reference, and by the first seed; None for anything else.
    """

    utterance: str
    speaker: str
    score: float
    words: tuple[Aligned, ...]
    turns: tuple[tuple[Turn, ...], tuple[Turn, ...]] | None = None


@dataclass(frozen=True, order=True)
class Slot:
    """How a kind of slot fared, all seeds together.

    Attributes:
        name: of the slot.
        said: utterances that have it.
        heard: answers that have it.
        both: utterances of which both do.
        f1: in percent.
        value_errors: character errors in its values, in percent of their characters.
    """

    name: str
    said: int
    heard: int
    both: int
    f1: float
    value_errors: float


@dataclass(frozen=True)
class Confusions:
    """How often each class was taken for each, all seeds together.

    Attributes:
        names: of the classes.
        counts: utterances by place of the reference and place of the hypothesis in `names`.
    """

    names: tuple[str, ...]
    counts: Mapping[tuple[int, int], int]

    def worst(self, most: int) -> list[tuple[str, str, int]]:
        """The most frequent confusions: reference, hypothesis, count."""
        wrong = [
            (-count, self.names[row], self.names[column])
            for (row, column), count in self.counts.items()
            if row != column
        ]
        return [(reference, taken, -count) for count, reference, taken in sorted(wrong)[:most]]


def by_speaker(records: Seeds, metric: Metric) -> list[Share]:
    """Score of each speaker, sorted by name; a record of two counts for both."""
    return sorted(_shares(records, metric, lambda record: record.clusters), key=lambda s: s.name)


def by_length(records: Seeds, metric: Metric, most: int = 12) -> list[Share]:
    """Score by number of words in the reference, shortest first.

    Numbers of words that lie side by side are put together until there are at most `most` parts
    of about the same number of utterances.
    """
    lengths = sorted(_length(record) for record in next(iter(records.values()), ()))
    starts = sorted(set(lengths))
    if len(starts) > most:
        starts = sorted({lengths[len(lengths) * part // most] for part in range(most)})
    parts: dict[int, list[int]] = {}
    for length in lengths:
        parts.setdefault(bisect_right(starts, length), []).append(length)
    names = {
        place: str(part[0]) if part[0] == part[-1] else f"{part[0]}–{part[-1]}"
        for place, part in parts.items()
    }
    shares = _shares(records, metric, lambda record: [names[bisect_right(starts, _length(record))]])
    return sorted(shares, key=lambda share: int(share.name.partition("–")[0]))


def one_answer_each(records: Seeds, metric: str) -> bool:
    """Whether each utterance is one answer, right or wrong, rather than a sequence of words."""
    return right_or_wrong(counts_of(record, metric) for record in _all(records))


def confusions(records: Seeds) -> Confusions:
    """Count which class was taken for which."""
    return _tabled(Counter((record.reference, record.hypothesis) for record in _all(records)))


def _tabled(pairs: Mapping[tuple[str, str], int], order: Sequence[str] = ()) -> Confusions:
    """Counts by place; names in an order, or sorted."""
    found = {name for pair in pairs for name in pair}
    names = tuple(name for name in order if name in found) or tuple(sorted(found))
    place = {name: position for position, name in enumerate(names)}
    return Confusions(names, {(place[a], place[b]): count for (a, b), count in pairs.items()})


def score_shares(records: Seeds, metric: str, bins: int = 30) -> list[list[tuple[float, float]]]:
    """Of targets and of other trials: the middle of each bin of scores, and percent in it."""
    trials = [record.values[metric] for record in _all(records)]
    scores = [score for score, *_ in trials]
    low, high = min(scores), max(scores)
    width = (high - low) / bins or 1.0
    shares = []
    for wanted in (True, False):
        own = [score for score, target, *_ in trials if (target > 0) == wanted]
        counts = Counter(min(bins - 1, int((score - low) / width)) for score in own)
        shares.append(
            [
                (low + (place + 0.5) * width, 100 * counts[place] / max(1, len(own)))
                for place in range(bins)
            ]
        )
    return shares


def error_tradeoff(records: Seeds, metric: str, most: int = 60) -> list[tuple[float, float]]:
    """False alarms and misses, as shares, at thresholds from low to high; some `most` of them."""
    trials = [record.values[metric] for record in _all(records)]
    own = sorted(score for score, target, *_ in trials if target > 0)
    others = sorted(score for score, target, *_ in trials if target <= 0)
    thresholds = sorted(set(own + others))
    step = max(1, len(thresholds) // most)
    return [
        (
            (len(others) - bisect_left(others, threshold)) / max(1, len(others)),
            bisect_left(own, threshold) / max(1, len(own)),
        )
        for threshold in thresholds[::step]
    ]


def phone_confusions(records: Seeds) -> tuple[Confusions, Confusions] | None:
    """Phones without stress that were taken for others, and the same by manner of articulation.

    A phone that was left out was taken for `NOTHING`, and one that was added stands for it. None
    where what is said are no phones of English.
    """
    if not all(class_of(phone) for record in _all(records) for phone in record.reference.split()):
        return None
    pairs: Counter[tuple[str, str]] = Counter()
    for record in _all(records):
        said, heard = (
            " ".join(map(without_stress, text.split()))
            for text in (record.reference, record.hypothesis)
        )
        pairs.update((a.reference or NOTHING, a.hypothesis or NOTHING) for a in align(said, heard))
    if not pairs:
        return None
    manners: Counter[tuple[str, str]] = Counter()
    for (said, heard), count in pairs.items():
        manners[class_of(said) or NOTHING, class_of(heard) or NOTHING] += count
    order = [*CLASSES, NOTHING]
    return _tabled(pairs), _tabled(manners, order)


def by_slot(records: Seeds) -> list[Slot]:
    """How each kind of slot fared, sorted by name; nothing where the references have none."""
    counts: dict[str, Counter[str]] = {}
    for record in _all(records):
        said, heard = (slots.values(text) for text in (record.reference, record.hypothesis))
        for name in {*said, *heard}:
            own = counts.setdefault(name, Counter())
            own["said"] += name in said
            own["heard"] += name in heard
            own["both"] += name in said and name in heard
            errors, characters = slots.value_errors({name: said.get(name, [])}, heard)
            own["errors"] += errors
            own["characters"] += characters
    return [
        Slot(
            name,
            own["said"],
            own["heard"],
            own["both"],
            200 * own["both"] / (own["said"] + own["heard"]),
            100 * own["errors"] / max(1, own["characters"]),
        )
        for name, own in sorted(counts.items())
        if own["said"]
    ]


def worst(records: Seeds, metric: Metric, most: int) -> list[Mistake]:
    """The utterances with the worst score over all seeds; of equal ones those with more errors.

    None is given that every seed got right.
    """
    totals: dict[str, list[float]] = {}
    for record in _all(records):
        top, bottom = counts_of(record, metric.name)
        total = totals.setdefault(record.id, [0, 0])
        total[0] += top
        total[1] += bottom
    errors = {
        name: top if metric.direction == "lower" else bottom - top
        for name, (top, bottom) in totals.items()
    }
    bad = [name for name, count in errors.items() if count > 0]
    bad.sort(key=lambda name: (-errors[name] / max(1, totals[name][1]), -errors[name], name))
    first = {record.id: record for record in next(iter(records.values()), ())}
    return [
        Mistake(
            utterance=name,
            speaker=" and ".join(first[name].clusters),
            score=_score(metric, *totals[name]),
            words=align(first[name].reference, first[name].hypothesis),
            turns=_both_turns(first[name]),
        )
        for name in bad[:most]
    ]


def turns(text: str) -> tuple[Turn, ...] | None:
    """Who speaks when, of a text such as ``ann 0.00-1.25 ben 0.90-3.00``; None of any other.

    >>> turns("ann lee 0.00-1.25 B 0.90-3.00")[0]
    Turn(speaker='ann lee', start_s=0.0, end_s=1.25)
    """
    found: list[Turn] = []
    who: list[str] = []
    for word in text.split():
        if not (span := _SPAN.fullmatch(word)):
            who.append(word)
            continue
        if not who:
            return None
        found.append(Turn(" ".join(who), float(span[1]), float(span[2])))
        who = []
    return None if who else tuple(found)


def _both_turns(record: Record) -> tuple[tuple[Turn, ...], tuple[Turn, ...]] | None:
    reference, hypothesis = turns(record.reference), turns(record.hypothesis)
    return (reference, hypothesis) if reference and hypothesis is not None else None


def align(reference: str, hypothesis: str) -> tuple[Aligned, ...]:
    """The words of two sentences, aligned with the fewest edits by jiwer."""
    before, after = reference.split(), hypothesis.split()
    if not before:  # jiwer refuses an empty reference
        return tuple(Aligned("insert", "", word) for word in after)
    # Here, so that a report without utterances does not wait for it.
    import jiwer

    chunks = jiwer.process_words(" ".join(before), " ".join(after)).alignments[0]
    return tuple(
        Aligned(cast(Operation, chunk.type), reference, hypothesis)
        for chunk in chunks
        for reference, hypothesis in zip_longest(
            before[chunk.ref_start_idx : chunk.ref_end_idx],
            after[chunk.hyp_start_idx : chunk.hyp_end_idx],
            fillvalue="",
        )
    )


def _shares(
    records: Seeds, metric: Metric, parts: Callable[[Record], Iterable[str]]
) -> list[Share]:
    sums: dict[str, list[float]] = {}
    utterances: dict[str, set[str]] = {}
    for record in _all(records):
        top, bottom = counts_of(record, metric.name)
        for name in parts(record):
            total = sums.setdefault(name, [0, 0])
            total[0] += top
            total[1] += bottom
            utterances.setdefault(name, set()).add(record.id)
    return [
        Share(name, _score(metric, top, bottom), len(utterances[name]))
        for name, (top, bottom) in sums.items()
    ]


def _all(records: Seeds) -> Iterable[Record]:
    return (record for seed in records.values() for record in seed)


def _length(record: Record) -> int:
    return len(record.reference.split())


def _score(metric: Metric, top: float, bottom: float) -> float:
    return (100 if metric.unit == "%" else 1) * top / max(1, bottom)
