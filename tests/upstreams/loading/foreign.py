"""Files that were saved where other libraries were installed: their classes, while one saves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from types import ModuleType
from typing import Any


class Plain:
    """A class without anything of its own; keywords become its attributes."""

    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)


@contextmanager
def foreign(module: str, *names: str, base: type = Plain, **more: Any) -> Iterator[Any]:
    """Classes of a library that is not installed; they are gone again afterwards.

    Args:
        module: ``"fairseq.data.dictionary"``.
        names: of classes in it.
        base: theirs.
        more: other members of the module, by their names.

    Yields:
        The class, or a tuple of them if there are several.
    """
    parts = module.split(".")
    packages = [".".join(parts[: end + 1]) for end in range(len(parts))]
    before = {package: sys.modules.get(package) for package in packages}
    try:
        for package in packages:
            if before[package] is None:
                sys.modules[package] = ModuleType(package)
        made = [type(name, (base,), {"__module__": module}) for name in names]
        for name, member in {**dict(zip(names, made, strict=True)), **more}.items():
            member.__module__ = module
            member.__qualname__ = name
            setattr(sys.modules[module], name, member)
        yield made[0] if len(made) == 1 else tuple(made)
    finally:
        for package, kept in before.items():
            if kept is None:
                sys.modules.pop(package, None)


@contextmanager
def omegaconf() -> Iterator[Any]:
    """``omegaconf()`` gives ``config(value)``: settings in the form that omegaconf 2 pickles them.

    Containers keep nodes under ``_content``, nodes a value under ``_val``; each knows its parent,
    and says in ``_metadata`` of which type it was declared to be.
    """
    with (
        foreign("omegaconf.dictconfig", "DictConfig") as of_dict,
        foreign("omegaconf.listconfig", "ListConfig") as of_list,
        foreign("omegaconf.nodes", *_NODES.values(), "AnyNode") as of_nodes,
        foreign("omegaconf.base", "Metadata", "ContainerMetadata") as (of_node, of_container),
    ):
        nodes = {kind.__name__: kind for kind in of_nodes}

        def config(value: Any, parent: Any = None, key: Any = None) -> Any:
            about = {"optional": True, "key": key, "flags": {}, "flags_root": False}
            about |= {"ref_type": Any, "object_type": type(value), "resolver_cache": {}}
            if not isinstance(value, dict | list):
                name = next((n for kind, n in _NODES.items() if isinstance(value, kind)), "AnyNode")
                return nodes[name](_metadata=of_node(**about), _parent=parent, _val=value)
            made = (of_dict if isinstance(value, dict) else of_list)(
                _metadata=of_container(**about, key_type=Any, element_type=Any), _parent=parent
            )
            if isinstance(value, dict):
                made._content = {name: config(part, made, name) for name, part in value.items()}
            else:
                made._content = [config(part, made, at) for at, part in enumerate(value)]
            return made

        yield config


_NODES = {
    bool: "BooleanNode",
    Enum: "EnumNode",
    int: "IntegerNode",
    float: "FloatNode",
    str: "StringNode",
}
