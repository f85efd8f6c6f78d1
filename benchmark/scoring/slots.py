"""Scores of slots in transcripts such as ``PLAY <song>YESTERDAY</song>`` (Yang et al. 2021).

As SUPERB counts: F1 of the kinds of slot in each utterance, and character errors of their values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

TAG: Final = re.compile(r"<(/?)([A-Za-z0-9_.-]+)>")
_VALUE: Final = re.compile(r"<([A-Za-z0-9_.-]+)>(.+?)</\1>")


def values(text: str) -> dict[str, list[str]]:
    """Slot → its values in a transcript that a head wrote, where tags may be missing or astray.

    A slot is what stands between its first tag and the next that closes it; other tags within
    are no part of its value.

    >>> values("PLAY <song>HEY</song> <time>SEVEN")
    {'song': ['HEY']}
    """
    found: dict[str, list[str]] = {}
    for match in _VALUE.finditer(text):
        if value := " ".join(TAG.sub(" ", match[2]).split()):
            found.setdefault(match[1], []).append(value)
    return found


def type_f1(said: Mapping[str, object], heard: Mapping[str, object]) -> float:
    """F1 of the set of slots of one utterance; 1 where there is none and none is heard."""
    if not said and not heard:
        return 1.0
    return 2 * len(said.keys() & heard.keys()) / (len(said) + len(heard))


def value_errors(said: Mapping[str, list[str]], heard: Mapping[str, list[str]]) -> tuple[int, int]:
    """Character errors in the values of the slots that are there, and their characters.

    Each value is compared with the nearest of the values heard for its slot, with nothing where
    there is none. Values of slots that are not there count nowhere.
    """
    errors = characters = 0
    for slot, wanted in said.items():
        for value in wanted:
            tried = [_edits(value, other) for other in heard.get(slot, [""])]
            errors += min(tried)
            characters += len(value)
    return errors, characters


def _edits(reference: str, hypothesis: str) -> int:
    import jiwer  # here, since whoever reads results need not wait for it

    found = jiwer.process_characters(reference, hypothesis)
    return found.substitutions + found.deletions + found.insertions
