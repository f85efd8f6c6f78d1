"""Training files of others: each layout against transformers, and what is refused."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any

import pytest
import torch

from benchmark.encoding.fingerprint import fingerprint
from benchmark.errors import UpstreamError
from tests.conftest import TINY
from tests.upstreams.loading import training_files as made
from tests.upstreams.loading.foreign import foreign, omegaconf
from tests.upstreams.loading.parity import LAYOUTS, READ, off, states
from upstreams.loading.convert import convert
from upstreams.loading.layouts.file import known_corpora
from upstreams.loading.layouts.read import read_training_file
from upstreams.loading.layouts.settings import convolutions, parse_settings
from upstreams.loading.load import load_upstream
from upstreams.models import generative


@pytest.fixture
def saved(tmp_path, make_model):
    """``saved(family, layout, **changes)``: the file, and the model whose weights it has."""

    def make(family, layout, name="file.pt", **changes):
        kind = made.FAMILIES[family]
        model = make_model(kind.kind, **kind.options)
        content = LAYOUTS[layout](kind, model)
        for key, change in changes.items():
            content[key] = change(content[key])
        path = tmp_path / name
        torch.save(content, path)
        return path, model

    return make


@pytest.mark.parametrize(("family", "layout"), READ)
def test_a_layout_gives_what_transformers_gives(family, layout, saved, noise, tmp_path):
    path, model = saved(family, layout)
    kind = made.FAMILIES[family]
    found = read_training_file(path, {})
    wanted = states(model, noise(5000), kind.layer_norm)
    assert off(found.upstream([noise(5000)]).values[:, 0], wanted) < 1e-4
    card = found.upstream.card
    assert (card.name, card.layers, card.dim, card.hop_samples) == ("file", 4, 32, 320)
    assert ("fine-tuned" in card.note) == (layout == "tuned")
    # A fine-tuned file says where it was tuned, not what was heard before.
    assert card.trained_on == (None if layout in ("flat", "tuned") else {"librispeech"})
    if layout != "flat":
        assert found.said["data"] == "LibriSpeech-960"  # not the path of somebody's disk
    beside = {"tuned": {"w2v_encoder.proj"}, "flat": set()}
    assert set(found.left_out) == {"mask_emb"} | beside.get(
        layout, {"final_proj", "label_embs_concat"}
    )

    for target in ("superb", "transformers"):
        folder = tmp_path / target / "file"
        convert(found.upstream, folder, target)
        again = load_upstream(str(folder))
        assert torch.equal(again([noise(5000)]).values, found.upstream([noise(5000)]).values), (
            target
        )
        assert fingerprint(again) == fingerprint(found.upstream)  # so features are shared
        assert again.card.name == card.name  # and results
    import transformers

    theirs = transformers.AutoModel.from_pretrained(tmp_path / "transformers" / "file").eval()
    assert off(states(theirs, noise(5000), kind.layer_norm), wanted) < 1e-4


def test_the_wrapper_does_not_matter(saved):
    marks = {fingerprint(load_upstream(str(saved("hubert", layout)[0]))) for layout in LAYOUTS}
    assert len(marks) == 1


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_with_objects_of_fairseq_and_omegaconf(zipped, make_model, tmp_path, noise):
    """As fairseq pickles it: settings in containers, choices as enumerations, dictionaries."""
    family = made.FAMILIES["hubert-large"]
    model = make_model(family.kind, **family.options)
    content = made.fairseq_cfg(family, model)
    path = tmp_path / "checkpoint_best.pt"

    class StrEnum(Enum):
        default = "default"
        layer_norm = "layer_norm"

    with (
        omegaconf() as config,
        foreign("fairseq.dataclass.constants", StrEnum=StrEnum),
        foreign("fairseq.data.dictionary", "Dictionary") as dictionary,
        foreign("fairseq.optim.adam", "FairseqAdam") as adam,
    ):
        content["cfg"]["model"]["extractor_mode"] = StrEnum.layer_norm
        content["cfg"] = config(content["cfg"])
        content["task_state"] = {"dictionaries": [dictionary(symbols=["<s>"], indices={"<s>": 0})]}
        content["extra_state"] = {"train_iterator": {"epoch": 3}, "optimizer": adam(lr=[0.1])}
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    found = read_training_file(path, {})
    wanted = states(model, noise(5000), normalize=True)
    assert off(found.upstream([noise(5000)]).values[:, 0], wanted) < 1e-4
    assert found.said["steps"] == "400,000"


def test_distilhubert(make_model, tmp_path, noise):
    model = make_model("hubert", feat_proj_layer_norm=False)
    torch.save(made.distilled(model), tmp_path / "states-epoch.ckpt")
    found = read_training_file(tmp_path / "states-epoch.ckpt", {})
    assert off(found.upstream([noise(5000)]).values[:, 0], states(model, noise(5000))) < 1e-4
    assert found.layout == "s3prl: DistilHuBERT"
    assert "DistilHuBERT" in found.upstream.card.paper
    assert found.said == {"steps": "200,000"}
    assert found.left_out == ("output_layer.0",)


@pytest.mark.parametrize("kind", ["add", "concat"])
def test_a_task_in_the_input_of_distilhubert_is_refused(kind, make_model, tmp_path):
    content = made.distilled(make_model("hubert", feat_proj_layer_norm=False))
    content["Config"]["distiller"]["task_emb_type"] = kind
    content["Distiller"]["task_embedding.weight"] = torch.ones(2, 32)
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(UpstreamError, match=f"task_emb_type='{kind}' .* is not implemented"):
        load_upstream(str(tmp_path / "file.pt"))


def test_s3prls_copy_of_a_file_is_the_same(saved, tmp_path):
    path, _ = saved("hubert", "cfg")
    content = torch.load(path)
    settings = {f"{part}_cfg": content["cfg"][part] for part in ("task", "model")}
    torch.save(settings | {"model_weight": content["model"]}, tmp_path / "copy.pt")
    copy, own = (load_upstream(str(tmp_path / name)) for name in ("copy.pt", "file.pt"))
    assert fingerprint(copy) == fingerprint(own)
    assert copy.card.family == "predictive"


@pytest.mark.parametrize("layout", ["cfg", "flat"])
def test_unispeech_sat_is_known_whatever_its_form(layout, saved):
    """Large has one more norm, for its loss, among the encoder's weights."""

    def named(cfg):
        if layout == "cfg":
            cfg["model"]["_name"] = "unispeech_sat"
        return cfg

    extra = with_weight("encoder.layer_norm_for_extract.weight", torch.ones(32))
    path, _ = saved("unispeech-sat", layout, cfg=named, model=extra)
    card = load_upstream(str(path)).card
    assert card.family == "predictive"
    assert "UniSpeech-SAT" in card.paper


