"""Lazy names: ``"module:attribute"`` strings, and the entry points of installed plug-ins.

A table of such strings can be listed without importing what it names, so ``superb list`` never
waits for torch.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from importlib.metadata import EntryPoint
from typing import Any

from benchmark.errors import SuperbError


def load_attribute(target: str) -> Any:  # noqa: ANN401 - a module may define anything
    """Import a module and return one of its attributes.

    Args:
        target: ``"package.module:attribute"``. Every part must be a plain identifier and none may
            begin with two underscores, so a name that a user typed reaches nothing but what the
            module itself defines.

    Raises:
        SuperbError: the form is wrong, the module does not exist or fails to import, or it has no
            such attribute; the message says which, with the cause.
    """
    module_name, separator, attribute = target.partition(":")
    parts = [*module_name.split("."), attribute]
    if not separator or not all(part.isidentifier() for part in parts) or attribute[:2] == "__":
        raise SuperbError(
            f"{target!r} is no import target; write package.module:Name, e.g. my_package.model:Mine"
        )
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
        raise SuperbError(
            f"module {module_name!r} has no {attribute!r}; it defines {', '.join(public) or 'none'}"
        )
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        raise SuperbError(f"module {module_name!r} has no {attribute!r}: {error}") from error


def entry_points(group: str) -> dict[str, EntryPoint]:
    """Entry points of installed distributions by name; nothing is imported.

    Args:
        group: e.g. ``"superb.upstreams"``.

    Raises:
        SuperbError: two distributions claim the same name.
    """
    points: dict[str, EntryPoint] = {}
    for point in importlib.metadata.entry_points(group=group):
        known = points.setdefault(point.name, point)
        if known.value != point.value:
            raise SuperbError(
                f"two installed packages register {point.name!r} in {group}: {known.value} and "
                f"{point.value}; uninstall one of them"
            )
    return points
