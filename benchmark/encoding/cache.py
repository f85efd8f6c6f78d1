"""The folder that features are kept in: where it is, what is in it, what still fits."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.encoding.store import FEATURES, count_records, store_key
from benchmark.errors import SuperbError

# Folder of the states of trainings, beside that of the features.
TRAINING = "training"
# And of what tasks learn of train before their heads do, such as alignments.
PREPARED = "prepared"
_SPARE_BYTES = 256 * 2**20


def cache_folder() -> Path:
    """Where features are kept: ``$SUPERB_CACHE``, or ``~/.cache/superb``."""
    if chosen := os.environ.get("SUPERB_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "superb"


def free_bytes(root: Path) -> int:
    """What features may still take on the disk of `root`, a little being left free.

    Raises:
        SuperbError: when there is no such folder, and none can be made.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        return max(0, shutil.disk_usage(root).free - _SPARE_BYTES)
    except OSError as error:
        raise SuperbError(
            f"features cannot be kept in {root}: {error}. Choose a folder that you can write to "
            "with --cache-dir DIR or SUPERB_CACHE"
        ) from error


def require_room(root: Path, needed: int) -> None:
    """Refuse to start what the disk cannot hold.

    Raises:
        SuperbError: when fewer than `needed` bytes and a little more are free.
    """
    if needed > free_bytes(root):
        free = shutil.disk_usage(root).free
        raise SuperbError(
            f"features would take {format_bytes(needed)} but {root} has {format_bytes(free)} "
            "free. Choose another disk (--cache-dir DIR or SUPERB_CACHE), a smaller storage "
            "(--storage int8, or none), fewer layers (--layers last), clear old features "
            "(superb cache clear), or probe fewer tasks at once"
        )


@dataclass(frozen=True)
class StoreSummary:
    """One store as ``superb cache`` lists it; `size` in bytes, `used` a POSIX time.

    The states of trainings that were cut off are listed as one, whose key is `TRAINING`, and what
    tasks have prepared as another, `PREPARED`. Stores
    that this version does not read, since their format is an older one, say so in their kind.
    """

    key: str
    upstream: str
    kind: str
    storage: str
    utterances: int
    size: int
    used: float


def list_stores(root: Path) -> list[StoreSummary]:
    """All stores under `root`, biggest first; what is unreadable of one counts 0 or ``?``."""
    summaries = [*_files_of(root, TRAINING, "cut off"), *_files_of(root, PREPARED, "prepared")]
    for folder in sorted((root / FEATURES).glob("*/")):
        about: dict[str, Any] = {}
        utterances = 0
        with suppress(OSError, TypeError, ValueError):
            about = dict(json.loads((folder / "about.json").read_text()))
        with suppress(OSError):
            utterances = count_records(folder)
        files = _files(folder)
        older = about and store_key(about) != folder.name
        summaries.append(
            StoreSummary(
                key=folder.name,
                upstream=str(about.get("upstream", "?")),
                kind=str(about.get("kind", "?")) + (" (older format)" if older else ""),
                storage=str(about.get("storage", "?")),
                utterances=utterances,
                size=sum(file.st_size for file in files),
                used=max((file.st_mtime for file in files), default=0.0),
            )
        )
    return sorted(summaries, key=lambda summary: (-summary.size, summary.key))


def _files_of(root: Path, folder: str, what: str) -> list[StoreSummary]:
    """One line for all files of a folder beside the features; none where there are none."""
    files = _files(root / folder)
    if not files:
        return []
    return [
        StoreSummary(
            key=folder,
            upstream="–",
            kind=f"{len(files)} {what}",
            storage="–",
            utterances=0,
            size=sum(file.st_size for file in files),
            used=max(file.st_mtime for file in files),
        )
    ]


def _files(folder: Path) -> list[os.stat_result]:
    """What the file system says of the files in a folder; another process may be deleting them."""
    found = []
    for file in folder.glob("*"):
        with suppress(OSError):
            if file.is_file():
                found.append(file.stat())
    return found


def clear_stores(root: Path, selection: Iterable[str] = ()) -> list[StoreSummary]:
    """Delete the stores whose key starts with, or whose upstream equals, one of `selection`.

    ``training`` stands for the states of trainings that were cut off, ``prepared`` for what tasks
    have learnt of recordings. An empty selection deletes
    everything; what is known of audio files stays, but for a list that older versions made.

    Raises:
        SuperbError: when a selector matches nothing, or a folder cannot be deleted.
    """
    stores, chosen = list_stores(root), list(selection)
    for selector in chosen:
        if not any(_selects(selector, summary) for summary in stores):
            known = ", ".join(f"{s.key[:12]} ({s.upstream})" for s in stores) or "none"
            raise SuperbError(f"no stored features match {selector!r}. Stored: {known}")
    doomed = [s for s in stores if not chosen or any(_selects(c, s) for c in chosen)]
    try:
        for summary in doomed:
            beside = summary.key in (TRAINING, PREPARED)
            shutil.rmtree(root / summary.key if beside else root / FEATURES / summary.key)
        if not chosen:
            (root / "audio.sqlite").unlink(missing_ok=True)
    except OSError as error:
        raise SuperbError(
            f"{root} cannot be cleared: {error}. Type the same command again once no run writes "
            "to it"
        ) from error
    return doomed


def _selects(selector: str, summary: StoreSummary) -> bool:
    return summary.upstream == selector or (len(selector) >= 6 and summary.key.startswith(selector))


def format_bytes(size: float) -> str:
    """A size in words: 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
