"""The training files of AV-HuBERT's authors, of which the audio stream is read."""

from __future__ import annotations

from benchmark.errors import UpstreamError
from upstreams.catalogue import UPSTREAMS
from upstreams.loading.checkpoint import encoder_weights, fill, newly_spelled
from upstreams.loading.files import joined
from upstreams.loading.layouts import fairseq
from upstreams.loading.layouts.file import Found, TrainingFile, anchored, has, known_corpora, parts
from upstreams.loading.layouts.settings import MOST_LAYERS, Field
from upstreams.loading.pretrained import frozen, planned
from upstreams.models.av_hubert import BANDS, TRAINING_ONLY, AVHubertConfig, names

ANCHOR = "feature_extractor_audio.proj.weight"
# Theirs → ours.
SIZES = {
    "stack_order_audio": "stack",
    "normalize": "normalize",
    "encoder_embed_dim": "dim",
    "encoder_layers": "layers",
    "encoder_attention_heads": "heads",
    "encoder_ffn_embed_dim": "feed_forward_dim",
    "conv_pos": "position_kernel",
    "conv_pos_groups": "position_groups",
    "layer_norm_first": "pre_norm",
}
FIELDS = {
    **dict.fromkeys(SIZES, Field(int)),
    "encoder_layers": Field(int, most=MOST_LAYERS),
    "normalize": Field(bool),
    "layer_norm_first": Field(bool),
    "audio_feat_dim": Field(int),
    # Where these are absent, the authors' code takes what is implemented here.
    "modality_fuse": Field(str, ("concat",), default="concat"),
    "sub_encoder_layers": Field(int, (0,), default=0),
    "activation_fn": Field(str, ("gelu",), default="gelu"),
    "wav_input": Field(bool, (False,), default=False),
}


def recognises(file: TrainingFile) -> bool:
    """Whether a file has AV-HuBERT's front end for audio."""
    return has(file, ANCHOR)


def read(file: TrainingFile) -> Found:
    """The audio stream in it.

    Raises:
        UpstreamError: a setting is missing or makes another model, or the weights do not fit.
    """
    where = str(file.path)
    given = fairseq.settings_of(file.content)
    hears = given.get("modalities", ["audio"])
    if "audio" not in hears:
        raise UpstreamError(
            f"{where} was tuned on {hears} alone: its transformer has unlearned to hear; take the "
            "pretrained file, or one tuned on audio"
        )
    values = file.settings({key: given[key] for key in FIELDS if key in given}).read(FIELDS)
    stacked = BANDS * values["stack_order_audio"]
    if values["audio_feat_dim"] != stacked:
        raise UpstreamError(
            f"{where}: audio_feat_dim must be {BANDS} times stack_order_audio = {stacked}; got "
            f"{values['audio_feat_dim']}"
        )
    try:
        config = AVHubertConfig(**{ours: values[theirs] for theirs, ours in SIZES.items()})
    except UpstreamError as error:
        raise UpstreamError(f"{where}: {error}") from error
    inside, outside = anchored(file, ANCHOR)
    dropped = [name for name in inside if name.startswith(TRAINING_ONLY)]
    weights = {name: weight for name, weight in inside.items() if name not in dropped}
    encoder = planned(config)
    table = {ours: tuple(map(newly_spelled, theirs)) for ours, theirs in names(config).items()}
    fill(encoder, table, encoder_weights(weights), where)
    row = UPSTREAMS["av-hubert-base"]
    tuned = f"fine-tuned: {given['tuned']}" if "tuned" in given else ""
    corpora = None if "tuned" in given else known_corpora(fairseq.base(given.get("data")))
    note = "the audio stream alone: zeros in the place of the video"
    card = file.card(config, row.family, row.paper, corpora, joined(tuned, note))
    left_out = tuple(sorted({*outside, *parts(dropped), *file.left_out}))
    told = fairseq.said(given, file.content)
    return Found(frozen(encoder, card), "AV-HuBERT's authors'", told, left_out)
