"""Lazy targets and entry points."""

from __future__ import annotations

import importlib.metadata

import pytest

from benchmark.errors import SuperbError
from benchmark.registry import entry_points, load_attribute


def test_a_target():
    assert load_attribute("os.path:join") is __import__("os").path.join


@pytest.mark.parametrize(
    "target", ["os", "os:", ":join", "os.path", "os:path.join", "os:__dict__", "o s:x", "../os:x"]
)
def test_what_is_no_target(target):
    with pytest.raises(SuperbError, match="is no import target"):
        load_attribute(target)


def test_what_is_not_there():
    with pytest.raises(SuperbError, match="has no 'nothing'"):
        load_attribute("os:nothing")
    with pytest.raises(SuperbError, match=r"cannot import 'no_such_module'.*ModuleNotFoundError"):
        load_attribute("no_such_module:x")


def test_two_packages_with_one_name(monkeypatch):
    points = [importlib.metadata.EntryPoint("x", value, "g") for value in ("a:b", "c:d")]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    with pytest.raises(SuperbError, match="two installed packages register 'x'"):
        entry_points("g")
