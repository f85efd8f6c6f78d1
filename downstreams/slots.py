"""Slots in a transcript as symbols: ``play <song>yesterday</song>``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from benchmark.scoring.slots import TAG
from downstreams.text import normalise

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
    for tag in TAG.finditer(tagged):
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