def test_mockingjay(tmp_path, noise):
    """Its layers are those of BERT, which transformers has."""
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertEncoder

    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        bert = BertEncoder(BertConfig(**sizes, attn_implementation="eager")).eval()
        project, norm = torch.nn.Linear(80, 32), torch.nn.LayerNorm(32, eps=1e-12)
    weights = {f"encoder.{name}": weight for name, weight in bert.state_dict().items()}
    for ours, part in (("spec_transform", project), ("LayerNorm", norm)):
        for name, weight in part.state_dict().items():
            weights[f"input_representations.{ours}.{name}"] = weight
    audio = {"target_level": -25, "win_ms": 25, "hop_ms": 10, "n_freq": 201, "n_mels": 80}
    audio["input"] = {"feat_type": "mel", "channel": 0, "log": True, "delta": 0, "cmvn": True}
    settings = {
        "task": {"sequence_length": 1500},
        "transformer": sizes | {"input_dim": -1, "pre_layer_norm": False, "share_layer": False},
        "audio": audio,
    }
    content = {
        "Transformer": weights,
        "SpecHead": {"dense.weight": torch.ones(2, 2)},
        "Config": settings,
        "Optimizer": {},
        "Global_step": 500_000,
    }
    path = tmp_path / "states.ckpt"
    torch.save(content, path)
    found = read_training_file(path, {})
    mel = generative.centred_mel(noise(5000))
    x = norm(project(mel) + generative.sinusoids(len(mel), 32)).unsqueeze(0)
    wanted = [x]
    with torch.inference_mode():
        for layer in bert.layer:
            x = layer(x)
            wanted.append(x[0] if isinstance(x, tuple) else x)
            x = wanted[-1]
    assert off(found.upstream([noise(5000)]).values[:, 0], torch.cat(wanted).detach()) < 1e-4
    assert found.said == {"steps": "500,000"}
    assert found.left_out == ("SpecHead",)
    assert found.upstream.card.note.endswith("s3prl cuts them at 1500 frames")
    convert(found.upstream, tmp_path / "states", "superb")
    again = load_upstream(str(tmp_path / "states"))
    assert fingerprint(again) == fingerprint(found.upstream)
    audio["input"]["feat_type"] = "mfcc"
    torch.save(content, path)
    with pytest.raises(UpstreamError, match=r"feat_type='mfcc' is not read here; it must be mel"):
        load_upstream(str(path))


