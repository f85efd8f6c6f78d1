"""An encoder as a folder: ours, which any architecture here fits, or that of transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from safetensors.torch import save
from torch import Tensor

from benchmark.core import Upstream
from benchmark.errors import UpstreamError
from upstreams.loading import pretrained
from upstreams.loading.checkpoint import GATE_ROWS, their_names
from upstreams.models.transformer import EncoderConfig, TransformerUpstream
from upstreams.models.utterance import FrozenEncoder

Target: TypeAlias = Literal["superb", "transformers"]
TARGETS: tuple[Target, ...] = ("superb", "transformers")
# The class of transformers for each model_type that is written.
CLASSES = {
    "hubert": "HubertModel",
    "wav2vec2": "Wav2Vec2Model",
    "wavlm": "WavLMModel",
    "data2vec-audio": "Data2VecAudioModel",
}


def convert(upstream: Upstream, folder: Path, target: Target) -> None:
    """Write an encoder of one of our architectures to a folder.

    Args:
        upstream: the encoder.
        folder: to write to; it must not be there, or be empty.
        target: ``superb`` for a folder that this tool loads, ``transformers`` for one that
            ``AutoModel.from_pretrained`` loads too.

    Raises:
        UpstreamError: the encoder is of no architecture that such a folder holds.
        SuperbError: it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UpstreamError(f"{folder} is there and not empty; name another folder")
    if not isinstance(upstream, TransformerUpstream | FrozenEncoder):
        raise UpstreamError(
            f"{upstream.card.name} is {type(upstream).__name__}, which is kept as it is; only "
            "encoders that are implemented here are written"
        )
    if target == "transformers":
        _to_transformers(upstream, folder)
    else:
        _to_ours(upstream, folder)


def _to_ours(upstream: TransformerUpstream | FrozenEncoder, folder: Path) -> None:
    card = upstream.card
    if card.sample_rate != 16_000:
        raise UpstreamError(
            f"{card.name} hears {card.sample_rate} Hz, and a folder of ours is for 16,000; "
            "--to transformers keeps it"
        )
    encoder = upstream.encoder
    corpora = card.trained_on
    content = {
        "family": card.family,
        "licence": card.licence,
        "paper": card.paper,
        "note": card.note,
        "training": card.training,
        "trained_on": None if corpora is None else sorted(corpora),
        "converted_from": Path(card.source).name,
    }
    normalize = isinstance(upstream, TransformerUpstream) and upstream.normalize
    half = all(
        torch.equal(weight, weight.half().to(weight.dtype))
        for weight in encoder.state_dict().values()
        if weight.is_floating_point()
    )
    pretrained.save(
        folder,
        encoder.config,
        encoder,
        content,
        normalize,
        # Half the size where that loses nothing.
        torch.float16 if half else torch.float32,
    )


def _to_transformers(upstream: TransformerUpstream | FrozenEncoder, folder: Path) -> None:
    card = upstream.card
    if not isinstance(upstream, TransformerUpstream) or upstream.encoder.config.log_mel:
        raise UpstreamError(
            f"{card.name} is of an architecture that transformers has not; leave --to out for a "
            "folder of ours"
        )
    config = upstream.encoder.config
    kind = _model_type(config, card.family)
    settings = {
        "model_type": kind,
        "architectures": [CLASSES[kind]],
        **_settings(config, kind),
    }
    extractor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "do_normalize": upstream.normalize,
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": config.conv_norm == "layer",
        "sampling_rate": card.sample_rate,
    }
    ours = upstream.encoder.state_dict()
    theirs: dict[str, Tensor] = {}
    for name, parts in their_names(config).items():
        theirs |= zip(parts, _their_tensors(name, ours[name], len(parts)), strict=True)
    weights = {name: tensor.clone().contiguous() for name, tensor in theirs.items()}
    pretrained.write(
        folder,
        {
            "model.safetensors": save(weights, {"format": "pt"}),
            "preprocessor_config.json": _json(extractor),
            "config.json": _json(settings),
        },
    )


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()


def _model_type(config: EncoderConfig, family: str) -> str:
    """A family of transformers that computes the same; several share an architecture."""
    if config.relative_buckets:
        return "wavlm"
    if config.position_norm:
        return "data2vec-audio"
    return "wav2vec2" if family == "contrastive" and config.projection_norm else "hubert"


def _settings(config: EncoderConfig, kind: str) -> dict[str, Any]:
    """What `upstreams.loading.checkpoint.encoder_config` reads, the other way."""
    settings: dict[str, Any] = {
        "conv_dim": list(config.conv_dims),
        "conv_kernel": list(config.conv_kernels),
        "conv_stride": list(config.conv_strides),
        "num_feat_extract_layers": len(config.conv_dims),
        "conv_bias": config.conv_bias,
        "feat_extract_norm": config.conv_norm,
        "feat_extract_activation": "gelu",
        "hidden_act": "gelu",
        "hidden_size": config.dim,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.feed_forward_dim,
        "num_conv_pos_embeddings": config.position_kernel,
        "num_conv_pos_embedding_groups": config.position_groups,
        "do_stable_layer_norm": config.pre_norm,
        "layer_norm_eps": config.norm_eps,
        # Masks belong to training, and would ask for a weight that is left out.
        "mask_time_prob": 0.0,
        "mask_feature_prob": 0.0,
    }
    if kind == "hubert":
        settings["feat_proj_layer_norm"] = config.projection_norm
    elif kind == "wavlm":
        settings["num_buckets"] = config.relative_buckets
        settings["max_bucket_distance"] = config.relative_distance
    elif kind == "data2vec-audio":
        settings["conv_pos_kernel_size"] = config.position_kernel
        settings["num_conv_pos_embeddings"] = config.position_layers
    return settings


def _their_tensors(name: str, ours: Tensor, parts: int) -> list[Tensor]:
    """The weights that `upstreams.loading.checkpoint.converted` makes one of ours of."""
    if name.startswith("position.") and parts == 2:
        return [torch.linalg.vector_norm(ours, dim=(0, 1), keepdim=True), ours]
    if ".gate.gates." in name:  # the sum of rows, of which all but one are zero
        rows = ours.new_zeros(ours.shape[0], GATE_ROWS, *ours.shape[1:])
        rows[:, 0] = ours
        return [rows.flatten(0, 1)]
    if name.endswith(".gate.scale"):
        return [ours.view(1, -1, 1, 1)]
    return list(ours.chunk(parts))
