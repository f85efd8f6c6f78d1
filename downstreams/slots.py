"""Slots in a transcript, such as ``play <song>yesterday</song>``, and their scores."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from downstreams.text import character_errors, normalise

_TAG: Final = re.compile(r"<(/?)([A-Za-z0-9_.-]+)>")
_VALUE: Final = re.compile(r"<([A-Za-z0-9_.-]+)>(.+?)</\1>")
# What the published texts drop and spell out.
_SPELLED: Final = {ord(mark): " " for mark in "?!.,;-"} | {ord("&"): " AND "}


def symbols(tagged: str) -> list[str]:
    """Characters of a tagged transcript, its tags among them as one symbol each.

    Upper case, without ``? ! . , ; -``, with AND for ``&``, a space on either side of a slot.

    >>> "".join(symbols("play <song>Hey, you</song>!"))
    'PLAY <song>HEY YOU</song>'

    Raises:
        ValueError: a tag that is not closed, closes nothing, stands in another slot or holds
            nothing; a ``<`` or ``>`` that is of no tag.
    """
    found: list[str] = []
    for slot, text in _segments(tagged):
        words = normalise(normalise(text).translate(_SPELLED))
        if slot and not words:
            raise ValueError(f"slot <{slot}> without a value")
        if words:
            found += [" "] * bool(found)
            found += [f"<{slot}>", *words, f"</{slot}>"] if slot else words
    return found


def _segments(tagged: str) -> Iterator[tuple[str, str]]:
    """Each part of a tagged transcript: its slot, or "", and its text."""
    slot, start = "", 0
    for tag in _TAG.finditer(tagged):
        closes, name = bool(tag[1]), tag[2]
        if not closes and slot:
            raise ValueError(f"slot <{name}> within <{slot}>, which is not closed")
        if closes and not slot:
            raise ValueError(f"</{name}> closes nothing")
        if closes and name != slot:
            raise ValueError(f"slot <{slot}> is closed by </{name}>")
        yield slot, _plain(tagged[start : tag.start()])
        slot, start = "" if closes else name, tag.end()
    if slot:
        raise ValueError(f"slot <{slot}> is not closed")
    yield "", _plain(tagged[start:])


def _plain(text: str) -> str:
    if stray := re.search("[<>]", text):
        raise ValueError(f"a {stray[0]!r} that is of no tag")
    return text


def values(text: str) -> dict[str, list[str]]:
    """Slot → its values in a transcript that a head wrote, where tags may be missing or astray.

    A slot is what stands between its first tag and the next that closes it; other tags within
    are no part of its value.

    >>> values("PLAY <song>HEY</song> <time>SEVEN")
    {'song': ['HEY']}
    """
    found: dict[str, list[str]] = {}
    for match in _VALUE.finditer(text):
        if value := " ".join(_TAG.sub(" ", match[2]).split()):
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
            tried = [character_errors(value, other)[0] for other in heard.get(slot, [""])]
            errors += min(tried)
            characters += len(value)
    return errors, characters
