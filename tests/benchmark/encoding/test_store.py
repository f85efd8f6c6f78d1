"""Features on disk: what is stored is read back, and nothing half-written is ever trusted."""

import errno
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from benchmark.encoding import store as module
from benchmark.encoding.cache import clear_stores
from benchmark.encoding.packing import Packed, pack, unpack
from benchmark.encoding.store import FeatureStore, store_key
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


def test_nothing_but_shapes_and_norms(tmp_path):
    values = array(0)
    words = about(storage="none")
    with FeatureStore(tmp_path, words) as store:
        store.append("key", Packed(values.shape), norms(values), 1.5)
    assert list(store.folder.glob("*.bin")) == []
    with FeatureStore(tmp_path, words) as store:
        assert store.missing(["key", "other"]) == {"other"}
        assert store.shapes(["key"]) == {"key": (3, 7, 5)}
        assert store.rounding_error(["key"]) == 0
        assert store.audio_s(["key", "key"]) == 3
        with pytest.raises(ValueError, match="keeps no arrays"):
            store.read("key")


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
    # arrays, then the records that name them
    assert synced == [105.0, 105.0, 110.0, 110.0, 112.0, 112.0]


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


def test_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SuperbError, match="SUPERB_CACHE or --cache-dir"):
        FeatureStore(tmp_path / "file", about())


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


@pytest.mark.parametrize("key", ["", "a" * 65, "é"])
def test_a_key_that_would_not_be_found_again_is_refused(tmp_path, key):
    with FeatureStore(tmp_path, about()) as store, pytest.raises(ValueError, match="no hash"):
        put(store, key, array(0))


def test_stores_do_not_mix(tmp_path):
    with FeatureStore(tmp_path, about()) as one:
        put(one, "key", array(0))
    with FeatureStore(tmp_path, about(fingerprint="other")) as two:
        assert two.missing(["key"]) == {"key"}


def test_throughput(tmp_path):
    with FeatureStore(tmp_path, about()) as store:
        assert store.throughput() is None
        store.log_session(0.0, 0.0)
        assert store.throughput() is None
        store.log_session(30.0, 2.0)
        store.log_session(10.0, 3.0)
    with FeatureStore(tmp_path, about()) as store:
        assert store.throughput() == 8


WORKER = """
import random, sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
import numpy as np
from benchmark.encoding import store as module

module._COMMIT_S = 0.0005
own = random.Random(int(sys.argv[1]))
keys = [f"key{{seed}}" for seed in range(int(sys.argv[2]))]
own.shuffle(keys)
with module.FeatureStore(Path({folder!r}), {about!r}) as store:
    print("ready", flush=True)
    for key in keys:
        if key not in store or own.random() < 0.3:
            values = np.full((2, 30, 4), int(key[3:]), np.float32)
            store.append(key, values, values[:, 0, 0])
        # what others have stored is whole
        store.refresh()
        for other in own.sample(keys, 3):
            if other in store and other not in store._pending:
                assert (store.read(other) == int(other[3:])).all(), other
"""


def test_killed_among_others(tmp_path):
    """Three processes write and read one store; one is killed at a random moment."""
    count, chance = 100, random.Random(1)
    keys = [f"key{seed}" for seed in range(count)]
    for turn in range(3):
        root, words = tmp_path / str(turn), about(storage="float32")
        code = WORKER.format(root=str(ROOT), folder=str(root), about=words)
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(3 * turn + number), str(count)],
                stdout=subprocess.PIPE,
            )
            for number in range(3)
        ]
        try:
            assert workers[0].stdout.readline() == b"ready\n"
            time.sleep(0.06 * chance.random())
        finally:
            workers[0].kill()
        for worker in workers:
            worker.communicate(timeout=60)
        assert [worker.returncode for worker in workers[1:]] == [0, 0]
        with FeatureStore(root, words) as store:
            assert store.missing(keys) == set()
            for seed, key in enumerate(keys):
                assert np.array_equal(store.read(key), np.full((2, 30, 4), seed))
            assert store.layer_norms(keys) == [(count - 1) / 2] * 2


