"""Targets in modules and files, objects made of them, and entry points."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest

from benchmark.errors import SuperbError
from benchmark.registry import is_target, load_attribute, load_object, plugins

SOURCE = """
import dataclasses
from functools import partial

@dataclasses.dataclass
class Thing:
    size: int = 3

    def __call__(self):
        raise AssertionError("called though it is ready")

def make():
    return Thing(4)

class Carded(Thing):
    card = "a card"

ready = Carded(5)
part = partial(Thing, 6)
number = 7

class Needy:
    def __init__(self, size):
        pass

class Broken:
    def __init__(self):
        self.start()
    def start(self):
        raise RuntimeError("no fuel")

class Leaving:
    def __init__(self):
        raise SystemExit(3)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "json.py"  # named like a standard module, and shadows nothing
    path.write_text(SOURCE)
    return path


def test_an_attribute():
    assert load_attribute("os.path:join") is __import__("os").path.join


@pytest.mark.parametrize(
    "target", ["os", "os:", ":join", "os.path", "os:path.join", "os:__dict__", "o s:x", "../os:x"]
)
def test_what_is_no_target(target):
    assert not is_target(target) or "__" in target
    with pytest.raises(SuperbError, match="is no import target"):
        load_attribute(target)


def test_what_is_not_there():
    with pytest.raises(SuperbError, match="'os' has no 'nothing'"):
        load_attribute("os:nothing")
    with pytest.raises(SuperbError, match=r"cannot import 'no_such_module'.*ModuleNotFoundError"):
        load_attribute("no_such_module:x")


@pytest.mark.parametrize(
    ("name", "size"), [("Thing", 3), ("make", 4), ("ready", 5), ("part", 6), ("number", None)]
)
@pytest.mark.parametrize("in_file", [True, False])
def test_an_object(file, tmp_path, monkeypatch, name, size, in_file):
    (tmp_path / "registry_toy.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    target = f"{file}:{name}" if in_file else f"registry_toy:{name}"
    assert is_target(target)
    thing = load_object(target)
    assert thing == 7 if size is None else thing.size == size
    assert sys.modules["json"].__file__ != str(file)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Thimg", r"has no 'Thimg'; it defines Broken, Carded, Leaving, Needy, Thing, make"),
        ("Needy", r"without arguments.*'size'.*a function without arguments that returns the toy"),
        ("Broken", r"RuntimeError: no fuel at .*json\.py:30"),
        ("Leaving", "SystemExit: 3"),
        ("__loader__", "is no import target"),
        ("a b", "is no import target"),
    ],
)
def test_what_can_be_wrong_in_a_file(file, name, says):
    with pytest.raises(SuperbError, match=says):
        load_object(f"{file}:{name}", "toy")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("import nonexistent_thing\n", r"ModuleNotFoundError: .*nonexistent_thing.*bad\.py:1"),
        ("x = 1\n1 / 0\n", r"ZeroDivisionError: .* at .*bad\.py:2"),
        ("def f(:\n", r"SyntaxError: .* at .*bad\.py:1"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
    ],
)
def test_a_file_that_does_not_import(tmp_path, content, says):
    path = tmp_path / "bad.py"
    path.write_text(content)
    with pytest.raises(SuperbError, match=says):
        load_object(f"{path}:Mine")
    assert not any(str(path) == getattr(m, "__file__", "") for m in list(sys.modules.values()))


def test_no_such_file(tmp_path):
    with pytest.raises(SuperbError, match="there is no file"):
        load_object(f"{tmp_path}/none.py:Mine")


def register(monkeypatch, *targets):
    points = [importlib.metadata.EntryPoint("x", target, "g") for target in targets]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)


def test_plugins(monkeypatch):
    register(monkeypatch, "a:b", "a:b")  # one package seen twice, as in an editable install
    assert plugins("g") == {"x": "a:b"}
    with pytest.raises(SuperbError, match=r"registers toy 'x' \(a:b\), which is built in"):
        plugins("g", {"x"}, "toy")
    register(monkeypatch, "a:b", "c:d")
    with pytest.raises(SuperbError, match="two installed packages register toy 'x': a:b and c:d"):
        plugins("g", (), "toy")
