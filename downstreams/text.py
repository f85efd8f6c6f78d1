"""Transcripts as symbols: normalisation, characters, word errors."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

import jiwer

from benchmark.core import Record, Utterance
from downstreams.corpora.words import transcript
from downstreams.ctc import BLANK

_UNSPACED = ("CJK ", "HIRAGANA ", "KATAKANA", "THAI ", "LAO ", "KHMER ", "MYANMAR ")


def normalise(text: str) -> str:
    """Upper case, one space between words: what SUPERB's characters are."""
    return transcript(transcript(text).upper())  # which may take characters apart again


def characters(texts: Iterable[str]) -> tuple[str, ...]:
    """The CTC blank, then every character of the normalised texts, sorted."""
    return (BLANK, *sorted({character for text in texts for character in normalise(text)}))


def has_no_spaces(text: str) -> bool:
    """Whether most characters are of a script that is written without spaces between words."""
    names = [unicodedata.name(character, "") for character in text]
    return 2 * sum(name.startswith(_UNSPACED) for name in names) > len(names)


def joined(symbols: Iterable[str]) -> str:
    """Characters as a text, one space between words."""
    return " ".join("".join(symbols).split())


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Substitutions, deletions and insertions, and the number of reference words."""
    found = jiwer.process_words(reference, hypothesis)
    return found.substitutions + found.deletions + found.insertions, len(reference.split())


def character_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """The same over characters, spaces included."""
    found = jiwer.process_characters(reference, hypothesis)
    return found.substitutions + found.deletions + found.insertions, len(reference)


def transcript_records(utterances: Sequence[Utterance], heard: Sequence[str]) -> list[Record]:
    """Word and character errors of what was heard in each utterance."""
    return [transcript_record(*pair) for pair in zip(utterances, heard, strict=True)]


def transcript_record(utterance: Utterance, heard: str) -> Record:
    """Word and character errors of what was heard in an utterance."""
    reference = normalise(utterance.text)
    values = {
        "wer": word_errors(reference, heard),
        "cer": character_errors(reference, heard),
    }
    return Record(utterance.id, (utterance.speaker,), reference, heard, values)
