"""Encoders pretrained here: how they are kept in a folder, and the bundled ones.

A folder holds ``config.json`` (which architecture, and its values), ``model.safetensors`` (the
encoder's weights at half precision) and ``card.json`` (what a reader must know: data, compute, the
command). Nothing in it is code, and every value is checked when it is read.
"""

from __future__ import annotations

import dataclasses
import json
import reprlib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as packed
from torch import nn

from benchmark.core import UpstreamCard
from benchmark.errors import SuperbError, UpstreamError
from benchmark.identity import ADDED
from upstreams.loading.files import Origin, read_json, refuse_not_finite, refuse_pointer
from upstreams.models.architecture import Encoder, untrained_encoder
from upstreams.models.av_hubert import AVHubertConfig
from upstreams.models.cpc import BidirectionalCPCConfig, CPCConfig
from upstreams.models.generative import APCConfig, MelTransformerConfig, NPCConfig
from upstreams.models.transformer import EncoderConfig, TransformerEncoder, TransformerUpstream
from upstreams.models.utterance import FrozenEncoder
from upstreams.models.wav2vec import Wav2VecConfig

# An instance of one of `ARCHITECTURES`, which share properties but no class.
Architecture: TypeAlias = Any
Json: TypeAlias = Any
Frozen: TypeAlias = TransformerUpstream | FrozenEncoder
# model_type in config.json
PRETRAINED = "superb"
ARCHITECTURES: dict[str, type[Any]] = {
    "transformer": EncoderConfig,
    "cpc": CPCConfig,
    "bidirectional-cpc": BidirectionalCPCConfig,
    "apc": APCConfig,
    "npc": NPCConfig,
    "mel-transformer": MelTransformerConfig,
    "wav2vec": Wav2VecConfig,
    "av-hubert": AVHubertConfig,
}
# What card.json says beside the encoder itself.
CARD_FIELDS = ("family", "licence", "paper", "note", "trained_on")
# What a folder may ask for. Far more than any encoder here has, and little enough that what a
# stranger wrote exhausts neither memory nor patience before it is compared with the weights.
LARGEST, MOST_LAYERS, MOST_PARAMETERS = 2**16, 256, 2**32
LAYERS = frozenset({"layers", "position_layers"})
# Where 0 means none of it.
MAY_BE_ZERO = frozenset({"codes", "paddings", "relative_buckets"})
# What safetensors calls the types that weights may have.
FLOATS = frozenset({"F16", "BF16", "F32", "F64"})


def described(architecture: Architecture) -> dict[str, Json]:
    """An architecture as JSON, which `architecture_from` reads."""
    names = {config: name for name, config in ARCHITECTURES.items()}
    values = json.loads(json.dumps(dataclasses.asdict(architecture)))  # with lists for tuples
    return {"architecture": names[type(architecture)], "values": values}


def save(
    folder: Path,
    architecture: Architecture,
    encoder: nn.Module,
    card: Mapping[str, Json],
    normalize: bool = False,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a pretrained encoder, wholly or not at all.

    Args:
        folder: to write to; made if need be.
        architecture: an instance of one of `ARCHITECTURES`.
        encoder: with its weights.
        card: `CARD_FIELDS`, and whatever else a reader must know, as JSON.
        normalize: bring every waveform to zero mean and unit variance first.
        dtype: of the weights in the file.

    Raises:
        SuperbError: it cannot be written.
    """
    settings = {"model_type": PRETRAINED, **described(architecture)}
    settings |= {"normalize": True} if normalize else {}
    weights = {
        name: weight.detach().to("cpu", dtype if weight.is_floating_point() else None)
        for name, weight in encoder.state_dict().items()
    }
    for name, weight in weights.items():
        if not bool(weight.isfinite().all()):
            raise SuperbError(f"{name} holds numbers that half precision cannot; nothing is saved")
    contents = {
        "model.safetensors": packed({name: part.contiguous() for name, part in weights.items()}),
        "card.json": _text(card),
        "config.json": _text(settings),
    }
    write(folder, contents)


def write(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files to a folder, wholly or not at all.

    Args:
        folder: made if need be.
        contents: file name → what is in it; the last says that all are there.

    Raises:
        SuperbError: it cannot be written.
    """
    temporary = {name: folder / f"{name}.new" for name in contents}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            temporary[name].write_bytes(content)
        for name, path in temporary.items():
            path.replace(folder / name)
    except OSError as error:
        raise SuperbError(f"cannot write the encoder to {folder}: {error}") from error
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)


