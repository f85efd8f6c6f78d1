"""Every form of name, and what each says when it does not fit."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import pathlib
import subprocess
import sys

import pytest
import torch

from benchmark.conformance import check_upstream, raise_for_failures
from benchmark.core import HiddenStates
from benchmark.encoding.fingerprint import fingerprint
from benchmark.errors import SuperbError, UpstreamError
from upstreams.catalogue import UPSTREAMS
from upstreams.loading.load import GROUP, load_upstream, upstream_names
from upstreams.loading.torchaudio_bundles import BUNDLES

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

class Cardless:
    def __call__(self, waveforms):
        return None

class Mute:
    card = CARD
"""


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "plugin.py"
    path.write_text(PLUGIN)
    return path


def test_a_file(plugin):
    upstream = load_upstream(f"{plugin}:Loud")
    assert isinstance(upstream([torch.zeros(200)]), HiddenStates)
    assert upstream.card.name == "loud"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Lout", "has no 'Lout'; it defines .*Loud"),
        ("Cardless", "without a card: an upstream has"),
        ("Mute", "not callable: an upstream has"),
        ("CARD", "without a card"),
    ],
)
def test_what_is_no_upstream(plugin, name, says):
    with pytest.raises(UpstreamError, match=says):
        load_upstream(f"{plugin}:{name}")


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
    register(monkeypatch, loud="loud_plugin:Loud", gone="loud_plugin_gone:Loud")
    assert upstream_names() == [*UPSTREAMS, "loud", "gone"]
    assert load_upstream("loud").card.name == "loud"
    with pytest.raises(SuperbError, match=r"cannot import 'loud_plugin_gone'.*ModuleNotFoundError"):
        load_upstream("gone")
    with pytest.raises(SuperbError, match="Did you mean loud"):
        load_upstream("lous")


def test_an_entry_point_cannot_take_a_built_in_name(monkeypatch):
    register(monkeypatch, hubert="evil:make")
    with pytest.raises(SuperbError, match=r"registers upstream 'hubert' .*built in"):
        upstream_names()


@pytest.mark.parametrize("name", ["hubrt", "hf:gpt2", "", "wav2vec9"])
def test_an_unknown_name_says_where_names_are_listed(name):
    with pytest.raises(SuperbError) as caught:
        load_upstream(name)
    message = str(caught.value)
    assert "`superb upstreams`" in message
    assert "my_file.py:MyClass" in message
    assert "org/name" in message
    assert ("Did you mean hubert" in message) == (name == "hubrt")
    assert len(message) < 400


@pytest.mark.parametrize("asked", ["", "main", "a" * 40])
def test_a_hub_id_that_is_not_pinned_says_so(monkeypatch, make_folder, asked):
    folder, _ = make_folder("a" * 40)
    monkeypatch.setattr("upstreams.loading.hub.download", lambda *arguments: folder)
    card = load_upstream("org/name" + (asked and f"@{asked}")).card
    assert card.revision == "a" * 40
    pinned = asked == card.revision
    assert card.note == ("" if pinned else f"revision not pinned, this is org/name@{'a' * 40}")


def test_paths_that_are_no_folder(tmp_path):
    with pytest.raises(UpstreamError, match="there is no folder"):
        load_upstream(str(tmp_path / "none"))
    (tmp_path / "file.bin").touch()
    with pytest.raises(UpstreamError, match="is empty"):
        load_upstream(str(tmp_path / "file.bin"))
    with pytest.raises(UpstreamError, match=r"has no config\.json"):
        load_upstream(str(tmp_path))


