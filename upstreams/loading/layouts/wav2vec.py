"""fairseq's training files of wav2vec and vq-wav2vec (arXiv 1904.05862, 1910.05453)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from benchmark.errors import UpstreamError
from upstreams.loading.layouts import fairseq
from upstreams.loading.layouts.file import Found, TrainingFile, anchored, has, known_corpora
from upstreams.loading.layouts.settings import Field, convolutions
from upstreams.loading.local_file import load_strictly
from upstreams.loading.pretrained import frozen, planned
from upstreams.models.cpc import ConvolutionConfig
from upstreams.models.wav2vec import FAIRSEQ, Wav2VecConfig

ANCHOR = "feature_aggregator.conv_layers.0.1.weight"

FIELDS = {
    "conv_feature_layers": Field(str),
    "conv_aggregator_layers": Field(str),
    # Files older than the option have ReLU, as the code then had.
    "activation": Field(str, ("relu", "gelu"), default="relu"),
    "log_compression": Field(bool),
    "vq_type": Field(str, ("none", "gumbel", "kmeans"), default="none"),
    "vq_vars": Field(int, default=320),
    "vq_groups": Field(int, default=2),
    "prediction_steps": Field(int),
    # What is not implemented.
    "aggregator": Field(str, ("cnn",)),
    "skip_connections_feat": Field(bool, (False,)),
    "skip_connections_agg": Field(bool, (True,)),
    "residual_scale": Field(float, (0.5,)),
    "no_conv_bias": Field(bool, (False,), default=False),
    "agg_zero_pad": Field(bool, (False,), default=False),
    "non_affine_group_norm": Field(bool, (False,), default=False),
    "combine_groups": Field(bool, default=False),
    "vq_depth": Field(int, default=1),
    "project_features": Field(str, ("none",), default="none"),
}


def recognises(file: TrainingFile) -> bool:
    """Whether a file has the causal convolutions of wav2vec's context, and settings beside it."""
    return has(file, ANCHOR) and bool(settings_of(file))


def settings_of(file: TrainingFile) -> dict[str, Any]:
    """What the file says of its model."""
    return fairseq.settings_of(file.content)


def ungrouped(weights: Mapping[str, Tensor], config: Wav2VecConfig) -> dict[str, Tensor]:
    """Weights with a codebook for each group, where the file has one that all share.

    Args:
        weights: by fairseq's names.
        config: the architecture.
    """
    # [1, code, dim] of Gumbel; [code, 1, dim] of k-means.
    name = FAIRSEQ.names(config)["quantizer.codebook"]
    if name not in weights or weights[name].dim() != 3:
        return dict(weights)
    return {**weights, name: weights[name].repeat(1, config.groups, 1)}


def read(file: TrainingFile) -> Found:
    """The encoder in it.

    Raises:
        UpstreamError: a setting is missing or one that is not implemented, or the weights are not
            those of these settings.
    """
    given = settings_of(file)
    values = file.settings({key: given[key] for key in FIELDS if key in given}).read(FIELDS)
    where = str(file.path)
    rows = convolutions(values["conv_feature_layers"], f"{where}: conv_feature_layers")
    ahead = convolutions(values["conv_aggregator_layers"], f"{where}: conv_aggregator_layers")
    channels, kernels, strides = zip(*rows, strict=True)
    if len({*channels, *(row[0] for row in ahead)}) > 1 or any(row[2] > 1 for row in ahead):
        raise UpstreamError(
            f"{where}: all convolutions must have as many channels, and those of the context "
            "stride 1; anything else is not implemented"
        )
    config = Wav2VecConfig(
        ConvolutionConfig(
            kernels,
            strides,
            (0,) * len(rows),
            dim=channels[0],
            bias=False,
            norm="group",
            activation=values["activation"],
            log_compression=values["log_compression"],
        ),
        context_kernels=tuple(kernel for _, kernel, _ in ahead),
        quantizer=values["vq_type"],
        groups=values["vq_groups"],
        codes=values["vq_vars"],
        prediction_steps=values["prediction_steps"],
    )
    encoder = planned(config)
    inside, outside = anchored(file, ANCHOR)
    quantised = config.quantizer != "none"
    if config.quantizer == "gumbel" and values["vq_depth"] != 2:
        raise UpstreamError(
            f"{where}: vq_depth={values['vq_depth']} is not implemented; that of vq-wav2vec is 2"
        )
    if quantised and values["combine_groups"]:
        inside = ungrouped(inside, config)
    load_strictly(encoder, inside, FAIRSEQ.names(config), where)
    paper = "Schneider et al., wav2vec, arXiv 1904.05862"
    if quantised:
        paper = "Baevski et al., vq-wav2vec, arXiv 1910.05453"
    corpora = known_corpora(fairseq.base(given.get("data")))
    card = file.card(config, "contrastive", paper, corpora)
    layout = f"fairseq: {'vq-wav2vec' if quantised else 'wav2vec'}"
    return Found(frozen(encoder, card), layout, fairseq.said(given, file.content), outside)
