"""What an encoder's output depends on, as one hash: its weights, its settings and its code.

Features are stored under this hash. If anything that could change a feature changes, so must the
hash; when that cannot be made sure of, the features are not shared between runs at all.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import json
import sys
import uuid
import weakref
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.core import UpstreamCard

if TYPE_CHECKING:
    from hashlib import _Hash

# Libraries whose release can change a feature.
_LIBRARIES = ("torch", "torchaudio", "transformers", "soundfile")
_VERSIONED = frozenset(_LIBRARIES) | sys.stdlib_module_names
_OWN = frozenset({"superb", "benchmark", "upstreams", "downstreams", "leaderboard"})
_CARD_FIELDS = ("layers", "dim", "hop_samples", "sample_rate", "min_samples")
_TELLING = frozenset({"training", "_forward_hooks", "_forward_pre_hooks"})


def fingerprint(upstream: object) -> tuple[str, bool]:
    """Hash everything an upstream's output depends on.

    An attribute ``fingerprint: str`` of the upstream replaces the walk over its attributes.

    Returns:
        The hash, and whether it will be the same in the next run. It is not when the upstream
        holds an attribute that cannot be hashed; its features are then extracted anew each time.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps({name: version(name) for name in _LIBRARIES}).encode())
    declared = getattr(upstream, "fingerprint", None)
    if isinstance(declared, str):
        digest.update(f"{type(upstream).__qualname__}:{declared}".encode())
        _update_code(digest, type(upstream))  # source that cannot be read is vouched for
        digest.update(_source_of_modules(type(upstream)))
        return digest.hexdigest(), True
    stable = _update(digest, upstream, seen={})
    digest.update(_source_of_modules(type(upstream)))
    if not stable:
        digest.update(uuid.uuid4().bytes)
    return digest.hexdigest(), stable


def _source_of_modules(kind: type) -> bytes:
    """Hash of the files a plug-in's file imports, and what those import, outside libraries.

    Imports are read from the source, so it does not matter how or where a name is imported.
    """
    digest = hashlib.sha256()
    start = sys.modules.get(kind.__module__)
    waiting = [] if start is None else [(start.__name__, getattr(start, "__file__", None))]
    seen: set[str] = set()
    while waiting:
        name, file = waiting.pop()
        top = name.split(".")[0]
        if name in seen or top in _VERSIONED or top in _OWN or not file:
            continue
        seen.add(name)
        path = Path(file)
        if path.suffix != ".py" or _is_installed(path) or not path.is_file():
            continue
        source = path.read_bytes()
        digest.update(source)
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        waiting += [(other, _file_of(other)) for other in sorted(_imported(source, package))]
    return digest.digest()


def _imported(source: bytes, package: str) -> set[str]:
    """Modules that a source file names in import statements, wherever they stand."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*parents, node.module or ""]) if node.level else node.module or ""
            base = base.strip(".")
            names.add(base)
            # `from package import module` names a module too
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def _is_own(module: str | None) -> bool:
    return (module or "").split(".")[0] in _OWN


def _meaning(module: str) -> str:
    """Hash of what a module of ours does, and all that it imports from its own package.

    It is not changed by comments, documentation, layout, the order of functions and classes, where
    an import stands, or what a module is called and where it lies. What comes from another of our
    packages counts by its name alone, since no feature is computed there.
    """
    top = module.split(".")[0]
    file = _own_file(module)
    assert file is not None, module
    statements, imports = _parsed(file.read_bytes())
    parts: set[str] = set()
    for source, name, known_as in imports:
        if not _is_own(source):
            parts.add(f"{source} {name} {known_as}")
        elif source.split(".")[0] != top:
            parts.add(f"{name} {known_as}")
        elif _own_file(f"{source}.{name}"):  # a module
            parts.add(f"{_meaning(f'{source}.{name}')} {known_as}")
        else:
            parts.add(f"{_meaning(source)} {name} {known_as}")
    return hashlib.sha256("\n".join([statements, *sorted(parts)]).encode()).hexdigest()


def _own_file(module: str) -> Path | None:
    """Where a module of ours is, without importing it; None for what is no module."""
    top, *rest = module.split(".")
    path = Path(sys.modules[top].__file__ or "").parent.joinpath(*rest)
    files = (path.with_name(f"{path.name}.py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


@cache
def _parsed(source: bytes) -> tuple[str, frozenset[tuple[str, str, str]]]:
    """The statements of a file as text, and its imports: (module, name, name it is known by)."""
    tree = ast.parse(source)
    imports: set[tuple[str, str, str]] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports.update((alias.name, "", alias.asname or "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imports.update((node.module or "", a.name, a.asname or a.name) for a in node.names)
    named = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    definitions = sorted(_as_text(node) for node in tree.body if isinstance(node, named))
    rest = [_as_text(node) for node in tree.body if not isinstance(node, named)]
    return "\n".join(filter(None, definitions + rest)), frozenset(imports)


def _as_text(node: object) -> str:
    """Syntax without places, imports and strings that are statements; the same in every Python."""
    if isinstance(node, ast.Import | ast.ImportFrom) or (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ):
        return ""
    if isinstance(node, list):
        return f"[{', '.join(filter(None, map(_as_text, node)))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
    return f"{type(node).__name__}({', '.join(f'{name}={_as_text(v)}' for name, v in fields)})"


def _file_of(name: str) -> str | None:
    """Where a module's source is, without running it if it has not been imported."""
    if name in sys.modules:
        return getattr(sys.modules[name], "__file__", None)
    parent = name.rpartition(".")[0]
    if parent and not hasattr(sys.modules.get(parent), "__path__"):
        return None  # finding a submodule would import its parent
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    return spec.origin if spec is not None else None


