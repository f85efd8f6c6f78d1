"""The fingerprint changes with whatever may change a feature, and with nothing else."""

import functools
import importlib
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from importlib import util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from benchmark import source
from benchmark.core import HiddenStates, UpstreamCard
from benchmark.encoding.fingerprint import count_parameters, fingerprint, weights_sha256
from benchmark.identity import update
from upstreams.models.generative import APCConfig

ROOT = Path(__file__).resolve().parents[3]


class Holder:
    """An object with the attributes given."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


@dataclass
class Settings:
    hop: int
    widths: list


class Net(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.inner = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1), nn.Linear(4, 4))
        self.register_buffer("window", torch.ones(4))
        self.scale = 1.0
        self.card = UpstreamCard("net", 1, 4, 4)

    def forward(self, waveforms):
        frames = waveforms[0][: len(waveforms[0]) // 4 * 4].view(-1, 4) * self.window
        values = self.inner(frames) * self.scale
        return HiddenStates(values[None, None], torch.tensor([len(values)]))


def of(**attributes):
    digest, stable = fingerprint(Holder(**attributes))
    assert stable
    return digest


def double(value):
    return 2 * value


def triple(value):
    return 3 * value


LAMBDAS = [lambda value: 2 * value, lambda value: 3 * value]

DIFFERENT = {
    "text": ("a", "b"),
    "number": (1, 2),
    "number type": (1, 1.0),
    "text or number": ("1", 1),
    "nothing": (None, 0),
    "bool": (True, 1),
    "tensor value": (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.000001])),
    "tensor shape": (torch.zeros(2, 3), torch.zeros(3, 2)),
    "tensor dtype": (torch.zeros(2), torch.zeros(2, dtype=torch.bfloat16)),
    "tensor order": (torch.eye(2)[[0, 1]], torch.eye(2)[[1, 0]]),
    "array": (np.arange(3), np.arange(3) + 1),
    "dtype": (torch.float32, torch.float16),
    "dict value": ({"a": 1}, {"a": 2}),
    "dict key": ({"a": 1}, {"b": 1}),
    "nesting": ([1, [2, 3]], [1, [2], 3]),
    "tuple": ((1, (2,)), (1, 2)),
    "set": ({1, 2}, {1, 3}),
    "dataclass": (Settings(1, [2]), Settings(1, [3])),
    "card": (UpstreamCard("a", 1, 1, 1), UpstreamCard("a", 1, 1, 2)),
    "function": (double, triple),
    "functions of one name": (LAMBDAS[0], LAMBDAS[1]),
    "partial": (functools.partial(int, base=2), functools.partial(int, base=3)),
    "method": (Settings(1, []).__eq__, Settings(2, []).__eq__),
    "class": (Settings, Holder),
    "module": (nn.ReLU(), nn.GELU()),
    "module setting": (nn.Conv1d(1, 1, 3), nn.Conv1d(1, 1, 3, stride=2)),
    "dropout left on": (nn.Dropout(0.1).train(), nn.Dropout(0.1).eval()),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_changes_with(case):
    torch.manual_seed(0)
    first, second = DIFFERENT[case]
    if isinstance(first, nn.Conv1d):
        second.load_state_dict(first.state_dict())
    assert of(value=first) == of(value=first)
    assert of(value=first) != of(value=second)
    assert of(value=first) != of(other=first)
    assert of(value=[first, first]) != of(value=[first, second])


def test_shared_parts_are_told_apart():
    a, b = [1], [2]
    assert of(value=[a, b, a]) != of(value=[a, b, b])


def test_every_dataclass_counts():
    """Also when many short-lived objects are made on the way."""
    for changed in range(20):
        base = {f"settings{i:02}": Settings(i, [i, [i]]) for i in range(20)}
        other = {**base, f"settings{changed:02}": Settings(changed, [changed, [-1]])}
        assert of(**base) != of(**other)


def test_a_field_that_a_later_version_added_counts_unless_it_has_its_default():
    def hashed(config):
        heard = []
        update(SimpleNamespace(update=heard.append), config, own_code=False)
        return b"".join(heard)

    before = APCConfig(dim=160, layers=1)
    assert b"dim" in hashed(before)
    for name, value in (("stack", 2), ("input_state", True)):
        assert name.encode() not in hashed(before)
        assert name.encode() in hashed(replace(before, **{name: value}))


def test_what_a_dataclass_adds_to_its_fields():
    one, two = Settings(1, []), Settings(1, [])
    one.weights, two.weights = torch.zeros(2), torch.ones(2)
    assert of(value=one) != of(value=two)


def test_equal_content_equal_fingerprint():
    def make():
        return {
            "a": [1, 2.5, None, "x"],
            "b": torch.arange(6).view(2, 3),
            "c": Settings(1, [2]),
            "d": {"y", "x", "z"},
            "e": np.float64(3),
        }

    assert of(**make()) == of(**make())
    # neither the order of attributes nor the layout in memory says anything
    assert of(**make()) == of(**dict(reversed(make().items())))
    transposed = torch.arange(6).view(2, 3).T.contiguous().T
    assert of(**make()) == of(**{**make(), "b": transposed})


def test_cycles_end():
    holder = Holder(value=1)
    holder.itself = [holder]
    digest, stable = fingerprint(holder)
    assert stable
    holder.value = 2
    assert fingerprint(holder)[0] != digest


def test_module_weights_buffers_and_settings():
    net = Net()
    digests = {fingerprint(net)[0]}
    assert fingerprint(Net()) == (digests.copy().pop(), True)
    with torch.no_grad():
        net.inner[2].bias[3] += 1e-6
    digests.add(fingerprint(net)[0])
    net.window[1] = 0
    digests.add(fingerprint(net)[0])
    net.scale = 2.0
    digests.add(fingerprint(net)[0])
    net.inner[1].p = 0.2
    digests.add(fingerprint(net)[0])
    net.inner[0].weight.data = net.inner[0].weight.data.double()
    digests.add(fingerprint(net)[0])
    assert len(digests) == 6


def test_module_inside_an_object():
    assert of(model=Net(0)) == of(model=Net(0))
    assert of(model=Net(0)) != of(model=Net(1))


@pytest.mark.parametrize("training", [False, True])
def test_forward_pass_changes_nothing(training):
    net = Net().train(training)
    before = fingerprint(net)
    with torch.inference_mode():
        net([torch.randn(40)])
    assert fingerprint(net) == before
    net([torch.randn(40)]).values.sum().backward()
    assert fingerprint(net) == before


@pytest.mark.parametrize(
    "value",
    [
        threading.Lock(),
        iter([1]),
        torch.Generator(),
        (x for x in ()),
        {object()},
        [[memoryview(b"")]],
    ],
    ids=lambda value: type(value).__name__,
)
def test_unhashable_attribute_is_unstable(value):
    """Then no two runs share features, not even of the same object."""
    holder = Holder(value=value)
    first, second = fingerprint(holder), fingerprint(holder)
    assert not first[1]
    assert not second[1]
    assert first[0] != second[0]


def test_hidden_state_is_unstable():
    def closure(scale):
        return lambda value: value * scale

    import random

    assert not fingerprint(Holder(value=closure(2)))[1]
    assert not fingerprint(Holder(value=random.Random(1)))[1]
    assert not fingerprint(Holder(value=Settings(threading.Lock(), [])))[1]


def test_function_defaults_count():
    def make(default):
        def scale(value, by=default):
            return value * by

        return scale

    assert of(value=make(2)) == of(value=make(2))
    assert of(value=make(2)) != of(value=make(3))


def test_declared_fingerprint_replaces_the_walk():
    lock = threading.Lock()
    one = fingerprint(Holder(fingerprint="v1", value=lock))
    assert one[1]
    assert one == fingerprint(Holder(fingerprint="v1", value=[]))
    assert one != fingerprint(Holder(fingerprint="v2", value=lock))

    class Other(Holder):
        pass

    assert one != fingerprint(Other(fingerprint="v1"))


def test_a_method_called_fingerprint_declares_nothing():
    class Own(Holder):
        def fingerprint(self):
            return "v1"

    assert fingerprint(Own(a=1))[0] != fingerprint(Own(a=2))[0]


SOURCE = """
class Encoder:
    def __init__(self):
        self.size = 3
    def __call__(self, waveforms):
        return waveforms
