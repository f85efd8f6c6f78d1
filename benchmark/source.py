"""The source of a user's object as one hash: another version of a file is another run."""

from __future__ import annotations

import hashlib
import inspect
import uuid
from pathlib import Path

from benchmark.encoding.fingerprint import _OWN, _VERSIONED, _source_of_modules, _update


def source_sha256(thing: object) -> str:
    """Hash of the code and the settings of a plug-in's object.

    Code is the files that its class and those it inherits from come from, and what these import,
    outside libraries and this project; settings are its attributes, without its card.

    Returns:
        "" for an object of this project, whose version and commit say it all. Where code or a
        setting cannot be read, as for a class typed at a prompt, a hash that never comes again.
    """
    kind = type(thing)
    if _top(kind) in _OWN:
        return ""
    digest = hashlib.sha256(kind.__qualname__.encode())
    known = True
    for part in kind.__mro__:
        if _top(part) in _OWN | _VERSIONED:
            continue
        try:
            digest.update(Path(inspect.getsourcefile(part) or "").read_bytes())
        except (OSError, TypeError):
            known = False
        digest.update(_source_of_modules(part))
    settings = {
        name: value for name, value in getattr(thing, "__dict__", {}).items() if name != "card"
    }
    if not (_update(digest, settings, seen={}) and known):
        digest.update(uuid.uuid4().bytes)
    return digest.hexdigest()


def _top(kind: type) -> str:
    return kind.__module__.partition(".")[0]
