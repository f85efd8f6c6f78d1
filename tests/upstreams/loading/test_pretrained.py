"""Folders of encoders pretrained here: written, read back strictly, and never trusted."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmark.errors import SuperbError, UpstreamError
from upstreams.loading import pretrained
from upstreams.loading.load import load_upstream
from upstreams.models.architecture import untrained_encoder
from upstreams.models.av_hubert import AV_HUBERT_BASE
from upstreams.models.cpc import BIDIRECTIONAL_CPC, MODIFIED_CPC
from upstreams.models.generative import APC_3X512, TERA_3X768
from upstreams.models.transformer import MINI

SMALL_CONVOLUTIONS = dataclasses.replace(MODIFIED_CPC.convolutions, dim=16)
ARCHITECTURES = {
    "transformer": dataclasses.replace(
        MINI, conv_dims=(24, 16, 16), input_state=False, dim=32, layers=2, heads=2,
        feed_forward_dim=64, position_kernel=16,
    ),
    "cpc": dataclasses.replace(MODIFIED_CPC, convolutions=SMALL_CONVOLUTIONS, context_dim=16),
    "bidirectional-cpc": dataclasses.replace(
        BIDIRECTIONAL_CPC,
        convolutions=dataclasses.replace(BIDIRECTIONAL_CPC.convolutions, dim=16),
        context_kernels=(1, 2),
        direction_dim=8,
    ),
    "apc": dataclasses.replace(APC_3X512, dim=16),
    "mel-transformer": dataclasses.replace(
        TERA_3X768, layers=1, dim=16, heads=2, feed_forward_dim=32
    ),
    "av-hubert": dataclasses.replace(
        AV_HUBERT_BASE, layers=1, dim=16, heads=2, feed_forward_dim=32, position_groups=4
    ),
}  # fmt: skip
CARD = {
    "family": "contrastive",
    "licence": "MIT",
    "paper": "a paper",
    "note": "a note",
    "trained_on": ["librispeech"],
}


def encoder(name: str) -> torch.nn.Module:
    return untrained_encoder(ARCHITECTURES[name], 0)


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "mine"
    pretrained.save(folder, ARCHITECTURES["cpc"], encoder("cpc"), CARD)
    return folder


def test_a_folder_from_before_frames_were_stacked_has_none(tmp_path):
    pretrained.save(tmp_path / "mine", ARCHITECTURES["apc"], encoder("apc"), CARD)
    path = tmp_path / "mine" / "config.json"
    config = json.loads(path.read_text())
    del config["values"]["stack"]
    path.write_text(json.dumps(config))
    assert load_upstream(str(tmp_path / "mine")).card.hop_samples == 160


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_what_is_saved_is_what_is_loaded(tmp_path, name):
    made = encoder(name)
    pretrained.save(tmp_path / "mine", ARCHITECTURES[name], made, CARD)
    upstream = load_upstream(str(tmp_path / "mine"))
    for key, weight in made.state_dict().items():
        loaded = upstream.encoder.state_dict()[key]
        torch.testing.assert_close(loaded, weight, rtol=1e-3, atol=1e-6)
    card = upstream.card
    assert (card.name, card.family, card.licence) == ("mine", "contrastive", "MIT")
    assert card.trained_on == {"librispeech"}
    states = upstream([torch.randn(4000), torch.randn(6000)])
    assert (states.layers, states.dim) == (card.layers, card.dim)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_untrained_twin_of_a_folder_has_its_shape_and_other_weights(tmp_path, name):
    folder = tmp_path / "mine"
    pretrained.save(folder, ARCHITECTURES[name], encoder(name), CARD)
    (folder / "model.safetensors").unlink()  # it is not read
    twin = load_upstream(f"untrained:{folder}")
    assert twin.card.name == "untrained:mine"
    assert twin.card.family == "untrained"
    assert twin.card.trained_on == frozenset()
    assert bool(twin([torch.randn(4000)]).values.isfinite().all())


def damage(folder, file, **changes):
    path = folder / file
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"architecture": "os.system"}, "architecture is one of"),
        ("config.json", {"values": {}}, "must be an object with"),
        ("config.json", {"values": [1]}, "must be an object with"),
        ("card.json", {"family": "magic"}, "family is one of"),
        ("card.json", {"family": ["magic"]}, "family is one of"),
        ("card.json", {"trained_on": [["librispeech"]]}, "trained_on is a list"),
        ("card.json", {"trained_on": "everything"}, "trained_on is a list"),
        ("card.json", {"licence": 7}, "licence must be text"),
    ],
)
def test_settings_that_are_not_as_written_are_refused(saved, file, changes, message):
    damage(saved, file, **changes)
    with pytest.raises(UpstreamError, match=message):
        load_upstream(str(saved))


@pytest.mark.parametrize(
    ("key", "value"),
    [("context_dim", "16"), ("context_dim", True), ("recurrence", "cnn"), ("convolutions", 3)],
)
def test_values_of_another_type_are_named(saved, key, value):
    values = json.loads((saved / "config.json").read_text())["values"]
    damage(saved, "config.json", values={**values, key: value})
    with pytest.raises(UpstreamError, match=key):
        load_upstream(str(saved))


MADE_UP = [
    ("transformer", {"dim": 10**9}, "dim must be a whole number from 1 to 65536; got 1000000000"),
    ("transformer", {"dim": 0}, "dim must be"),
    ("transformer", {"dim": 1e3}, "dim must be"),
    ("transformer", {"layers": 10**6}, "layers must be a whole number from 1 to 256"),
    ("transformer", {"position_layers": 10**6}, "position_layers must be"),
    ("transformer", {"heads": 0}, "heads must be"),
    ("transformer", {"heads": -2}, "heads must be"),
    ("transformer", {"heads": 3}, "multiple of heads"),
    ("transformer", {"conv_strides": [160, 1, 0]}, "conv_strides must be"),
    ("transformer", {"conv_dims": [16] * 100_000}, "conv_dims must be a list of 1 to 256"),
    ("transformer", {"conv_dims": []}, "conv_dims must be"),
    ("transformer", {"conv_strides": [1000] * 3}, "frames of over 65536 samples"),
    ("transformer", {"conv_kernels": [400, 65536, 65536]}, "frames of over 65536 samples"),
    ("transformer", {"conv_kernels": [65536, 3, 3]}, "log_mel takes a window of at most 8192"),
    ("transformer", {"conv_dims": [65536, 3, 3]}, "no more bands than its spectrum has bins"),
    ("transformer", {"norm_eps": float("nan")}, "norm_eps must be a number above 0"),
    ("transformer", {"norm_eps": 10**400}, "norm_eps must be"),
    ("transformer", {"norm_eps": -1e-5}, "norm_eps must be"),
    ("transformer", {"dim": 2**16, "layers": 256}, "parameters is larger"),
    ("cpc", {"context_dim": 2**16}, "parameters is larger"),
    ("cpc", {"convolutions": {"kernels": [1]}}, "convolutions must be an object"),
    ("bidirectional-cpc", {"direction_dim": 7}, "must be equal"),
    ("apc", {"codes": -1}, "codes must be a whole number from 0"),
    ("mel-transformer", {"dim": 33, "heads": 1}, "dim must be even"),
    ("mel-transformer", {"heads": 7}, "multiple of heads, 7"),
    ("av-hubert", {"position_groups": 5}, "multiple of heads 2 and of position_groups 5"),
    ("av-hubert", {"stack": 500}, "frames of over 65536 samples"),
]


@pytest.mark.parametrize("untrained", ["", "untrained:"])
@pytest.mark.parametrize(("name", "changes", "message"), MADE_UP)
def test_values_that_no_encoder_has_are_refused_and_cost_nothing(
    tmp_path, name, changes, message, untrained
):
    folder = tmp_path / "mine"
    pretrained.save(folder, ARCHITECTURES[name], encoder(name), CARD)
    values = json.loads((folder / "config.json").read_text())["values"]
    damage(folder, "config.json", values={**values, **changes})
    with pytest.raises(UpstreamError, match=message):
        load_upstream(f"{untrained}{folder}")


def test_lists_of_convolutions_of_different_lengths_are_refused(saved):
    values = json.loads((saved / "config.json").read_text())["values"]
    values["convolutions"]["paddings"] = [0]
    damage(saved, "config.json", values=values)
    with pytest.raises(UpstreamError, match="one value per convolution; got 5, 5 and 1"):
        load_upstream(str(saved))


def test_settings_nested_without_end_are_refused(saved):
    (saved / "config.json").write_text('{"model_type": "superb", "values": ' + "[" * 100_000)
    with pytest.raises(UpstreamError, match="cannot read"):
        load_upstream(str(saved))


def test_sizes_are_compared_with_the_weights_before_any_are_read(saved, monkeypatch):
    values = json.loads((saved / "config.json").read_text())["values"]
    damage(saved, "config.json", values={**values, "context_dim": 8000})
    monkeypatch.setattr(pretrained, "load_file", None)
    monkeypatch.setattr(torch.nn.Module, "to_empty", None)
    with pytest.raises(UpstreamError, match="does not hold the weights"):
        load_upstream(str(saved))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(saved, number):
    path = saved / "model.safetensors"
    weights = load_file(path)
    weights["context.weight_ih_l0"][0, 0] = number
    save_file(weights, path)
    with pytest.raises(UpstreamError, match=r"weights in context\.weight_ih_l0"):
        load_upstream(str(saved))


def test_weights_of_whole_numbers_are_refused(saved):
    path = saved / "model.safetensors"
    save_file({name: weight.int() for name, weight in load_file(path).items()}, path)
    with pytest.raises(UpstreamError, match="does not hold the weights"):
        load_upstream(str(saved))


def test_a_full_disk_leaves_the_encoder_that_was_there(saved, monkeypatch):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    write = pathlib.Path.write_bytes

    def fills(path, content):
        if "config" in path.name:
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(pathlib.Path, "write_bytes", fills)
    with pytest.raises(SuperbError, match="No space left"):
        pretrained.save(saved, ARCHITECTURES["apc"], encoder("apc"), CARD)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_a_weight_too_much_too_few_or_misshapen_is_named(saved):
    path = saved / "model.safetensors"
    weights = load_file(path)
    name = "context.weight_ih_l0"
    for changed in (
        {**weights, "surprise": torch.zeros(1)},
        {key: weight for key, weight in weights.items() if key != name},
        {**weights, name: weights[name][:-1].clone()},
    ):
        save_file(changed, path)
        with pytest.raises(UpstreamError, match=rf"1 differ: (surprise|{name})"):
            load_upstream(str(saved))


def test_a_truncated_file_or_a_pickle_in_its_place_is_refused(saved, tmp_path):
    path = saved / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UpstreamError, match="copy the folder again"):
        load_upstream(str(saved))

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "boom"), "w"))

    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UpstreamError, match=r"model\.safetensors"):
        load_upstream(str(saved))
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("file", ["card.json", "model.safetensors"])
def test_a_missing_file_is_named(saved, file):
    (saved / file).unlink()
    with pytest.raises(UpstreamError, match=file):
        load_upstream(str(saved))


def test_weights_beyond_half_precision_are_not_saved(tmp_path):
    made = encoder("apc")
    with torch.no_grad():
        next(made.parameters()).fill_(1e6)
    with pytest.raises(SuperbError, match="half precision"):
        pretrained.save(tmp_path / "mine", ARCHITECTURES["apc"], made, CARD)
