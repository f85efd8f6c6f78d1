"""Fetch the archives that a corpus's owners publish: resumed where cut, verified, then unpacked.

The part file is the only state. It grows until the archive is whole, is verified, unpacked beside
its place and moved there, and goes away last; so whatever is interrupted, the same call goes on.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from benchmark.errors import SuperbError, unknown
from benchmark.progress import Progress
from downstreams.corpora.layout import Archive, Layout

# Asks for every split.
ALL: Final = "all"
MEGABYTE: Final = 1_000_000
# Cuts in a row, without a byte in between, after which we stop asking.
ATTEMPTS: Final = 5
PAUSE_S = 2.0
TIMEOUT_S: Final = 30.0
_BLOCK: Final = 1 << 18
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
# What a server may answer differently a moment later.
_PASSING: Final = (408, 425, 429, 500, 502, 503, 504)


def download(
    name: str, layout: Layout, root: Path, splits: Sequence[str], progress: Progress
) -> list[Archive]:
    """Bring the archives of a corpus under its data root; what is whole already is left alone.

    Args:
        name: of the corpus, for messages.
        layout: its archives, and how to see what is there.
        root: the data root; made if it is not there.
        splits: the corpus's own names of the splits that are wanted, or ``all``; empty for those
            that the layout has as defaults.
        progress: where to report.

    Returns:
        The archives that were fetched and unpacked now.

    Raises:
        SuperbError: nothing may be downloaded, a split is unknown, the server or the disk does
            not play along, or an archive is not what its owners published.
    """
    if not layout.archives:
        raise SuperbError(f"{name} cannot be downloaded automatically. {layout.obtain}")
    known = list(dict.fromkeys(split for archive in layout.archives for split in archive.splits))
    for split in splits:
        if split not in (*known, ALL):
            raise unknown(f"split of {name}", split, (*known, ALL))
    chosen = set(splits or layout.defaults or known)
    if ALL in chosen:
        chosen = set(known)
    elif not splits and (others := [split for split in known if split not in chosen]):
        progress.note(f"not without --split: {', '.join(others)} (or {ALL})")
    wanted = [archive for archive in layout.archives if not chosen.isdisjoint(archive.splits)]
    base = layout.base(root) if layout.base is not None else root
    whole = whole_splits(layout, root)
    missing = []
    for archive in wanted:
        if whole.issuperset(archive.splits):
            progress.note(f"{', '.join(archive.splits)}: there already, left alone")
        else:
            missing.append(archive)
    _announce(missing, root, progress)
    for archive in missing:
        fetch(archive, root, progress, base)
    unpacked = {split for archive in missing for split in archive.splits}
    if short := sorted(unpacked - whole_splits(layout, root)):
        progress.warn(
            f"unpacked, but there is less of {', '.join(short)} under {root} than the archives "
            "should hold"
        )
    return missing


def whole_splits(layout: Layout, root: Path) -> set[str]:
    """The corpus's own splits that are under a root in their official size, by names alone."""
    try:
        survey = layout.survey(root)
    except (SuperbError, OSError):  # nothing there yet
        return set()
    counts = Counter(utterance.split for utterance in survey.utterances)
    return {
        split
        for split, official in layout.official.items()
        if counts[split] >= official.utterances and split not in survey.missing.values()
    }


def _announce(archives: Sequence[Archive], root: Path, progress: Progress) -> None:
    """Say how much is to come, and refuse at once what the disk cannot hold in the end."""
    sizes = [archive.size or 0 for archive in archives]
    if not any(sizes):
        return
    progress.note(f"{', '.join(map(file_name, archives))}: {_megabytes(sum(sizes))} to download")
    have = sum(_size(part_file(archive, root)) for archive in archives)
    # All that is unpacked, and beside it one archive at a time.
    _require_room(root, sum(sizes) + max(sizes) - have)