def test_weight_norm_in_its_three_spellings(saved, noise):
    def newer(state):
        names = {"weight_g": "parametrizations.weight.original0"}
        names |= {"weight_v": "parametrizations.weight.original1"}
        for old, new in names.items():
            state[f"encoder.pos_conv.0.{new}"] = state.pop(f"encoder.pos_conv.0.{old}")
        return state

    def removed(state):
        size, direction = (state.pop(f"encoder.pos_conv.0.weight_{part}") for part in "gv")
        state["encoder.pos_conv.0.weight"] = direction * (size / direction.norm(dim=(0, 1)))
        return state

    path, model = saved("hubert", "cfg")
    wanted = states(model, noise(4000))
    for spelling in (newer, removed):
        path, _ = saved("hubert", "cfg", model=spelling)
        assert off(load_upstream(str(path))([noise(4000)]).values[:, 0], wanted) < 1e-4


def test_a_projection_that_changes_no_width_is_none(make_model, tmp_path, noise):
    """fairseq leaves it out where the convolutions are as wide as the transformer."""
    family = made.FAMILIES["hubert"]
    model = make_model("hubert", conv_dim=[32] * 7)
    with torch.no_grad():
        model.feature_projection.projection.weight.copy_(torch.eye(32))
        model.feature_projection.projection.bias.zero_()
    content = made.fairseq_cfg(family, model)
    content["cfg"]["model"]["conv_feature_layers"] = made.CONVOLUTIONS.replace("12", "32")
    for part in ("weight", "bias"):
        del content["model"][f"post_extract_proj.{part}"]
    torch.save(content, tmp_path / "file.pt")
    upstream = load_upstream(str(tmp_path / "file.pt"))
    assert off(upstream([noise(4000)]).values[:, 0], states(model, noise(4000))) < 1e-4


