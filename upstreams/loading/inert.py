"""Training checkpoints as inert data: nothing that such a file names is imported or called.

`files.read_pickle` is for files that ought to hold weights alone: there, torch refuses whatever is
more than that. A training checkpoint (of fairseq, its heirs, Lightning, s3prl) holds settings and
state beside its weights, as objects of classes that need not be installed. Here they are read for
what they say: `pickled` follows their instructions without a class, `saved` finds the numbers, and
this module gives the few kinds that are known their meaning. What it does not know is a `Record`.

torch's own reader for weights alone, with stand-ins for unknown classes, would not do: it knows no
protocol beside 2, puts items into no class but three, and lists no names of files before zip.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy
import torch
from torch import Tensor

from benchmark.errors import UpstreamError
from upstreams.loading.pickled import Made, Name, RefusedError, hashable
from upstreams.loading.saved import FormError, Stored, read_saved

_DICTS = frozenset({"collections.OrderedDict", "collections.defaultdict", "collections.Counter"})
_SETTINGS = frozenset({"argparse.Namespace", "types.SimpleNamespace"})
_BYTES = frozenset({"_codecs.encode", "builtins.bytearray"})
_PARAMETERS = frozenset(
    {
        "torch.nn.parameter.Parameter",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
    }
)
_TENSORS = frozenset(f"torch._utils._rebuild_tensor{version}" for version in ("", "_v2", "_v3"))


@dataclass(frozen=True)
class Record:
    """An object of a class that was never imported, as data.

    A class or function that is only named is one without arguments and state.

    Attributes:
        kind: full name of its class, or of the function that would have made it.
        arguments: what that was called with; keywords, if any, as a last one.
        state: what would have been given to ``__setstate__`` or ``__dict__``; None if nothing.
    """

    kind: str
    arguments: tuple[object, ...]
    state: object


def read_inert(path: Path) -> object:
    """Read a file of ``torch.save`` without running or importing anything of its choosing.

    Args:
        path: of either layout of torch.save, of any protocol of pickle, of Python 2 or 3.

    Returns:
        Dicts, lists, tuples, sets, numbers, strings, bytes, tensors, `torch.Size`, `torch.dtype`,
        `torch.device`, and `Record` for any other object. Dictionaries and lists of any class are
        plain ones; ``argparse.Namespace`` and the containers of omegaconf are what they hold;
        members of enumerations are their values, paths are strings. What is shared or circular in
        the file is so here. Tensors are on the CPU, without gradients, and mapped from the file:
        copy what is to outlive a change of it.

    Raises:
        UpstreamError: it is missing, damaged, or no such file, or asks for a call that no honest
            checkpoint needs, which is named.
    """
    if not path.is_file():
        raise UpstreamError(f"there is no file {path}")
    try:
        saved, storage = read_saved(path)
        return _Meaning(storage).of(saved)
    except UpstreamError:
        raise
    except OSError as error:
        raise UpstreamError(f"cannot read {path}: {error}") from error
    except FormError as error:
        raise UpstreamError(f"{path} {error}") from error
    except RefusedError as error:
        raise UpstreamError(
            f"{path} {error}, which is refused: nothing in it was run. If you trust its authors, "
            "load it with their program and save its weights as safetensors; if you do not, load "
            "it nowhere"
        ) from error
    except RecursionError as error:
        raise UpstreamError(f"{path} nests its content too deeply to be a checkpoint") from error
    except Exception as error:  # a damaged or hostile file can raise anything
        reason = next(iter(str(error).splitlines()), "no reason given")[:200]
        raise UpstreamError(
            f"{path} is damaged or cut off ({type(error).__name__}: {reason}); fetch it again"
        ) from error


class _Meaning:
    """What the objects of one file mean; each is asked for once, however often it is referred to.

    Args:
        storage: maps numbers of the file.
    """

    def __init__(self, storage: Callable[[Stored], torch.UntypedStorage]) -> None:
        self._storage = storage
        self._known: dict[int, object] = {}

    def of(self, value: object) -> object:
        """The plain form of what `pickled.follow` gave."""
        if isinstance(value, Name):
            return _dtype(value) or Record(value.name, (), None)
        if isinstance(value, Stored):
            return torch.empty(0, dtype=value.dtype).set_(self._storage(value))
        if not isinstance(value, dict | list | tuple | set | frozenset | Made):
            return value
        if id(value) not in self._known:
            self._known[id(value)] = self._new(value)
        return self._known[id(value)]

    def _new(self, value: object) -> object:
        match value:
            case dict():
                return self._dict(value, value.items())
            case list():
                return self._list(value, value)
            case tuple():
                return tuple(self.of(part) for part in value)
            case set() | frozenset():
                return type(value)(_key(self.of(part)) for part in value)
            # Classes whose meaning is known.
            case Made(name) if name in _TENSORS:
                return self._tensor(*value.arguments)
            case Made("torch._tensor._rebuild_from_type_v2", (Name(name), _, tuple(parts), *_)) if (
                name in _TENSORS
            ):
                return self._tensor(*parts)
            case Made(name, (data, *_)) if name in _PARAMETERS:
                return self.of(data)
            case Made("torch.Size", (size,)):
                return torch.Size(_counts(size))
            case Made("torch.device", (str(kind), *index)):
                return torch.device(kind, *map(_count, index))
            case Made("builtins.set" | "builtins.frozenset", (list(parts) | tuple(parts),)):
                made = {_key(self.of(part)) for part in parts}
                return made if value.kind == "builtins.set" else frozenset(made)
            case Made(name, (str(text), "latin1" | "latin-1")) if name in _BYTES:
                return text.encode("latin-1")
            case Made("builtins.bytearray", (bytes() | Made() as raw,)):
                return self.of(raw)
            case Made("builtins.bytearray" | "builtins.bytes", ()):
                return b""
            case Made("builtins.complex", (float(real), float(imaginary))):
                return complex(real, imaginary)
            case Made(name, (Made("numpy.dtype", (str(code), *_), state=tuple(form)), raw)) if (
                name.endswith(".multiarray.scalar")
            ):
                return self._scalar(value, code, form[1], self.of(raw))
            case Made(name, parts) if name.startswith("pathlib."):
                flavour = PureWindowsPath if "Windows" in name else PurePosixPath
                return str(flavour(*map(_text, parts)))
            case Made(name, state=dict(state)) if name.startswith("omegaconf."):
                for content in ("_content", "_val"):
                    if content in state:
                        return self.of(state[content])
                return self._record(value)
            case Made(name, state=dict(state)) if name in _SETTINGS:
                return self._dict(value, state.items())
            # Classes that are known by what was done with them.
            case Made(name, arguments) if value.items or name in _DICTS:
                given = [part for part in arguments if isinstance(part, dict | list)]
                return self._dict(
                    value,
                    *(part.items() if isinstance(part, dict) else part for part in given),
                    value.items.items(),
                )
            case Made(name, arguments) if value.members or name == "collections.deque":
                lists = [part for part in arguments if isinstance(part, list)]
                return self._list(value, *lists, value.members)
            case Made(_, (str(member) | int(member) | float(member),), called=True, state=None):
                return member  # of an enumeration, or a value made of its text
            case Made():
                return self._record(value)
        raise AssertionError(value)

    # What may hold itself is known before it is filled.

    def _dict(self, source: object, *parts: Iterable[Any]) -> dict[object, object]:
        made: dict[object, object] = {}
        self._known[id(source)] = made
        for part in parts:
            made.update((_key(self.of(key)), self.of(value)) for key, value in part)
        return made

    def _list(self, source: object, *parts: list[object]) -> list[object]:
        made: list[object] = []
        self._known[id(source)] = made
        for part in parts:
            made.extend(map(self.of, part))
        return made

    def _record(self, made: Made) -> Record:
        record = object.__new__(Record)
        self._known[id(made)] = record
        for name in ("kind", "arguments", "state"):  # it is frozen, and may hold itself
            object.__setattr__(record, name, self.of(getattr(made, name)))
        return record

    def _tensor(
        self, stored: object, offset: object, size: object, stride: object, *more: object
    ) -> Tensor:
        """A tensor from what torch's functions that rebuild one are called with.

        Raises:
            ValueError: they are not, or the tensor would reach beyond its storage.
        """
        if not isinstance(stored, Stored):
            raise ValueError("a tensor of something else than numbers")
        dtype = next((found for part in more if (found := _dtype(part))), stored.dtype)
        if any(isinstance(part, dict) and part for part in more):
            raise ValueError("a tensor that is a conjugate or negative of its numbers")
        sizes, strides, start = _counts(size), _counts(stride), _count(offset)
        last = start + sum((count - 1) * step for count, step in zip(sizes, strides, strict=True))
        if 0 not in sizes and (last + 1) * dtype.itemsize > stored.size:
            raise ValueError(f"a tensor that reaches beyond its storage {stored.key!r}")
        return torch.empty(0, dtype=dtype).set_(self._storage(stored), start, sizes, strides)

    def _scalar(self, made: Made, code: str, order: object, raw: object) -> object:
        """A number of numpy."""
        raw = raw.encode() if isinstance(raw, str) else raw  # of Python 2
        if not re.fullmatch(r"[biufc]\d+", code) or not isinstance(raw, bytes):
            return self._record(made)
        kind = numpy.dtype(code).newbyteorder(">" if order == ">" else "<")
        (number,) = numpy.frombuffer(raw, kind)
        return number.item()


def _dtype(named: object) -> torch.dtype | None:
    """``torch.float32``, where a file names it."""
    package, _, name = named.name.rpartition(".") if isinstance(named, Name) else ("", "", "")
    found = vars(torch).get(name) if package == "torch" else None
    return found if isinstance(found, torch.dtype) else None


def _count(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} where a count must be")
    return value


def _counts(value: object) -> list[int]:
    if not isinstance(value, tuple | list):
        raise ValueError(f"{value!r} where counts must be")
    return [_count(part) for part in value]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a path that is no text")
    return value


def _key(value: object) -> object:
    """The value, if it can be a key without much work."""
    return hashable(value, lambda part: vars(part).values() if isinstance(part, Record) else ())
