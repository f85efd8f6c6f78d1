"""Hugging Face checkpoint folders of our transformer's families, read strictly.

A folder holds ``config.json`` (architecture), ``preprocessor_config.json`` (what is done to a
waveform first) and the weights, as safetensors or as a pickle that may contain tensors only.
Every weight must be used, or be on the short list of what an encoder does not need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from benchmark.core import Family, UpstreamCard
from benchmark.errors import UpstreamError
from upstreams.loading.files import (
    Origin,
    joined,
    read_json,
    read_weights,
    refuse_differences,
    refuse_not_finite,
    shapes,
    some,
)
from upstreams.models.architecture import parameter_count, untrained_encoder
from upstreams.models.transformer import EncoderConfig, TransformerEncoder, TransformerUpstream

# model_type in config.json of what `TransformerEncoder` is, and the school each comes from.
OWN_FAMILIES: dict[str, Family] = {
    "hubert": "predictive",
    "wav2vec2": "contrastive",
    "unispeech": "contrastive",
    "unispeech-sat": "predictive",
    "wavlm": "predictive",
    "data2vec-audio": "predictive",
}
PAPERS = {
    "hubert": "Hsu et al., HuBERT, arXiv 2106.07447",
    "wav2vec2": "Baevski et al., wav2vec 2.0, arXiv 2006.11477",
    "unispeech": "Wang et al., UniSpeech, arXiv 2101.07597",
    "unispeech-sat": "Chen et al., UniSpeech-SAT, arXiv 2110.05752",
    "wavlm": "Chen et al., WavLM, arXiv 2110.13900",
    "data2vec-audio": "Baevski et al., data2vec, arXiv 2202.03555",
}

# What transformers assumes where config.json is silent, in all its configurations but for
# DEFAULTS_OF.
DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "feat_extract_norm": "group",
    "feat_extract_activation": "gelu",
    "feat_proj_layer_norm": True,
    "conv_dim": [512] * 7,
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_bias": False,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "conv_pos_batch_norm": False,
    "conv_pos_kernel_size": 19,
    "num_buckets": 320,
    "max_bucket_distance": 800,
    "do_stable_layer_norm": False,
    "adapter_attn_dim": None,
    "add_adapter": False,
}
DEFAULTS_OF = {"data2vec-audio": {"num_conv_pos_embeddings": 5}}
# Options under which the architecture is another one than `TransformerEncoder`.
FIXED = (
    "hidden_act",
    "feat_extract_activation",
    "conv_pos_batch_norm",
    "adapter_attn_dim",
    "add_adapter",
)

# Modules are made one by one, and a wrong number should not take for ever.
_MOST_LAYERS = 1_000
# Of any dimension: torch multiplies three of them, and the bytes of a number, in 64 bits.
_MOST_SIZE = 1 << 20

# Pretraining and fine-tuning heads: after the encoder, or in the place of masked frames.
HEADS = (
    "masked_spec_embed",
    "mask_emb",
    "lm_head.",
    "quantizer.",
    "project_q.",
    "project_hid.",
    "final_proj.",
    "label_embeddings_concat",
    "label_embs_concat",
    "projector.",
    "classifier.",
    "layer_weights",
    "tdnn.",
    "objective.",
    "speaker_proj.",
    "layer_norm_for_extract.",
    "ctc_proj.",
    # Of a speaker verification head; the encoder's own are feature_extractor.conv_layers.
    "feature_extractor.weight",
    "feature_extractor.bias",
)
# Classes of transformers for what comes after pretraining.
TUNED = ("ForCTC", "ForSequenceClassification", "ForAudioFrameClassification", "ForXVector")
PREFIXES = ("hubert.", "wav2vec2.", "unispeech.", "unispeech_sat.", "wavlm.", "data2vec_audio.")
# torch's weight norm before and after 2.0: magnitude and direction.
RENAMED = {
    ".weight_g": ".parametrizations.weight.original0",
    ".weight_v": ".parametrizations.weight.original1",
}
# A positional convolution's weight without weight norm.
POSITION = "encoder.pos_conv_embed.conv.weight"
# WavLM's published code computes each gate as a sum of this many linear outputs.
GATE_ROWS = 4


def tuned(settings: Mapping[str, Any]) -> str:
    """The note on a model that was trained further for a task, by its class in config.json."""
    architectures = settings.get("architectures")
    names = architectures if isinstance(architectures, list) else []
    found = [name for name in names if isinstance(name, str) and name.endswith(TUNED)]
    return f"fine-tuned: {found[0]}" if found else ""


def unsupported_options(config: Mapping[str, Any]) -> list[str]:
    """Settings of a ``config.json`` that `TransformerEncoder` does not implement; [] for none."""
    # Text, as a list could not be looked up.
    if str(config.get("model_type")) not in OWN_FAMILIES:
        return [f"model_type={config.get('model_type')!r}"]
    return [
        f"{key}={config[key]!r}" for key in FIXED if config.get(key, DEFAULTS[key]) != DEFAULTS[key]
    ]


def encoder_config(config: Mapping[str, Any]) -> EncoderConfig:
    """The architecture a ``config.json`` describes.

    Raises:
        UpstreamError: it describes another kind of model, or a value has the wrong type.
    """
    if problems := unsupported_options(config):
        raise UpstreamError(
            f"config.json asks for {', '.join(problems)}; this encoder is model_type "
            f"{' or '.join(OWN_FAMILIES)} with none of {', '.join(FIXED)} changed"
        )

    family = config["model_type"]
    config = {**DEFAULTS, **DEFAULTS_OF.get(family, {}), **config}

    def is_size(value: object, most: int = _MOST_SIZE) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most

    def integer(key: str, most: int = _MOST_SIZE) -> int:
        value: int = config[key]
        if not is_size(value, most):
            raise UpstreamError(
                f"config.json: {key} must be an integer from 1 to {most}, got {value!r:.40}"
            )
        return value

    def positive(key: str) -> float:
        value = config[key]
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            raise UpstreamError(f"config.json: {key} must be a positive number, got {value!r}")
        return float(value)

    def integers(key: str) -> tuple[int, ...]:
        value = config[key]
        if not isinstance(value, list) or not all(map(is_size, value)):
            raise UpstreamError(
                f"config.json: {key} must list integers from 1 to {_MOST_SIZE}, got {value!r:.80}"
            )
        return tuple(value)

    def switch(key: str) -> bool:
        value = config[key]
        if not isinstance(value, bool):
            raise UpstreamError(f"config.json: {key} must be true or false, got {value!r}")
        return value

    conv_norm = config["feat_extract_norm"]
    if conv_norm not in ("group", "layer"):
        raise UpstreamError(f"config.json: feat_extract_norm is group or layer, got {conv_norm!r}")
    encoder = EncoderConfig(
        conv_dims=integers("conv_dim"),
        conv_kernels=integers("conv_kernel"),
        conv_strides=integers("conv_stride"),
        conv_bias=switch("conv_bias"),
        conv_norm=cast("Literal['group', 'layer']", conv_norm),
        dim=integer("hidden_size"),
        layers=integer("num_hidden_layers", _MOST_LAYERS),
        heads=integer("num_attention_heads"),
        feed_forward_dim=integer("intermediate_size"),
        position_kernel=integer("num_conv_pos_embeddings"),
        position_groups=integer("num_conv_pos_embedding_groups"),
        pre_norm=switch("do_stable_layer_norm"),
        norm_eps=positive("layer_norm_eps"),
    )
    if family == "hubert":  # the others always normalise here
        return replace(encoder, projection_norm=switch("feat_proj_layer_norm"))
    if family == "wavlm":
        return replace(
            encoder,
            relative_buckets=integer("num_buckets"),
            relative_distance=integer("max_bucket_distance"),
        )
    if family == "data2vec-audio":
        # One key means another thing here, and two that the others heed mean nothing.
        return replace(
            encoder,
            conv_norm="layer",
            pre_norm=False,
            position_kernel=integer("conv_pos_kernel_size"),
            position_layers=integer("num_conv_pos_embeddings", _MOST_LAYERS),
            position_norm=True,
        )
    return encoder


def extractor_settings(folder: Path) -> dict[str, Any]:
    """The feature extractor's settings: ``preprocessor_config.json``, or where it moved since.

    Newer checkpoints have it inside ``processor_config.json``, which comes first, as it does in
    transformers.

    Raises:
        UpstreamError: there is neither, or it is unreadable.
    """
    if (folder / "processor_config.json").is_file():
        processor = read_json(folder, "processor_config.json")
        nested = processor.get("feature_extractor", processor.get("audio_processor"))
        if isinstance(nested, dict):
            return nested
    return read_json(folder, "preprocessor_config.json")


def waveform_settings(folder: Path) -> tuple[bool, int]:
    """What the feature extractor is asked: (normalise each waveform, sample rate in Hz).

    Raises:
        UpstreamError: its file is missing or does not say. Guessing would change every feature of
            a layer-norm model without a sign.
    """
    settings = extractor_settings(folder)
    normalize, rate = settings.get("do_normalize"), settings.get("sampling_rate", 16_000)
    if not isinstance(normalize, bool) or not isinstance(rate, int):
        raise UpstreamError(
            f"the feature extractor of {folder} needs do_normalize (true or false) and "
            f"sampling_rate (Hz); got {normalize!r} and {rate!r}"
        )
    return normalize, rate


def their_names(config: EncoderConfig) -> dict[str, tuple[str, ...]]:
    """Our parameter names → theirs.

    Some of ours are made of several of theirs: query, key and value are one matrix here, and a
    positional convolution's weight is magnitude and direction there. `converted` does it.
    """
    names: dict[str, tuple[str, ...]] = {}

    def same(ours: str, theirs: str, bias: bool = True) -> None:
        for part in ("weight", "bias") if bias else ("weight",):
            names[f"{ours}.{part}"] = (f"{theirs}.{part}",)

    for index in range(len(config.conv_dims)):
        theirs = f"feature_extractor.conv_layers.{index}"
        same(f"convolutions.{index}.convolution", f"{theirs}.conv", config.conv_bias)
        if config.conv_norm == "layer" or index == 0:
            same(f"convolutions.{index}.norm", f"{theirs}.layer_norm")
    if config.projection_norm:
        same("projection_norm", "feature_projection.layer_norm")
    same("projection", "feature_projection.projection")
    position = "encoder.pos_conv_embed"
    if config.position_norm:  # data2vec, without weight normalisation
        for index in range(config.position_layers):
            same(f"position.convolutions.{index}", f"{position}.layers.{index}.conv")
    else:
        same("position.convolutions.0", f"{position}.conv")
        names["position.convolutions.0.weight"] = tuple(
            f"{position}.conv{new}" for new in RENAMED.values()
        )
    same("norm", "encoder.layer_norm")
    if config.relative_buckets:
        buckets = "encoder.layers.0.attention.rel_attn_embed"
        same("relative.buckets", buckets, bias=False)
    for index in range(config.layers):
        ours, theirs = f"layers.{index}", f"encoder.layers.{index}"
        for part in ("weight", "bias"):
            names[f"{ours}.query_key_value.{part}"] = tuple(
                f"{theirs}.attention.{letter}_proj.{part}" for letter in "qkv"
            )
        same(f"{ours}.attention_output", f"{theirs}.attention.out_proj")
        if config.relative_buckets:
            same(f"{ours}.gate.gates", f"{theirs}.attention.gru_rel_pos_linear")
            names[f"{ours}.gate.scale"] = (f"{theirs}.attention.gru_rel_pos_const",)
        same(f"{ours}.attention_norm", f"{theirs}.layer_norm")
        same(f"{ours}.expand", f"{theirs}.feed_forward.intermediate_dense")
        same(f"{ours}.contract", f"{theirs}.feed_forward.output_dense")
        same(f"{ours}.feed_forward_norm", f"{theirs}.final_layer_norm")
    return names


def newly_spelled(name: str) -> str:
    """The name of a weight that weight norm is on, as torch spells it since 2.0."""
    for old, new in RENAMED.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def is_head(name: str) -> bool:
    """Whether a weight, prefix removed, belongs to a head that an encoder does not need."""
    return name.startswith(HEADS)


def encoder_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their weights under one spelling: prefix and heads removed, weight norm by its new names.

    Raises:
        UpstreamError: two weights end up with the same name.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        bare = name
        for prefix in PREFIXES:
            bare = bare.removeprefix(prefix)
        bare = newly_spelled(bare)
        if is_head(bare):
            continue
        if bare in renamed:
            raise UpstreamError(f"the checkpoint holds {bare!r} twice under two names")
        renamed[bare] = tensor
    return renamed


def load_encoder(
    config: EncoderConfig, weights: Mapping[str, Tensor], where: str
) -> TransformerEncoder:
    """Build the encoder and give it a checkpoint's weights, in float32 on the CPU.

    Args:
        config: its architecture.
        weights: as read from the checkpoint.
        where: the checkpoint, for messages.

    Raises:
        UpstreamError: a weight is missing, left over, of the wrong shape, or no finite floating
            point numbers; all are named.
    """
    with torch.device("meta"):  # no memory, no random numbers
        encoder = TransformerEncoder(config)
    theirs = encoder_weights(weights)
    names = their_names(config)
    if POSITION in theirs:  # weight norm was removed after training
        names["position.convolutions.0.weight"] = (POSITION,)
    fill(encoder, names, theirs, where)
    return encoder


def fill(
    encoder: nn.Module,
    names: Mapping[str, tuple[str, ...]],
    theirs: Mapping[str, Tensor],
    where: str,
) -> None:
    """Give an encoder of transformer layers a checkpoint's weights, in float32 on the CPU.

    Args:
        encoder: on the meta device or any other.
        names: our parameter names → theirs, as `their_names` has them.
        theirs: the checkpoint's weights, and no others.
        where: the checkpoint, for messages.

    Raises:
        UpstreamError: as `load_encoder`.
    """
    wanted: dict[str, tuple[int, ...]] = {}
    for ours, parameter in encoder.state_dict().items():
        wanted.update(their_shapes(ours, names[ours], tuple(parameter.shape)))
    refuse_differences(
        wanted, shapes(theirs), f"{where} does not hold the weights its settings describe"
    )
    if whole := sorted(name for name in wanted if not theirs[name].is_floating_point()):
        raise UpstreamError(
            f"{where} holds {some(whole)} as {theirs[whole[0]].dtype}: quantised weights are not "
            "read; save the model in float32, float16 or bfloat16"
        )
    floats = {name: theirs[name].float() for name in wanted}
    refuse_not_finite(floats, where)
    state = {
        ours: converted(ours, [floats[part] for part in parts]) for ours, parts in names.items()
    }
    refuse_not_finite(state, where)  # a direction of no length has none
    encoder.load_state_dict(state, strict=True, assign=True)


def their_shapes(
    ours: str, theirs: tuple[str, ...], shape: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights that `converted` makes one of ours of.

    Args:
        ours: the name of our parameter.
        theirs: the names of the weights it is made of.
        shape: of our parameter.
    """
    if theirs[0].endswith(RENAMED[".weight_g"]):
        magnitude, direction = theirs
        return {magnitude: (1, 1, shape[2]), direction: shape}
    if ".gate.gates." in ours:
        return {theirs[0]: (GATE_ROWS * shape[0], *shape[1:])}
    if ours.endswith(".gate.scale"):
        return {theirs[0]: (1, *shape, 1, 1)}
    return dict.fromkeys(theirs, (shape[0] // len(theirs), *shape[1:]))


def converted(ours: str, theirs: list[Tensor]) -> Tensor:
    """One of our parameters, of the weights `their_names` lists for it.

    Args:
        ours: the name of our parameter.
        theirs: the weights, of the shapes that `their_shapes` gives.
    """
    if ours.startswith("position.") and len(theirs) == 2:
        magnitude, direction = theirs
        norm: Tensor = torch.linalg.vector_norm(direction, dim=(0, 1), keepdim=True)
        return direction * (magnitude / norm)
    if ".gate.gates." in ours:  # each gate is the sum of a few rows
        return theirs[0].view(-1, GATE_ROWS, *theirs[0].shape[1:]).sum(1)
    if ours.endswith(".gate.scale"):
        return theirs[0].flatten()
    return torch.cat(theirs) if len(theirs) > 1 else theirs[0]


def transformer_card(
    config: EncoderConfig, origin: Origin, model_type: str, sample_rate: int
) -> UpstreamCard:
    """The card of a checkpoint of our families; what it was trained on is not known here."""
    return UpstreamCard(
        name=origin.name,
        layers=config.states,
        dim=config.dim,
        hop_samples=config.hop_samples,
        sample_rate=sample_rate,
        family=OWN_FAMILIES[model_type],
        parameters=parameter_count(config),
        min_samples=config.min_samples,
        pad_invariant=True,
        paper=PAPERS[model_type],
        source=origin.source,
        revision=origin.revision,
        note=origin.note,
    )


def load_transformer(folder: Path, origin: Origin) -> TransformerUpstream:
    """Load a checkpoint folder of one of `OWN_FAMILIES` into our encoder.

    Raises:
        UpstreamError: anything in the folder is missing, damaged or not as declared.
    """
    settings = read_json(folder, "config.json")
    config = encoder_config(settings)
    normalize, sample_rate = waveform_settings(folder)
    weights, note = read_weights(folder, whole=PREFIXES)
    encoder = load_encoder(config, weights, str(folder))
    card = transformer_card(config, origin, settings["model_type"], sample_rate)
    card = replace(card, note=joined(tuned(settings), note, card.note))
    return TransformerUpstream(encoder, card, normalize)


def untrained_transformer(folder: Path, origin: Origin, seed: int) -> TransformerUpstream:
    """The architecture of such a folder with random weights; its weights are not read."""
    settings = read_json(folder, "config.json")
    config = encoder_config(settings)
    normalize, sample_rate = waveform_settings(folder)
    card = transformer_card(config, origin, settings["model_type"], sample_rate)
    return TransformerUpstream(untrained_encoder(config, seed), card, normalize)
