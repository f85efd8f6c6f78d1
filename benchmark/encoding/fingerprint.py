"""What an encoder is, as two hashes: of all that its output depends on, and of what it has learnt.

Features are stored under the first, of weights, settings, code and libraries. If anything that
could change a feature changes, so must the hash; when that cannot be made sure of, the features are
not shared between runs at all. The second stays the same where another version of this project or
of a library computes the same encoder, so that its scores still stand in one row.
"""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from functools import cached_property
from importlib.metadata import version

from torch import nn

from benchmark.identity import update
from benchmark.source import LIBRARIES, modules_source, update_code


def fingerprint(upstream: object) -> tuple[str, bool]:
    """Hash everything an upstream's output depends on.

    An attribute ``fingerprint: str`` of the upstream replaces the walk over its attributes.

    Returns:
        The hash, and whether it will be the same in the next run. It is not when the upstream
        holds an attribute that cannot be hashed; its features are then extracted anew each time.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps({name: version(name) for name in LIBRARIES}).encode())
    declared = getattr(upstream, "fingerprint", None)
    if isinstance(declared, str):
        digest.update(f"{type(upstream).__qualname__}:{declared}".encode())
        update_code(digest, type(upstream))  # source that cannot be read is vouched for
        digest.update(modules_source(type(upstream)))
        return digest.hexdigest(), True
    stable = update(digest, upstream)
    digest.update(modules_source(type(upstream)))
    if not stable:
        digest.update(uuid.uuid4().bytes)
    return digest.hexdigest(), stable


def weights_sha256(upstream: object) -> str | None:
    """Hash of an encoder's weights and settings, and of its code where that is a plug-in's.

    An attribute ``weights_sha256: str`` of the upstream replaces the walk over its attributes, and
    so does ``fingerprint`` where it stands as near to the object or nearer: a class that inherits
    the first and gives its own of the second is told by that.

    Returns:
        The hash; None when the upstream holds an attribute that cannot be hashed.
    """
    digest = hashlib.sha256()
    near = min(("weights_sha256", "fingerprint"), key=lambda name: _distance(upstream, name))
    declared = getattr(upstream, near, None)
    stable = True
    if isinstance(declared, str):
        digest.update(f"{type(upstream).__qualname__}:{declared}".encode())
        update(digest, getattr(upstream, "card", None), own_code=False)
        update_code(digest, type(upstream), own=False)
    else:
        stable = update(digest, upstream, own_code=False)
    digest.update(modules_source(type(upstream)))
    return digest.hexdigest() if stable else None


def _distance(upstream: object, name: str) -> float:
    """How far from an object an attribute is defined: by itself, its class, one that inherits."""
    kinds = type(upstream).__mro__
    found = next((place for place, kind in enumerate(kinds) if name in vars(kind)), None)
    if found is not None and isinstance(vars(kinds[found])[name], cached_property):
        return found  # the object has it only once it was asked for
    if name in getattr(upstream, "__dict__", {}):
        return -1
    return math.inf if found is None else found


def modules_of(upstream: object) -> list[nn.Module]:
    """The torch module an upstream is, or those it holds."""
    if isinstance(upstream, nn.Module):
        return [upstream]
    held = getattr(upstream, "__dict__", {}).values()
    return [value for value in held if isinstance(value, nn.Module)]


def count_parameters(upstream: object) -> int | None:
    """Weights in the torch modules an upstream is or holds; None if it holds none."""
    modules = modules_of(upstream)
    if not modules:
        return None
    parameters = {id(p): p.numel() for module in modules for p in module.parameters()}
    return sum(parameters.values())