def test_the_table_and_the_names_import_no_torch():
    code = "import sys; from upstreams.loading.load import upstream_names; upstream_names(); " + (
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


BUNDLE_SIZES = {
    "extractor_conv_bias": False,
    "encoder_embed_dim": 16,
    "encoder_projection_dropout": 0.1,
    "encoder_pos_conv_kernel": 8,
    "encoder_pos_conv_groups": 4,
    "encoder_num_layers": 3,
    "encoder_num_heads": 2,
    "encoder_attention_dropout": 0.1,
    "encoder_ff_interm_features": 24,
    "encoder_ff_interm_dropout": 0.1,
    "encoder_dropout": 0.1,
    "encoder_layer_drop": 0.1,
}
CONVOLUTIONS = [(8, 10, 5)] + [(8, 3, 2)] * 4 + [(8, 2, 2)] * 2


@pytest.fixture
def bundle(monkeypatch, tmp_path):
    """``bundle(name, weights=True)``: a tiny bundle in a cache of its own; its model."""
    torchaudio = pytest.importorskip("torchaudio")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()

    def make(name, weights=True):
        real = vars(torchaudio.pipelines)[name]
        sizes = dict(BUNDLE_SIZES)
        sizes["extractor_mode"] = real._params["extractor_mode"]
        sizes["encoder_layer_norm_first"] = real._params["encoder_layer_norm_first"]
        sizes["extractor_conv_layer_config"] = CONVOLUTIONS
        factory = torchaudio.models.wav2vec2_model
        if real._model_type == "WavLM":
            sizes |= {"encoder_num_buckets": 8, "encoder_max_distance": 16}
            factory = torchaudio.models.wavlm_model
        aux = 5 if "_ASR_" in name else None
        tiny = dataclasses.replace(real, _params=sizes | {"aux_num_out": aux})
        monkeypatch.setattr(torchaudio.pipelines, name, tiny)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model = factory(**sizes, aux_num_out=aux).eval()
        if weights:
            torch.save(model.state_dict(), tmp_path / "checkpoints" / real._path)
        return model

    return make


@pytest.mark.parametrize(
    "name", ["WAVLM_BASE", "WAVLM_LARGE", "HUBERT_BASE", "WAV2VEC2_ASR_LARGE_LV60K_10M"]
)
def test_a_torchaudio_bundle(bundle, name, noise, rng_untouched):
    model = bundle(name)
    upstream = load_upstream(f"torchaudio:{name}")
    card = upstream.card
    assert (card.layers, card.dim, card.hop_samples, card.min_samples) == (4, 16, 320, 400)
    assert card.name == f"torchaudio:{name}"
    assert card.note == ("fine-tuned: CTC" if "ASR" in name else "")
    assert card.licence == "mit"
    raise_for_failures(check_upstream(upstream, hop_budget_s=0.5))
    waveform = noise(5000)[None]
    if "LARGE" in name:
        waveform = torch.nn.functional.layer_norm(waveform, waveform.shape)
    with torch.inference_mode():
        layers, _ = model.extract_features(waveform)
        x, _ = model.feature_extractor(waveform, None)
        last = model.encoder(x)
    found = upstream([noise(5000)]).values
    assert torch.allclose(found[1:-1], torch.stack(layers[:-1]), atol=1e-5)
    assert torch.allclose(found[-1], last, atol=1e-5)
    assert found[0].shape == found[1].shape
    assert not torch.allclose(found[0], found[1], atol=1e-2)
    assert fingerprint(upstream) == fingerprint(load_upstream(f"torchaudio:{name}"))
    assert fingerprint(upstream)[1]
    twins = [load_upstream(f"untrained:torchaudio:{name}") for _ in range(2)]
    assert twins[0].card.name == f"untrained:torchaudio:{name}"
    assert twins[0].card.family == "untrained"
    assert torch.equal(twins[0]([noise(5000)]).values, twins[1]([noise(5000)]).values)
    assert not torch.allclose(twins[0]([noise(5000)]).values, found, atol=1e-2)


def test_a_bundle_that_is_not_here(bundle, monkeypatch, tmp_path):
    bundle("WAVLM_BASE", weights=False)

    def no_network(*arguments, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    path = tmp_path / "checkpoints" / "wavlm_base.pth"
    with pytest.raises(UpstreamError, match=f"not at {path}, and https.*no route to host"):
        load_upstream("torchaudio:WAVLM_BASE")
    assert load_upstream("untrained:torchaudio:WAVLM_BASE").card.layers == 4


def test_a_bundle_that_does_not_fit(bundle, tmp_path):
    model = bundle("HUBERT_BASE")
    path = tmp_path / "checkpoints" / "hubert_fairseq_base_ls960.pth"
    weights = model.state_dict()
    torch.save({**weights, "surprise": torch.zeros(1)}, path)
    with pytest.raises(UpstreamError, match="unexpected: surprise"):
        load_upstream("torchaudio:HUBERT_BASE")
    key = "encoder.transformer.layers.1.attention.k_proj.bias"
    torch.save({**weights, key: torch.zeros(2)}, path)
    with pytest.raises(UpstreamError, match=f"wrong shape: {key}"):
        load_upstream("torchaudio:HUBERT_BASE")
    torch.save({name: value for name, value in weights.items() if name != key}, path)
    with pytest.raises(UpstreamError, match=f"missing: {key}"):
        load_upstream("torchaudio:HUBERT_BASE")
    torch.save({"model": pathlib.Path("a")}, path)
    with pytest.raises(UpstreamError, match="as plain data"):
        load_upstream("torchaudio:HUBERT_BASE")
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(UpstreamError, match="as plain data"):
        load_upstream("torchaudio:HUBERT_BASE")


@pytest.mark.parametrize("prefix", ["torchaudio:", "untrained:torchaudio:"])
def test_an_unknown_bundle(prefix):
    with pytest.raises(SuperbError, match=r"'WAVLM_BSE'. Did you mean WAVLM_BASE.*Known: HUBERT_A"):
        load_upstream(f"{prefix}WAVLM_BSE")


def test_every_bundle_is_listed_with_its_licence():
    from torchaudio import pipelines

    # Documentation of objects is a comment to Python; torchaudio sets it as an attribute.
    for name, facts in BUNDLES.items():
        words = {"mit": "MIT License", "cc-by-nc-4.0": "NC 4.0"}[facts.licence]
        assert words in vars(pipelines)[name].__doc__, name

    kinds = (pipelines.Wav2Vec2Bundle, pipelines.Wav2Vec2ASRBundle, pipelines.Wav2Vec2FABundle)
    assert {name for name, value in vars(pipelines).items() if isinstance(value, kinds)} == set(
        BUNDLES
    )
