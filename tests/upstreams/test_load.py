"""Every form of name, and what each says when it does not fit."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest
import torch

from benchmark.core import HiddenStates
from benchmark.errors import SuperbError, UpstreamError
from upstreams import UPSTREAMS
from upstreams.load import GROUP, load_upstream, upstream_names

PLUGIN = """
import dataclasses
import torch
from benchmark.core import HiddenStates, UpstreamCard

CARD = UpstreamCard("loud", layers=1, dim=1, hop_samples=160, min_samples=160)

@dataclasses.dataclass
class Loud:
    card: UpstreamCard = CARD
    def __call__(self, waveforms):
        frames = torch.stack([w[:1, None] for w in waveforms])
        return HiddenStates(frames[None], torch.ones(len(waveforms), dtype=torch.long))

def make():
    return Loud()

ready = Loud()

class Needy:
    def __init__(self, size):
        pass

class Broken:
    def __init__(self):
        self.start()
    def start(self):
        raise RuntimeError("no fuel")

class Cardless:
    def __call__(self, waveforms):
        return None

class Mute:
    card = CARD
"""


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "json.py"  # named like a standard module, and shadows nothing
    path.write_text(PLUGIN)
    return path


@pytest.mark.parametrize("name", ["Loud", "make", "ready"])
def test_a_file(plugin, name):
    upstream = load_upstream(f"{plugin}:{name}")
    assert isinstance(upstream([torch.zeros(200)]), HiddenStates)
    assert upstream.card.name == "loud"
    assert sys.modules["json"].__file__ != str(plugin)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Lout", r"defines no 'Lout'; it defines .*Loud"),
        ("Needy", r"TypeError: .*size"),
        ("Broken", r"RuntimeError: no fuel at .*json\.py:28"),
        ("Cardless", "without a card: an upstream has"),
        ("Mute", "not callable: an upstream has"),
        ("CARD", "without a card"),
        ("__loader__", "is no name"),
        ("a b", "is no name"),
    ],
)
def test_what_can_be_wrong_in_a_file(plugin, name, says):
    with pytest.raises(UpstreamError, match=says):
        load_upstream(f"{plugin}:{name}")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            "import nonexistent_thing\n",
            r"ModuleNotFoundError: .*nonexistent_thing.* at .*bad\.py:1",
        ),
        ("x = 1\n1 / 0\n", r"ZeroDivisionError: .* at .*bad\.py:2"),
        ("def f(:\n", r"SyntaxError: .* at .*bad\.py:1"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
    ],
)
def test_a_file_that_does_not_import(tmp_path, content, says):
    path = tmp_path / "bad.py"
    path.write_text(content)
    with pytest.raises(UpstreamError, match=says):
        load_upstream(f"{path}:Mine")
    assert not any(str(path) == getattr(m, "__file__", "") for m in list(sys.modules.values()))


def test_no_such_file(tmp_path):
    with pytest.raises(UpstreamError, match="there is no file"):
        load_upstream(f"{tmp_path}/none.py:Mine")


def test_an_installed_module(plugin, tmp_path, monkeypatch):
    (tmp_path / "loud_package.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    assert load_upstream("loud_package:Loud").card.name == "loud"
    with pytest.raises(SuperbError, match="has no 'Silent'"):
        load_upstream("loud_package:Silent")
    with pytest.raises(SuperbError, match="cannot import 'loud_packages'"):
        load_upstream("loud_packages:Loud")


def register(monkeypatch, **targets):
    points = [importlib.metadata.EntryPoint(name, value, GROUP) for name, value in targets.items()]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)


def test_an_entry_point(tmp_path, monkeypatch):
    (tmp_path / "loud_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    register(monkeypatch, loud="loud_plugin:make", gone="loud_plugin_gone:make")
    assert upstream_names() == [*UPSTREAMS, "loud", "gone"]
    assert load_upstream("loud").card.name == "loud"
    with pytest.raises(SuperbError, match=r"cannot import 'loud_plugin_gone'.*ModuleNotFoundError"):
        load_upstream("gone")
    with pytest.raises(SuperbError, match="Did you mean loud"):
        load_upstream("lous")


def test_an_entry_point_cannot_take_a_built_in_name(monkeypatch):
    register(monkeypatch, hubert="evil:make")
    with pytest.raises(UpstreamError, match=r"registers an upstream 'hubert' .*built in"):
        upstream_names()


@pytest.mark.parametrize("name", ["hubrt", "hf:gpt2", "", "wav2vec9"])
def test_an_unknown_name_lists_what_there_is(name):
    with pytest.raises(SuperbError) as caught:
        load_upstream(name)
    message = str(caught.value)
    assert all(known in message for known in UPSTREAMS)
    assert "my_file.py:MyClass" in message
    assert "org/name" in message
    if name == "hubrt":
        assert "Did you mean hubert" in message


def test_paths_that_are_no_folder(tmp_path):
    with pytest.raises(UpstreamError, match="there is no folder"):
        load_upstream(str(tmp_path / "none"))
    (tmp_path / "file.bin").touch()
    with pytest.raises(UpstreamError, match="is a file"):
        load_upstream(str(tmp_path / "file.bin"))
    with pytest.raises(UpstreamError, match=r"has no config\.json"):
        load_upstream(str(tmp_path))


def test_the_table_and_the_names_import_no_torch():
    code = "import sys; from upstreams.load import upstream_names; upstream_names(); " + (
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
