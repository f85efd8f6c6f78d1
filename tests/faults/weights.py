"""Faults of checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmark.errors import UpstreamError
from tests.conftest import TINY
from tests.faults.case import fault, run, superb
from upstreams.loading.load import load_upstream

Weights = dict[str, Tensor]
SPLIT = ("00001-of-00002", "00002-of-00002")


# Made of transformers, tiny and random ----------------------------------------------------------


@cache
def _model(kind: str) -> Any:
    import transformers

    config = getattr(transformers, f"{kind.removesuffix('Model').removesuffix('ForCTC')}Config")
    sizes = TINY
    if kind.startswith("Whisper"):
        sizes = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "vocab_size": 20,
                 "encoder_attention_heads": 2, "decoder_attention_heads": 2,
                 "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "pad_token_id": 0,
                 "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(transformers, kind)(config(**sizes)).eval()


def checkpoint(folder: Path, name: str = "model", kind: str = "HubertModel") -> Path:
    """A folder as save_pretrained writes it."""
    import transformers

    path = folder / name
    _model(kind).save_pretrained(path)
    if kind.startswith("Whisper"):
        transformers.WhisperFeatureExtractor().save_pretrained(path)
    else:
        transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(path)
    return path


def weights_of(path: Path) -> Weights:
    return load_file(path / "model.safetensors")


def pickled(path: Path, content: object) -> None:
    """The same folder with pytorch_model.bin in the place of model.safetensors."""
    (path / "model.safetensors").unlink(missing_ok=True)
    torch.save(content, path / "pytorch_model.bin")


def sharded(path: Path, form: str = "pytorch_model.bin") -> Path:
    """The same folder in two shards; the index is returned."""
    weights = weights_of(path)
    (path / "model.safetensors").unlink()
    stem, _, ending = form.partition(".")
    files = {name: f"{stem}-{SPLIT[place % 2]}.{ending}" for place, name in enumerate(weights)}
    for file in set(files.values()):
        part = {name: weight for name, weight in weights.items() if files[name] == file}
        if ending == "bin":
            torch.save(part, path / file)
        else:
            save_file(part, path / file)
    index = path / f"{form}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return index


def heard(path: Path, note: str = "") -> Tensor:
    """The hidden states of some noise; the encoder's card says the note."""
    upstream = load_upstream(str(path))
    assert note in upstream.card.note, upstream.card
    noise = torch.rand(4000, generator=torch.Generator().manual_seed(1)) - 0.5
    with torch.inference_mode():
        return upstream([noise]).values


@cache
def _expected(kind: str) -> Tensor:
    with TemporaryDirectory() as folder:
        return heard(checkpoint(Path(folder), "as-saved", kind))


def same(path: Path, kind: str = "HubertModel", note: str = "") -> None:
    """It gives what the folder as it was saved gives, and its card says what was done."""
    assert torch.equal(heard(path, note), _expected(kind))


def differs(path: Path, *parts: str) -> None:
    """It is refused in words that say these parts."""
    try:
        load_upstream(str(path))
    except UpstreamError as error:
        text = str(error)
        assert len(text) < 1500, text
        assert all(part in text for part in parts), text
    else:
        raise AssertionError(f"{path} was loaded")


# Layouts ----------------------------------------------------------------------------------------


@fault("weights in shards of pytorch_model.bin with their index", "loaded")
def shards_of_pickles(folder: Path) -> None:
    path = checkpoint(folder)
    sharded(path)
    same(path)
    whisper = checkpoint(folder, "whisper", "WhisperModel")
    sharded(whisper)
    same(whisper, "WhisperModel")


@fault("a shard that the index names is not there", "refused, with its name")
def shard_missing(folder: Path) -> None:
    for form in ("model.safetensors", "pytorch_model.bin"):
        for kind in ("HubertModel", "WhisperModel"):
            path = checkpoint(folder, f"{kind}-{form}", kind)
            sharded(path, form)
            lost = form.replace(".", f"-{SPLIT[1]}.")
            (path / lost).unlink()
            differs(path, lost, "index.json")


@fault("an index that leads out of its folder", "refused; nothing there is read")
def index_elsewhere(folder: Path) -> None:
    for form in ("model.safetensors", "pytorch_model.bin"):
        for kind in ("HubertModel", "WhisperModel"):
            path = checkpoint(folder, f"{kind}-{form}", kind)
            index = sharded(path, form)
            content = json.loads(index.read_text())
            name = next(iter(content["weight_map"]))
            for elsewhere in ("../elsewhere.bin", str(folder / "elsewhere.bin")):
                content["weight_map"][name] = elsewhere
                index.write_text(json.dumps(content))
                differs(path, index.name, "its own folder")


@fault(
    "weights inside a training state, under state_dict, model or model_state_dict",
    "loaded; the card says where they stood",
)
def training_state(folder: Path) -> None:
    path = checkpoint(folder)
    weights = weights_of(path)
    for key in ("state_dict", "model", "model_state_dict"):
        pickled(path, {key: weights, "epoch": 3, "optimizer": {"lr": 0.1}})
        same(path, note=repr(key))
    whisper = checkpoint(folder, "whisper", "WhisperModel")
    pickled(whisper, {"state_dict": weights_of(whisper)})
    same(whisper, "WhisperModel", "'state_dict'")


