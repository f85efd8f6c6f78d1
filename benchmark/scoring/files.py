"""JSON files that are whole or not there, and tell when they were changed since."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmark.errors import SuperbError

PARTIAL: Final = ".tmp"
# Line breaks inside JSON strings are escaped, so this mark is found in no string.
_LAST: Final = b',\n "checksum": '


def signed(document: Mapping[str, Any]) -> bytes:
    """The file: the document, and last the checksum of all that stands before it."""
    text = json.dumps(document, indent=1, allow_nan=False)
    return _with_checksum(text.removesuffix("\n}").encode())


def intact(data: bytes) -> bool:
    """Whether a file is as `signed` made it."""
    return data == _with_checksum(data.rpartition(_LAST)[0])


def _with_checksum(text: bytes) -> bytes:
    return text + _LAST + f'"{hashlib.sha256(text).hexdigest()}"\n}}\n'.encode()


def replace_together(files: Sequence[tuple[Path, bytes]]) -> None:
    """Give all files their content, in order, once all of it is on disk."""
    # Two processes may write the same run at once; each has temporary files of its own.
    token = uuid.uuid4().hex[:12]
    pairs = [(path.with_name(f".{path.name}.{token}{PARTIAL}"), path) for path, _ in files]
    try:
        for (temporary, _), (_, data) in zip(pairs, files, strict=True):
            with temporary.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        for temporary, path in pairs:
            temporary.replace(path)
    finally:
        for temporary, _ in pairs:
            temporary.unlink(missing_ok=True)


@contextmanager
def explained(path: Path, what: str = "result") -> Iterator[None]:
    """Tell a user what to do where a file cannot be written."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SuperbError(
                f"the disk is full: the {what} {path} was not written. Free some space and run "
                "the same command again, or choose another disk with --output."
            ) from error
        raise SuperbError(
            f"the {what} {path} cannot be written: {error.strerror}. "
            "Choose a folder that you can write to with --output."
        ) from error