"""


def load(path, name):
    spec = util.spec_from_file_location(name, path)
    module = util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module.Encoder


@pytest.mark.parametrize("declared", [False, True])
def test_source_file(tmp_path, monkeypatch, declared):
    """The same class, its file edited: in its own code, or in that of its base class."""
    for name in ("toy_base", "toy_encoder"):
        monkeypatch.setitem(sys.modules, name, None)
    base, file = tmp_path / "toy_base.py", tmp_path / "toy_encoder.py"
    derived = "from toy_base import Encoder as Base\nclass Encoder(Base): pass\n"

    def take():
        load(base, "toy_base")
        encoder = load(file, "toy_encoder")()
        if declared:
            encoder.fingerprint = "v1"
        digest, stable = fingerprint(encoder)
        assert stable
        return digest

    base.write_text(SOURCE)
    file.write_text(derived)
    first = take()
    assert take() == first
    file.write_text(derived + "# a comment\n")
    second = take()
    base.write_text(SOURCE.replace("return waveforms", "return waveforms[::-1]"))
    assert len({first, second, take()}) == 3


def test_installed_packages_count_by_their_source(tmp_path, monkeypatch):
    """A plug-in is installed beside torch, but its release is not among the ones named."""
    monkeypatch.setitem(sys.modules, "toy_plugin", None)
    file = tmp_path / "lib" / "site-packages" / "toy_plugin.py"
    file.parent.mkdir(parents=True)
    file.write_text(SOURCE)
    first = fingerprint(load(file, "toy_plugin")())
    file.write_text(SOURCE + "# release 2\n")
    assert fingerprint(load(file, "toy_plugin")()) != first


TOY = """
import torch
from torch import nn

