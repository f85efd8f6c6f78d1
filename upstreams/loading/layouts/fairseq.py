"""fairseq's training files of the speech transformer, and those of its heirs.

wav2vec 2.0, XLSR, XLS-R, HuBERT, ContentVec, mHuBERT, data2vec and UniSpeech-SAT as fairseq saves
them (``args`` or ``cfg`` beside ``model``), those fine-tuned by it, WavLM as its authors published
it (a flat ``cfg``), and DistilHuBERT as s3prl saves it (``Distiller``). All have fairseq's names
for weights; they are read under those of transformers, which `upstreams.loading.checkpoint` knows.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor

from benchmark.errors import UpstreamError
from upstreams.catalogue import UPSTREAMS
from upstreams.loading.checkpoint import load_encoder, transformer_card
from upstreams.loading.files import joined
from upstreams.loading.layouts.file import (
    Found,
    TrainingFile,
    anchored,
    has,
    known_corpora,
    parts,
    renamed,
)
from upstreams.loading.layouts.settings import MOST_LAYERS, Field, convolutions
from upstreams.models.transformer import EncoderConfig, TransformerUpstream

ANCHOR = "feature_extractor.conv_layers.0.0.weight"

FIELDS = {
    "extractor_mode": Field(str, ("default", "layer_norm")),
    "conv_feature_layers": Field(str),
    "conv_bias": Field(bool),
    "encoder_layers": Field(int, most=MOST_LAYERS),
    "encoder_embed_dim": Field(int),
    "encoder_ffn_embed_dim": Field(int),
    "encoder_attention_heads": Field(int),
    "activation_fn": Field(str, ("gelu",)),
    "layer_norm_first": Field(bool),
    "conv_pos": Field(int),
    "conv_pos_groups": Field(int),
    "normalize": Field(bool),
    # Options that came later: where they are not named, the file is older than they are.
    "pos_conv_depth": Field(int, default=1, most=MOST_LAYERS),
    "layer_type": Field(str, ("transformer",), default="transformer"),
    "structure_type": Field(str, ("transformer",), default="transformer"),
    "streaming": Field(bool, (False,), default=False),
    "pos_enc_type": Field(str, ("abs",), default="abs"),
    "quantize_input": Field(bool, (False,), default=False),
    "relative_position_embedding": Field(bool, default=False),
    "gru_rel_pos": Field(bool, default=False),
    "num_buckets": Field(int, default=320),
    "max_distance": Field(int, default=1280),
    "sample_rate": Field(int, default=16_000),
}
# Settings of a training that a reader wants to know, in words.
TOLD = {
    "data": "data",
    "labels": "labels",
    "label_rate": "labels a second",
    "mask_prob": "mask_prob",
    "mask_length": "mask_length",
    "mask_selection": "mask_selection",
}

# Beside the encoder, for training alone.
TRAINING_ONLY = (
    "mask_emb",
    "label_embs_concat",
    "final_proj.",
    "quantizer.",
    "project_q.",
    "target_glu.",
    "spk_proj.",
    "layer_norm_for_extract.",
    "encoder.layer_norm_for_extract.",
    "_ema",
    "output_layer.",
    "task_embedding.",
)

_LAYER = r"encoder\.layers\.(\d+)\."
_NAMES = [
    (r"feature_extractor\.conv_layers\.(\d+)\.0\.", r"feature_extractor.conv_layers.\1.conv."),
    # Layer norm stands between two transpositions, group norm by itself.
    (
        r"feature_extractor\.conv_layers\.(\d+)\.2\.1\.",
        r"feature_extractor.conv_layers.\1.layer_norm.",
    ),
    (
        r"feature_extractor\.conv_layers\.(\d+)\.2\.(?=weight|bias)",
        r"feature_extractor.conv_layers.\1.layer_norm.",
    ),
    (r"layer_norm\.", "feature_projection.layer_norm."),
    (r"post_extract_proj\.", "feature_projection.projection."),
    (_LAYER + r"self_attn_layer_norm\.", r"encoder.layers.\1.layer_norm."),
    (
        _LAYER + r"self_attn\.relative_attention_bias\.",
        r"encoder.layers.\1.attention.rel_attn_embed.",
    ),
    (_LAYER + r"self_attn\.grep_linear\.", r"encoder.layers.\1.attention.gru_rel_pos_linear."),
    (_LAYER + r"self_attn\.grep_a", r"encoder.layers.\1.attention.gru_rel_pos_const"),
    (_LAYER + r"self_attn\.", r"encoder.layers.\1.attention."),
    (_LAYER + r"fc1\.", r"encoder.layers.\1.feed_forward.intermediate_dense."),
    (_LAYER + r"fc2\.", r"encoder.layers.\1.feed_forward.output_dense."),
]
_ONE_POSITION = (r"encoder\.pos_conv\.0\.", "encoder.pos_conv_embed.conv.")
_POSITIONS = (r"encoder\.pos_conv\.(\d+)\.0\.", r"encoder.pos_conv_embed.layers.\1.conv.")


def recognises(file: TrainingFile) -> bool:
    """Whether a file has the speech transformer by fairseq's names, and settings beside it."""
    return has(file, ANCHOR) and bool(settings_of(file.content))