def test_what_a_killed_writer_left_half_done_is_missing(tmp_path):
    """At every byte that it may have come to; then it can be added."""
    with FeatureStore(tmp_path / "whole", about()) as store:
        put(store, "key0", array(0))
        store.commit()
        ((data, log),) = [(store._data.path, store._log.path)]
        before = data.stat().st_size, log.stat().st_size
        put(store, "key1", array(1))
    after = data.stat().st_size, log.stat().st_size
    ends = [(size, before[1]) for size in range(before[0], after[0], 50)]
    ends += [(after[0], size) for size in range(before[1], after[1])]
    # a log may come to a machine before the array that it names
    ends += [(size, after[1]) for size in (before[0], after[0] - 1)]
    with FeatureStore(tmp_path / "cut", about()) as store:
        pass
    copies = [store.folder / file.name for file in (data, log)]
    with FeatureStore(tmp_path / "cut", about()) as store:
        for sizes in ends:
            for copy, size, file in zip(copies, sizes, (data, log), strict=True):
                copy.write_bytes(file.read_bytes()[:size])
            assert store.missing(["key0", "key1"]) == {"key1"}
            with pytest.raises(SuperbError, match="no features"):
                store.read("key1")
        copies[0].write_bytes(data.read_bytes())
        assert store.missing(["key0", "key1"]) == set()
        assert np.array_equal(store.read("key1"), array(1).astype("float16"))


def test_what_a_writer_left_that_was_killed_at_the_very_start_is_cleared(tmp_path):
    with FeatureStore(tmp_path, about()) as store:
        folder = store.folder
    (folder / "about.json").rename(folder / "about.json.38550e")
    with FeatureStore(tmp_path, about()):
        assert [path.name for path in folder.glob("about*")] == ["about.json"]


def test_arrays_are_synced_before_the_records_that_name_them(tmp_path, monkeypatch):
    sizes, sync = [], os.fsync
    with FeatureStore(tmp_path, about()) as store:
        put(store, "key", array(0))

        def watched(handle):
            log = store._log.path
            sizes.append(log.stat().st_size if log.exists() else 0)
            sync(handle)

        monkeypatch.setattr(os, "fsync", watched)
        store.commit()
        assert sizes[0] == 0 < sizes[1] == store._log.path.stat().st_size


def test_two_writers_at_once(tmp_path):
    words = about(storage="float32")
    with FeatureStore(tmp_path, words) as one, FeatureStore(tmp_path, words) as two:
        for seed in range(0, 8, 2):
            put(one, f"key{seed}", array(seed))
            put(two, f"key{seed + 1}", array(seed + 1))
            put(two, f"key{seed}", array(seed))  # both find it missing
            one.commit()
            two.commit()
            assert one.shapes([f"key{seed + 1}"]) == {f"key{seed + 1}": (3, 7, 5)}
            assert np.array_equal(one.read(f"key{seed + 1}"), array(seed + 1))
            assert np.array_equal(two.read(f"key{seed}"), array(seed))
            assert f"key{seed}" in two
        assert len(list(one.folder.glob("*.bin"))) == 2
    with FeatureStore(tmp_path, words) as store:
        assert store.missing(f"key{seed}" for seed in range(8)) == set()
        for seed in range(8):
            assert np.array_equal(store.read(f"key{seed}"), array(seed))


def test_all_readers_take_the_same_of_two(tmp_path):
    """Though these two differ, as no two should, and come in either order."""
    for turn in range(4):
        stores = [FeatureStore(tmp_path / str(turn), about()) for _ in range(3)]
        for number in (0, 1):
            put(stores[number], "key", array(number))
            stores[number].commit()
            stores[2].refresh()
        first = min((0, 1), key=lambda number: stores[number]._own)
        with FeatureStore(tmp_path / str(turn), about()) as late:
            for store in (*stores, late):
                assert store.missing(["key"]) == set()
                assert np.array_equal(store.read("key"), array(first).astype("float16"))
                store.close()