@pytest.mark.parametrize("wrapper", ["recipe", "espnet", "espnet-fairseq", "lightning", "bare"])
def test_weights_without_settings(wrapper, make_model, tmp_path, noise):
    family = made.FAMILIES["hubert"]
    model = make_model("hubert")
    state = made.torchaudio_state(model)
    typed = {"heads": str(TINY["num_attention_heads"]), "normalize": "false"}
    outside = {"logit_generator.label_embeddings": torch.zeros(5, 8)}
    path = tmp_path / "file.pt"
    if wrapper == "recipe":
        content: dict[str, Any] = {
            "state_dict": {f"model.wav2vec2.{name}": weight for name, weight in state.items()}
            | {f"model.{name}": weight for name, weight in outside.items()},
            "pytorch-lightning_version": "1.6.0",
            "global_step": 250_000,
            "epoch": 7,
            "optimizer_states": [{"state": {}}],
        }
        typed |= {"family": "hubert", "strides": "5,2,2,2,2,2,2", "pre_norm": "false"}
    elif wrapper.startswith("espnet"):
        prefix = "encoder.hubert_pretrain_model.wav2vec2."
        heads = "encoder_num_heads"
        if wrapper == "espnet-fairseq":
            state, prefix = made.fairseq_state(family, model), "encoder.encoder."
            heads = "attention_heads"
        content = {prefix + name: weight for name, weight in state.items()}
        content |= {"encoder.hubert_pretrain_model.logit_generator.x": torch.zeros(2)}
        (tmp_path / "config.yaml").write_text(f"encoder_conf:\n  {heads}: 4\n", encoding="utf-8")
        typed.pop("heads")
    else:
        content = {"state_dict": {f"module.{name}": weight for name, weight in state.items()}}
        if wrapper == "lightning":
            content |= {"pytorch-lightning_version": "2.0"}
        else:
            content = content["state_dict"]
        typed |= {"family": "hubert", "strides": "5,2,2,2,2,2,2", "pre_norm": "false"}
    torch.save(content, path)
    found = read_training_file(path, typed)
    assert off(found.upstream([noise(5000)]).values[:, 0], states(model, noise(5000))) < 1e-4
    assert found.upstream.card.family == "predictive"
    if wrapper == "recipe":
        assert found.said == {"steps": "250,000", "epochs": "7"}
        assert found.left_out == ("model.logit_generator",)


def test_what_shapes_do_not_say_can_be_that_of_a_name(make_model, tmp_path, noise):
    model = make_model("hubert")
    from safetensors.torch import save_file

    # As accelerate saves a state: weights by transformers' names, and nothing beside them.
    save_file(dict(model.state_dict()), tmp_path / "model.safetensors")
    path = str(tmp_path / "model.safetensors")
    upstream = load_upstream(path, settings={"like": "hubert-large"})
    assert upstream.normalize
    assert upstream.encoder.config.heads == 16
    assert upstream.encoder.config.pre_norm
    with pytest.raises(UpstreamError, match=r"says heads=16, and --set says '4'"):
        load_upstream(path, settings={"like": "hubert-large", "heads": "4"})
    bare = load_upstream(path, settings={"like": "hubert-large"})
    recipe = {"model_name": "hubert_pretrain_large"}
    content = {"state_dict": made.torchaudio_state(model), "hyper_parameters": recipe}
    torch.save(content, tmp_path / "recipe.pt")
    own = load_upstream(str(tmp_path / "recipe.pt"))
    assert own.encoder.config == bare.encoder.config
    assert not own.normalize  # the recipe never does
    with pytest.raises(UpstreamError, match=r"says heads=16, and --set like=hubert-base has 12"):
        load_upstream(str(tmp_path / "recipe.pt"), settings={"like": "hubert-base"})
    with pytest.raises(UpstreamError, match=r"--set like=whisper-tiny: an encoder with a name"):
        load_upstream(path, settings={"like": "whisper-tiny"})
    with pytest.raises(UpstreamError, match=r"does not say family, heads, strides, pre_norm, norm"):
        load_upstream(path)


def test_how_far_relative_positions_reach_is_asked(make_model, tmp_path, noise):
    model = make_model("wavlm", num_buckets=16, max_bucket_distance=40)
    torch.save({"state_dict": dict(model.state_dict())}, tmp_path / "file.pt")
    path = str(tmp_path / "file.pt")
    typed = {"family": "wavlm", "heads": "4", "strides": "5,2,2,2,2,2,2", "pre_norm": "false"}
    typed |= {"normalize": "false"}
    with pytest.raises(UpstreamError, match=r"does not say max_distance, "):
        load_upstream(path, settings=typed)
    upstream = load_upstream(path, settings=typed | {"max_distance": "40"})
    assert off(upstream([noise(16_000)]).values[:, 0], states(model, noise(16_000))) < 1e-4