def fetch(archive: Archive, root: Path, progress: Progress, base: Path | None = None) -> None:
    """Download one archive, verify it and unpack it; an archive of that name in the root is used.

    Args:
        archive: which.
        root: the data root, where it grows.
        progress: where to report.
        base: the folder that `Archive.folder` is in; the root if None.

    Raises:
        SuperbError: as `download`.
    """
    own = root / file_name(archive)
    part = part_file(archive, root)
    target = (base or root) / archive.folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        if own.is_file():
            _verify(own, archive, progress)
            _unpack(own, target, archive.top, progress)
            return
        _download(archive, part, progress)
        _verify(part, archive, progress)
        _unpack(part, target, archive.top, progress)
        part.unlink()
    except KeyboardInterrupt:
        if part.is_file():
            progress.warn(f"stopped; {_kept(part)}")
        raise
    except OSError as error:
        if error.errno in _FULL:
            then = _kept(part) if part.is_file() else "then run the same command again"
            raise SuperbError(f"the disk that holds {root} is full. Make room; {then}") from error
        raise SuperbError(
            f"cannot write {error.filename or root}: {error.strerror or error}. Give a --data-root "
            "that can be written to"
        ) from error


def file_name(archive: Archive) -> str:
    """The last part of an archive's address."""
    return PurePosixPath(urlsplit(archive.url).path).name


def part_file(archive: Archive, root: Path) -> Path:
    """Where an archive grows while it is downloaded."""
    return root / f"{file_name(archive)}.part"


# Receiving -------------------------------------------------------------------------------------


class _CutError(Exception):
    """The connection failed in a way that may pass."""


def _download(archive: Archive, part: Path, progress: Progress) -> None:
    """Fill the part file, asking again where the connection is cut."""
    failures = 0
    while True:
        before = _size(part)
        try:
            _receive(archive, part, progress)
            return
        except _CutError as cut:
            failures = 1 if _size(part) > before else failures + 1
            if failures >= ATTEMPTS:
                raise SuperbError(f"{archive.url}: {cut}. {_kept(part)}") from cut
            progress.note(f"{file_name(archive)}: {cut}; asking again")
            time.sleep(PAUSE_S * failures)


def _receive(archive: Archive, part: Path, progress: Progress) -> None:
    """Ask once for what is missing of the part file, and append it.

    Raises:
        _CutError: for whatever may pass.
        SuperbError: for whatever will not.
    """
    have = _size(part)
    if have and have == archive.size:
        return
    if archive.size is not None and have > archive.size:
        have = 0  # no beginning of this archive
    response = _open(archive, part, have)
    if response is None:
        return
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            have = 0  # a server that cannot resume sends the whole
        length = response.headers["Content-Length"]
        total = archive.size if length is None else have + int(length)
        if archive.size is not None and total != archive.size:
            raise SuperbError(
                f"{archive.url} is {total} bytes long, its owners published {archive.size}: "
                "it has changed, or something in between answers instead of the server"
            )
        if total is not None:
            # Once for the rest of the archive, once for what is in it.
            _require_room(part.parent, total - have + total)
        have = _copy(response, part, have, total, progress)
    if total is not None and have < total:
        raise _CutError(f"the connection was cut after {have} of {total} bytes")


def _open(archive: Archive, part: Path, have: int) -> http.client.HTTPResponse | None:
    """Ask for what follows the first `have` bytes; None where the server says that was all."""
    headers = {"User-Agent": "superb"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(archive.url, headers=headers)
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_S)
        return response
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return None
            part.unlink()
            raise _CutError("the part file does not fit the server's, starting over") from error
        answer = f"the server answers {error.code} {error.reason}"
        if error.code in _PASSING:
            raise _CutError(answer) from error
        raise SuperbError(
            f"{archive.url}: {answer}. Fetch the archive elsewhere and put it at "
            f"{part.with_suffix('')}, then run the same command"
        ) from error
    except urllib.error.URLError as error:
        raise _CutError(f"cannot reach the server ({error.reason})") from error
    except (http.client.HTTPException, OSError) as error:
        raise _CutError(f"no answer from the server ({_why(error)})") from error