def test_figures_do_not_depend_on_who_wrote_what(tmp_path):
    """Nor do they change: these are of 2026."""
    golden = {}
    for number in range(5):
        whole = np.arange(3 * (4 + number) * 5, dtype=np.float32).reshape(3, 4 + number, 5)
        golden[f"key{number}"] = ((whole * (37 + number)) % 101 - 50) / np.float32(7)
    for turn, order in enumerate(["31402", "01234", "40213"]):
        root = tmp_path / str(turn)
        with FeatureStore(root, about()) as one, FeatureStore(root, about()) as two:
            for writer, number in zip([one, two, two, one, one], order, strict=True):
                values = golden[f"key{number}"]
                norms = np.linalg.norm(values, axis=-1).mean(1)
                writer.append(f"key{number}", values, norms, int(number) / 3)
                writer.commit()
            one.log_session(0.1 * turn, 1.0)
            two.log_session(0.2, 2.0)
            assert [norm.hex() for norm in one.layer_norms([*golden, "key0"])] == [
                "0x1.310eca0000000p+3",
                "0x1.27fb16ccccccdp+3",
                "0x1.27cd88ccccccdp+3",
            ]
            assert one.rounding_error(golden).hex() == "0x1.9f6e2adedb651p-13"
            assert one.audio_s([*golden]).hex() == "0x1.aaaaaaaaaaaaap+1"
            assert one.throughput() == two.throughput() == pytest.approx((0.1 * turn + 0.2) / 3)


def test_norms_are_added_up_by_key(tmp_path):
    norms = {"a": 9.0, "b": 9.0, "c": 1e17}  # a sum that depends on the order
    assert sum(norms.values()) != sum(reversed(norms.values()))
    with FeatureStore(tmp_path, about()) as store:
        for key in "cba":
            store.append(key, array(0), np.array([norms[key]]))
        store.commit()
        expected = sum(float(np.float32(norm)) for norm in norms.values()) / 3
        assert store.layer_norms(["c", "a", "b", "c"]) == [expected]


def test_what_is_not_seen_yet_is_looked_for_in_a_file_opened_anew(tmp_path):
    """As network file systems want it."""
    with FeatureStore(tmp_path, about()) as store:
        for seed in range(2):
            put(store, f"key{seed}", array(seed))
    file = store._data.path
    with FeatureStore(tmp_path, about()) as store:
        store.read("key0")
        shutil.copy(file, tmp_path / "copy")
        os.truncate(file, file.stat().st_size - 1)
        (tmp_path / "copy").replace(file)
        assert np.array_equal(store.read("key1"), array(1).astype("float16"))


def test_a_big_store_opens_few_files(tmp_path, monkeypatch):
    count, words = 50_000, about(storage="none")
    values, norms = np.zeros((2, 3), np.float32), np.ones(2)
    with FeatureStore(tmp_path, words) as one, FeatureStore(tmp_path, words) as two:
        for number in range(count):
            (one, two)[number % 2].append(f"{number:064x}", values, norms, 1.0)
    opened, path_open, os_open = [], Path.open, os.open
    monkeypatch.setattr(Path, "open", lambda p, *a: opened.append(p.name) or path_open(p, *a))
    monkeypatch.setattr(os, "open", lambda p, *a: opened.append(p.name) or os_open(p, *a))
    keys = [f"{number:064x}" for number in range(count + 1)]
    with FeatureStore(tmp_path, words) as store:
        assert store.missing(keys) == {keys[-1]}
        assert len(store.shapes(keys)) == store.audio_s(keys) == count
        assert store.layer_norms(keys) == [1.0, 1.0]
        assert sorted(opened) == sorted([one._log.path.name, two._log.path.name])