def read(file: TrainingFile) -> Found:
    """The encoder in it.

    Raises:
        UpstreamError: a setting is missing or one that is not implemented, or the weights are not
            those of these settings.
    """
    given = settings_of(file.content)
    inside, outside = anchored(file, ANCHOR)
    values = file.settings({key: given[key] for key in FIELDS if key in given}).read(FIELDS)
    where = str(file.path)
    config = encoder_config(values, where)
    dropped = [name for name in inside if name.startswith(TRAINING_ONLY)]
    weights = {name: weight for name, weight in inside.items() if name not in dropped}
    distilled = "Distiller" in file.content
    if distilled:
        config = dataclasses.replace(config, projection_norm=False)
    theirs = with_projection(translated(weights, where), config)
    encoder = load_encoder(config, theirs, where)
    kind = model_type(given, config)
    card = transformer_card(config, file.origin, kind, values["sample_rate"])
    tuned = f"fine-tuned: {given['tuned']}" if "tuned" in given else ""
    halves = {str(weight.dtype).removeprefix("torch.") for weight in weights.values()}
    stored = "" if halves == {"float32"} else f"weights kept as {' and '.join(sorted(halves))}"
    card = dataclasses.replace(
        card,
        # fairseq writes the corpus of a fine-tuning over that of the pretraining.
        trained_on=None if tuned else known_corpora(base(given.get("data"))),
        note=joined(tuned, stored, card.note),
        paper=UPSTREAMS["distilhubert"].paper if distilled else card.paper,
    )
    return Found(
        TransformerUpstream(encoder, card, values["normalize"]),
        title(given),
        said(given, file.content),
        tuple(sorted({*outside, *parts(dropped), *file.left_out})),
    )


