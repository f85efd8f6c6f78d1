"""Any object as a hash of its values and its code, for what must not be taken for another."""

from __future__ import annotations

import hashlib
import inspect
import uuid
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.core import UpstreamCard
from benchmark.source import OWN, VERSIONED, is_own, modules_source, update_code

if TYPE_CHECKING:
    from hashlib import _Hash

# In the metadata of a dataclass's field: a later version brought it, and its default is what was.
ADDED: Final = "added"
_CARD_FIELDS = ("layers", "dim", "hop_samples", "sample_rate", "min_samples")
_TELLING = frozenset({"training", "_forward_hooks", "_forward_pre_hooks"})
# Of torch's recurrent layers: weak references to weights, made anew by a call.
_PASSING = frozenset({"_flat_weight_refs"})


def source_sha256(thing: object) -> str:
    """Hash of the code, the card and the settings of an object with a card.

    Code is the files that its class and those it inherits from come from, and what these import,
    outside libraries and this project, whose versions stand for theirs. Settings are its
    attributes. Where code or a setting cannot be read, as for a class typed at a prompt, the hash
    never comes again.
    """
    kind = type(thing)
    digest = hashlib.sha256(f"{kind.__qualname__} {getattr(thing, 'card', None)!r}".encode())
    known = True
    for part in kind.__mro__:
        if part.__module__.partition(".")[0] in OWN | VERSIONED:
            continue
        try:
            digest.update(Path(inspect.getsourcefile(part) or "").read_bytes())
        except (OSError, TypeError):
            known = False
        digest.update(modules_source(part))
    settings = {
        name: value for name, value in getattr(thing, "__dict__", {}).items() if name != "card"
    }
    if not (update(digest, settings) and known):
        digest.update(uuid.uuid4().bytes)
    return digest.hexdigest()


def code_sha256(thing: object) -> str:
    """Hash of the code of an object's class alone; of this project's, what it does counts."""
    digest = hashlib.sha256()
    update_code(digest, type(thing))
    return digest.hexdigest()


def update(digest: _Hash, value: object, *, own_code: bool = True) -> bool:
    """Feed `value` to `digest`; False when it holds something that cannot be hashed.

    Args:
        digest: takes it.
        value: any.
        own_code: with what this project's code does, where a value's class or a function is of it.
    """
    return _Walk(digest, own_code).add(value)


@dataclass
class _Walk:
    """Through a value and all that it holds.

    Attributes:
        digest: takes it.
        own_code: as in `update`.
        seen: id → its number and the object, which is kept alive so that no id is used twice.
    """

    digest: _Hash
    own_code: bool
    seen: dict[int, tuple[int, object]] = field(default_factory=dict)

    def add(self, value: object) -> bool:
        digest, seen = self.digest, self.seen
        digest.update(type(value).__qualname__.encode() + b"\0")
        if value is None or isinstance(
            value, str | bytes | int | float | complex | bool | Path | Enum
        ):
            digest.update(repr(value).encode())
            return True
        if isinstance(value, torch.dtype | torch.device | np.dtype | slice | range):
            digest.update(repr(value).encode())
            return True
        if isinstance(value, Tensor):
            array = value.detach().cpu().contiguous()
            digest.update(f"{array.dtype}{tuple(array.shape)}".encode())
            digest.update(array.reshape(-1).view(torch.uint8).numpy().tobytes())
            return True
        if isinstance(value, np.ndarray) and value.dtype != object:
            digest.update(f"{value.dtype}{value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
            return True
        if isinstance(value, UpstreamCard):  # its name, its source and its notes change no feature
            return self._add_parts([getattr(value, name) for name in _CARD_FIELDS])
        if isinstance(value, tuple):  # whether two equal ones are one object is Python's choice
            return self._add_parts(value)
        if id(value) in seen:
            digest.update(f"again {seen[id(value)][0]}\0".encode())
            return True
        seen[id(value)] = (len(seen), value)
        if isinstance(value, dict):
            return self._add_parts([part for item in value.items() for part in item])
        if isinstance(value, list):
            return self._add_parts(value)
        if isinstance(value, set | frozenset):
            digest.update(repr(sorted(map(repr, value))).encode())
            return all(isinstance(item, str | bytes | int | float | Enum | tuple) for item in value)
        if isinstance(value, partial):
            return self._add_parts([value.func, value.args, value.keywords])
        if isinstance(value, weakref.ref):
            return self._add_parts([value()])
        if isinstance(value, MethodType):
            return self._add_parts([value.__func__, value.__self__])
        if isinstance(value, ModuleType):
            digest.update(value.__name__.encode())
            return True
        if isinstance(value, FunctionType | BuiltinFunctionType | type):
            own = is_own(value.__module__)
            digest.update(f"{'' if own else value.__module__}.{value.__qualname__}".encode())
            known = self._add_code(value) and not getattr(value, "__closure__", None)
            if isinstance(value, FunctionType):
                # two functions of one name differ by their place in the file, which in our own code
                # says nothing; there, only functions without a name can have one in common
                placeless = value.__module__.split(".")[0] in VERSIONED and not self.own_code
                if own or placeless:  # so does a place in a library, from release to release
                    known = known and "<" not in value.__qualname__
                else:
                    digest.update(repr(list(value.__code__.co_positions())).encode())
                defaults = [value.__defaults__, value.__kwdefaults__]
                known = known and self._add_parts(defaults)
            return known
        whole = type(value).__reduce__ is object.__reduce__  # else it holds more than attributes
        if whole and (hasattr(value, "__dict__") or is_dataclass(value)):
            known = self._add_code(type(value))
            if isinstance(value, nn.Module):
                # caches of torch's own bookkeeping say nothing of the output, hooks may
                parts: dict[str, object] = dict(value.named_parameters(recurse=False))
                parts.update(value.named_buffers(recurse=False))
                parts.update(value.named_children())
                hidden = set(nn.Module().__dict__) - _TELLING | _PASSING
                parts.update({k: v for k, v in vars(value).items() if k not in hidden})
            else:
                parts = dict(getattr(value, "__dict__", {}))
                if is_dataclass(value):
                    parts.update(
                        {field.name: getattr(value, field.name) for field in fields(value)}
                    )
                    for field in fields(value):
                        # what was computed before there was such a field has the hash it had
                        if ADDED in field.metadata and parts[field.name] == field.default:
                            del parts[field.name]
            pairs = [item for name in sorted(parts) for item in (name, parts[name])]
            return known and self._add_parts(pairs)
        return False

    def _add_parts(self, parts: Sequence[object]) -> bool:
        self.digest.update(f"{len(parts)}\0".encode())
        return all(map(self.add, parts))

    def _add_code(self, thing: type | FunctionType | BuiltinFunctionType) -> bool:
        return update_code(self.digest, thing, own=self.own_code)