def test_files_stay_open_up_to_a_number(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MOST_OPEN", 2)
    for seed in range(4):
        with FeatureStore(tmp_path, about()) as store:
            put(store, f"key{seed}", array(seed))
    with FeatureStore(tmp_path, about()) as store:
        for seed in (0, 1, 2, 3, 0, 2):
            assert np.array_equal(store.read(f"key{seed}"), array(seed).astype("float16"))
            assert len(store._handles) <= 2


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damaged_bytes_are_never_returned(tmp_path, damage):
    with FeatureStore(tmp_path, about()) as store:
        put(store, "key0", array(0))
        store.commit()
        put(store, "key1", array(1))
    file = store._data.path
    with FeatureStore(tmp_path, about()) as open_already:
        assert np.array_equal(open_already.read("key0"), array(0).astype("float16"))
        data = bytearray(file.read_bytes())
        data[len(data) * 3 // 4] ^= 1
        if damage == "remove":
            file.unlink()
        else:
            file.write_bytes(data if damage == "flip" else data[:-1])
        with FeatureStore(tmp_path, about()) as late:
            # an array that is not there is missing, and can be encoded again
            missing = {"flip": set(), "cut": {"key1"}, "remove": {"key0", "key1"}}[damage]
            assert late.missing(["key0", "key1"]) == missing
            for store in (open_already, late)[: 2 if damage == "flip" else 1]:
                if damage == "remove":
                    os.close(store._handles.popitem()[1])
                with pytest.raises(SuperbError) as caught:
                    store.read("key1")
    assert str(file) in str(caught.value)
    if damage == "remove":
        assert "is gone" in str(caught.value)
        return
    assert f"superb cache clear {store.folder.name}" in str(caught.value)
    # and that command works
    assert [s.key for s in clear_stores(tmp_path, [store.folder.name])] == [store.folder.name]
    assert not store.folder.exists()


def test_cleared_while_others_write_and_read(tmp_path):
    with FeatureStore(tmp_path, about()) as writer, FeatureStore(tmp_path, about()) as reader:
        put(writer, "key0", array(0))
        writer.commit()
        reader.refresh()
        clear_stores(tmp_path)
        with pytest.raises(SuperbError, match=r"is gone: .*cleared.*same command again"):
            reader.read("key0")
        with pytest.raises(SuperbError, match=r"cannot be read: .*cleared meanwhile"):
            reader.missing(["key1"])
        put(writer, "key1", array(1))
        with pytest.raises(SuperbError, match="cleared meanwhile"):
            writer.commit()
        with pytest.raises(SuperbError, match="No such file"):
            put(reader, "key2", array(2))
        # another run has begun anew
        with FeatureStore(tmp_path, about()) as other:
            put(other, "key1", array(1))
        put(writer, "key2", array(2))
        with pytest.raises(SuperbError, match=r"is gone: .*cleared while this run wrote"):
            writer.commit()


def test_waiting_for_what_another_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LOOK_EVERY_S", 0.001)
    begun = threading.Event()

    def write():
        with FeatureStore(tmp_path, about()) as store:
            assert begun.wait(10)
            for seed in range(3):
                put(store, f"key{seed}", array(seed))
                store.commit()

    writer = threading.Thread(target=write)
    writer.start()
    with FeatureStore(tmp_path, about()) as store:
        with pytest.raises(SuperbError, match=f"not in {tmp_path}: .*--cache-dir DIR or SUPERB_"):
            store.wait_for(["key2"], timeout_s=0.01)
        begun.set()
        store.wait_for(["key0", "key1", "key2"], timeout_s=10)
        assert np.array_equal(store.read("key2"), array(2).astype("float16"))
    writer.join()


def test_a_folder_that_is_only_read(tmp_path, monkeypatch):
    with FeatureStore(tmp_path, about()) as store:
        put(store, "key", array(0))

    def forbidding(path, flags, *mode, really=os.open):
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return really(path, flags, *mode)

    monkeypatch.setattr(os, "open", forbidding)
    with FeatureStore(tmp_path, about()) as store:
        assert np.array_equal(store.read("key"), array(0).astype("float16"))
        with pytest.raises(SuperbError, match=r"Read-only file system.*--cache-dir"):
            put(store, "other", array(1))


@pytest.mark.parametrize("place", ["arrays", "records"])
def test_full_disk_on_sync(tmp_path, monkeypatch, place):
    """What could not be synced is in doubt for good; what comes after it is not."""
    calls, sync = [], os.fsync

    def full(handle):
        calls.append(handle)
        if len(calls) == (1 if place == "arrays" else 2):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    with FeatureStore(tmp_path, about()) as store:
        put(store, "key", array(0))
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(SuperbError, match="No space left"):
                store.commit()
        assert store.missing(["key"]) == {"key"}
        put(store, "next", array(1))
    with FeatureStore(tmp_path, about()) as store:
        # records may be there all the same, of arrays that surely are
        assert store.missing(["key", "next"]) == ({"key"} if place == "arrays" else set())
        assert np.array_equal(store.read("next"), array(1).astype("float16"))


def test_interrupted_while_committing(tmp_path, monkeypatch):
    for name in ("write", "sync"):
        with pytest.raises(KeyboardInterrupt), FeatureStore(tmp_path, about()) as store:  # noqa: PT012
            put(store, name, array(0))
            with monkeypatch.context() as patched:
                patched.setattr(store._log, name, lambda *_: os.kill(os.getpid(), 2))
                store.commit()
        with FeatureStore(tmp_path, about()) as store:
            assert store.missing([name]) == set()
            assert np.array_equal(store.read(name), array(0).astype("float16"))