def test_a_file_by_the_name_of_a_row(saved, make_model, tmp_path):
    path, _ = saved("hubert", "cfg")
    with pytest.raises(UpstreamError, match=r"layers, dim and hop \(4, 32, 320\), and hubert-base"):
        load_upstream(f"hubert-base:{path}")


def test_its_untrained_twin_needs_no_other_settings(saved, noise):
    path, _ = saved("hubert", "cfg")
    twin = load_upstream(f"untrained:{path}")
    assert twin.card.family == "untrained"
    assert twin.card.name == "untrained:file"
    assert off(twin([noise(900)]).values, load_upstream(str(path))([noise(900)]).values) > 0.1


def without(key):
    def change(cfg):
        for section in (cfg["model"], cfg["task"]):
            section.pop(key, None)
        return cfg

    return change


def with_setting(key, value):
    def change(cfg):
        cfg["model"][key] = value
        return cfg

    return change


def with_weight(name, weight):
    def change(state):
        return state | {name: weight}

    return change


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cfg": without("normalize")}, r"does not say normalize, .* --set normalize=true\|false"),
        ({"cfg": with_setting("activation_fn", "relu")}, r"activation_fn='relu' .* must be gelu"),
        ({"cfg": with_setting("layer_type", "conformer")}, r"layer_type='conformer' is not read"),
        ({"cfg": with_setting("quantize_input", True)}, r"quantize_input=True is not read here"),
        ({"cfg": with_setting("streaming", True)}, r"streaming=True is not read here"),
        ({"cfg": with_setting("encoder_layers", 10**999)}, r"more than 1024 bits"),
        ({"cfg": with_setting("encoder_layers", 10**9)}, r"encoder_layers=1000000000 is not read"),
        ({"cfg": with_setting("encoder_attention_heads", -4)}, r"must be whole, from 1 to"),
        ({"cfg": with_setting("conv_pos", "128")}, r"conv_pos='128' is not read here"),
        ({"cfg": with_setting("encoder_layers", 5)}, r"missing: encoder\.layers\.3\.attention"),
        ({"cfg": with_setting("encoder_attention_heads", 5)}, r"dim 32 must be a multiple of he"),
        (
            {"cfg": with_setting("conv_feature_layers", "__import__('os').system('true')")},
            r"conv_feature_layers: .* is no list of convolutions",
        ),
        ({"model": with_weight("encoder.extra.weight", torch.ones(2))}, r"unexpected: encoder\.ex"),
        (
            {"model": with_weight("encoder.layer_norm.bias", torch.full((32,), torch.nan))},
            r"NaN or infinite weights in encoder\.layer_norm\.bias",
        ),
        (
            {"model": with_weight("other.feature_extractor.conv_layers.0.0.weight", torch.ones(2))},
            r"holds 2 encoders",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes, message, saved):
    path, _ = saved("hubert", "cfg", **changes)
    with pytest.raises(UpstreamError, match=message):
        load_upstream(str(path))


def test_what_a_file_does_not_say_can_be_typed(saved, noise):
    path, model = saved("hubert", "cfg", cfg=without("normalize"))
    upstream = load_upstream(str(path), settings=parse_settings(("normalize=true",)))
    wanted = states(model, noise(4000), normalize=True)
    assert off(upstream([noise(4000)]).values[:, 0], wanted) < 1e-4
    with pytest.raises(UpstreamError, match=r"no such setting. Did you mean normalize\?"):
        load_upstream(str(path), settings={"normalise": "true"})
    with pytest.raises(UpstreamError, match=r"--set normalize=yes: expected true\|false"):
        load_upstream(str(path), settings={"normalize": "yes"})
    path, _ = saved("hubert", "cfg")
    with pytest.raises(UpstreamError, match=r"says normalize=False, and --set says 'true'"):
        load_upstream(str(path), settings={"normalize": "true"})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_at_half_precision_are_read_and_said(dtype, saved):
    path, _ = saved("hubert", "cfg", model=lambda s: {n: w.to(dtype) for n, w in s.items()})
    card = load_upstream(str(path)).card
    assert card.note == f"weights kept as {str(dtype).removeprefix('torch.')}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"optimizer": {"state": {}}}, "the state of an optimiser and no weights"),
        ({"model": {"decoder.embed_tokens.weight": torch.ones(2, 2)}}, "a model of text"),
        ({"visual.patch_embed.proj.weight": torch.ones(2)}, "a model of pictures"),
        ({"my.layer.weight": torch.ones(2)}, r"weights of my\.layer, in no layout that is known"),
        ([torch.ones(2)], "holds list, not the named weights"),
        ({"epoch": 3}, "holds epoch and no weights by name"),
        (
            {"model": {"a.b": torch.ones(1)}, "state_dict": {"a.b": torch.ones(1)}},
            "weights under 'model' and 'state_dict'",
        ),
    ],
)
def test_what_is_no_speech_encoder_is_refused(content, message, tmp_path):
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(UpstreamError, match=message):
        load_upstream(str(tmp_path / "file.pt"))


