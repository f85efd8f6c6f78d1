"""The cache folder: what is in it is listed and cleared, in whatever state it is."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from benchmark.encoding import cache as module
from benchmark.encoding import store as store_module
from benchmark.encoding.cache import (
    cache_folder,
    clear_stores,
    format_bytes,
    list_stores,
    require_room,
)
from benchmark.encoding.store import FeatureStore
from benchmark.errors import SuperbError


def about(**changes):
    return {"upstream": "toy", "kind": "frames", "storage": "float16", **changes}


def test_require_room(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**12, 10**12 - 10**9, 10**9)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    require_room(tmp_path / "new", 100_000_000)
    assert (tmp_path / "new").is_dir()
    # a little must stay free
    for needed in (2 * 10**9, 10**9):
        with pytest.raises(SuperbError) as caught:
            require_room(tmp_path, needed)
        message = str(caught.value)
        assert f"{needed / 1e9:.1f} GB" in message
        assert "1.0 GB free" in message
        assert str(tmp_path) in message
        assert "--cache-dir" in message
        assert "superb cache clear" in message


@pytest.fixture
def three(tmp_path):
    """A root with stores of two encoders, biggest first: b frames, a frames, a mean."""
    root = tmp_path
    for name, kind, count in [("a", "frames", 2), ("a", "mean", 0), ("b", "frames", 400)]:
        with FeatureStore(root, about(upstream=name, kind=kind)) as store:
            for seed in range(count):
                store.append(f"key{seed}", np.full((3, 7, 5), seed, np.float32), np.ones(3))
    return root


def listed(root):
    return [(s.upstream, s.kind, s.utterances) for s in list_stores(root)]


def test_list(three):
    assert listed(three) == [("b", "frames", 400), ("a", "frames", 2), ("a", "mean", 0)]
    for summary in list_stores(three):
        folder = three / "features" / summary.key
        assert summary.size == sum(file.stat().st_size for file in folder.iterdir())
        assert summary.used == max(file.stat().st_mtime for file in folder.iterdir())
        assert summary.storage == json.loads((folder / "about.json").read_text())["storage"]


def test_list_of_nothing(tmp_path):
    assert list_stores(tmp_path / "never made") == []
    assert clear_stores(tmp_path / "never made") == []


def test_clear_by_upstream(three):
    assert {(s.upstream, s.kind) for s in clear_stores(three, ["a"])} == {
        ("a", "frames"),
        ("a", "mean"),
    }
    assert listed(three) == [("b", "frames", 400)]


def test_clear_by_the_start_of_a_key(three):
    chosen = list_stores(three)[1]
    assert [s.key for s in clear_stores(three, [chosen.key[:8]])] == [chosen.key]
    assert listed(three) == [("b", "frames", 400), ("a", "mean", 0)]


def test_clear_all(three):
    assert len(clear_stores(three)) == 3
    assert listed(three) == []


@pytest.mark.parametrize("selector", ["c", "", "123456789abc"])
def test_unknown_selector_clears_nothing(three, selector):
    with pytest.raises(SuperbError) as caught:
        clear_stores(three, ["a", selector])
    assert repr(selector) in str(caught.value)
    for summary in list_stores(three):
        assert f"{summary.key[:12]} ({summary.upstream})" in str(caught.value)
    assert len(listed(three)) == 3


def test_states_of_trainings_are_one_line_and_are_cleared(three):
    (three / "training").mkdir()
    for name, size in (("a.pt", 30_000), ("b.tmp", 12_000)):
        (three / "training" / name).write_bytes(bytes(size))
    (own,) = (s for s in list_stores(three) if s.key == "training")
    assert (own.kind, own.size) == ("2 cut off", 42_000)
    clear_stores(three, ["a"])
    assert (three / "training" / "a.pt").is_file()
    assert [s.size for s in clear_stores(three, ["training"])] == [42_000]
    assert not (three / "training").exists()
    (three / "training").mkdir()
    (three / "training" / "c.pt").write_bytes(b"1")
    assert {s.key for s in clear_stores(three)} >= {"training"}
    assert list_stores(three) == []


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SUPERB_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "superb"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/superb")
    monkeypatch.setenv("SUPERB_CACHE", "~/here")
    assert cache_folder() == tmp_path / "here"


def test_sizes_in_words():
    sizes = [0, 999, 1000, 1_234_567, 359e9, 2e15]
    assert [format_bytes(size) for size in sizes] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "1.2 MB",
        "359.0 GB",
        "2000.0 TB",
    ]


def test_stores_of_an_older_format_are_named_and_cleared(three, monkeypatch):
    monkeypatch.setattr(store_module, "FORMAT_VERSION", 2)
    with FeatureStore(three, about(upstream="a")) as old:
        (old.folder / "index.sqlite").write_bytes(b"SQLite format 3")
        (old.folder / "1.bin").write_bytes(bytes(10**6))
    monkeypatch.undo()
    (three / "audio.sqlite").write_bytes(b"SQLite format 3")
    assert listed(three)[0] == ("a", "frames (older format)", 0)
    assert len(clear_stores(three, ["b"])) == 1
    assert (three / "audio.sqlite").exists()
    with FeatureStore(three, about(upstream="a")) as new:
        assert new.folder != old.folder
        assert new.missing(["key0", "key9"]) == {"key9"}
    assert [s.key for s in clear_stores(three, [old.folder.name])] == [old.folder.name]
    assert listed(three) == [("a", "frames", 2), ("a", "mean", 0)]
    clear_stores(three)
    assert not (three / "audio.sqlite").exists()


@pytest.mark.parametrize("words", [None, "", "[1]", "nonsense"])
def test_a_damaged_folder_is_listed_and_cleared(three, words):
    folder = three / "features" / "0123456789ab"
    folder.mkdir()
    (folder / "1.log").write_bytes(b"nonsense" * 2**17)
    if words is not None:
        (folder / "about.json").write_text(words)
    assert listed(three)[0] == ("?", "?", 0)
    assert [s.key for s in clear_stores(three, ["012345"])] == ["0123456789ab"]
    assert len(listed(three)) == 3


def test_a_folder_that_cannot_be_cleared_is_named(three, monkeypatch):
    def busy(folder):
        raise OSError(39, "Directory not empty", str(folder))

    monkeypatch.setattr(shutil, "rmtree", busy)
    with pytest.raises(SuperbError, match=r"cannot be cleared: .*not empty.*once no run writes"):
        clear_stores(three, ["b"])
