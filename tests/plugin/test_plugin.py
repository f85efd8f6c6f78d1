"""Upstreams from outside: an installed package with an entry point, and a single file."""

import importlib.util
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from benchmark.conformance import check_upstream, raise_for_failures
from benchmark.registry import load_object, plugins

FOLDER = Path(__file__).parent


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The package as pip would leave it: its module and the entry points of its pyproject."""
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]
    information = tmp_path / f"superb_toy_upstream-{project['version']}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    (information / "entry_points.txt").write_text("\n".join(lines))
    (tmp_path / "toy_upstream.py").write_bytes((FOLDER / "toy_upstream.py").read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("toy_upstream", None)


def test_an_installed_upstream_is_found_and_conforms(installed):
    upstream = load_object(plugins("superb.upstreams")["toy-energy"])
    assert upstream.card.name == "toy-energy"
    checks = check_upstream(upstream)
    raise_for_failures(checks)
    assert all(check.passed for check in checks)


def test_an_upstream_in_a_file_conforms():
    specification = importlib.util.spec_from_file_location("my_encoder", FOLDER / "my_encoder.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    upstream = module.MyEncoder()
    checks = check_upstream(upstream)
    raise_for_failures(checks)
    states = upstream([torch.zeros(400), torch.zeros(16_000)])
    assert states.values.shape == (3, 2, 49, 64)
    assert states.lengths.tolist() == [1, 49]


def test_the_packages_metadata_is_complete():
    # What pip needs to build it; the target is checked by loading it above.
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["py-modules"] == ["toy_upstream"]
    assert "superb" in project["project"]["dependencies"]


def test_the_documentation_shows_this_very_file():
    page = (FOLDER.parents[1] / "docs" / "adding-an-upstream.md").read_text()
    assert f"```python\n{(FOLDER / 'my_encoder.py').read_text()}```" in page
