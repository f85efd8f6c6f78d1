"""From words to units: phones that know their neighbours within the word (Schwartz et al. 1985).

"Context-dependent modeling for acoustic-phonetic recognition of continuous speech". A phone at the
edge of a word has no neighbour there, so that a word is the same units wherever it stands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from benchmark.errors import SuperbError
from downstreams.corpora.pronunciation import Lexicon
from downstreams.ctc import beginning

SILENCE: Final = "SIL"
EDGE: Final = ""
_SHOWN: Final = 8


class Unit(NamedTuple):
    """A phone between its neighbours."""

    left: str
    phone: str
    right: str


QUIET: Final = Unit(EDGE, SILENCE, EDGE)


@dataclass(frozen=True)
class Pronouncing:
    """How the words of a vocabulary are pronounced.

    Attributes:
        words: word → its phones.
        unknown: words that have none, and how often they occur.
        source: of the phones, in words.
    """

    words: Mapping[str, tuple[str, ...]]
    unknown: Mapping[str, int]
    source: str

    @property
    def phones(self) -> tuple[str, ...]:
        """All phones, silence first."""
        return (SILENCE, *sorted({phone for own in self.words.values() for phone in own}))

    def within(self, phones: Iterable[str]) -> Pronouncing:
        """Only the words that these phones are enough for."""
        known = set(phones)
        return replace(
            self, words={word: own for word, own in self.words.items() if known.issuperset(own)}
        )

    def units(self, word: str) -> tuple[Unit, ...]:
        """The units of a word."""
        return units(self.words[word])


def units(phones: Sequence[str]) -> tuple[Unit, ...]:
    """Phones of a word with their neighbours.

    >>> [unit.right for unit in units(["K", "AE", "T"])]
    ['AE', 'T', '']
    """
    around = (EDGE, *phones, EDGE)
    return tuple(Unit(*around[place : place + 3]) for place in range(len(phones)))


def pronouncing(texts: Iterable[str], lexicon: Lexicon | None) -> Pronouncing:
    """The words of texts with their phones.

    Args:
        texts: normalised.
        lexicon: where they come from; None takes letters for phones.

    Raises:
        SuperbError: the lexicon has less than half of the words that are said.
    """
    said = Counter(word for text in texts for word in text.split())
    if lexicon is None:
        return Pronouncing({word: tuple(word) for word in said}, {}, "letters in place of phones")
    words: dict[str, tuple[str, ...]] = {}
    unknown: dict[str, int] = {}
    for word, count in said.items():
        phones, lacking = lexicon.of(word)
        if phones and not lacking:
            words[word] = tuple(phones.split())
        else:
            unknown[word] = count
    if 2 * sum(unknown.values()) >= sum(said.values()):
        raise SuperbError(
            f"{lexicon.name} lacks {named(unknown)}, of {len(said)} words of train. Give a lexicon "
            "with --pronunciations FILE (WORD PHONE PHONE …, a word per line), or take letters for "
            "phones with --pronunciations letters"
        )
    return Pronouncing(words, unknown, f"phones from {lexicon.name}")


def searched(words: Iterable[str], lexicon: Lexicon | None, phones: Iterable[str]) -> Pronouncing:
    """The words of an n-gram that are given, as far as these phones are enough for them."""
    spoken = sentences({word: word for word in words}, lexicon, phones)
    source = "letters" if lexicon is None else lexicon.name
    return Pronouncing({word: tuple(own[0].split()) for word, own in spoken.items()}, {}, source)


def sentences(
    texts: Mapping[str, str], lexicon: Lexicon | None, phones: Iterable[str]
) -> dict[str, list[str]]:
    """Utterance id → the phones of each of its words, where these phones are enough for all."""
    known = set(phones)
    found = {}
    for name, text in texts.items():
        words = [
            " ".join(word) if lexicon is None else lexicon.of(word)[0] for word in text.split()
        ]
        if words and all(word and known.issuperset(word.split()) for word in words):
            found[name] = words
    return found


def training_notes(
    texts: Sequence[str], lexicon: Lexicon | None, lengths: Sequence[int], least: int
) -> list[str]:
    """That letters stand for phones, and the transcripts that cannot be aligned.

    Args:
        texts: of train, normalised.
        lexicon: as for `pronouncing`.
        lengths: frames of each.
        least: frames that a phone takes.

    Raises:
        SuperbError: none can be aligned.
    """
    known = pronouncing(texts, lexicon)
    notes = [known.source] if lexicon is None else []
    if known.unknown:
        lost = sum(not known.words.keys() >= set(text.split()) for text in texts)
        notes.append(
            f"{lost} of {len(texts)} training transcripts have words that the lexicon lacks, and "
            f"teach nothing: {named(known.unknown)}"
        )
    unfit = [
        text
        for text, length in zip(texts, lengths, strict=True)
        if least * sum(len(known.words.get(word, ())) for word in text.split()) > length
    ]
    if len(unfit) == len(texts):
        raise SuperbError(
            "every training transcript has more phones than its recording has frames, so none can "
            "be aligned. Take an encoder with more frames, or shorter transcripts"
        )
    if unfit:
        notes.append(
            f"{len(unfit)} of {len(texts)} training transcripts have more phones than fit into "
            f"their frames; they cannot be aligned and teach nothing: {beginning(unfit[0])}"
        )
    return notes


def test_notes(texts: Sequence[str], words: Iterable[str]) -> list[str]:
    """The words that cannot be found, for they are none of those of the search."""
    known = set(words)
    said = [word for text in texts for word in text.split()]
    lacking = Counter(word for word in said if word not in known)
    if not lacking:
        return []
    return [
        f"{sum(lacking.values())} of {len(said)} test words cannot be right: neither train nor the "
        f"n-gram has them with phones: {named(lacking)}"
    ]


def named(words: Mapping[str, int]) -> str:
    """Words and how often they occur, the most frequent first."""
    most = sorted(words.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{word} ({count})" for word, count in most[:_SHOWN])
    return f"{shown} … ({len(words)} words in all)" if len(words) > _SHOWN else shown