def _is_installed(file: Path) -> bool:
    return "site-packages" in file.parts or "dist-packages" in file.parts


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


def _update(digest: _Hash, value: object, seen: dict[int, tuple[int, object]]) -> bool:
    """Feed `value` to `digest`; False when it holds something that cannot be hashed.

    `seen` numbers the objects under way and keeps them alive, so that no id is used twice.
    """
    digest.update(type(value).__qualname__.encode() + b"\0")
    if value is None or isinstance(value, str | bytes | int | float | complex | bool | Path | Enum):
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
        return _update_parts(digest, [getattr(value, name) for name in _CARD_FIELDS], seen)
    if isinstance(value, tuple):  # whether two equal ones are one object is Python's choice
        return _update_parts(digest, value, seen)
    if id(value) in seen:
        digest.update(f"again {seen[id(value)][0]}\0".encode())
        return True
    seen[id(value)] = (len(seen), value)
    if isinstance(value, dict):
        return _update_parts(digest, [part for item in value.items() for part in item], seen)
    if isinstance(value, list):
        return _update_parts(digest, value, seen)
    if isinstance(value, set | frozenset):
        digest.update(repr(sorted(map(repr, value))).encode())
        return all(isinstance(item, str | bytes | int | float | Enum | tuple) for item in value)
    if isinstance(value, partial):
        return _update_parts(digest, [value.func, value.args, value.keywords], seen)
    if isinstance(value, weakref.ref):  # torch's recurrent layers hold some to their weights
        return _update_parts(digest, [value()], seen)
    if isinstance(value, MethodType):
        return _update_parts(digest, [value.__func__, value.__self__], seen)
    if isinstance(value, ModuleType):
        digest.update(value.__name__.encode())
        return True
    if isinstance(value, FunctionType | BuiltinFunctionType | type):
        own = _is_own(value.__module__)
        digest.update(f"{'' if own else value.__module__}.{value.__qualname__}".encode())
        known = _update_code(digest, value) and not getattr(value, "__closure__", None)
        if isinstance(value, FunctionType):
            # two functions of one name differ by their place in the file, which in our own code
            # says nothing; there, only functions without a name can have one in common
            if own:
                known = known and "<" not in value.__qualname__
            else:
                digest.update(repr(list(value.__code__.co_positions())).encode())
            defaults = [value.__defaults__, value.__kwdefaults__]
            known = known and _update_parts(digest, defaults, seen)
        return known
    whole = type(value).__reduce__ is object.__reduce__  # else it holds more than attributes
    if whole and (hasattr(value, "__dict__") or is_dataclass(value)):
        known = _update_code(digest, type(value))
        if isinstance(value, nn.Module):
            # caches of torch's own bookkeeping say nothing of the output, hooks may
            parts: dict[str, object] = dict(value.named_parameters(recurse=False))
            parts.update(value.named_buffers(recurse=False))
            parts.update(value.named_children())
            hidden = set(nn.Module().__dict__) - _TELLING
            parts.update({k: v for k, v in vars(value).items() if k not in hidden})
        else:
            parts = dict(getattr(value, "__dict__", {}))
            if is_dataclass(value):
                parts.update({field.name: getattr(value, field.name) for field in fields(value)})
        pairs = [item for name in sorted(parts) for item in (name, parts[name])]
        return known and _update_parts(digest, pairs, seen)
    return False


def _update_parts(
    digest: _Hash, parts: Sequence[object], seen: dict[int, tuple[int, object]]
) -> bool:
    digest.update(f"{len(parts)}\0".encode())
    return all(_update(digest, part, seen) for part in parts)


def _update_code(digest: _Hash, thing: type | FunctionType | BuiltinFunctionType) -> bool:
    """Feed the source files a class or function comes from; False when they cannot be read.

    The standard library and the libraries above are named by their versions alone, and of our own
    code counts what it does (`_meaning`).
    """
    classes = thing.__mro__ if isinstance(thing, type) else (thing,)
    for part in classes:
        module = sys.modules.get(getattr(part, "__module__", "") or "")
        name = getattr(module, "__name__", "")
        if _is_own(name):
            digest.update(_meaning(name).encode())
            continue
        if name.split(".")[0] in _VERSIONED:
            continue
        try:
            file = Path(inspect.getsourcefile(part) or "")
        except TypeError:  # built in
            continue
        except OSError:  # typed at a prompt
            return False
        if file.is_file():
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return True
