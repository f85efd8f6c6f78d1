"""From words to units: phones that know their neighbours within the word (Schwartz et al. 1985).

"Context-dependent modeling for acoustic-phonetic recognition of continuous speech". A phone at the
edge of a word has no neighbour there, so that a word is the same units wherever it stands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from benchmark.errors import SuperbError
from downstreams.corpora.pronunciation import Lexicon

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

    def units(self, word: str) -> tuple[Unit, ...]:
        """The units of a word."""
        return units(self.words[word])


def units(phones: Sequence[str]) -> tuple[Unit, ...]:
    """Phones of a word with their neighbours.

    >>> [unit.right for unit in units(["K", "AE", "T"])]
    ['AE', 'T', '']
    """
    around = (EDGE, *phones, EDGE)
    return tuple(
        Unit(*around[place : place + 3]) for place in range(len(phones))
    )


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


def named(words: Mapping[str, int]) -> str:
    """Words and how often they occur, the most frequent first."""
    most = sorted(words.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{word} ({count})" for word, count in most[:_SHOWN])
    return f"{shown} … ({len(words)} words in all)" if len(words) > _SHOWN else shown
