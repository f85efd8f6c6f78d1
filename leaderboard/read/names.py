"""Names that come from strangers, as text that is safe to show anywhere."""

from __future__ import annotations

from collections.abc import Sequence


def printable(text: str) -> str:
    """Text with everything that could move the cursor, break a line or reverse it spelled out."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def list_some(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
