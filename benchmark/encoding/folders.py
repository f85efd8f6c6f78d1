"""Folders of recordings: what a walk through one finds."""

from __future__ import annotations

from pathlib import Path


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
