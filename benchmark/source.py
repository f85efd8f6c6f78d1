"""Source code as a hash: what a class or function does, and what its file imports.

Of a plug-in counts every file of its own, of this project what the code does, of a library its
version.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hashlib import _Hash

# Libraries whose release can change a feature.
LIBRARIES: Final = ("torch", "torchaudio", "transformers", "soundfile")
VERSIONED: Final = frozenset(LIBRARIES) | sys.stdlib_module_names
OWN: Final = frozenset({"superb", "benchmark", "upstreams", "downstreams", "leaderboard"})


def update_code(
    digest: _Hash, thing: type | FunctionType | BuiltinFunctionType, *, own: bool = True
) -> bool:
    """Feed the source files a class or function comes from; False when they cannot be read.

    The standard library and the libraries above are named by their versions alone, and of our own
    code counts what it does (`_meaning`), or nothing where `own` is False.
    """
    classes = thing.__mro__ if isinstance(thing, type) else (thing,)
    for part in classes:
        module = sys.modules.get(getattr(part, "__module__", "") or "")
        name = getattr(module, "__name__", "")
        if is_own(name):
            digest.update(_meaning(name).encode() if own else b"")
            continue
        if name.split(".")[0] in VERSIONED:
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


def modules_source(kind: type) -> bytes:
    """Hash of the files a plug-in's file imports, and what those import, outside libraries.

    Imports are read from the source, so it does not matter how or where a name is imported. Of
    installed modules only those count that were installed together with the plug-in.
    """
    digest = hashlib.sha256()
    start = sys.modules.get(kind.__module__)
    together = _installed_with(start)
    waiting = [] if start is None else [(start.__name__, getattr(start, "__file__", None))]
    seen: set[str] = set()
    while waiting:
        name, file = waiting.pop()
        top = name.split(".")[0]
        if name in seen or top in VERSIONED or top in OWN or not file:
            continue
        seen.add(name)
        path = Path(file)
        if path.suffix != ".py" or not path.is_file():
            continue
        if _is_installed(path) and top not in together:
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


def is_own(module: str | None) -> bool:
    """Whether a module of this name belongs to this project."""
    return (module or "").split(".")[0] in OWN


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
        if not is_own(source):
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


def _installed_with(module: ModuleType | None) -> frozenset[str]:
    """Top-level names of the distribution that an installed module comes from."""
    file = getattr(module, "__file__", None)
    if module is None or not file or not _is_installed(Path(file)):
        return frozenset()
    top = module.__name__.partition(".")[0]
    of_name = packages_distributions()
    own = set(of_name.get(top, ()))
    return frozenset({top, *(name for name, found in of_name.items() if own & set(found))})


def own_sources() -> str:
    """Hash of all files of this project, as they are here."""
    digest = hashlib.sha256()
    for package in sorted(OWN):
        spec = importlib.util.find_spec(package)
        folder = Path(spec.origin).parent if spec is not None and spec.origin else Path(package)
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{package}/{path.relative_to(folder).as_posix()}".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _is_installed(file: Path) -> bool:
    return "site-packages" in file.parts or "dist-packages" in file.parts
