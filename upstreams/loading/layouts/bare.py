"""Weights of the speech transformer without fairseq's settings beside them.

torchaudio's HuBERT recipe and ESPnet's (a model of torchaudio, or fairseq's, inside a larger one),
and weights that Lightning, accelerate or somebody's own loop saved. Their shapes say all but the
strides, the number of heads, where norms stand, and whether waveforms are normalised. ESPnet's
``config.yaml`` beside the file and the recipe's hyperparameters say some of that; the rest is asked
for, one by one or as that of an encoder with a name (``--set like=hubert-base``).
"""

from __future__ import annotations

import dataclasses
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from benchmark.errors import UpstreamError
from benchmark.registry import load_attribute
from upstreams.catalogue import UPSTREAMS
from upstreams.loading.checkpoint import (
    OWN_FAMILIES,
    RENAMED,
    encoder_weights,
    load_encoder,
    transformer_card,
)
from upstreams.loading.files import joined
from upstreams.loading.layouts import fairseq
from upstreams.loading.layouts.file import Found, TrainingFile, anchored, has, parts, renamed
from upstreams.loading.layouts.settings import Field, convolutions
from upstreams.models.transformer import EncoderConfig, TransformerUpstream

# By the names of torchaudio, and of transformers, for the first convolution.
ANCHOR = "feature_extractor.conv_layers.0.conv.weight"
FIELDS = {
    "family": Field(str, tuple(OWN_FAMILIES)),
    "heads": Field(int),
    "strides": Field(tuple),
    "pre_norm": Field(bool),
    "normalize": Field(bool),
}
# Of models with relative positions: shapes do not say how far away the last bucket begins.
BUCKETS = "encoder.layers.0.attention.rel_attn_embed.weight"
RELATIVE = {"max_distance": Field(int)}
_NAMES = [
    (re.compile(pattern), new)
    for pattern, new in (
        (r"encoder\.feature_projection\.", "feature_projection."),
        (r"encoder\.transformer\.", "encoder."),
    )
]
# The recipe's model_name, and the row of the catalogue that it is the architecture of.
RECIPE = {
    "hubert_pretrain_base": "hubert-base",
    "hubert_pretrain_large": "hubert-large",
    "hubert_pretrain_xlarge": "hubert-xlarge",
}


def recognises(file: TrainingFile) -> bool:
    """Whether a file has the speech transformer by anybody's names."""
    return has(file, ANCHOR) or has(file, fairseq.ANCHOR)


def read(file: TrainingFile) -> Found:
    """The encoder in it.

    Raises:
        UpstreamError: something that shapes do not say is missing, or the weights do not fit.
    """
    where = str(file.path)
    anchor = ANCHOR if has(file, ANCHOR) else fairseq.ANCHOR
    inside, outside = anchored(file, anchor)
    if anchor == ANCHOR:
        weights = renamed(inside, _NAMES, where)
    else:
        weights = fairseq.translated(inside, where)
    layout, given = _beside(file, anchor)
    for key, value in _like(file).items():
        if given.setdefault(key, value) != value:
            raise UpstreamError(
                f"{where} says {key}={given[key]}, and --set like={file.typed['like']} has "
                f"{value}; type --set for each of the others"
            )
    typed = {name: text for name, text in file.typed.items() if name != "like"}
    settings = dataclasses.replace(file.settings(given), typed=typed)
    named = encoder_weights(weights)
    values = settings.read(FIELDS | (RELATIVE if BUCKETS in named else {}))
    config = _architecture(named, values, where)
    if anchor == fairseq.ANCHOR:
        weights = fairseq.with_projection(weights, config)
    encoder = load_encoder(config, weights, where)
    card = transformer_card(config, file.origin, values["family"], 16_000)
    tuned = "fine-tuned" if _tuned(outside) else ""
    card = dataclasses.replace(card, note=joined(tuned, card.note))
    dropped = parts(name for name in inside if name.startswith(fairseq.TRAINING_ONLY))
    said = _steps(file.content)
    return Found(
        TransformerUpstream(encoder, card, values["normalize"]),
        layout,
        said,
        tuple(sorted({*outside, *dropped, *file.left_out})),
    )


def _tuned(outside: tuple[str, ...]) -> bool:
    return any(part.startswith(("aux", "lm_head", "ctc", "decoder")) for part in outside)


def _steps(content: Mapping[str, Any]) -> dict[str, str]:
    return {
        words: f"{content[key]:,}"
        for key, words in (("global_step", "steps"), ("epoch", "epochs"))
        if isinstance(content.get(key), int)
    }


def _beside(file: TrainingFile, anchor: str) -> tuple[str, dict[str, Any]]:
    """What kind of file it is, and what it or a file beside it says of the model."""
    recipe = file.content.get("hyper_parameters")
    if isinstance(recipe, dict) and recipe.get("model_name") in RECIPE:
        # It hands waveforms over as they are, whatever their size.
        given = _row(RECIPE[recipe["model_name"]]) | {"normalize": False}
        return "torchaudio's recipe: HuBERT", given
    path = file.path.parent / "config.yaml"
    if path.is_file() and any(
        ".hubert_pretrain_model." in n or "encoder.encoder." in n for n in file.weights
    ):
        return "ESPnet: HuBERT", _espnet(path, anchor)
    if "pytorch-lightning_version" in file.content:
        return "Lightning: a speech transformer", {}
    return "weights of a speech transformer", {}


