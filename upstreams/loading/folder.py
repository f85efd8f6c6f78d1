"""Checkpoint folders, whichever they are: pretrained here, of our transformer, or any other."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from upstreams.loading import checkpoint, pretrained
from upstreams.loading.files import Origin, joined, read_json, refuse_adapter
from upstreams.loading.untrained import SEED, untrained_card

if TYPE_CHECKING:
    from upstreams.loading.huggingface import HuggingFaceUpstream

Loaded: TypeAlias = "pretrained.Frozen | HuggingFaceUpstream"


def load_folder(folder: Path, origin: Origin, trust_remote_code: bool = False) -> Loaded:
    """Load a checkpoint folder: into our encoder if it is one of ours, else into transformers'.

    Args:
        folder: with config.json, preprocessor_config.json and weights.
        origin: for the card.
        trust_remote_code: run code in the folder if the model needs it; the card says so.

    Raises:
        UpstreamError: anything in the folder is missing, damaged or not as declared.
    """
    refuse_adapter(folder)  # first, as it needs no config.json
    settings = read_json(folder, "config.json")
    if settings.get("model_type") == pretrained.PRETRAINED:
        return pretrained.load(folder, origin)
    if not checkpoint.unsupported_options(settings):
        return checkpoint.load_transformer(folder, origin)
    from upstreams.loading.huggingface import load_huggingface  # imports transformers: seconds

    return load_huggingface(folder, origin, trust_remote_code)


def untrained_folder(
    folder: Path, origin: Origin, trust_remote_code: bool = False, seed: int = SEED
) -> Loaded:
    """The untrained twin of a checkpoint folder, from its settings; its weights are not read.

    Args:
        folder: with config.json and preprocessor_config.json.
        origin: of the checkpoint.
        trust_remote_code: run code in the folder if the model needs it; the card says so.
        seed: of the weights.

    Raises:
        UpstreamError: the settings are missing or describe no speech encoder.
    """
    settings = read_json(folder, "config.json")
    twin: Loaded
    note = ""
    if settings.get("model_type") == pretrained.PRETRAINED:
        twin = pretrained.untrained(folder, origin, seed)
    elif not checkpoint.unsupported_options(settings):
        twin = checkpoint.untrained_transformer(folder, origin, seed)
        note = twin.card.note
    else:
        from upstreams.loading.huggingface import untrained_huggingface

        twin = untrained_huggingface(folder, origin, seed, trust_remote_code)
        note = twin.card.note
    card = untrained_card(twin.card, seed)
    twin.card = dataclasses.replace(card, note=joined(card.note, note))
    return twin