def encoder_config(values: Mapping[str, Any], where: str) -> EncoderConfig:
    """The architecture that the settings describe.

    Args:
        values: of `FIELDS`.
        where: the file, for messages.
    """
    rows = convolutions(values["conv_feature_layers"], f"{where}: conv_feature_layers")
    channels, kernels, strides = zip(*rows, strict=True)
    depth, kernel = values["pos_conv_depth"], values["conv_pos"]
    if depth > 1:  # they share the width of one (data2vec, section 4.2)
        kernel = max(3, kernel // depth)
    relative = values["relative_position_embedding"]
    bias = {}
    if relative:
        bias = {
            "relative_buckets": values["num_buckets"],
            "relative_distance": values["max_distance"],
        }
    if relative and not values["gru_rel_pos"]:
        raise UpstreamError(f"{where}: relative positions without gates are not implemented")
    try:
        return EncoderConfig(
            conv_dims=channels,
            conv_kernels=kernels,
            conv_strides=strides,
            conv_bias=values["conv_bias"],
            conv_norm="layer" if values["extractor_mode"] == "layer_norm" else "group",
            dim=values["encoder_embed_dim"],
            layers=values["encoder_layers"],
            heads=values["encoder_attention_heads"],
            feed_forward_dim=values["encoder_ffn_embed_dim"],
            position_kernel=kernel,
            position_groups=values["conv_pos_groups"],
            position_layers=depth,
            position_norm=depth > 1,
            pre_norm=values["layer_norm_first"],
            **bias,
        )
    except (UpstreamError, ArithmeticError) as error:
        raise UpstreamError(f"{where}: {error}") from error


def translated(weights: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Weights by fairseq's names, by those of transformers."""
    several = any(name.startswith("encoder.pos_conv.1.") for name in weights)
    rules = [*_NAMES, _POSITIONS if several else _ONE_POSITION]
    return renamed(weights, [(re.compile(pattern), new) for pattern, new in rules], where)


def with_projection(weights: Mapping[str, Tensor], config: EncoderConfig) -> dict[str, Tensor]:
    """Weights with the projection that fairseq leaves out where it changes no width: identity.

    Args:
        weights: by the names of transformers.
        config: the architecture.
    """
    name, width = "feature_projection.projection", config.conv_dims[-1]
    if width != config.dim or f"{name}.weight" in weights:
        return dict(weights)
    return {**weights, f"{name}.weight": torch.eye(width), f"{name}.bias": torch.zeros(width)}


def settings_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of model and task in a file, in one; {} if it has none."""
    cfg, args = content.get("cfg"), content.get("args")
    if isinstance(cfg, dict) and cfg:
        # WavLM's is flat, fairseq's has a section for each thing.
        sections = [cfg.get("task"), cfg.get("model")] if "model" in cfg else [cfg]
    elif "Distiller" in content:
        return _distilled(content)
    elif "model_cfg" in content:  # s3prl's copy of such a file
        sections = [content.get("task_cfg"), content["model_cfg"]]
    else:
        sections = [args]
    merged: dict[str, Any] = {}
    for section in sections:
        if isinstance(section, dict):
            merged |= {key: value for key, value in section.items() if _is_value(value)}
    inner = merged.get("w2v_args")
    if isinstance(inner, dict):  # fine-tuned: the encoder's own settings are in there
        nested = "model" in inner and isinstance(inner["model"], dict)
        own = settings_of({"cfg" if nested else "args": inner})
        heard = {key: merged[key] for key in ("normalize", "modalities") if key in merged}
        return own | heard | {"tuned": merged.get("_name") or merged.get("arch") or "fine-tuned"}
    return merged


def _is_value(value: object) -> bool:
    """Whether it says something: a null says nothing, nor does a reference to a value elsewhere."""
    # omegaconf writes ??? for what must be set and is not.
    refers = isinstance(value, str) and (value.startswith("${") or value == "???")
    return value is not None and not refers


def _distilled(content: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of s3prl's DistilHuBERT; its code has no convolution with a bias."""
    for key in ("Upstream_Config", "Config"):
        section = content.get(key)
        if isinstance(section, dict) and isinstance(section.get("distiller"), dict):
            own = dict(section["distiller"])
            if own.get("attention_type", "original") != "original":
                raise UpstreamError(
                    f"attention_type={own['attention_type']!r} of DistilHuBERT is not implemented"
                )
            if own.get("task_emb_type", "expand-last") in ("add", "concat"):
                raise UpstreamError(
                    f"task_emb_type={own['task_emb_type']!r} of DistilHuBERT, which puts a task "
                    "into the encoder's input, is not implemented"
                )
            own["conv_feature_layers"] = own.get("extractor_conv_feature_layers")
            return own | {"_name": "distiller", "conv_bias": False, "normalize": False}
    return {}


def model_type(given: Mapping[str, Any], config: EncoderConfig) -> str:
    """What transformers calls the family.

    Args:
        given: the file's settings; the name of the model is among them.
        config: the architecture.
    """
    if config.relative_buckets:
        return "wavlm"
    if config.position_norm:
        return "data2vec-audio"
    name = f"{given.get('_name') or ''}_{given.get('arch') or ''}".lower()
    # WavLM's authors publish that one in the same form, without a name.
    if "utterance" in name or "sat" in name.split("_") or name == "_":
        return "unispeech-sat"
    predicts = "hubert" in name or "distiller" in name or "label_rate" in given
    return "hubert" if predicts else "wav2vec2"


def title(given: Mapping[str, Any]) -> str:
    """What kind of file it is, for readers."""
    if given.get("_name") == "distiller":
        return "s3prl: DistilHuBERT"
    if "_name" not in given and "arch" not in given:
        return "WavLM's and UniSpeech-SAT's authors'"
    name = given.get("_name") or given.get("arch")
    tuned = f", fine-tuned as {given['tuned']}" if "tuned" in given else ""
    return f"fairseq: {name}{tuned}"


def said(given: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, str]:
    """What a file says of its training, in words."""
    told = {}
    for key, words in TOLD.items():
        value = given.get(key)
        if isinstance(value, str | int | float | list) and value not in ("", []):
            text = base(value) if key == "data" else str(value)
            told[words] = text
    history = content.get("optimizer_history")
    if isinstance(history, list) and history and isinstance(history[-1], dict):
        steps = history[-1].get("num_updates")
        if isinstance(steps, int):
            told["steps"] = f"{steps:,}"
    if isinstance(content.get("Step"), int):
        told["steps"] = f"{content['Step']:,}"
    return told


def base(value: object) -> str:
    """The last part of a path: the rest is about somebody's disk."""
    return PurePath(value).name if isinstance(value, str) else ""
