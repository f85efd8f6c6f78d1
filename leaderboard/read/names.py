"""Names that come from strangers, as text that is safe to show anywhere."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence

_UNTRAINED = "untrained:"


def printable(text: str) -> str:
    """Text with everything that could move the cursor, break a line or reverse it spelled out."""
    if text.isprintable():  # nearly all are
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def told_apart(name: str, sources: Mapping[str, str]) -> dict[str, str]:
    """What to call encoders that share a name: the shortest end of their paths that tells them.

    Where paths do not tell, or are not known, the start of the hash follows.

    Args:
        name: of all of them; of an encoder from a folder, the folder's.
        sources: hash of an encoder → where its weights are from, a folder or anything else.

    Returns:
        Hash → label.

    >>> told_apart("last", {"1f": "exp/a/last", "2e": "/home/me/exp/b/last"})
    {'1f': 'a/last', '2e': 'b/last'}
    """
    if len(sources) < 2:
        return dict.fromkeys(sources, name)
    untrained = _UNTRAINED if name.startswith(_UNTRAINED) else ""
    paths = {key: _folders(source, name.removeprefix(untrained)) for key, source in sources.items()}

    def ends(length: int) -> dict[str, tuple[str, ...]]:
        return {key: parts[-length:] for key, parts in paths.items()}

    lengths = range(1, 1 + max(1, *map(len, paths.values())))
    found = ends(max(lengths, key=lambda length: (len(set(ends(length).values())), -length)))
    labels = {}
    for key, parts in found.items():
        alone = bool(parts) and list(found.values()).count(parts) == 1
        label = untrained + "/".join(parts) if parts else name
        labels[key] = label if alone else f"{label} @{key[:8]}"
    return labels


def _folders(source: str, name: str) -> tuple[str, ...]:
    """The parts of a path to a folder of that name; () for what is none."""
    parts = tuple(posixpath.normpath(source).strip("/").split("/"))
    return parts if parts[-1] == name else ()


def list_some(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
