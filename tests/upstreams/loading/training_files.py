"""Training files as other projects write them, made of small random models of transformers."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.conftest import TINY

CHANNELS = TINY["conv_dim"][0]
CONVOLUTIONS = (
    f"[({CHANNELS}, 10, 5)] + [({CHANNELS}, 3, 2)] * 4 + [({CHANNELS},2,2)] + [({CHANNELS},2,2)]"
)
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}


@dataclass(frozen=True)
class Family:
    """A model of transformers, and how fairseq and its heirs describe the same one.

    Attributes:
        kind: of transformers.
        options: of its configuration.
        name: of the model in the settings; "" where they have none.
        own: settings of this family alone.
    """

    kind: str
    options: dict[str, Any]
    name: str
    own: dict[str, Any]

    @property
    def layer_norm(self) -> bool:
        return self.options.get("feat_extract_norm") == "layer" or self.kind == "data2vec-audio"


FAMILIES = {
    "hubert": Family("hubert", {}, "hubert", {"label_rate": 50}),
    "hubert-large": Family("hubert", LARGE, "hubert", {"label_rate": 50}),
    "wav2vec2": Family("wav2vec2", {}, "wav2vec2", {}),
    "xlsr": Family("wav2vec2", LARGE, "wav2vec2", {}),
    "unispeech-sat": Family("unispeech-sat", {}, "utterance_hubert", {}),
    "wavlm": Family(
        "wavlm",
        {"num_buckets": 16, "max_bucket_distance": 40},
        "",
        {
            "relative_position_embedding": True,
            "gru_rel_pos": True,
            "num_buckets": 16,
            "max_distance": 40,
        },
    ),
    "data2vec": Family(
        "data2vec-audio",
        {"num_conv_pos_embeddings": 5, "conv_pos_kernel_size": 7},
        "data2vec_audio",
        {"pos_conv_depth": 5, "conv_pos": 36},
    ),
}

_LAYER = r"encoder\.layers\.(\d+)\."
_TO_FAIRSEQ = [
    (r"feature_extractor\.conv_layers\.(\d+)\.conv\.", r"feature_extractor.conv_layers.\1.0."),
    (r"feature_projection\.layer_norm\.", "layer_norm."),
    (r"feature_projection\.projection\.", "post_extract_proj."),
    (
        r"encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original0",
        "encoder.pos_conv.0.weight_g",
    ),
    (
        r"encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original1",
        "encoder.pos_conv.0.weight_v",
    ),
    (r"encoder\.pos_conv_embed\.conv\.", "encoder.pos_conv.0."),
    (r"encoder\.pos_conv_embed\.layers\.(\d+)\.conv\.", r"encoder.pos_conv.\1.0."),
    (_LAYER + r"layer_norm\.", r"encoder.layers.\1.self_attn_layer_norm."),
    (
        _LAYER + r"attention\.rel_attn_embed\.",
        r"encoder.layers.\1.self_attn.relative_attention_bias.",
    ),
    (_LAYER + r"attention\.gru_rel_pos_linear\.", r"encoder.layers.\1.self_attn.grep_linear."),
    (_LAYER + r"attention\.gru_rel_pos_const", r"encoder.layers.\1.self_attn.grep_a"),
    (_LAYER + r"attention\.", r"encoder.layers.\1.self_attn."),
    (_LAYER + r"feed_forward\.intermediate_dense\.", r"encoder.layers.\1.fc1."),
    (_LAYER + r"feed_forward\.output_dense\.", r"encoder.layers.\1.fc2."),
    (r"masked_spec_embed", "mask_emb"),
]
_TO_TORCHAUDIO = [
    (r"feature_projection\.", "encoder.feature_projection."),
    (r"encoder\.(?=pos_conv_embed|layers|layer_norm)", "encoder.transformer."),
]


def _renamed(state: dict[str, Tensor], rules: list[tuple[str, str]]) -> dict[str, Tensor]:
    names = {}
    for name in state:
        fitting = [rule for rule in rules if re.match(rule[0], name)]
        names[name] = re.sub("^" + fitting[0][0], fitting[0][1], name) if fitting else name
    return {names[name]: weight for name, weight in state.items()}


def fairseq_state(family: Family, model: Any) -> dict[str, Tensor]:
    """A model's weights by fairseq's names."""
    norm = r"\1.2.1." if family.layer_norm else r"\1.2."
    return {
        re.sub(r"(conv_layers\.\d+)\.layer_norm\.", norm, name): weight
        for name, weight in _renamed(dict(model.state_dict()), _TO_FAIRSEQ).items()
    }


def torchaudio_state(model: Any) -> dict[str, Tensor]:
    """A model's weights by torchaudio's names."""
    state = dict(model.state_dict())
    state.pop("masked_spec_embed", None)
    return _renamed(state, _TO_TORCHAUDIO)


def fairseq_settings(family: Family) -> dict[str, Any]:
    """The settings of a model as fairseq names them."""
    return {
        "extractor_mode": "layer_norm" if family.layer_norm else "default",
        "conv_feature_layers": CONVOLUTIONS,
        "conv_bias": family.options.get("conv_bias", False),
        "encoder_layers": TINY["num_hidden_layers"],
        "encoder_embed_dim": TINY["hidden_size"],
        "encoder_ffn_embed_dim": TINY["intermediate_size"],
        "encoder_attention_heads": TINY["num_attention_heads"],
        "activation_fn": "gelu",
        "layer_norm_first": family.options.get("do_stable_layer_norm", False),
        "conv_pos": TINY["num_conv_pos_embeddings"],
        "conv_pos_groups": TINY["num_conv_pos_embedding_groups"],
        "mask_prob": 0.8,
        "mask_length": 10,
        **family.own,
    }


def fairseq_task(family: Family) -> dict[str, Any]:
    """The settings of a training as fairseq names them."""
    return {
        "_name": "hubert_pretraining" if family.name == "hubert" else "audio_pretraining",
        "data": "/home/somebody/manifests/LibriSpeech-960",
        "sample_rate": 16_000,
        "normalize": family.layer_norm,
    }


def training_only(model: Any) -> dict[str, Tensor]:
    """Weights that a training has beside its encoder."""
    width = TINY["hidden_size"]
    return {
        "final_proj.weight": torch.zeros(8, width),
        "final_proj.bias": torch.zeros(8),
        "label_embs_concat": torch.zeros(5, 8),
    }


def fairseq_args(family: Family, model: Any) -> dict[str, Any]:
    """fairseq before its settings had sections: a namespace of all of them."""
    settings = fairseq_settings(family) | fairseq_task(family) | {"arch": family.name}
    settings.pop("_name")
    return {
        "args": argparse.Namespace(**settings),
        "model": fairseq_state(family, model) | training_only(model),
        "optimizer_history": [{"criterion_name": "HubertCriterion", "num_updates": 400_000}],
        "last_optimizer_state": {"state": {}, "param_groups": []},
    }


def fairseq_cfg(family: Family, model: Any) -> dict[str, Any]:
    """fairseq since, with references from one section to another."""
    own = fairseq_settings(family) | {"_name": family.name, "normalize": "${task.normalize}"}
    return {
        "args": None,
        "cfg": {"_name": None, "model": own, "task": fairseq_task(family), "common": {"seed": 1}},
        "model": fairseq_state(family, model) | training_only(model),
        "optimizer_history": [{"num_updates": 400_000}],
    }


def fairseq_tuned(family: Family, model: Any) -> dict[str, Any]:
    """A model that fairseq tuned for recognition: its settings inside those of the whole."""
    inner = fairseq_cfg(family, model)["cfg"]
    weights = {f"w2v_encoder.w2v_model.{n}": w for n, w in fairseq_state(family, model).items()}
    return {
        "cfg": {
            "model": {"_name": "wav2vec_ctc", "w2v_args": inner, "w2v_path": "/gone/base.pt"},
            "task": fairseq_task(family) | {"_name": "audio_finetuning"},
        },
        "model": weights | {"w2v_encoder.proj.weight": torch.zeros(32, TINY["hidden_size"])},
    }


def flat_cfg(family: Family, model: Any) -> dict[str, Any]:
    """WavLM's authors: settings in one, all of the model."""
    return {
        "cfg": fairseq_settings(family) | {"normalize": family.layer_norm},
        "model": fairseq_state(family, model),
    }


def distilled(model: Any) -> dict[str, Any]:
    """s3prl's DistilHuBERT."""
    settings = fairseq_settings(FAMILIES["hubert"])
    settings["extractor_conv_feature_layers"] = settings.pop("conv_feature_layers")
    for key in ("conv_bias", "label_rate", "mask_prob", "mask_length"):
        settings.pop(key)
    weights = {
        name: weight
        for name, weight in fairseq_state(FAMILIES["hubert"], model).items()
        if name != "mask_emb"
    }
    return {
        "Distiller": weights | {"output_layer.0.weight": torch.zeros(64, TINY["hidden_size"])},
        "Config": {
            "distiller": settings | {"attention_type": "original", "n_tasks": 2},
            "teacher": {"model": "hubert_base"},
        },
        "Step": 200_000,
    }