@fault(
    "names that begin with module., _orig_mod. or both, or hold _orig_mod. inside",
    "loaded; the card says what was taken away",
)
def prefixed_names(folder: Path) -> None:
    path = checkpoint(folder)
    weights = weights_of(path)
    for prefix in ("module.", "_orig_mod.module.", "model."):
        save_file({prefix + name: weight for name, weight in weights.items()},
                  path / "model.safetensors")  # fmt: skip
        same(path, note=f"names without {prefix}")
    inside = {name.replace(".layers.", ".layers._orig_mod.", 1): weight
              for name, weight in weights.items()}  # fmt: skip
    save_file(inside, path / "model.safetensors")
    same(path, note="_orig_mod.")
    whisper = checkpoint(folder, "whisper", "WhisperModel")
    named = {f"module.{name}": weight for name, weight in weights_of(whisper).items()}
    save_file(named, whisper / "model.safetensors")
    same(whisper, "WhisperModel", "module.")


@fault(
    "a training state of another model, or one that lacks a weight",
    "refused, with the name of the weight",
)
def training_state_of_another(folder: Path) -> None:
    path = checkpoint(folder)
    weights = weights_of(path)
    name = "encoder.layers.1.attention.q_proj.bias"
    rest = {f"module.{key}": weight for key, weight in weights.items() if key != name}
    pickled(path, {"model": rest})
    differs(path, f"missing: {name}")
    pickled(path, {"model": weights, "state_dict": weights})
    differs(path, "'state_dict' and 'model'")


@fault("both model.safetensors and another pytorch_model.bin", "the former counts")
def two_formats(folder: Path) -> None:
    path = checkpoint(folder)
    other = {name: weight + 1 for name, weight in weights_of(path).items()}
    torch.save(other, path / "pytorch_model.bin")
    same(path)


