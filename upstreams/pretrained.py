"""Encoders pretrained here: how they are kept in a folder, and the bundled ones.

A folder holds ``config.json`` (which architecture, and its values), ``model.safetensors`` (the
encoder's weights at half precision) and ``card.json`` (what a reader must know: data, compute, the
command). Nothing in it is code, and every value is checked when it is read.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from benchmark.core import Upstream, UpstreamCard
from benchmark.errors import SuperbError, UpstreamError
from upstreams import UPSTREAMS
from upstreams.checkpoint import PRETRAINED, Origin, read_json
from upstreams.cpc import BidirectionalCPCConfig, CPCConfig
from upstreams.generative import APCConfig, MelTransformerConfig
from upstreams.transformer import EncoderConfig, TransformerEncoder, TransformerUpstream
from upstreams.untrained import untrained_card
from upstreams.utterance import FrozenEncoder

# An instance of one of `ARCHITECTURES`, which share properties but no class.
Architecture: TypeAlias = Any
Json: TypeAlias = Any
# Which class an encoder is of, its architecture says.
Module: TypeAlias = Any
ARCHITECTURES: dict[str, type[Any]] = {
    "transformer": EncoderConfig,
    "cpc": CPCConfig,
    "bidirectional-cpc": BidirectionalCPCConfig,
    "apc": APCConfig,
    "mel-transformer": MelTransformerConfig,
}
# What card.json says beside the encoder itself.
CARD_FIELDS = ("family", "licence", "paper", "note", "trained_on")
CHECKPOINTS = Path(__file__).parent / "checkpoints"


def save(
    folder: Path, architecture: Architecture, encoder: nn.Module, card: Mapping[str, Json]
) -> None:
    """Write a pretrained encoder.

    Args:
        folder: to write to; made if need be.
        architecture: an instance of one of `ARCHITECTURES`.
        encoder: with its weights.
        card: `CARD_FIELDS`, and whatever else a reader must know, as JSON.

    Raises:
        SuperbError: it cannot be written.
    """
    names = {config: name for name, config in ARCHITECTURES.items()}
    settings = {
        "model_type": PRETRAINED,
        "architecture": names[type(architecture)],
        "values": dataclasses.asdict(architecture),
    }
    weights = {
        name: weight.detach().to("cpu", torch.float16 if weight.is_floating_point() else None)
        for name, weight in encoder.state_dict().items()
    }
    for name, weight in weights.items():
        if not bool(weight.isfinite().all()):
            raise SuperbError(f"{name} holds numbers that half precision cannot; nothing is saved")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: weight.contiguous() for name, weight in weights.items()},
            folder / "model.safetensors",
        )
        for name, content in (("config.json", settings), ("card.json", card)):
            text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
            (folder / name).write_text(text, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise SuperbError(f"cannot write the encoder to {folder}: {error}") from error


def load(folder: Path, origin: Origin) -> Upstream:
    """Read a pretrained encoder.

    Args:
        folder: as `save` wrote it.
        origin: its name and where it comes from, for its card.

    Raises:
        UpstreamError: a file is missing or damaged, or holds anything but what it should.
    """
    architecture = read_architecture(folder)
    encoder = build(architecture)
    encoder.load_state_dict(_weights(folder, encoder), strict=True, assign=True)
    return _upstream(architecture, encoder, _card(folder, architecture, origin))


def untrained(folder: Path, origin: Origin, seed: int) -> Upstream:
    """The untrained twin of a pretrained encoder: its architecture, and weights of a seed."""
    architecture = read_architecture(folder)
    encoder = build(architecture)
    encoder.reset_parameters(torch.Generator().manual_seed(seed))
    card = untrained_card(_card(folder, architecture, origin), seed)
    return _upstream(architecture, encoder, card)


def read_architecture(folder: Path) -> Architecture:
    """The architecture in ``config.json``, an instance of one of `ARCHITECTURES`.

    Raises:
        UpstreamError: it is missing, unknown, or its values are not those of that architecture.
    """
    settings = read_json(folder, "config.json")
    config = ARCHITECTURES.get(str(settings.get("architecture")))
    if config is None:
        raise UpstreamError(
            f"{folder}/config.json: architecture is one of {', '.join(ARCHITECTURES)}; got "
            f"{settings.get('architecture')!r}"
        )
    return from_json(config, settings.get("values"), f"{folder}/config.json: values")


def build(architecture: Architecture) -> Module:
    """The encoder of an architecture; its weights are not drawn yet."""
    with torch.device("meta"):
        if isinstance(architecture, EncoderConfig):
            encoder: Module = TransformerEncoder(architecture)
        else:
            encoder = architecture.build()
    return encoder.to_empty(device="cpu")


def from_json(kind: type[Architecture], values: Json, where: str) -> Architecture:
    """A dataclass from a JSON object, strictly: every field once, each of its declared type.

    Args:
        kind: the dataclass; its fields are numbers, switches, names, tuples of whole numbers and
            dataclasses.
        values: the object.
        where: it stands, for messages.

    Raises:
        UpstreamError: a field is missing, unknown or of another type, or the values do not fit
            together.
    """
    fields = typing.get_type_hints(kind)
    if not isinstance(values, dict) or values.keys() != fields.keys():
        raise UpstreamError(f"{where} must be an object with {', '.join(fields)}")
    arguments = {
        name: _value(declared, values[name], f"{where}.{name}") for name, declared in fields.items()
    }
    try:
        return kind(**arguments)
    except SuperbError as error:
        raise UpstreamError(f"{where}: {error}") from error


def _value(declared: object, value: Json, where: str) -> Json:
    if dataclasses.is_dataclass(declared) and isinstance(declared, type):
        return from_json(declared, value, where)
    origin, arguments = typing.get_origin(declared), typing.get_args(declared)
    if origin is typing.Literal:
        holds = value in arguments
    elif origin is tuple:
        holds = isinstance(value, list) and all(type(part) is int for part in value)
        value = tuple(value) if holds else value
    elif origin is types.UnionType:
        holds = any(type(value) is part for part in arguments)
    elif declared is float:
        holds = type(value) in (int, float)
    else:
        holds = type(value) is declared
    if not holds:
        raise UpstreamError(f"{where} must be {declared}; got {value!r}")
    return value


def _weights(folder: Path, encoder: nn.Module) -> dict[str, torch.Tensor]:
    path = folder / "model.safetensors"
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UpstreamError(f"cannot read {path}: {error}; copy the folder again") from error
    wanted = {name: tuple(weight.shape) for name, weight in encoder.state_dict().items()}
    given = {name: tuple(weight.shape) for name, weight in weights.items()}
    if wanted != given:
        differing = sorted(
            name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name)
        )
        raise UpstreamError(
            f"{path} does not hold the weights that config.json describes; {len(differing)} "
            f"differ: {', '.join(differing[:5])}"
        )
    return {
        name: weight.float() if weight.is_floating_point() else weight
        for name, weight in weights.items()
    }


def _card(folder: Path, architecture: Architecture, origin: Origin) -> UpstreamCard:
    content = read_json(folder, "card.json")
    if missing := [name for name in CARD_FIELDS if name not in content]:
        raise UpstreamError(f"{folder}/card.json lacks {', '.join(missing)}")
    corpora = content["trained_on"]
    if corpora is not None and not isinstance(corpora, list):
        raise UpstreamError(f"{folder}/card.json: trained_on is a list of names, or null")
    transformer = isinstance(architecture, EncoderConfig)
    return UpstreamCard(
        name=origin.name,
        layers=architecture.layers + 1 if transformer else architecture.states,
        dim=architecture.dim,
        hop_samples=architecture.hop_samples,
        family=content["family"],
        min_samples=architecture.min_samples,
        pad_invariant=True,
        trained_on=None if corpora is None else frozenset(corpora),
        licence=content["licence"],
        paper=content["paper"],
        source=origin.source,
        revision=origin.revision,
        note=content["note"],
    )


def _upstream(architecture: Architecture, encoder: Module, card: UpstreamCard) -> Upstream:
    parameters = sum(weight.numel() for weight in encoder.parameters())
    card = dataclasses.replace(card, parameters=parameters)
    if isinstance(architecture, EncoderConfig):
        return TransformerUpstream(encoder, card, normalize=False)
    return FrozenEncoder(encoder, card)


def bundled(name: str) -> Upstream:
    """One of the small encoders that come with the package."""
    return load(CHECKPOINTS / name, Origin(name=name, source=UPSTREAMS[name].checkpoint))


def __getattr__(attribute: str) -> Callable[[], Upstream]:
    """The function that loads the bundled encoder whose target is this attribute."""
    for name, entry in UPSTREAMS.items():
        if entry.target == f"{__name__}:{attribute}":
            return partial(bundled, name)
    raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")