def _text(content: Json) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def load(folder: Path, origin: Origin) -> Frozen:
    """Read a pretrained encoder.

    Args:
        folder: as `save` wrote it.
        origin: its name and where it comes from, for its card.

    Raises:
        UpstreamError: a file is missing or damaged, or holds anything but what it should.
    """
    architecture = read_architecture(folder)
    encoder = planned(architecture)
    encoder.load_state_dict(_weights(folder, encoder), strict=True, assign=True)
    return frozen(encoder, _card(folder, architecture, origin), _normalizes(folder))


def untrained(folder: Path, origin: Origin, seed: int) -> Frozen:
    """The same architecture with weights of a seed."""
    architecture = read_architecture(folder)
    planned(architecture)  # or say in our words why it cannot be built
    encoder = untrained_encoder(architecture, seed)
    return frozen(encoder, _card(folder, architecture, origin), _normalizes(folder))


def _normalizes(folder: Path) -> bool:
    """Whether waveforms are normalised first; the bundled ones do not say, as none wants it."""
    normalize = read_json(folder, "config.json").get("normalize", False)
    if not isinstance(normalize, bool):
        raise UpstreamError(f"{folder}/config.json: normalize is true or false; got {normalize!r}")
    return normalize


def read_architecture(folder: Path) -> Architecture:
    """The architecture in ``config.json``, an instance of one of `ARCHITECTURES`.

    Raises:
        UpstreamError: it is missing, unknown, or its values are not those of that architecture.
    """
    return architecture_from(read_json(folder, "config.json"), f"{folder}/config.json")


def architecture_from(settings: Mapping[str, Json], where: str) -> Architecture:
    """The architecture in settings, as `described` gives them.

    Args:
        settings: with ``architecture`` and ``values``.
        where: they stand, for messages.

    Raises:
        UpstreamError: it is unknown, or its values are not those of that architecture.
    """
    config = ARCHITECTURES.get(str(settings.get("architecture")))
    if config is None:
        raise UpstreamError(
            f"{where}: architecture is one of {', '.join(ARCHITECTURES)}; got "
            f"{settings.get('architecture')!r}"
        )
    architecture = from_json(config, settings.get("values"), f"{where}: values")
    if max(architecture.hop_samples, architecture.min_samples) > LARGEST:
        raise UpstreamError(f"{where}: kernels and strides make frames of over {LARGEST} samples")
    return architecture


def planned(architecture: Architecture) -> Encoder:
    """The encoder of an architecture on the meta device, without memory for its weights."""
    try:
        with torch.device("meta"):
            encoder = architecture.build()
    except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise UpstreamError(
            f"no encoder can be built of {type(architecture).__name__} with these values: {error}"
        ) from error
    parameters = sum(weight.numel() for weight in encoder.parameters())
    if parameters > MOST_PARAMETERS:
        raise UpstreamError(
            f"an encoder of {parameters:.3g} parameters is larger than what is loaded from such a "
            f"folder, {MOST_PARAMETERS:.3g} at most"
        )
    return encoder


def from_json(kind: type[Architecture], values: Json, where: str) -> Architecture:
    """A dataclass from a JSON object, strictly: every field once, of its type and in its range.

    Only fields of a later version (`added`) may be missing, and have their default then.

    Args:
        kind: the dataclass; its fields are numbers, switches, names, tuples of whole numbers and
            dataclasses.
        values: the object.
        where: it stands, for messages.

    Raises:
        UpstreamError: a field is missing, unknown, of another type or out of range, or the values
            do not fit together.
    """
    fields = typing.get_type_hints(kind)
    needed = {own.name for own in dataclasses.fields(kind) if ADDED not in own.metadata}
    if not isinstance(values, dict) or not needed <= values.keys() <= fields.keys():
        raise UpstreamError(f"{where} must be an object with {', '.join(fields)}")
    arguments = {
        name: _value(name, declared, values[name], f"{where}.{name}")
        for name, declared in fields.items()
        if name in values
    }
    try:
        return kind(**arguments)
    except SuperbError as error:
        raise UpstreamError(f"{where}: {error}") from error


