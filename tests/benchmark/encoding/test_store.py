"""Features on disk: what is stored is read back, and nothing half-written is ever trusted."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from benchmark.encoding import store as module
from benchmark.encoding.store import (
    STORAGES,
    AudioHashes,
    FeatureStore,
    cache_folder,
    clear_stores,
    feature_bytes,
    format_bytes,
    list_stores,
    pack,
    packed_bytes,
    require_room,
    store_key,
    unpack,
)
from benchmark.errors import SuperbError

ROOT = Path(__file__).resolve().parents[3]


def about(**changes):
    return {
        "upstream": "toy",
        "fingerprint": "f" * 8,
        "sample_rate": 16_000,
        "kind": "frames",
        "precision": "float32",
        "device": "cpu",
        "storage": "float16",
        "batching": "one",
        **changes,
    }


def array(seed, shape=(3, 7, 5), scale=1.0):
    values = np.random.default_rng(seed).standard_normal(shape) * scale
    return values.astype(np.float32)


def norms(values):
    return np.linalg.norm(values, axis=-1).reshape(len(values), -1).mean(1).astype(np.float32)


def put(store, key, values):
    store.append(key, values, norms(values))


@pytest.mark.parametrize("storage", ["float16", "float32"])
def test_round_trip(tmp_path, storage):
    arrays = {f"key{i}": array(i, (3, 2 + i, 5)) for i in range(10)}
    arrays["mean"] = array(99, (3, 5))
    with FeatureStore(tmp_path, about(storage=storage)) as store:
        assert store.missing(arrays) == set(arrays)
        for key, values in arrays.items():
            put(store, key, values)
        assert store.missing([*arrays, "other"]) == {"other"}
    with FeatureStore(tmp_path, about(storage=storage)) as store:
        assert store.missing([*arrays, "other"]) == {"other"}
        assert store.shapes(arrays) == {key: values.shape for key, values in arrays.items()}
        for key, values in arrays.items():
            found = store.read(key)
            assert found.dtype == np.float32
            assert np.array_equal(found, values.astype(storage).astype(np.float32))
            assert np.array_equal(store.read(key), found)
        each = [
            np.linalg.norm(values.astype(storage).astype(np.float32) - values)
            / np.linalg.norm(values)
            for values in arrays.values()
        ]
        assert store.rounding_error(arrays) == pytest.approx(np.sqrt(np.mean(np.square(each))))
        assert store.rounding_error([]) == 0
        expected = np.mean([norms(values) for values in arrays.values()], axis=0)
        assert store.layer_norms(arrays) == pytest.approx(expected.tolist(), rel=1e-6)
    # half precision has 11 bits: at most 2^-11 per value, about half of it in the mean
    assert (1e-5 < max(each) < 2**-11) if storage == "float16" else max(each) == 0


@pytest.mark.parametrize("shape", [(3, 50, 40), (3, 1, 40), (3, 40)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_eight_bits_err_by_half_a_step_at_most(shape, scale):
    values = array(1, shape, scale)
    values[1] *= np.geomspace(1e-3, 1e3, values[1].size, dtype=np.float32).reshape(shape[1:])
    values[2, ..., 0] = 0
    found = unpack(pack(values, "int8"), values.shape, "int8")
    # frames share a step, or the dimensions of a time mean
    step = np.abs(values).max(axis=1, keepdims=True) / 127
    assert found.dtype == np.float32
    # and float32's own rounding, of a quotient and a product
    assert (np.abs(found - values) <= step / 2 + 2**-22 * np.abs(values)).all()
    assert np.abs(found - values).max() > 0 or shape[1] == 1
    assert (found[2, ..., 0] == 0).all()


def test_eight_bits_of_a_layer_do_not_depend_on_other_layers():
    values = array(2, (4, 30, 6))
    whole = unpack(pack(values, "int8"), values.shape, "int8")
    part = values[[1, 3]]
    assert np.array_equal(unpack(pack(part, "int8"), part.shape, "int8"), whole[[1, 3]])


def test_eight_bits_measure_what_they_lose(tmp_path):
    values = array(3, (3, 200, 16))
    with FeatureStore(tmp_path, about(storage="int8")) as store:
        put(store, "key", values)
        store.commit()
        found = store.read("key")
        assert np.array_equal(found, unpack(pack(values, "int8"), values.shape, "int8"))
        error = np.linalg.norm(found - values) / np.linalg.norm(values)
        assert store.rounding_error(["key"]) == pytest.approx(error, rel=1e-5)
    # rounding is uniform over a step of about 2 x 2.8 standard deviations / 254
    assert 0.5 * 2.8 / 127 / 12**0.5 < error < 2 * 2.8 / 127 / 12**0.5


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("shape", [(13, 20, 8), (13, 8)])
def test_bytes_are_foretold(storage, shape):
    if storage != "none":
        assert packed_bytes(shape, storage) == len(pack(array(0, shape), storage))
    kind, frames = ("frames", shape[1]) if len(shape) == 3 else ("mean", 0)
    foretold = feature_bytes(kind, storage, 13, 8, 1, frames)
    # one frame to spare
    spare = 13 * 8 * {"float16": 2, "float32": 4, "int8": 1, "none": 0}[storage]
    assert foretold == packed_bytes(shape, storage) + (spare if kind == "frames" else 0)


def test_nothing_but_shapes_and_norms(tmp_path):
    values = array(0)
    words = about(storage="none")
    with FeatureStore(tmp_path, words) as store:
        store.append("key", values, norms(values), 1.5)
    assert list(store.folder.glob("*.bin")) == []
    with FeatureStore(tmp_path, words) as store:
        assert store.missing(["key", "other"]) == {"other"}
        assert store.shapes(["key"]) == {"key": (3, 7, 5)}
        assert store.rounding_error(["key"]) == 0
        assert store.audio_s(["key", "key"]) == 3
        store.again = {"key": values}.__getitem__
        assert store.read("key") is values
        with pytest.raises(SuperbError, match="no features"):
            store.read("other")


def test_contains_what_is_pending_and_what_is_committed(tmp_path):
    with FeatureStore(tmp_path, about()) as store:
        put(store, "key", array(0))
        assert "key" in store
        assert "other" not in store
        store.commit()
        assert "key" in store


def test_commits_now_and_then_and_not_every_time(tmp_path, monkeypatch):
    """At most five seconds are lost, and syncing each record would take most of the time."""
    clock, synced = [100.0], []
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(clock[0]))
    with FeatureStore(tmp_path, about()) as store:
        for seed in range(48):
            put(store, f"key{seed}", array(seed))
            clock[0] += 0.25
    assert synced == [105.0, 110.0, 112.0]


def test_hashes_are_found_until_the_file_changes(tmp_path):
    path = tmp_path / "a.wav"

    def write(text, seconds):
        path.write_text(text)
        os.utime(path, (seconds, seconds))

    write("one", 1000)
    with AudioHashes(tmp_path / "cache") as hashes:
        assert hashes.find(path) is None
        hashes.remember(path, path.stat(), "1" * 64)
    with AudioHashes(tmp_path / "cache") as hashes:
        assert hashes.find(path) == "1" * 64
        write("two", 1001)  # another time
        assert hashes.find(path) is None
        write("more", 1000)  # another size
        assert hashes.find(path) is None
        hashes.remember(path, path.stat(), "2" * 64)
        hashes.commit()
        assert hashes.find(path) == "2" * 64
        path.unlink()
        assert hashes.find(path) is None


def test_lengths_are_found_until_the_file_changes(tmp_path):
    audio = tmp_path / "a.wav"
    audio.write_bytes(b"1234")
    os.utime(audio, (1e9, 1e9))
    with AudioHashes(tmp_path / "cache") as known:
        assert known.find_duration(audio) is None
        known.remember_duration(audio, audio.stat(), 2.5)
    with AudioHashes(tmp_path / "cache") as known:
        assert known.find_duration(audio) == 2.5
        assert known.find(audio) is None
        os.utime(audio, (1e9, 1e9 + 1))
        assert known.find_duration(audio) is None


def test_what_was_just_written_is_not_believed(tmp_path):
    """It may change again within a tick of the clock, and look the same."""
    path = tmp_path / "a.wav"
    path.write_text("one")
    with AudioHashes(tmp_path / "cache") as hashes:
        hashes.remember(path, path.stat(), "1" * 64)
        hashes.commit()
        assert hashes.find(path) is None


def test_damaged_hashes_are_named(tmp_path):
    (tmp_path / "audio.sqlite").write_bytes(b"nonsense" * 1000)
    with pytest.raises(SuperbError, match=r"audio\.sqlite cannot be used.*Delete it"):
        AudioHashes(tmp_path)


def test_reading_before_the_end_of_writing(tmp_path):
    with FeatureStore(tmp_path, about(storage="float32")) as store:
        for seed in range(3):
            put(store, f"key{seed}", array(seed))
            store.commit()
            for earlier in range(seed + 1):
                assert np.array_equal(store.read(f"key{earlier}"), array(earlier))


def test_missing_record_is_named(tmp_path):
    with (
        FeatureStore(tmp_path, about()) as store,
        pytest.raises(SuperbError, match="no features for audio abcdef"),
    ):
        store.read("abcdef")


CHILD = """
import sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
import numpy as np
from benchmark.encoding.store import FeatureStore
store = FeatureStore(Path({folder!r}), {about!r})
for seed in range(6):
    values = np.random.default_rng(seed).standard_normal((3, 7, 5)).astype(np.float32)
    store.append(f"key{{seed}}", values, values[:, 0, 0])
    if seed == 3:
        store.commit()
