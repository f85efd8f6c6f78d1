"""Folders of recordings: what a walk through one finds."""

from __future__ import annotations

from pathlib import Path
from typing import Final

SUFFIXES: Final = frozenset(
    (
        *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc"),
        *(".au", ".snd", ".caf", ".sph", ".nist", ".w64", ".rf64"),
    )
)
"""Of recordings in folders, in small letters; one named by itself may be called anything."""


def recordings(folder: Path) -> list[Path]:
    """All recordings below a folder by their names, sorted, but for hidden ones."""
    return [
        path
        for path in visible(folder, "**/*")
        if path.suffix.lower() in SUFFIXES and path.is_file()
    ]


def visible(folder: Path, pattern: str = "*") -> list[Path]:
    """What in a folder matches a glob pattern, sorted; nothing that is hidden, or in what is.

    Systems leave hidden files beside what they copy, such as ``.DS_Store`` and ``._clip.wav``: the
    latter have the names of recordings and are none.
    """
    return sorted(
        path
        for path in folder.glob(pattern)
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