@fault("a pickle that would run a program", "refused; it is not run")
def hostile_pickle(folder: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (folder / "ran",)

    path = checkpoint(folder)
    pickled(path, {"state_dict": weights_of(path), "more": Hostile()})
    differs(path, "run code")
    sharded(checkpoint(folder, "shards"))
    torch.save(Hostile(), folder / "shards" / f"pytorch_model-{SPLIT[0]}.bin")
    differs(folder / "shards", "run code")
    assert not (folder / "ran").exists()


# Values -----------------------------------------------------------------------------------------


@fault("weights that are NaN or infinite", "refused, with the name of the tensor")
def broken_numbers(folder: Path) -> None:
    for kind, name in (
        ("HubertModel", "encoder.layers.2.feed_forward.output_dense.weight"),
        ("WhisperModel", "encoder.layers.1.fc1.weight"),
    ):
        path = checkpoint(folder, kind, kind)
        weights = weights_of(path)
        name = next(key for key in weights if key.endswith(name))
        for number in (float("nan"), float("inf")):
            weights[name].flatten()[3] = number
            save_file(weights, path / "model.safetensors")
            differs(path, "NaN", name.removeprefix("encoder."))


@fault("a weight norm whose direction is all zeros", "refused: its weight would be NaN")
def no_direction(folder: Path) -> None:
    path = checkpoint(folder)
    weights = weights_of(path)
    name = next(key for key in weights if key.endswith("weight.original1"))
    weights[name] = torch.zeros_like(weights[name])
    save_file(weights, path / "model.safetensors")
    differs(path, "NaN", "position")


@fault("weights in half precision", "loaded, in float32")
def half_precision(folder: Path) -> None:
    path, rounded = checkpoint(folder), checkpoint(folder, "rounded")
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        weights = {name: weight.to(kind) for name, weight in weights_of(path).items()}
        save_file({name: weight.float() for name, weight in weights.items()},
                  rounded / "model.safetensors")  # fmt: skip
        narrow = shutil.copytree(path, folder / str(kind))
        save_file(weights, narrow / "model.safetensors")
        assert torch.equal(heard(narrow), heard(rounded))


@fault("whole numbers as weights: quantised, their scale is not there", "refused")
def quantised(folder: Path) -> None:
    path = checkpoint(folder)
    weights = weights_of(path)
    name = "encoder.layers.0.attention.k_proj.weight"
    weights[name] = (100 * weights[name]).to(torch.int8)
    save_file(weights, path / "model.safetensors")
    differs(path, name, "int8")


# Names and sizes --------------------------------------------------------------------------------


@fault("weight norm under its old names, weight_g and weight_v", "loaded")
def old_weight_norm(folder: Path) -> None:
    path = checkpoint(folder)
    old = {"parametrizations.weight.original0": "weight_g",
           "parametrizations.weight.original1": "weight_v"}  # fmt: skip
    weights = weights_of(path)
    for name in list(weights):
        for new, before in old.items():
            if name.endswith(new):
                weights[name.replace(new, before)] = weights.pop(name)
    pickled(path, weights)
    same(path)


@fault("a checkpoint tuned for transcripts, with its output layer", "its encoder; the card says so")
def tuned(folder: Path) -> None:
    path = checkpoint(folder, kind="HubertForCTC")
    bare = checkpoint(folder, "bare")
    weights = {name.removeprefix("hubert."): weight for name, weight in weights_of(path).items()}
    save_file({name: weight for name, weight in weights.items() if "lm_head" not in name},
              bare / "model.safetensors")  # fmt: skip
    assert torch.equal(heard(path, "ForCTC"), heard(bare))


@fault("a config.json with more layers than the weights, or fewer", "refused, with the names")
def other_layers(folder: Path) -> None:
    path = checkpoint(folder)
    settings = json.loads((path / "config.json").read_text())
    for layers, problem in ((4, "missing: encoder.layers.3."), (2, "unexpected: encoder.layers.2")):
        (path / "config.json").write_text(json.dumps({**settings, "num_hidden_layers": layers}))
        differs(path, problem)


# What is no checkpoint --------------------------------------------------------------------------


@fault("a folder with a LoRA adapter", "refused, with the base that it belongs to")
def adapter(folder: Path) -> None:
    alone = folder / "alone"
    alone.mkdir()
    beside = checkpoint(folder, "beside")
    for path in (alone, beside):
        settings = {"peft_type": "LORA", "base_model_name_or_path": "facebook/hubert-base-ls960"}
        (path / "adapter_config.json").write_text(json.dumps(settings))
        save_file({"base_model.model.q.lora_A.weight": torch.ones(2, 2)},
                  path / "adapter_model.safetensors")  # fmt: skip
        differs(path, "adapter", "facebook/hubert-base-ls960", "merge_and_unload")


@fault("a git-lfs pointer in the place of weights", "refused: git lfs pull")
def lfs_pointer(folder: Path) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    for kind in ("HubertModel", "WhisperModel"):
        for form in ("model.safetensors", "pytorch_model.bin"):
            path = checkpoint(folder, f"{kind}-{form}", kind)
            (path / "model.safetensors").unlink()
            (path / form).write_text(pointer)
            differs(path, form, "git lfs pull")


@fault("a file of weights that is cut short, or whose head lies about its length", "refused")
def cut_short(folder: Path) -> None:
    for kind in ("HubertModel", "WhisperModel"):
        path = checkpoint(folder, kind, kind)
        file = path / "model.safetensors"
        whole = file.read_bytes()
        for content in (whole[:-40], whole[:20], b"", b"\xff" * 8 + whole[8:],
                        (10**6).to_bytes(8, "little") + whole[8:]):  # fmt: skip
            file.write_bytes(content)
            differs(path, "model.safetensors", "damaged")
        pickled(path, _model(kind).state_dict())
        cut = path / "pytorch_model.bin"
        cut.write_bytes(cut.read_bytes()[:-4000])
        differs(path, "pytorch_model.bin", "damaged")


@fault("no config.json, one without a model type, one of a type nobody knows", "refused: which")
def no_settings(folder: Path) -> None:
    path = checkpoint(folder)
    file = path / "config.json"
    settings: Mapping[str, Any] = json.loads(file.read_text())
    file.unlink()
    differs(path, "has no config.json")
    file.write_text(json.dumps({**settings, "model_type": "squeakformer"}))
    differs(path, "squeakformer", "my_file.py:MyClass")
    file.write_text(json.dumps({key: settings[key] for key in settings if key != "model_type"}))
    differs(path, "model_type", "my_file.py:MyClass")


@fault("weights under a name of one's own, or none", "refused: what is there, what is expected")
def other_file_name(folder: Path) -> None:
    path = checkpoint(folder)
    (path / "model.safetensors").rename(path / "epoch3.ckpt")
    differs(path, "has no weights", "model.safetensors", "epoch3.ckpt")


# What is typed ----------------------------------------------------------------------------------


@fault("the file of weights is given, not its folder", "refused: pass the folder")
def file_given(folder: Path) -> None:
    import os

    path = checkpoint(folder)
    differs(path / "model.safetensors", "is a file", "folder")
    before = Path.cwd()
    os.chdir(folder)
    try:  # this has the form of a name on the hub
        differs(Path("model/model.safetensors"), "is a file", "folder")
    finally:
        os.chdir(before)


@fault(
    "a checkpoint's folder with a comma, a space, an @ or letters of any script in its name",
    "run under that name",
)
def folder_names(folder: Path) -> None:
    from tests.faults.case import manifest, record, rows

    odd = "step 3,best@v2 語"
    checkpoint(folder, odd)
    own = rows()
    record(folder, own)
    corpus = manifest(folder, own)
    answer = run(folder, corpus, "ks", "-u", folder / odd, "-u", f"fbank,{folder / odd}")
    assert answer.code == 0, answer
    table = superb("leaderboard", folder / "results", "--format", "csv")
    assert f'"{odd}"' in table.out, table
    assert superb("compare", odd, "fbank", folder / "results", "-l", "last").code == 0