def _copy(
    response: http.client.HTTPResponse,
    part: Path,
    have: int,
    total: int | None,
    progress: Progress,
) -> int:
    """Write a response behind the first `have` bytes of the part file; bytes that it has then."""
    title = f"{part.stem}, MB"
    started, before = time.monotonic(), have
    with (
        part.open("ab" if have else "wb") as file,
        progress.bar(title, -(-(total or 0) // MEGABYTE)) as bar,
    ):
        bar.advance(have // MEGABYTE)
        while block := _read(response):
            file.write(block)
            steps = (have + len(block)) // MEGABYTE - have // MEGABYTE
            have += len(block)
            if steps:
                speed = (have - before) / MEGABYTE / max(time.monotonic() - started, 1e-3)
                bar.rate(f"{speed:.1f} MB/s")
                bar.advance(steps)
        if have == total and have % MEGABYTE:
            bar.advance()
    return have


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_BLOCK)
    except (http.client.HTTPException, OSError) as error:
        raise _CutError(f"the connection was lost ({_why(error)})") from error


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__


def _require_room(folder: Path, needed: int) -> None:
    there = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise SuperbError(
            f"the disk that holds {folder} has {_megabytes(free)} free, {_megabytes(needed)} are "
            "needed for archives and what is in them. Make room or give another --data-root"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _megabytes(size: int) -> str:
    return f"{size / MEGABYTE:,.0f} MB" if size >= 10 * MEGABYTE else f"{size:,} bytes"


def _kept(part: Path) -> str:
    return f"{part} keeps what came ({_megabytes(_size(part))}); the same command goes on with it"


# Verifying and unpacking -----------------------------------------------------------------------


def _verify(file: Path, archive: Archive, progress: Progress) -> None:
    """Raise when a file is not the archive that was published, and put a part file aside."""
    if archive.sha256 is None:
        progress.warn(
            f"{file_name(archive)}: nobody has published a checksum, so it is not verified"
        )
        return
    progress.note(f"{file_name(archive)}: verifying")
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found == archive.sha256:
        return
    what = (
        f"{file} is not the archive that was published: its SHA-256 is {found}, not "
        f"{archive.sha256}"
    )
    if file.suffix != ".part":
        raise SuperbError(f"{what}. Remove it, and the same command downloads it")
    aside = file.with_suffix(".wrong")
    file.replace(aside)
    raise SuperbError(f"{what}. It lies aside as {aside}; the same command downloads it again")


def _unpack(file: Path, target: Path, top: str, progress: Progress) -> None:
    """Unpack beside the target, then move it there, so that nothing half-unpacked looks whole."""
    name = file.name.removesuffix(".part")
    progress.note(f"{name}: unpacking in {target}")
    beside = file.parent / f".unpacking-{name}"
    shutil.rmtree(beside, ignore_errors=True)  # left by a run that was killed
    try:
        _extract(file, beside)
        target.parent.mkdir(parents=True, exist_ok=True)
        _move(_content(beside, {target.resolve().name, top}), target)
    except tarfile.FilterError as error:
        raise SuperbError(f"{file} is not unpacked, it is not safe: {error}") from error
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise SuperbError(
            f"{file} cannot be unpacked: {error}. Remove it, and the same command downloads it "
            "again"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _extract(file: Path, folder: Path) -> None:
    """Unpack a zip or tar archive that puts nothing outside of a new folder."""
    folder.mkdir()
    if not zipfile.is_zipfile(file):
        with tarfile.open(file) as archive:
            archive.extractall(folder, filter="data")
        return
    with zipfile.ZipFile(file) as archive:
        # zipfile would put such members somewhere inside; nobody honest has any.
        for name in archive.namelist():
            if name.startswith(("/", "\\")) or ".." in PurePosixPath(name.replace("\\", "/")).parts:
                raise SuperbError(
                    f"{file} is not unpacked, it is not safe: {name!r} would be put outside of "
                    "its folder"
                )
        _require_room(file.parent, sum(member.file_size for member in archive.infolist()))
        archive.extractall(folder)


def _content(unpacked: Path, tops: Collection[str]) -> Path:
    """What is to become the target: an archive may bring the folder that the user named along."""
    entries = list(unpacked.iterdir())
    if len(entries) == 1 and entries[0].is_dir() and entries[0].name in tops:
        return entries[0]
    return unpacked


def _move(source: Path, target: Path) -> None:
    """Move a file or folder; folders that are there take in what is new, files are replaced."""
    if source.is_dir() and target.is_dir():
        for entry in sorted(source.iterdir()):
            _move(entry, target / entry.name)
    else:
        source.replace(target)
