"""Training checkpoints as data: what honest ones hold, and that hostile ones run nothing."""

from __future__ import annotations

import argparse
import collections
import copyreg
import functools
import importlib
import os
import pathlib
import pickle
import random
import runpy
import struct
import subprocess
import sys
import tarfile
import zipfile
from contextlib import suppress
from enum import Enum

import joblib
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchmark.errors import UpstreamError
from tests.upstreams.loading.foreign import foreign, omegaconf
from upstreams.loading.inert import Record, read_inert
from upstreams.loading.saved import MAGIC, VERSION

MACHINE = {"protocol_version": VERSION, "little_endian": True, "type_sizes": {"int": 4}}
ZIP = [True, False]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.pt"


@pytest.fixture
def through(path):
    """``through(value)``: what is read of it after torch has saved it."""

    def save_and_read(value, zipped=True, protocol=2):
        torch.save(value, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
        return read_inert(path)

    return save_and_read


def dump(value, protocol=2):
    return pickle.dumps(value, protocol)


def zipped(path, pickled, compression=zipfile.ZIP_STORED, **more):
    """An archive of torch.save whose object was replaced, with more entries if any."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        entries = {"data.pkl": pickled, "byteorder": b"little", "version": b"3\n", **more}
        for name, content in entries.items():
            archive.writestr(f"checkpoint/{name}", content)


def in_a_row(path, **parts):
    """A file of the layout before zip; each of its pickles may be given as bytes."""
    whole = {"magic": MAGIC, "version": VERSION, "machine": MACHINE, "saved": {}, "keys": []}
    pickles = {name: dump(value) for name, value in whole.items()} | parts
    path.write_bytes(b"".join(pickles.values()))


def refused(path, *parts):
    """One message, of one line, that names the file and says these parts."""
    with pytest.raises(UpstreamError) as caught:
        read_inert(path)
    text = str(caught.value)
    assert str(path) in text
    assert all(part in text for part in parts), text
    assert len(text.splitlines()) == 1
    assert len(text) < 450 + len(str(path))


# Honest files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", ZIP)
def test_weights_are_what_torch_reads(through, path, zipped, protocol):
    whole = torch.arange(30.0).reshape(6, 5) - 14.5
    tensors = collections.OrderedDict(
        whole=whole, turned=whole[1:].t(), half=whole.half(), brain=whole.bfloat16(),
        flags=whole > 0, bytes=whole.char(), counts=torch.arange(3), complex=whole.to(torch.cfloat),
        scalar=torch.tensor(3.0), none=torch.zeros(0, 4), row=torch.ones(1).expand(7),
        parameter=torch.nn.Parameter(torch.ones(2)),
    )  # fmt: skip
    found = through({"model": tensors}, zipped, protocol)["model"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *arguments, **options: None)
        kept = torch.load(path, weights_only=False)["model"]
    assert type(found) is dict
    assert list(found) == list(kept)
    for name, tensor in found.items():
        assert type(tensor) is torch.Tensor
        assert not tensor.requires_grad
        assert (tensor.dtype, tensor.stride()) == (kept[name].dtype, kept[name].stride())
        assert torch.equal(tensor, kept[name]), name
    found["whole"][2, 3] = 7.0  # numbers that were shared are shared
    assert found["turned"][3, 1] == 7.0
    assert read_inert(path)["model"]["whole"][2, 3] != 7.0


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", ZIP)
def test_values_that_are_known_are_plain(through, zipped, protocol):
    class Choice(Enum):
        static = "static"

    class Settings(dict):
        pass

    with foreign("kit.choices", Choice=Choice, Settings=Settings):
        found = through(
            {
                "args": argparse.Namespace(lr=[0.1], arch="hubert", nothing=None),
                "choice": Choice.static,
                "settings": Settings(a=1),
                "default": collections.defaultdict(list, {1: [2]}),
                "count": collections.Counter("aab"),
                "queue": collections.deque([1, 2], 3),
                "sets": ({1, 2}, frozenset("a"), set()),
                "bytes": (b"a\xff", bytearray(b"b"), b"", bytearray()),
                "numbers": (2**70, -(2**70), 1 + 2j, float("inf"), True),
                "numpy": (np.float64(1.5), np.int32(-7), np.float32(0.5), np.bool_(True)),
                "torch": (torch.Size([2, 3]), torch.float16, torch.device("cuda", 1)),
                "path": pathlib.PurePosixPath("/data/dict.txt"),
            },
            zipped,
            protocol,
        )
    assert found == {
        "args": {"lr": [0.1], "arch": "hubert", "nothing": None},
        "choice": "static",
        "settings": {"a": 1},
        "default": {1: [2]},
        "count": {"a": 2, "b": 1},
        "queue": [1, 2],
        "sets": ({1, 2}, frozenset("a"), set()),
        "bytes": (b"a\xff", b"b", b"", b""),
        "numbers": (2**70, -(2**70), 1 + 2j, float("inf"), True),
        "numpy": (1.5, -7, 0.5, True),
        "torch": (torch.Size([2, 3]), torch.float16, torch.device("cuda", 1)),
        "path": "/data/dict.txt",
    }
    for name in ("args", "settings", "default", "count"):
        assert type(found[name]) is dict
    assert type(found["torch"][0]) is torch.Size
    assert [type(value) for value in found["numpy"]] == [float, int, float, bool]


@pytest.mark.parametrize("zipped", ZIP)
def test_settings_of_omegaconf_are_what_they_hold(through, zipped):
    class Mode(Enum):
        fast = 1

    settings = {
        "model": {"_name": "hubert", "layers": [1, 2.5, {"on": True}], "mode": Mode.fast},
        "task": {"data": "???", "labels": "${model._name}", "none": None, "empty": {}},
    }
    with omegaconf() as config, foreign("kit.choices", Mode=Mode):
        made = config(settings)
        found = through({"cfg": made, "part": made._content["task"], "none": config(None)}, zipped)
    assert found["cfg"]["model"]["mode"] == 1
    found["cfg"]["model"]["mode"] = Mode.fast
    assert found == {"cfg": settings, "part": settings["task"], "none": None}
    assert found["part"] is found["cfg"]["task"]


@pytest.mark.parametrize("protocol", [2, 4])
def test_other_objects_are_records(through, protocol):
    class Slotted:
        __slots__ = ("a",)

    class Pair(tuple):
        def __new__(cls, first, second):
            return super().__new__(cls, (first, second))

        def __getnewargs__(self):
            return tuple(self)

    with (
        foreign("fairseq.data.dictionary", "Dictionary") as dictionary,
        foreign("kit.odd", Slotted=Slotted, Pair=Pair),
    ):
        slotted = Slotted()
        slotted.a = 1
        task = dictionary(symbols=["<s>", "a"], indices={"a": 1})
        task.itself = task
        found = through(
            {"task": task, "kind": dictionary, "slotted": slotted, "pair": Pair(1, "b")},
            protocol=protocol,
        )
    name = "fairseq.data.dictionary.Dictionary"
    assert (found["task"].kind, found["task"].arguments) == (name, ())
    assert found["task"].state.pop("itself") is found["task"]
    assert found["task"].state == {"symbols": ["<s>", "a"], "indices": {"a": 1}}
    assert found["kind"] == Record(name, (), None)
    assert found["slotted"] == Record("kit.odd.Slotted", (), (None, {"a": 1}))
    assert found["pair"] == Record("kit.odd.Pair", (1, "b"), None)


def test_what_trainings_keep_of_their_state(through):
    drawn = torch.get_rng_state()
    with (
        torch.random.fork_rng(devices=[]),
        foreign("pytorch_lightning.callbacks", "ModelCheckpoint") as callback,
    ):
        found = through(
            {
                "random": (random.getstate(), np.random.get_state(), drawn),
                "generator": np.random.default_rng(0),
                "array": np.arange(3),
                "callbacks": {callback: {"best": 0.5}},
                "hook": functools.partial(torch.nn.functional.gelu, approximate="tanh"),
                "step": functools.partial(callback().__reduce__),
                "range": range(3),
                "model": torch.nn.Linear(2, 1),
            }
        )
    assert found["random"][0] == random.getstate()
    assert torch.equal(found["random"][2], drawn)
    assert found["array"].kind.endswith(("_reconstruct", "_frombuffer"))
    assert found["callbacks"] == {
        Record("pytorch_lightning.callbacks.ModelCheckpoint", (), None): {"best": 0.5}
    }
    assert found["model"].state["_parameters"]["weight"].shape == (1, 2)
    assert found["hook"].kind == "functools.partial"


def test_strings_of_python_2(path):
    # {"letters": ["caf\xc3\xa9", "\xff"]}, an OrderedDict of pairs, and numpy.float64(1.0)
    saved = (
        b"\x80\x02}q\x00(U\x07letters]q\x01(U\x05caf\xc3\xa9U\x01\xffeU\x01oc"
        b"collections\nOrderedDict\n]](U\x01aK\x01ea\x85R"
        b"U\x01ncnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nU\x02f8K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbU\x08\0\0\0\0\0\0\xf0?\x86Ru."
    )
    in_a_row(path, saved=saved)
    assert read_inert(path) == {"letters": ["café", b"\xff"], "o": {"a": 1}, "n": 1.0}


def test_names_that_are_not_called_say_nothing(through):
    found = through({"named": (os.system, torch.nn.functional.relu), "kind": dict})
    assert found["named"][0] == Record("posix.system", (), None)
    assert found["kind"] == Record("builtins.dict", (), None)


# Hostile files ----------------------------------------------------------------------------------


class Call:
    """Pickled as a call, which may be of what another call gives."""

    def __init__(self, function, *arguments):
        self.parts = (function, arguments)

    def __call__(self):
        raise AssertionError

    def __reduce__(self):
        return self.parts


def instance_of(function, command):
    """An instruction of protocol 0 that calls what it says is a class."""
    return f"(S'{command}'\ni{function.__module__}\n{function.__name__}\n.".encode()


def stacked(command):
    """A name put together from strings that were kept for it."""
    words = (b"posix", b"system", command.encode())
    strings = b"".join(b"\x8c" + bytes([len(word)]) + word + b"\x94" for word in words)
    return b"\x80\x04" + strings + b"000h\x00h\x01\x93h\x02\x85R."


def built(command):
    """A harmless class is given its state, then called."""
    partial = dump(functools.partial(print))[2:-1]
    return b"\x80\x02" + partial + dump((os.system, (command,), {}, None))[2:-1] + b"b)R."


HOSTILE = {
    # What is pickled, given a command of the shell, a script and a folder; what the message says.
    "system": lambda do, script, folder: (dump(Call(os.system, do)), "posix.system"),
    "newer": lambda do, script, folder: (dump(Call(os.system, do), 5), "posix.system"),
    "oldest": lambda do, script, folder: (dump(Call(os.system, do), 0), "posix.system"),
    "eval": lambda do, script, folder: (
        dump(Call(eval, f"__import__('os').system({do!r})")), "builtins.eval"),
    "exec": lambda do, script, folder: (
        dump(Call(exec, f"import os; os.system({do!r})")), "builtins.exec"),
    "popen": lambda do, script, folder: (
        dump(Call(subprocess.check_output, do.split())), "subprocess.check_output"),
    "chain": lambda do, script, folder: (
        dump(Call(Call(getattr, Call(importlib.import_module, "os"), "system"), do)),
        "importlib.import_module"),
    "attribute": lambda do, script, folder: (
        dump(Call(Call(getattr, pathlib.Path, "touch"), pathlib.Path(do.split()[1]))),
        "builtins.getattr"),
    "method": lambda do, script, folder: (
        dump(Call(Call(getattr, pathlib.Path(do.split()[1]), "touch"))), "a call before"),
    "map": lambda do, script, folder: (
        dump(Call(list, Call(map, os.system, [do]))), "builtins.map"),
    "pipe": lambda do, script, folder: (dump(Call(os.mkfifo, do.split()[1])), "posix.mkfifo"),
    "inst": lambda do, script, folder: (instance_of(os.system, do), "posix.system"),
    "obj": lambda do, script, folder: (f"(cos\nsystem\nS'{do}'\no.".encode(), "os.system"),
    "stacked": lambda do, script, folder: (stacked(do), "posix.system"),
    "extension": lambda do, script, folder: (
        b"\x80\x02\x82\xf0" + dump((do,))[2:-1] + b"R.", "EXT1"),
    "built": lambda do, script, folder: (built(do), "a call before"),
    "script": lambda do, script, folder: (
        dump(Call(runpy.run_path, str(script))), "runpy.run_path"),
    "module": lambda do, script, folder: (
        dump(Call(importlib.import_module, "hubconf")), "importlib.import_module"),
    "hub": lambda do, script, folder: (
        dump(Call(functools.partial(torch.hub.load, source="local"), str(folder), "entry")),
        "a call before"),
    "nested": lambda do, script, folder: (
        dump(Call(pickle.loads, dump(Call(os.system, do)))), "pickle.loads"),
    "storage": lambda do, script, folder: (
        dump(Call(torch.storage._load_from_bytes, (folder / "nested.pt").read_bytes())),
        "torch.storage._load_from_bytes"),
    "joblib": lambda do, script, folder: (
        dump(Call(joblib.load, str(folder / "nested.joblib"))), "joblib.numpy_pickle.load"),
    "numpy": lambda do, script, folder: (
        dump(Call(np.load, str(folder / "nested.npy"), None, True)), "numpy.load"),
    "rebuilt": lambda do, script, folder: (
        dump(Call(torch._tensor._rebuild_from_type_v2, os.system, torch.Tensor, (do,), None)),
        "posix.system"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_nothing_that_a_file_asks_for_is_run(kind, tmp_path, path, monkeypatch):
    mark = tmp_path / "ran"
    command = f"touch {mark}"
    script = tmp_path / "hubconf.py"
    script.write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nentry = dict\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(copyreg._inverted_registry, 0xF0, ("os", "system"))
    evil = Call(os.system, command)
    torch.save(evil, tmp_path / "nested.pt")
    joblib.dump(evil, tmp_path / "nested.joblib")
    np.save(tmp_path / "nested.npy", np.array([evil], dtype=object), allow_pickle=True)
    pickled, says = HOSTILE[kind](command, script, tmp_path)

    try:  # that is what Python's own unpickler does
        pickle.loads(pickled)
    except Exception:  # what comes of the call need not fit what follows
        assert mark.exists()
    mark.unlink()
    for module in ("hubconf", "cached_hubconf"):
        monkeypatch.delitem(sys.modules, module, raising=False)

    zipped(path, pickled)
    refused(path, says)
    for part in ("magic", "version", "machine", "saved", "keys"):
        in_a_row(path, **{part: pickled})
        known = part != "magic" or pickled[:1] == b"\x80"
        refused(path, says if known else "no file of torch.save")
    assert not mark.exists()


@pytest.mark.parametrize("zip_layout", ZIP)
def test_code_of_a_class_is_not_run(tmp_path, through, zip_layout):
    def runs(*arguments):
        (tmp_path / "ran").touch()

    with foreign("kit.trap", "Trap") as trap:
        kept = trap(a=1)
        for name in ("__setstate__", "__new__", "__init__", "__del__", "__hash__", "__eq__"):
            setattr(trap, name, runs)
        found = through({"trap": kept}, zip_layout)
        del trap.__del__
    (tmp_path / "ran").unlink(missing_ok=True)
    with foreign("kit.trap", Trap=trap):
        assert through({"trap": kept}, zip_layout) == found
    assert found == {"trap": Record("kit.trap.Trap", (), {"a": 1})}
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("pickled", "says"),
    [
        (b"\x80\x02csubprocess\nPopen\n)\x81.", "subprocess.Popen"),
        (b"\x80\x04csubprocess\nPopen\n)}\x92.", "subprocess.Popen"),
        (b"\x80\x02cos\nsystem\n}U\x01aK\x01sb.", "asks to change os.system"),
        (b"\x80\x02ckit.net\nfetch\n)R.", "asks to call kit.net.fetch"),
        (b"\x80\x02ckit.net\nNet.fetch\n)R.", "asks to call kit.net.Net.fetch"),
        (b"\x80\x02c__builtin__\nevil\x1b[2J\n)R.", "builtins.evil?[2J"),
        (b"\x80\x02U\x07storageU\x01a\x86Q.", "outside of its object"),
        (b"\x80\x02(U\x06moduleccollections\nOrderedDict\nU\x01aU\x01btQ.", "outside"),
        (b"Pid\n.", "PERSID"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
    ],
)  # fmt: skip
def test_what_is_refused_by_name(path, pickled, says):
    zipped(path, pickled)
    refused(path, says, "nothing in it was run", "safetensors")


def test_other_archives(path):
    zipped(path, dump({}), **{"code/__torch__.py": b"def forward(self): ...", "constants.pkl": b""})
    refused(path, "TorchScript program", "state_dict")
    zipped(path, dump({}), **{"byteorder": b"big"})
    refused(path, "big-endian")
    in_a_row(path, machine=dump({**MACHINE, "little_endian": False}))
    refused(path, "big-endian")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("README.txt", "weights")
    refused(path, "a zip archive of other files")
    torch.save({}, path)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("checkpoint/data.pkl", dump(Call(os.system, "true")))
    refused(path, "twice")
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            archive.addfile(tarfile.TarInfo(name))
    refused(path, "tar archive of the oldest torch")


# Bad files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", ["0 bytes", "fetch it again"]),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ["git lfs pull"]),
        (b"{\"model_type\": \"hubert\"}", ["no file of torch.save but text", "model_type"]),
        ("字典 of words\n".encode() * 50, ["but text"]),
        (b"\n<!DOCTYPE html><html>Not found</html>", ["web page", "fetch it again"]),
        (b"RIFF\x00\x01\x02\x03WAVEfmt ", ["but other data", "RIFF"]),
        (dump({"model": 1}), ["another pickle", "torch.save"]),
    ],
)  # fmt: skip
def test_what_is_no_checkpoint(path, content, says):
    path.write_bytes(content)
    refused(path, *says)


def test_files_that_are_not_there_or_elsewhere(tmp_path, path):
    refused(path, "there is no file")
    refused(tmp_path, "there is no file")
    save_file({"weight": torch.zeros(3)}, path)
    refused(path, "name it so", ".safetensors")


@pytest.mark.parametrize("zip_layout", ZIP)
def test_a_file_that_was_cut_off(path, zip_layout):
    saved = {
        "model": {f"layer.{at}": torch.ones(50) for at in range(3)},
        "args": argparse.Namespace(),
    }
    torch.save(saved, path, _use_new_zipfile_serialization=zip_layout)
    whole = path.read_bytes()
    for length in [7, 30, 100, *range(200, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        refused(path, "fetch it again")


def test_damage_never_ends_in_another_error(path):
    generator = random.Random(0)
    for zip_layout in ZIP:
        saved = {"model": {"weight": torch.ones(5)}, "args": argparse.Namespace(a=1)}
        torch.save(saved, path, _use_new_zipfile_serialization=zip_layout)
        whole = path.read_bytes()
        for _ in range(40):
            damaged = bytearray(whole)
            for _ in range(generator.randint(1, 4)):
                damaged[generator.randrange(len(whole))] = generator.randrange(256)
            path.write_bytes(damaged)
            with suppress(UpstreamError):
                read_inert(path)


# Files that unfold without end ------------------------------------------------------------------


def stored(count, key="0", kind=torch.FloatStorage):
    """The instructions that refer to numbers."""
    return dump(("storage", kind, key, "cpu", count))[2:-1] + b"Q"


def tensor(storage, *arguments):
    """The instructions that make a tensor of numbers."""
    rebuild = b"ctorch._utils\n_rebuild_tensor\n("
    return (
        b"\x80\x02" + rebuild + storage + b"".join(dump(part)[2:-1] for part in arguments) + b"tR."
    )


@pytest.mark.parametrize(
    ("pickled", "says"),
    [
        (tensor(stored(2**50), 0, (2**50,), (1,)), "larger than its file"),
        (tensor(stored(5), 0, (5,), (1,)), "larger than its file"),
        (tensor(stored(4), 0, (2, 4), (4, 1)), "beyond its storage"),
        (tensor(stored(4), 3, (2,), (1,)), "beyond its storage"),
        (tensor(stored(4), 0, (4,), (-1,)), "a count must be"),
        (tensor(stored(4), -1, (4,), (1,)), "a count must be"),
        (tensor(stored(4, key="9"), 0, (4,), (1,)), "9"),
        (tensor(dump("x")[2:-1], 0, (4,), (1,)), "something else than numbers"),
        (b"\x80\x02" + stored(-4) + b".", "outside"),
        (b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".", "nests its content too deeply"),
        (b"\x80\x02)" + b"\x85" * 5000 + b".", "nests its content too deeply"),
        (b"\x80\x02}K\x00" + b"2\x86" * 60 + b"K\x00s.", "too many parts"),
        (b"\x80\x02ccollections\nOrderedDict\n]](K\x00" + b"2\x86" * 60 + b"K\x00ea\x85R.",
         "too many parts"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b".", "damaged"),
        (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".", "damaged"),
        (b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".", "damaged"),
        (b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b".", "damaged"),
        (b"\x80\x02L" + b"9" * 50_000 + b"L\n.", "damaged"),
    ],
)  # fmt: skip
def test_more_than_a_file_can_hold(path, pickled, says):
    zipped(path, pickled, **{"data/0": bytes(16)})
    refused(path, says)


def test_numbers_that_a_row_of_pickles_does_not_hold(path):
    count = 2**50
    saved = tensor(stored(count), 0, (count,), (1,))
    for announced in (count, 4, -1, 2**62):
        in_a_row(
            path, saved=saved, keys=dump(["0"]), numbers=struct.pack("<q", announced) + bytes(16)
        )
        refused(path, "damaged")
    in_a_row(path, saved=saved, keys=dump([]))
    refused(path, "do not fit together")


def test_an_archive_that_is_compressed(path):
    zipped(path, dump({"model": bytes(10_000_000)}), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 50_000
    refused(path, "compressed", "save it again")


def test_shared_parts_stay_shared(path, through):
    laughs = ["ha"]
    for _ in range(60):
        laughs = [laughs, laughs]
    found = through({"laughs": laughs, "key": {(1, (2, "a")): 3}})
    assert found["key"] == {(1, (2, "a")): 3}
    found = found["laughs"]
    for _ in range(60):
        assert found[0] is found[1]
        found = found[0]
    assert found == ["ha"]
    # A place to keep things that is far beyond all others costs nothing.
    zipped(path, b"\x80\x02]r\xff\xff\xff\xff.")
    assert read_inert(path) == []


def test_circles(through):
    circle = {"list": []}
    circle["list"].append((circle, circle["list"]))
    found = through(circle)
    assert found["list"][0][0] is found
    assert found["list"][0][1] is found["list"]
