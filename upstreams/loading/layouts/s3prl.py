"""s3prl's training files of Mockingjay and TERA: a BERT over mel frames.

``{"Transformer": weights, "Config": {"transformer": …, "audio": …}}``, or the settings under
``Upstream_Config`` since runners have some of their own. (DistilHuBERT is in `fairseq`, whose names
it has.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from benchmark.errors import UpstreamError
from upstreams.loading.layouts.file import Found, TrainingFile, renamed
from upstreams.loading.layouts.settings import MOST_LAYERS, Field
from upstreams.loading.local_file import load_strictly
from upstreams.loading.pretrained import frozen, planned
from upstreams.models.generative import MEL_BANDS, MelTransformerConfig

ANCHOR = "input_representations.spec_transform.weight"
FIELDS = {
    "hidden_size": Field(int),
    "num_hidden_layers": Field(int, most=MOST_LAYERS),
    "num_attention_heads": Field(int),
    "intermediate_size": Field(int),
    "layer_norm_eps": Field(float),
    "hidden_act": Field(str, ("gelu",)),
    "pre_layer_norm": Field(bool, (False,)),
    "share_layer": Field(bool, (False,)),
}
# The input that `upstreams.models.generative.centred_mel` computes.
AUDIO = {
    "target_level": Field(int, (-25,)),
    "win_ms": Field(int, (25,)),
    "hop_ms": Field(int, (10,)),
    "n_freq": Field(int, (201,)),
    "n_mels": Field(int, (MEL_BANDS,)),
    "sample_rate": Field(int, (16_000,), default=16_000),
}
INPUT = {
    "feat_type": Field(str, ("mel",)),
    "log": Field(bool, (True,)),
    "cmvn": Field(bool, (True,)),
    "delta": Field(int, (0,)),
}

_LAYER = r"encoder\.layer\.(\d+)\."
_NAMES = [
    (re.compile(pattern), new)
    for pattern, new in (
        (r"input_representations\.spec_transform\.", "projection."),
        (r"input_representations\.LayerNorm\.", "norm."),
        (_LAYER + r"attention\.output\.dense\.", r"layers.\1.self_attn.out_proj."),
        (_LAYER + r"attention\.output\.LayerNorm\.", r"layers.\1.norm1."),
        (_LAYER + r"intermediate\.dense\.", r"layers.\1.linear1."),
        (_LAYER + r"output\.dense\.", r"layers.\1.linear2."),
        (_LAYER + r"output\.LayerNorm\.", r"layers.\1.norm2."),
        # The oldest ones have the names of TensorFlow for a norm's weight and bias.
    )
]


def recognises(file: TrainingFile) -> bool:
    """Whether a file has s3prl's transformer over spectra."""
    return ANCHOR in file.weights


def read(file: TrainingFile) -> Found:
    """The encoder in it.

    Raises:
        UpstreamError: a setting is missing or one that is not implemented, among them those of
            other input than 80 mel bands; or the weights are not those of these settings.
    """
    sections = _sections(file)
    audio = sections.get("audio", {})
    values = file.settings(_of(sections["transformer"], FIELDS)).read(FIELDS)
    file.settings(_of(audio, AUDIO)).read(AUDIO)
    file.settings(_of(audio.get("input", audio), INPUT)).read(INPUT)
    config = MelTransformerConfig(
        layers=values["num_hidden_layers"],
        dim=values["hidden_size"],
        heads=values["num_attention_heads"],
        feed_forward_dim=values["intermediate_size"],
        norm_eps=values["layer_norm_eps"],
    )
    encoder = planned(config)
    weights = renamed(_modern(file.weights), _NAMES, str(file.path))
    weights = _joined(weights, config.layers)
    names = {name: name for name in encoder.state_dict()}
    load_strictly(encoder, weights, names, str(file.path))
    paper = "Liu et al., Mockingjay, arXiv 1910.12638; TERA, arXiv 2007.06028"
    # What it was trained on; s3prl cuts longer utterances into pieces that do not see each other.
    most = _of(sections.get("task"), {"sequence_length": Field(int)}).get("sequence_length")
    note = f"whole utterances at once, where s3prl cuts them at {most} frames" if most else ""
    card = file.card(config, "generative", paper, note=note)
    steps = file.content.get("Step", file.content.get("Global_step"))
    said = {"steps": f"{steps:,}"} if isinstance(steps, int) else {}
    heads = tuple(key for key in ("SpecHead",) if key in file.content)
    return Found(frozen(encoder, card), "s3prl: Mockingjay or TERA", said, heads)


def _sections(file: TrainingFile) -> dict[str, Any]:
    for key in ("Upstream_Config", "Config", "Settings"):
        section = file.content.get(key)
        if isinstance(section, dict) and isinstance(section.get("transformer"), dict):
            return section
    raise UpstreamError(
        f"{file.path} has the weights of s3prl's Mockingjay or TERA without their settings, which "
        "it should hold under 'Config' or 'Upstream_Config'"
    )


def _of(section: object, fields: Mapping[str, Field]) -> dict[str, Any]:
    known = section if isinstance(section, dict) else {}
    return {key: known[key] for key in fields if key in known}


def _modern(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Norms by torch's names for their weights; the oldest files have TensorFlow's."""
    return {
        re.sub(r"\.beta$", ".bias", re.sub(r"\.gamma$", ".weight", name)): weight
        for name, weight in weights.items()
    }


def _joined(weights: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Query, key and value as the one matrix that torch's layer has; missing ones stay missing."""
    joined = dict(weights)
    for index in range(layers):
        for part in ("weight", "bias"):
            theirs = [
                f"encoder.layer.{index}.attention.self.{which}.{part}"
                for which in ("query", "key", "value")
            ]
            if all(name in joined for name in theirs):
                joined[f"layers.{index}.self_attn.in_proj_{part}"] = torch.cat(
                    [joined.pop(name) for name in theirs]
                )
    return joined
