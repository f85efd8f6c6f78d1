"""Names that stand for objects: import targets, files of a user's own, and installed plug-ins.

A table of ``"module:attribute"`` strings can be listed without importing what it names, so a list
never waits for torch. What a user types is found in the same way, whatever it is: a class in a file
(``path.py:Name``), in an importable module (``package.module:Name``), or behind an entry point.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmark.errors import SuperbError


def is_target(text: str) -> bool:
    """Whether a text has the form ``path.py:Name`` or ``package.module:Name``."""
    module, separator, attribute = text.rpartition(":")
    parts = [*module.split("."), attribute]
    return _is_file(text) or (bool(separator) and all(part.isidentifier() for part in parts))


def load_object(target: str, what: str = "object") -> object:
    """What a user's target names, ready for use: a class or function is called without arguments.

    An object with an attribute ``card``, or one that cannot be called, is taken as it is.

    Args:
        target: see `load_attribute`.
        what: it should be, for messages: ``"upstream"``.

    Raises:
        SuperbError: there is nothing of that name, it wants arguments, or the user's code fails;
            the message then has the cause and the line of the user's file.
    """
    thing = load_attribute(target)
    if (not isinstance(thing, type) and hasattr(thing, "card")) or not callable(thing):
        return thing
    return made(target, thing, what)


def made(target: str, thing: Callable[[], object], what: str) -> object:
    """What a user's class or function gives when it is called without arguments.

    Args:
        target: where it is from, for messages.
        thing: that class or function.
        what: it should give, for messages.

    Raises:
        SuperbError: it wants arguments, or the user's code fails.
    """
    _check_takes_nothing(target, thing, what)
    with errors_of(target):
        return thing()


@contextmanager
def errors_of(target: str) -> Iterator[None]:
    """Turn what a user's code raises into one error with the cause and the line of their file."""
    try:
        yield
    except SuperbError:
        raise
    except (Exception, SystemExit) as error:
        path = _path(target) if _is_file(target) else None
        raise SuperbError(f"{target}: {cause(error, path)}") from error


def load_attribute(target: str) -> Any:  # noqa: ANN401 - a module may define anything
    """Import a module, or run a file as one, and return one of its attributes as it is.

    Args:
        target: ``"package.module:attribute"`` or ``"path.py:attribute"``. An attribute and the
            parts of a module's name must be plain identifiers, and the attribute may not begin with
            two underscores, so a name that a user typed reaches nothing but what the module itself
            defines.

    Raises:
        SuperbError: the form is wrong, the module or file does not exist or fails to import, or it
            has no such attribute; the message says which, with the cause.
    """
    module_name, _, attribute = target.rpartition(":")
    if not is_target(target) or not attribute.isidentifier() or attribute.startswith("__"):
        raise SuperbError(
            f"{target!r} is no import target; write package.module:Name, e.g. my_package.model:Mine"
            ", or my_file.py:Name"
        )
    if _is_file(target):
        module = _run_file(target, _path(target))
    else:
        try:
            module = importlib.import_module(module_name)
        except Exception as error:  # a module may raise anything while it is imported
            raise SuperbError(
                f"cannot import {module_name!r} for {target!r}: {type(error).__name__}: {error}. "
                "Is it installed in this Python, and does it import on its own?"
            ) from error
    found = vars(module)
    if attribute not in found and not hasattr(module, "__getattr__"):
        public = sorted(name for name in found if not name.startswith("_"))
        own = [name for name in public if getattr(found[name], "__module__", "") == module.__name__]
        raise SuperbError(
            f"{module_name!r} has no {attribute!r}; it defines {', '.join(own or public) or 'none'}"
        )
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        raise SuperbError(f"{module_name!r} has no {attribute!r}: {error}") from error


def plugins(group: str, taken: Container[str] = (), what: str = "object") -> dict[str, str]:
    """Entry points of installed distributions: name → target; nothing is imported.

    Args:
        group: e.g. ``"superb.upstreams"``.
        taken: names that are built in.
        what: an entry of the group is, for messages.

    Raises:
        SuperbError: two distributions claim the same name, or one claims a name that is taken.
    """
    targets: dict[str, str] = {}
    for point in importlib.metadata.entry_points(group=group):
        if point.name in taken:
            package = point.dist.name if point.dist else "an installed package"
            raise SuperbError(
                f"{package} registers {what} {point.name!r} ({point.value}), which is built in; "
                "rename its entry point or uninstall it"
            )
        known = targets.setdefault(point.name, point.value)
        if known != point.value:
            raise SuperbError(
                f"two installed packages register {what} {point.name!r}: {known} and "
                f"{point.value}; uninstall one of them"
            )
    return targets


def packages(group: str) -> dict[str, str]:
    """Entry points of installed distributions: name → name of the distribution."""
    points = importlib.metadata.entry_points(group=group)
    return {point.name: point.dist.name if point.dist else "?" for point in points}


def cause(error: BaseException, path: Path | None = None) -> str:
    """The error in a user's code, with the last line of theirs that was running.

    Args:
        error: as raised.
        path: their file; None for whatever code was running last.
    """
    where = ""
    if isinstance(error, SyntaxError):
        where = f" at {error.filename}:{error.lineno}"
    elif frames := [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path) or (path is None and frame.filename != __file__)
    ]:
        where = f" at {frames[-1].filename}:{frames[-1].lineno}"
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    if isinstance(error, SuperbError):  # one of ours, which says it all
        return f"{message}{where}"
    return f"{type(error).__name__}: {message}{where}"


def _is_file(target: str) -> bool:
    return target.rpartition(":")[0].endswith(".py")


def _path(target: str) -> Path:
    return Path(target.rpartition(":")[0]).expanduser().resolve()


def _run_file(target: str, path: Path) -> Any:  # noqa: ANN401 - see `load_attribute`
    """Run a user's file as a module of a name of its own."""
    if not path.is_file():
        raise SuperbError(f"{target}: there is no file {path}")
    # Private, so that a file called json.py shadows nothing; registered, so that dataclasses,
    # pickling and source look-ups find it.
    module_name = f"_superb_file_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise SuperbError(f"{target}: Python cannot import {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    if str(path.parent) not in sys.path:  # last, so that a neighbour shadows no library
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        raise SuperbError(f"{target}: {cause(error, path)}") from error
    return module


def _check_takes_nothing(target: str, thing: Callable[..., object], what: str) -> None:
    """Refuse a class or function with arguments that have no default."""
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):  # some of what is written in C does not say
        return
    try:
        signature.bind()
    except TypeError as error:
        raise SuperbError(
            f"{target} is called without arguments: {error}. Give it a default, or name a function "
            f"without arguments that returns the {what}"
        ) from error
