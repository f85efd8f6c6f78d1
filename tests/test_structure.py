"""Who may import whom: between the folders, between modules, and within `upstreams`.

Imports are read from the source, so those inside functions and those for types alone count too.
"""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What each folder may import beside itself.
ARROWS = {
    "benchmark": set(),
    "upstreams": {"benchmark"},
    "downstreams": {"benchmark"},
    "leaderboard": {"benchmark"},
    "superb": {"benchmark", "upstreams", "downstreams", "leaderboard"},
}


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(file): file for top in ARROWS for file in (ROOT / top).rglob("*.py")}


def imported(module: str, source: str) -> set[str]:
    """The modules of ours that a source file imports, other than its own packages."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: write the whole name in place of a relative import"
            for alias in node.names:  # `from package import module`, or a name of a module
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in FILES else str(node.module))
    return {name for name in found if name in FILES and name != module}


IMPORTS = {module: imported(module, file.read_text("utf-8")) for module, file in FILES.items()}


def arrows(start: str, end: str) -> list[str]:
    """Imports of what lies under one package by what lies under another: "module → module"."""
    return [
        f"{module} → {other}"
        for module, others in IMPORTS.items()
        for other in sorted(others)
        if f"{module}.".startswith(f"{start}.") and f"{other}.".startswith(f"{end}.")
    ]


@pytest.mark.parametrize("folder", ARROWS)
def test_folders(folder):
    refused = [
        arrow
        for other in ARROWS.keys() - ARROWS[folder] - {folder}
        for arrow in arrows(folder, other)
    ]
    assert not refused


@pytest.mark.parametrize("folder", ARROWS)  # none runs through two of them, says the test above
def test_no_circles(folder):
    own = {module: others for module, others in IMPORTS.items() if module.split(".")[0] == folder}
    try:
        TopologicalSorter(own).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_models_know_no_loader_and_no_names():
    assert arrows("upstreams.models", "upstreams.models")  # they are read at all
    for other in ("upstreams.loading", "upstreams.catalogue", "upstreams.pretraining"):
        assert not arrows("upstreams.models", other)
    assert not arrows("upstreams.loading", "upstreams.pretraining")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import benchmark.core", {"benchmark.core"}),
        ("def f():\n    from benchmark.errors import SuperbError", {"benchmark.errors"}),
        ("from benchmark import core, errors", {"benchmark.core", "benchmark.errors"}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import superb", {"superb"}),
        ("import torch, json", set()),
    ],
)
def test_what_counts_as_an_import(source, found):
    assert imported("upstreams.models.cpc", source) == found