def double(value):
    return 2 * value

class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.inner = nn.ModuleList([nn.Linear(3, 3), nn.GRU(3, 3)])
        self.words = {"a", "b", "c", "d"}
        self.settings = {"x": (1, 2), "y": [double, torch.float16, int]}
"""


def test_stable_across_processes(tmp_path, monkeypatch):
    """Whatever the hash seed; but a class typed at a prompt has no source to vouch for it."""
    (tmp_path / "toy_other.py").write_text(TOY)
    code = f"""
import sys
sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]
from toy_other import Encoder
from benchmark.encoding.fingerprint import fingerprint
class Typed:
    pass
print(*fingerprint(Encoder()), fingerprint(Typed())[1])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    monkeypatch.setitem(sys.modules, "toy_other", None)
    digest, stable = fingerprint(load(tmp_path / "toy_other.py", "toy_other")())
    assert found.stdout.split() == [digest, "True", "False"]
    assert stable


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.MultiheadAttention])
def test_torch_modules_are_stable(kind):
    torch.manual_seed(0)
    module = kind(4, 2)
    digest, stable = fingerprint(module)
    assert stable
    with torch.no_grad():
        next(module.parameters()).view(-1)[0] += 1e-3
    assert fingerprint(module)[0] != digest


def test_a_recurrent_layer_is_what_it_was_after_a_call():
    layer = nn.GRU(4, 4)
    layer.load_state_dict(nn.GRU(4, 4).state_dict(), assign=True)
    before = fingerprint(layer), weights_sha256(layer)
    layer(torch.zeros(3, 4))
    assert (fingerprint(layer), weights_sha256(layer)) == before


def test_count_parameters():
    net = Net()
    assert count_parameters(net) == 2 * (4 * 4 + 4)
    assert count_parameters(Holder(model=net, again=net)) == 2 * (4 * 4 + 4)
    assert count_parameters(Holder(a=nn.Linear(2, 2), b=nn.Linear(1, 1))) == 8
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    assert count_parameters(tied) == 8
    assert count_parameters(Holder(value=1)) is None