def _espnet(path: Path, anchor: str) -> dict[str, Any]:
    """What ESPnet's configuration says; where it is silent, ESPnet takes HuBERT Base's values."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise UpstreamError(f"cannot read {path}: {error}") from error
    conf = content.get("encoder_conf") if isinstance(content, dict) else None
    if not isinstance(conf, dict):
        raise UpstreamError(f"{path} must say encoder_conf, as ESPnet writes it")
    if anchor == ANCHOR:
        rows = conf.get("extractor_conv_layer_config")
        heads, pre_norm = conf.get("encoder_num_heads", 12), conf.get("encoder_layer_norm_first")
    else:
        text = conf.get("conv_feature_layers")
        rows = None if text is None else convolutions(str(text), f"{path}: conv_feature_layers")
        heads = conf.get("encoder_attention_heads", conf.get("attention_heads", 12))
        pre_norm = conf.get("layer_norm_first")
    try:
        strides = (5, 2, 2, 2, 2, 2, 2) if rows is None else tuple(row[2] for row in rows)
    except (TypeError, IndexError, KeyError) as error:
        raise UpstreamError(
            f"{path}: extractor_conv_layer_config must list channels, width and stride of each "
            f"convolution; got {reprlib.repr(rows)}"
        ) from error
    return {
        "family": "hubert",
        "heads": heads,
        "strides": strides,
        "pre_norm": bool(pre_norm),
    }


def _like(file: TrainingFile) -> dict[str, Any]:
    name = file.typed.get("like")
    if name is None:
        return {}
    rows = [row for row, entry in UPSTREAMS.items() if _is_transformer(entry.architecture)]
    if name not in rows:
        raise UpstreamError(f"--set like={name}: an encoder with a name, {', '.join(rows)}")
    return _row(name)


def _is_transformer(architecture: str) -> bool:
    return architecture.startswith("upstreams.models.transformer:")


def _row(name: str) -> dict[str, Any]:
    """What shapes do not say, of a row of the catalogue."""
    config: EncoderConfig = load_attribute(UPSTREAMS[name].architecture)
    family = "hubert"
    if config.relative_buckets:
        family = "wavlm"
    elif config.position_norm:
        family = "data2vec-audio"
    elif UPSTREAMS[name].family == "contrastive":
        family = "wav2vec2"
    return {
        "family": family,
        "heads": config.heads,
        "strides": config.conv_strides,
        "pre_norm": config.pre_norm,
        "normalize": config.conv_norm == "layer",
        **({"max_distance": config.relative_distance} if config.relative_buckets else {}),
    }


def _architecture(
    weights: Mapping[str, Tensor], values: Mapping[str, Any], where: str
) -> EncoderConfig:
    """What shapes say, and what they do not.

    Args:
        weights: by the names of transformers.
        values: of `FIELDS`.
        where: the file, for messages.
    """

    def shape(name: str) -> tuple[int, ...]:
        if name not in weights:
            raise UpstreamError(f"{where} has no {name}, which a speech transformer has")
        return tuple(weights[name].shape)

    def count(pattern: str) -> int:
        found = {m[1] for name in weights if (m := re.match(pattern, name))}
        return len(found)

    convolutions = count(r"feature_extractor\.conv_layers\.(\d+)\.conv\.weight")
    kernels = [shape(f"feature_extractor.conv_layers.{i}.conv.weight") for i in range(convolutions)]
    several = count(r"encoder\.pos_conv_embed\.layers\.(\d+)\.")
    if several:
        position = shape("encoder.pos_conv_embed.layers.0.conv.weight")
    else:
        direction = "encoder.pos_conv_embed.conv" + RENAMED[".weight_v"]
        plain = "encoder.pos_conv_embed.conv.weight"
        position = shape(plain if plain in weights else direction)
    dim = position[0]
    try:
        return EncoderConfig(
            conv_dims=tuple(row[0] for row in kernels),
            conv_kernels=tuple(row[2] for row in kernels),
            conv_strides=values["strides"],
            conv_bias="feature_extractor.conv_layers.0.conv.bias" in weights,
            conv_norm="layer"
            if "feature_extractor.conv_layers.1.layer_norm.weight" in weights
            else "group",
            projection_norm="feature_projection.layer_norm.weight" in weights,
            dim=dim,
            layers=count(r"encoder\.layers\.(\d+)\."),
            heads=values["heads"],
            feed_forward_dim=shape("encoder.layers.0.feed_forward.intermediate_dense.weight")[0],
            position_kernel=position[2],
            position_groups=dim // position[1],
            position_layers=several or 1,
            position_norm=bool(several),
            relative_buckets=shape(BUCKETS)[0] if BUCKETS in weights else 0,
            relative_distance=values.get("max_distance", 800),
            pre_norm=values["pre_norm"],
        )
    except (UpstreamError, ArithmeticError, IndexError) as error:
        raise UpstreamError(f"{where}: {error}") from error