print("written", flush=True)
time.sleep(60)
"""


def test_killed_while_writing(tmp_path):
    """After kill -9, what was committed is there, what was not is missing, and can be added."""
    words = about(storage="float32")
    code = CHILD.format(root=str(ROOT), folder=str(tmp_path), about=words)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout.readline() == b"written\n"
        finally:
            child.send_signal(signal.SIGKILL)
    keys = [f"key{seed}" for seed in range(6)]
    with FeatureStore(tmp_path, words) as store:
        # bytes of keys 4 and 5 lie in the file, but no row vouches for them
        (file,) = store.folder.glob("*.bin")
        assert file.stat().st_size == 6 * 3 * 7 * 5 * 4
        assert store.missing(keys) == {"key4", "key5"}
        with pytest.raises(SuperbError):
            store.read("key4")
        for seed in (4, 5):
            put(store, f"key{seed}", array(seed))
    with FeatureStore(tmp_path, words) as store:
        assert store.missing(keys) == set()
        for seed, key in enumerate(keys):
            assert np.array_equal(store.read(key), array(seed))


def test_rows_are_written_after_their_bytes_are_synced(tmp_path, monkeypatch):
    order = []
    sync = os.fsync
    with FeatureStore(tmp_path, about()) as store:
        put(store, "key", array(0))
        monkeypatch.setattr(os, "fsync", lambda handle: (order.append("bytes"), sync(handle)))
        store._index.set_trace_callback(order.append)
        store.commit()
        store._index.set_trace_callback(None)
    inserted = next(i for i, entry in enumerate(order) if entry.startswith("INSERT"))
    assert order.index("bytes") < inserted


def test_two_writers_at_once(tmp_path):
    words = about(storage="float32")
    with FeatureStore(tmp_path, words) as one, FeatureStore(tmp_path, words) as two:
        for seed in range(0, 8, 2):
            put(one, f"key{seed}", array(seed))
            put(two, f"key{seed + 1}", array(seed + 1))
            put(two, f"key{seed}", array(seed))  # both find it missing
            one.commit()
            two.commit()
            assert np.array_equal(one.read(f"key{seed + 1}"), array(seed + 1))
            assert np.array_equal(two.read(f"key{seed}"), array(seed))
        assert len(list(one.folder.glob("*.bin"))) == 2
    with FeatureStore(tmp_path, words) as store:
        assert store.missing(f"key{seed}" for seed in range(8)) == set()
        for seed in range(8):
            assert np.array_equal(store.read(f"key{seed}"), array(seed))


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damaged_bytes_are_never_returned(tmp_path, damage):
    with FeatureStore(tmp_path, about()) as store:
        put(store, "key0", array(0))
        put(store, "key1", array(1))
    (file,) = store.folder.glob("*.bin")
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[len(data) * 3 // 4] ^= 1
        file.write_bytes(data)
    elif damage == "cut":
        file.write_bytes(data[:-1])
    else:
        file.unlink()
    with FeatureStore(tmp_path, about()) as store:
        if damage != "remove":
            assert np.array_equal(store.read("key0"), array(0).astype("float16"))
        with pytest.raises(SuperbError) as caught:
            store.read("key1")
    assert str(store.folder) in str(caught.value)
    assert f"superb cache clear {store.folder.name}" in str(caught.value)
    # and that command works
    assert [s.key for s in clear_stores(tmp_path, [store.folder.name])] == [store.folder.name]
    assert not store.folder.exists()


def test_overflow_is_refused_with_advice(tmp_path):
    large = array(0)
    large[1, 2, 3] = 1e6
    with FeatureStore(tmp_path, about()) as store:
        with pytest.raises(SuperbError, match=r"1e\+06 does not fit.*--storage float32"):
            put(store, "key", large)
        assert store.missing(["key"]) == {"key"}
        put(store, "other", array(1))
    with FeatureStore(tmp_path, about()) as store:
        assert store.missing(["key", "other"]) == {"key"}
    with FeatureStore(tmp_path, about(storage="float32")) as store:
        put(store, "key", large)
        store.commit()
        assert store.read("key")[1, 2, 3] == 1e6


@pytest.mark.parametrize("partial", [0, 100], ids=["nothing written", "part written"])
def test_full_disk_keeps_what_was_finished(tmp_path, monkeypatch, partial):
    words = about(storage="float32")
    pwrite, room = os.pwrite, [partial]

    def full(handle, data, offset):
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] = 0
        return pwrite(handle, data[:partial], offset)

    with FeatureStore(tmp_path, words) as store:
        put(store, "key0", array(0))
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwrite", full)
            with pytest.raises(SuperbError) as caught:
                put(store, "key1", array(1))
        assert "No space left on device" in str(caught.value)
        assert str(store.folder) in str(caught.value)
        assert "--cache-dir" in str(caught.value)
        # room was made: the same store goes on, over what lies there half-written
        put(store, "key2", array(2))
    with FeatureStore(tmp_path, words) as store:
        assert store.missing(["key0", "key1", "key2"]) == {"key1"}
        assert np.array_equal(store.read("key0"), array(0))
        assert np.array_equal(store.read("key2"), array(2))


def test_full_disk_on_sync(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with FeatureStore(tmp_path, about()) as store:
        put(store, "key", array(0))
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(SuperbError, match="No space left"):
                store.commit()
        with FeatureStore(tmp_path, about()) as other:
            assert other.missing(["key"]) == {"key"}
        store.commit()
        assert np.array_equal(store.read("key"), array(0).astype("float16"))


class Interrupting:
    """A connection that is interrupted once, in the middle of a transaction."""

    def __init__(self, connection):
        self._connection, self._done = connection, False

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def executemany(self, *arguments):
        if not self._done:
            self._done = True
            raise KeyboardInterrupt
        return self._connection.executemany(*arguments)


def test_interrupt_inside_a_transaction(tmp_path):
    with pytest.raises(KeyboardInterrupt), FeatureStore(tmp_path, about()) as store:  # noqa: PT012
        put(store, "key", array(0))
        store._index = Interrupting(store._index)
        store.commit()
    with FeatureStore(tmp_path, about()) as store:
        assert store.missing(["key"]) == set()
        assert np.array_equal(store.read("key"), array(0).astype("float16"))


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


def test_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SuperbError, match="SUPERB_CACHE or --cache-dir"):
        FeatureStore(tmp_path / "file", about())


def test_index_that_is_no_index(tmp_path):
    with FeatureStore(tmp_path, about()) as store:
        put(store, "key", array(0))
    (store.folder / "index.sqlite").write_bytes(b"nonsense" * 1000)
    with pytest.raises(SuperbError, match="superb cache clear"):
        FeatureStore(tmp_path, about())
    (summary,) = list_stores(tmp_path)
    assert (summary.upstream, summary.utterances) == ("toy", 0)
    assert len(clear_stores(tmp_path, ["toy"])) == 1


@pytest.mark.parametrize("entry", sorted(about()))
def test_key_depends_on_every_entry(entry):
    assert store_key(about()) == store_key(dict(reversed(about().items())))
    assert store_key(about(**{entry: "changed"})) != store_key(about())
    without = about()
    del without[entry]
    assert store_key(without) != store_key(about())


def test_key_depends_on_the_format(monkeypatch):
    before = store_key(about())
    monkeypatch.setattr(module, "FORMAT_VERSION", module.FORMAT_VERSION + 1)
    assert store_key(about()) != before


def test_stores_do_not_mix(tmp_path):
    with FeatureStore(tmp_path, about()) as one:
        put(one, "key", array(0))
    with FeatureStore(tmp_path, about(fingerprint="other")) as two:
        assert two.missing(["key"]) == {"key"}


@pytest.fixture(params=["plain", "100%25 #1?"])
def three(tmp_path, request):
    """A root with stores of two encoders, biggest first: b frames, a frames, a mean."""
    root = tmp_path / request.param
    for name, kind, count in [("a", "frames", 2), ("a", "mean", 0), ("b", "frames", 400)]:
        with FeatureStore(root, about(upstream=name, kind=kind)) as store:
            for seed in range(count):
                put(store, f"key{seed}", array(seed))
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


def test_throughput(tmp_path):
    with FeatureStore(tmp_path, about()) as store:
        assert store.throughput() is None
        store.log_session(0.0, 0.0)
        assert store.throughput() is None
        store.log_session(30.0, 2.0)
        store.log_session(10.0, 3.0)
    with FeatureStore(tmp_path, about()) as store:
        assert store.throughput() == 8


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
