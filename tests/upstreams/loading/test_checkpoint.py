"""Checkpoint folders: strict, and nothing in them is run."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmark.errors import UpstreamError
from upstreams.loading.load import load_upstream

MINIMAL = ["config.json", "preprocessor_config.json"]


def reference(model, waveform):
    with torch.inference_mode():
        output = model(waveform[None], output_hidden_states=True)
    return torch.cat([*output.hidden_states[:-1], output.last_hidden_state])


def close(a, b):
    return float((a - b).abs().max() / b.abs().max()) < 1e-4


def weights_of(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("normalize", [False, True])
def test_a_folder_loads_as_transformers_does(make_folder, noise, normalize):
    folder, model = make_folder(
        normalize=normalize, feat_extract_norm="layer", do_stable_layer_norm=True
    )
    upstream = load_upstream(str(folder))
    waveform = noise(5000)
    prepared = waveform
    if normalize:
        prepared = (waveform - waveform.mean()) / (waveform.var(correction=0) + 1e-7).sqrt()
    assert close(upstream([waveform]).values[:, 0], reference(model, prepared))
    card = upstream.card
    assert (card.name, card.source, card.family) == ("model", str(folder), "predictive")
    assert (card.layers, card.dim, card.hop_samples, card.min_samples) == (4, 32, 320, 400)
    assert card.trained_on is None
    assert card.pad_invariant


def test_wav2vec2_is_contrastive(make_folder):
    folder, _ = make_folder(kind="wav2vec2")
    upstream = load_upstream(str(folder))
    assert upstream.card.family == "contrastive"
    assert type(upstream).__name__ == "TransformerUpstream"


def test_old_pickle_with_prefix_heads_and_old_weight_norm_names(make_folder, noise):
    folder, model = make_folder()
    new = weights_of(folder)
    old = {
        "hubert."
        + name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in new.items()
    }
    assert any(name.endswith("weight_g") for name in old)
    old["lm_head.weight"] = torch.zeros(3, 32)
    old["final_proj.weight"] = torch.zeros(3, 32)
    torch.save(old, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    upstream = load_upstream(str(folder))
    assert close(upstream([noise(3000)]).values[:, 0], reference(model, noise(3000)))


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("HubertForCTC", "fine-tuned: HubertForCTC"),
        ("HubertModel", ""),
        ("HubertForPreTraining", ""),
    ],
)
def test_a_model_trained_for_a_task_says_so(make_folder, name, note):
    folder, _ = make_folder()
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "architectures": [name]}))
    assert load_upstream(str(folder)).card.note == note
    assert "fine-tuned" not in load_upstream(f"untrained:{folder}").card.note


def test_the_feature_extractor_inside_the_processor(make_folder, noise):
    """transformers 5 saves both in one file, and that file comes first."""
    folder, _ = make_folder(normalize=True)
    path = folder / "preprocessor_config.json"
    nested = {"feature_extractor": json.loads(path.read_text())}
    (folder / "processor_config.json").write_text(json.dumps(nested))
    expected = load_upstream(str(folder))([noise(3000)]).values
    path.write_text(json.dumps({"do_normalize": False}))
    assert torch.equal(load_upstream(str(folder))([noise(3000)]).values, expected)
    path.unlink()
    assert torch.equal(load_upstream(str(folder))([noise(3000)]).values, expected)


def test_shards(make_folder, noise):
    folder, model = make_folder()
    weights = weights_of(folder)
    names = sorted(weights)
    files = {
        name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(names)
    }
    for file in set(files.values()):
        save_file({name: weights[name] for name in names if files[name] == file}, folder / file)
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    upstream = load_upstream(str(folder))
    assert close(upstream([noise(3000)]).values[:, 0], reference(model, noise(3000)))

    index.write_text(json.dumps({"weight_map": dict.fromkeys(names, "../elsewhere.safetensors")}))
    with pytest.raises(UpstreamError, match="its own folder"):
        load_upstream(str(folder))
    index.write_text(json.dumps({"weight_map": {**files, "more": files[names[0]]}}))
    with pytest.raises(UpstreamError, match="disagree on more"):
        load_upstream(str(folder))


def change(folder, edit):
    weights = weights_of(folder)
    edit(weights)
    save_file(weights, folder / "model.safetensors")


def test_half_precision_becomes_float32(make_folder, noise):
    folder, _ = make_folder()
    change(folder, lambda weights: weights.update({k: v.half() for k, v in weights.items()}))
    upstream = load_upstream(str(folder))
    assert {weight.dtype for weight in upstream.parameters()} == {torch.float32}


def test_an_extra_weight_is_named(make_folder):
    folder, _ = make_folder()
    change(folder, lambda weights: weights.update(surprise=torch.zeros(2)))
    with pytest.raises(UpstreamError, match="unexpected: surprise"):
        load_upstream(str(folder))


def test_a_missing_weight_is_named(make_folder):
    folder, _ = make_folder()
    change(folder, lambda weights: weights.pop("encoder.layers.1.attention.q_proj.bias"))
    with pytest.raises(
        UpstreamError, match=r"missing: encoder\.layers\.1\.attention\.q_proj\.bias"
    ):
        load_upstream(str(folder))


def test_a_wrong_shape_is_named(make_folder):
    folder, _ = make_folder()
    name = "feature_projection.projection.weight"
    change(folder, lambda weights: weights.update({name: torch.zeros(32, 13)}))
    with pytest.raises(UpstreamError, match=r"projection\.weight \(32, 13\) instead of \(32, 12\)"):
        load_upstream(str(folder))


def test_one_weight_under_two_names(make_folder):
    folder, _ = make_folder()
    name = "encoder.layer_norm.weight"
    change(folder, lambda weights: weights.update({f"hubert.{name}": weights[name].clone()}))
    with pytest.raises(UpstreamError, match="twice under two names"):
        load_upstream(str(folder))


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_cannot_run_code(make_folder, tmp_path):
    folder, _ = make_folder()
    (folder / "model.safetensors").unlink()
    victim = tmp_path / "owned"
    torch.save({"weight": Hostile(str(victim))}, folder / "pytorch_model.bin")
    with pytest.raises(UpstreamError, match="would run code"):
        load_upstream(str(folder))
    assert not victim.exists()


def test_a_pickle_of_something_else(make_folder):
    folder, _ = make_folder()
    (folder / "model.safetensors").unlink()
    torch.save([1, 2], folder / "pytorch_model.bin")
    with pytest.raises(UpstreamError, match="named tensors and nothing else"):
        load_upstream(str(folder))


@pytest.mark.parametrize("keep", [0, 4, 100, 5000])
def test_a_truncated_file(make_folder, keep):
    folder, _ = make_folder()
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UpstreamError, match="damaged or incomplete"):
        load_upstream(str(folder))


@pytest.mark.parametrize("name", MINIMAL)
def test_a_missing_settings_file(make_folder, name):
    folder, _ = make_folder()
    (folder / name).unlink()
    with pytest.raises(UpstreamError, match=f"has no {name}"):
        load_upstream(str(folder))


def test_no_weights(make_folder):
    folder, _ = make_folder()
    (folder / "model.safetensors").unlink()
    with pytest.raises(UpstreamError, match="has no weights"):
        load_upstream(str(folder))


@pytest.mark.parametrize(
    ("content", "says"), [("{", "cannot read"), ("[1]", "must hold a JSON object")]
)
def test_broken_json(make_folder, content, says):
    folder, _ = make_folder()
    (folder / "config.json").write_text(content)
    with pytest.raises(UpstreamError, match=says):
        load_upstream(str(folder))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", "big"),
        ("conv_dim", 512),
        ("conv_bias", 1),
        ("feat_extract_norm", "batch"),
        ("num_hidden_layers", 0),
        ("layer_norm_eps", "tiny"),
        ("layer_norm_eps", 0),
    ],
)
def test_settings_of_the_wrong_type(make_folder, key, value):
    folder, _ = make_folder()
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(UpstreamError, match=key):
        load_upstream(str(folder))


def test_it_must_say_whether_to_normalise(make_folder):
    folder, _ = make_folder()
    (folder / "preprocessor_config.json").write_text("{}")
    with pytest.raises(UpstreamError, match="needs do_normalize"):
        load_upstream(str(folder))