def _value(name: str, declared: object, value: Json, where: str) -> Json:
    if dataclasses.is_dataclass(declared) and isinstance(declared, type):
        return from_json(declared, value, where)
    least, most = int(name not in MAY_BE_ZERO), MOST_LAYERS if name in LAYERS else LARGEST
    origin, arguments = typing.get_origin(declared), typing.get_args(declared)

    def whole(number: Json) -> bool:
        return type(number) is int and least <= number <= most

    if origin is typing.Literal:
        holds, wanted = value in arguments, f"one of {', '.join(map(str, arguments))}"
    elif origin is tuple:
        holds = isinstance(value, list) and 0 < len(value) <= MOST_LAYERS and all(map(whole, value))
        value = tuple(value) if holds else value
        wanted = f"a list of 1 to {MOST_LAYERS} whole numbers from {least} to {most}"
    elif declared is float:
        holds = type(value) in (int, float) and 0 < value <= 1
        wanted = "a number above 0 and at most 1"
    elif declared is bool:
        holds, wanted = type(value) is bool, "true or false"
    else:
        holds, wanted = whole(value), f"a whole number from {least} to {most}"
    if not holds:
        raise UpstreamError(f"{where} must be {wanted}; got {reprlib.repr(value)}")
    return value


def _weights(folder: Path, encoder: nn.Module) -> dict[str, torch.Tensor]:
    path = folder / "model.safetensors"
    try:
        refuse_pointer(path)
        # Names, types and shapes stand in the file's head: nothing else is read before they fit.
        with safe_open(path, framework="pt") as file:
            heads = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            given = {
                name: (tuple(head.get_shape()), head.get_dtype() in FLOATS)
                for name, head in heads.items()
            }
        wanted = {
            name: (tuple(weight.shape), weight.is_floating_point())
            for name, weight in encoder.state_dict().items()
        }
        if wanted != given:
            differing = sorted(
                name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name)
            )
            raise UpstreamError(
                f"{path} does not hold the weights that config.json describes; {len(differing)} "
                f"differ: {', '.join(differing[:5])}"
            )
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UpstreamError(f"cannot read {path}: {error}; copy the folder again") from error
    refuse_not_finite(weights, str(path))
    return {
        name: weight.float() if weight.is_floating_point() else weight
        for name, weight in weights.items()
    }


def _card(folder: Path, architecture: Architecture, origin: Origin) -> UpstreamCard:
    content = read_json(folder, "card.json")
    if missing := [name for name in CARD_FIELDS if name not in content]:
        raise UpstreamError(f"{folder}/card.json lacks {', '.join(missing)}")
    corpora = content["trained_on"]
    if corpora is not None and not (
        isinstance(corpora, list) and all(isinstance(corpus, str) for corpus in corpora)
    ):
        raise UpstreamError(f"{folder}/card.json: trained_on is a list of names, or null")
    try:
        return UpstreamCard(
            name=origin.name,
            layers=architecture.states,
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
            training=content.get("training", ""),
        )
    except SuperbError as error:
        raise UpstreamError(f"{folder}/card.json: {error}") from error


def frozen(encoder: Encoder, card: UpstreamCard, normalize: bool = False) -> Frozen:
    """An encoder as an upstream.

    Args:
        encoder: with its weights.
        card: its card, but for their number.
        normalize: bring every waveform to zero mean and unit variance first; a transformer alone
            can be asked.
    """
    parameters = sum(weight.numel() for weight in encoder.parameters())
    card = dataclasses.replace(card, parameters=parameters)
    if isinstance(encoder, TransformerEncoder):
        return TransformerUpstream(encoder, card, normalize)
    return FrozenEncoder(encoder, card)
