"""Recordings of the few utterances that are shown, written into the page as they are stored."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Final

LIMIT_BYTES: Final = 1_500_000
"""Most that the recordings of one report may take, as they are written into it."""

_TYPES: Final = {b"OggS": "audio/ogg", b"fLaC": "audio/flac", b"RIFF": "audio/wav"}


def embed(wanted: Iterable[tuple[str, bytes]], limit_bytes: int = LIMIT_BYTES) -> dict[str, str]:
    """Data URIs by name, in the order given, until the limit is reached.

    A recording whose format browsers do not play is left out.
    """
    embedded: dict[str, str] = {}
    used = 0
    for name, audio in wanted:
        kind = _TYPES.get(audio[:4])
        if name in embedded or kind is None:
            continue
        uri = f"data:{kind};base64,{base64.b64encode(audio).decode()}"
        if used + len(uri) > limit_bytes:
            break
        used += len(uri)
        embedded[name] = uri
    return embedded
