"""What is said and by whom, in one form of Unicode, wherever a corpus comes from.

Two texts that look the same are the same: all are brought to NFC, white space is collapsed, and
characters that nobody sees are left out. Of transcripts, typographic apostrophes and characters of
full or half width become the plain ones too. Nothing else is changed: not case, not punctuation.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from benchmark.core import Utterance
from benchmark.errors import SuperbError

# Format characters (Unicode category Cf) without a shape of their own, and controls that are no
# white space. Signs that are drawn, such as the Arabic end of ayah, are in Cf too, and stay.
_INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f]"
)
# What is known of an utterance besides its columns, which may not be called so.
_FIELDS: Final = ("split", "speaker", "text", "label")
_JOINERS: Final = "\u200c\u200d"
# Halves of a surrogate pair, and controls that only a wrong encoding brings (Windows-1252 read as
# Latin-1; U+0085 is white space).
_BROKEN: Final = re.compile("[\ud800-\udfff\x80-\x84\x86-\x9f]")
_VIRAMA: Final = 9  # canonical combining class
_PLAIN: Final = {0x2019: "'", 0x02BC: "'"} | {
    code: chr(int(found[1], 16))
    for code in range(0xFF01, 0xFFEF)
    if (found := unicodedata.decomposition(chr(code)).split())
}


def one_form(text: str) -> str:
    """NFC, without invisible characters, white space collapsed.

    Zero-width joiners and non-joiners stay where they tell words apart: between two letters of
    Arabic script (Persian), and beside a virama (scripts of India).

    >>> one_form("cafe\u0301\u200b  noir ")
    'café noir'
    """
    if not (text.isascii() and text.isprintable()):
        text = unicodedata.normalize("NFC", _INVISIBLE.sub(_kept, text))
    return " ".join(text.split())


def transcript(text: str) -> str:
    """The same, with plain apostrophes, and characters of full or half width as plain ones.

    >>> transcript("don\u2019t ｓｔｏｐ")
    "don't stop"
    """
    return one_form(text if text.isascii() else text.translate(_PLAIN))


def cleaned(
    where: str, utterances: Sequence[Utterance], places: Sequence[str] | None = None
) -> tuple[list[Utterance], str]:
    """Utterances with all that is known of them in one form, and a note on what was left out.

    Ids stay as they are, since folds and lists may name them.

    Args:
        where: what messages name first.
        utterances: of any origin.
        places: where each utterance stands, for messages; None for its id.

    Raises:
        SuperbError: a text or id with half a surrogate pair or a control character that no text
            has.
    """
    changed: list[Utterance] = []
    dropped: Counter[str] = Counter()
    plainer = 0
    for index, utterance in enumerate(utterances):
        texts = {name: getattr(utterance, name) for name in _FIELDS} | dict(utterance.columns)
        for name, text in {"id": utterance.id, **texts}.items():
            if not text.isascii() and (bad := _BROKEN.search(text)):
                place = places[index] if places else f"utterance {utterance.id!a}"
                raise SuperbError(
                    f"{where}, {place}: {name!r} holds U+{ord(bad[0]):04X}, which is no character: "
                    f"{text!a:.60}. Something read or wrote it in a wrong encoding; write it again "
                    "as UTF-8"
                )
        for text in texts.values():
            dropped.update(_dropped(text))
        clean = {name: one_form(text) for name, text in texts.items()}
        words = transcript(clean["text"])
        plainer += words != clean["text"]
        clean["text"] = words
        if clean != texts:
            columns = {name: clean[name] for name in utterance.columns}
            known: dict[str, Any] = {name: clean[name] for name in _FIELDS}
            utterance = replace(utterance, columns=columns, **known)
        changed.append(utterance)
    notes = []
    if dropped:
        kinds = ", ".join(f"{count} {named(kind)}" for kind, count in dropped.most_common())
        notes.append(f"{dropped.total()} invisible characters left out: {kinds}")
    if plainer:
        notes.append(
            f"typographic apostrophes or other widths in {plainer} transcripts, read as plain "
            "characters"
        )
    return changed, "; ".join(notes)


def named(character: str) -> str:
    """A character for a message: its code and name where it cannot be seen.

    >>> named("é"), named("\u200b")
    ('é', 'U+200B ZERO WIDTH SPACE')
    """
    if character.isprintable() and character != " " and not unicodedata.combining(character):
        return character
    return f"U+{ord(character):04X} {unicodedata.name(character, 'control')}"


def _dropped(text: str) -> list[str]:
    """The invisible characters that a text loses."""
    if text.isprintable():
        return []
    return [found[0] for found in _INVISIBLE.finditer(text) if not _kept(found)]


def _kept(found: re.Match[str]) -> str:
    """What stays of an invisible character: itself where it is a joiner with a meaning, or ""."""
    if found[0] not in _JOINERS:
        return ""
    before, after = found.string[: found.start()], found.string[found.end() :]
    if any(unicodedata.combining(c) == _VIRAMA for c in (*before[-1:], *after[:1])):
        return found[0]
    last = next((c for c in reversed(before) if not unicodedata.combining(c)), "")
    return found[0] if _arabic(last) and _arabic(after[:1]) else ""


def _arabic(letter: str) -> bool:
    return bool(letter) and unicodedata.bidirectional(letter) == "AL"