def test_a_hole_in_a_file_is_no_weight(saved):
    """As a download that broke off and went on leaves it: zeros, which are numbers."""
    path, model = saved("hubert", "cfg")
    content = bytearray(path.read_bytes())
    weight = model.encoder.layers[1].feed_forward.output_dense.weight
    at = content.index(weight.detach().numpy().tobytes())
    content[at : at + 64] = bytes(64)
    path.write_bytes(content)
    with pytest.raises(UpstreamError, match="do not have the checksum that was saved with them"):
        load_upstream(str(path))


def test_files_that_belong_together_are_named(saved, tmp_path):
    saved("hubert", "cfg", name="last-shard0.pt")
    with pytest.raises(UpstreamError, match=r"one of several files .*last-shard0\.pt is here"):
        load_upstream(str(tmp_path / "last-shard0.pt"))
    saved("hubert", "cfg", name="best.pt")
    with pytest.raises(UpstreamError, match=r"no config\.json and 2 training files, best\.pt"):
        load_upstream(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("LibriSpeech_960h", {"librispeech"}),
        ("librispeech-and-libri_light", None),
        ("librispeech+libri-light", {"librispeech", "libri-light"}),
        ("train-clean-LibriSpeech", {"librispeech"}),
        ("my_librispeech_and_more", None),
        ("manifest", None),
        ("", None),
    ],
)
def test_a_corpus_counts_where_the_path_names_nothing_else(text, wanted):
    assert known_corpora(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[(512, 10, 5)]", [(512, 10, 5)]),
        ("[(4,3,2)] * 2 + 2*[(4, 2, 1)]", [(4, 3, 2)] * 2 + [(4, 2, 1)] * 2),
        ("[[4, 3, 2]]", [(4, 3, 2)]),
    ],
)
def test_lists_of_convolutions_are_parsed(text, wanted):
    assert convolutions(text, "file") == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[(1, 2)]",
        "[(1, 2, 0)]",
        "[(1, 2, True)]",
        "[(1, 2, 3.0)]",
        "[(1, 2, 3)] * 100000000000",
        "[(1, 2, 3)] * 60 * 60 * 60",
        "[x for x in ()]",
        "print(1)",
        "[(1, 2, 3)].__class__",
        "(" * 5000,
        "[" * 3000 + "]" * 3000,
        "[(1, 2, 3)]\nimport os",
    ],
)
def test_nothing_else_is_a_list_of_convolutions(text):
    with pytest.raises(UpstreamError, match="no list of convolutions"):
        convolutions(text, "file")


def test_a_folder_of_ours_says_whether_waveforms_are_normalised(saved, tmp_path):
    path, _ = saved("hubert-large", "cfg")
    convert(load_upstream(str(path)), tmp_path / "out", "superb")
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    assert settings["normalize"] is True
    card = load_upstream(str(tmp_path / "out")).card
    assert card.training.startswith("data LibriSpeech-960, labels a second 50, mask_prob 0.8")
    with pytest.raises(UpstreamError, match="is there and not empty"):
        convert(load_upstream(str(path)), tmp_path / "out", "superb")