@pytest.mark.parametrize(
    ("imports", "use"),
    [
        ("import its_helper", "its_helper.SCALE"),
        ("from its_helper import SCALE", "SCALE"),
        ("", "__import__('its_helper') and local()"),
        ("import its_middle", "its_middle.SCALE"),
    ],
)
def test_a_helper_module_counts(tmp_path, monkeypatch, imports, use):
    """What a plug-in's file imports changes its features as much as the file itself."""
    from upstreams.loading.load import load_upstream

    plugin = tmp_path / "helped.py"
    plugin.write_text(
        f"{imports}\nfrom superb import UpstreamCard\n"
        "def local():\n    from its_helper import SCALE\n    return SCALE\n"
        "class Helped:\n"
        "    card = UpstreamCard(name='helped', layers=1, dim=1, hop_samples=160)\n"
        f"    def __call__(self, waveforms):\n        return {use}\n"
    )
    (tmp_path / "its_middle.py").write_text("from its_helper import SCALE\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    marks = set()
    for scale in ("1.0", "0.0"):
        (tmp_path / "its_helper.py").write_text(f"SCALE = {scale}\n")
        for name in ("its_helper", "its_middle"):
            sys.modules.pop(name, None)
        marks.add(fingerprint(load_upstream(f"{plugin}:Helped"))[0])
    assert len(marks) == 2


def test_the_words_on_a_card_change_no_feature():
    class Toy:
        def __init__(self, note):
            self.card = UpstreamCard(name="toy", layers=1, dim=1, hop_samples=160, note=note)

    assert fingerprint(Toy("a"))[0] == fingerprint(Toy("b"))[0]


# A package that counts as ours: what its encoder does is in three files.
OURS = {
    "__init__": "",
    "models/__init__": "",
    "models/batch": "SCALE = 2\n\ndef pad(x):\n    return x\n",
    "models/other": "def pad(x):\n    return -x\n",
    "models/toy": """
import math

from ours.models import other
from ours.models.batch import SCALE, pad
from torch.nn.functional import gelu

def half(x):
    return x / 2

def double(x, by=2.0):
    # twice
    return x * by

class Encoder:
    def __call__(self, waveforms):
        return double(pad(waveforms)) * math.pi
""",
}
NO_CHANGE = {
    "comment": ("models/toy", "# twice", "# two times\n    # of it"),
    "layout": ("models/toy", "double(pad(waveforms)) *", "double(\n  (pad( waveforms))) *"),
    "documentation": ("models/toy", "def half(x):", 'def half(x):\n    """Half."""'),
    "of a constant": ("models/batch", "SCALE = 2", 'SCALE = 2\n"""Twice."""'),
    "order": (
        "models/toy",
        "def half(x):\n    return x / 2\n\ndef double",
        "def double",
    ),
    "an import inside": (
        "models/toy",
        "        return double(",
        "        from ours.models.batch import pad\n        import math\n        return double(",
    ),
}  # fmt: skip
CHANGE = {
    "number": ("models/toy", "x / 2", "x / 3"),
    "default": ("models/toy", "by=2.0", "by=2.5"),
    "function": ("models/toy", "double(pad", "half(pad"),
    "method": ("models/toy", "    def __call__", "    size = 3\n    def __call__"),
    "text": ("models/toy", "math.pi", "len('a')"),
    "what it imports": ("models/batch", "return x", "return x + 1"),
    "a constant it imports": ("models/batch", "SCALE = 2", "SCALE = 3"),
    "a module it imports": ("models/other", "-x", "+x"),
    "the same name from elsewhere": ("models/toy", "batch import SCALE, pad", "other import pad"),
    "the same name from another library": ("models/toy", "torch.nn.functional", "toylib"),
}  # fmt: skip


@pytest.fixture
def ours(tmp_path, monkeypatch):
    """``ours(files, module)``: the hashes of an encoder of a package of our own.

    Its fingerprint, whether that comes again, and the hash of what it has learnt.
    """
    monkeypatch.setattr(source, "OWN", source.OWN | {"ours"})
    monkeypatch.setitem(sys.modules, "toylib", SimpleNamespace(gelu=None))

    def take(files, module="ours.models.toy"):
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, text in files.items():
            path = root / "ours" / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(root)
            encoder = importlib.import_module(module).Encoder()
            digest, stable = fingerprint(encoder)
            learnt = weights_sha256(encoder)
            for name in [name for name in sys.modules if name.split(".")[0] == "ours"]:
                del sys.modules[name]
        return digest, stable, learnt

    return take


@pytest.mark.parametrize("case", NO_CHANGE)
def test_words_and_places_of_our_own_code_change_nothing(ours, case):
    name, old, new = NO_CHANGE[case]
    assert old in OURS[name]
    source = OURS[name].replace(old, new)
    if case == "order":
        source += "\n\ndef half(x):\n    return x / 2\n"
    assert ours(OURS) == ours({**OURS, name: source})


@pytest.mark.parametrize("case", CHANGE)
def test_what_our_own_code_does_changes_it(ours, case):
    name, old, new = CHANGE[case]
    assert old in OURS[name]
    before, after = (ours(files) for files in (OURS, {**OURS, name: OURS[name].replace(old, new)}))
    assert before[0] != after[0]
    assert before[1]
    assert after[1]
    assert before[2] == after[2] is not None  # another version of us computes the same encoder


def test_our_own_code_moves_to_another_folder(ours):
    moved = {
        name.replace("models/toy", "room/inner/toi").replace("models", "rooms"): source.replace(
            "ours.models", "ours.rooms"
        )
        for name, source in OURS.items()
    } | {"room/__init__": "", "room/inner/__init__": ""}
    assert ours(OURS) == ours(moved, "ours.room.inner.toi")


def test_functions_of_our_own_without_a_name_are_not_told_apart(ours):
    source = OURS["models/toy"] + "    def __init__(self):\n        self.half = lambda x: x / 2\n"
    assert ours({**OURS, "models/toy": source})[1:] == (False, None)


def test_what_an_encoder_has_learnt(monkeypatch, tmp_path):
    def both(upstream):
        return fingerprint(upstream)[0], weights_sha256(upstream)

    first = both(Net())
    assert both(Net()) == first
    assert both(Net(seed=1))[1] != first[1]
    louder = Net()
    louder.scale = 2.0
    assert both(louder)[1] != first[1]
    with monkeypatch.context() as patch:
        patch.setattr("benchmark.encoding.fingerprint.version", lambda name: "another")
        later = both(Net())
    assert later[0] != first[0]
    assert later[1] == first[1]
    assert weights_sha256(Holder(lock=threading.Lock())) is None
    declared = [weights_sha256(Holder(fingerprint="one", weights_sha256=own)) for own in "aab"]
    assert declared[0] == declared[1] != declared[2]
    assert weights_sha256(Holder(fingerprint="one")) != weights_sha256(Holder(fingerprint="two"))

    class Told(Holder):
        weights_sha256 = "inherited"

    class Scaled(Told):
        fingerprint = "nearer"

    class Late(Holder):
        @functools.cached_property
        def fingerprint(self):
            return "versions"

        @functools.cached_property
        def weights_sha256(self):
            return "weights"

    class Other(Scaled):
        fingerprint = "another"

    assert weights_sha256(Scaled()) != weights_sha256(Other())
    late = Late()
    before = weights_sha256(late)
    assert late.fingerprint  # kept in the object once it was asked for
    assert weights_sha256(late) == before != weights_sha256(Holder(fingerprint="versions"))
    layers = [
        weights_sha256(Holder(fingerprint="a", card=UpstreamCard("x", n, 4, 4))) for n in (1, 2)
    ]
    assert layers[0] != layers[1]
    marks = set()
    for text in ("x", "-x"):  # a plug-in's code is all that says what it computes
        (tmp_path / "plugged.py").write_text(
            f"class Own:\n    def __call__(self, x):\n        return {text}\n"
        )
        spec = util.spec_from_file_location("plugged", tmp_path / "plugged.py")
        module = util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "plugged", module)
        spec.loader.exec_module(module)
        marks.add(weights_sha256(module.Own()))
    assert len(marks) == 2
