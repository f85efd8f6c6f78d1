"""A trained head as two files beside its result: weights as safetensors, and a card in JSON.

The card holds all that it takes to build the head again and to tell whether encoder and task are
still what they were. Reading either file runs no code. ``RUN.head.json`` lies beside ``RUN.json``;
of a task in folds there is one of each fold, ``RUN.FOLD.head.json``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from benchmark.errors import SuperbError
from benchmark.probing.layers import LayerMix, Mix
from benchmark.scoring.files import explained, intact, replace_together, signed
from benchmark.scoring.results import HEAD_CARD, safe_name

FORMAT: Final = 1
"""Version of both files; raised when a reader of the old one could misread the new one."""

_WEIGHTS: Final = ".head.safetensors"


@dataclass(frozen=True)
class HeadCard:
    """What the heads of one result are, those of all its seeds; field names are keys of the file.

    Attributes:
        run_id: of the result.
        fold: what they were trained on, "" where there is one partition.
        identity: of the result: everything its score depends on.
        typed: how ``upstream`` and ``downstream`` were asked for; None for an object.
        upstream: the encoder's card.
        downstream: the task's card.
        protocol: every value that was used; those of the head are needed to build it.
        layer: the layer choice, as it was asked for.
        mix: what that comes to, as `benchmark.probing.layers.Mix`.
        learning_rate: the one chosen on valid.
        seeds: of the heads.
        kept: seed, as text → what the task has learnt beside the head (`benchmark.answers.Keeps`).
        vocabulary: the output symbols.
        provenance: versions, commit, machine.
        encoder_sha256: of the encoder's weights and settings; None when the card does not say.
        weights_sha256: of the other file.
        format: version of both files.
        checksum: of the file as far as this field, its last.
    """

    run_id: str
    fold: str
    identity: Mapping[str, Any]
    typed: Mapping[str, Any]
    upstream: Mapping[str, Any]
    downstream: Mapping[str, Any]
    protocol: Mapping[str, Any]
    layer: str
    mix: Mapping[str, Any]
    learning_rate: float
    seeds: Sequence[int]
    kept: Mapping[str, Mapping[str, Any]]
    vocabulary: Sequence[str]
    provenance: Mapping[str, Any]
    encoder_sha256: str | None = None
    weights_sha256: str = ""
    format: int = FORMAT
    checksum: str = ""


@dataclass(frozen=True)
class Weights:
    """What a layer mix and a head learnt.

    Attributes:
        mix: of the `LayerMix`, by name.
        head: of the head, by name.
        scaling: what the mix is shifted and scaled by, ``(shift [dim], scale [])``, or None.
    """

    mix: Mapping[str, Tensor]
    head: Mapping[str, Tensor]
    scaling: tuple[Tensor, Tensor] | None

    @classmethod
    def of(cls, mix: LayerMix, head: nn.Module) -> Weights:
        """Those that two modules have now."""
        return cls(mix.state_dict(), head.state_dict(), mix.scaling)


def head_path(result: Path, fold: str = "") -> Path:
    """The card of the heads of a result, given its file."""
    part = f".{safe_name(fold)}" if fold else ""
    return result.with_name(f"{result.stem}{part}{HEAD_CARD}")


def heads_of(result: Path) -> dict[str, Path]:
    """The cards of heads beside a result, by the part of their name that stands for the fold."""
    found = {}
    for path in sorted(result.parent.glob(f"{result.stem}.*")):
        if path.name.endswith(HEAD_CARD):
            found[path.name.removesuffix(HEAD_CARD).removeprefix(result.stem).lstrip(".")] = path
    return found


def weights_path(card: Path) -> Path:
    """The weights beside a card."""
    return card.with_name(card.name.removesuffix(HEAD_CARD) + _WEIGHTS)


def write_heads(path: Path, card: HeadCard, weights: Mapping[int, Weights]) -> None:
    """Write both files whole, the card last; replace what was there.

    Args:
        path: of the card (`head_path`).
        card: without its hashes, which are filled in.
        weights: seed → what was learnt.

    Raises:
        SuperbError: when the disk is full or the folder cannot be written.
    """
    tensors = {}
    for seed, own in weights.items():
        scaling = dict(zip(("shift", "scale"), own.scaling or (), strict=False))
        for part, values in (("mix", own.mix), ("head", own.head), ("scaling", scaling)):
            for name, value in values.items():
                # a copy each: weights may share memory, which the format has no word for
                tensors[f"{seed}.{part}.{name}"] = value.detach().cpu().clone().contiguous()
    data = safetensors.torch.save(tensors)
    document = asdict(card) | {"weights_sha256": hashlib.sha256(data).hexdigest()}
    del document["checksum"], document["format"]
    with explained(path, "head"):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_together(
            [(weights_path(path), data), (path, signed({"format": FORMAT, **document}))]
        )


def read_card(path: Path) -> HeadCard:
    """Read a card, checked.

    Raises:
        SuperbError: it cannot be read, is none, of a newer version, or was changed.
    """
    try:
        data = path.read_bytes().replace(b"\r\n", b"\n")
        document = json.loads(data)
    except OSError as error:
        raise SuperbError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path) from error
    version = document.get("format") if isinstance(document, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise SuperbError(
            f"{path} was written by a newer version of superb (format {version}; this one reads "
            f"up to {FORMAT}). Upgrade with: pip install --upgrade superb"
        )
    wanted = {field.name for field in fields(HeadCard)}
    # cards were without it at first
    if isinstance(document, dict):
        document.setdefault("encoder_sha256", None)
    if not intact(data) or not isinstance(document, dict) or document.keys() != wanted:
        raise _damaged(path)
    return HeadCard(**document)


def read_weights(path: Path, card: HeadCard, seed: int) -> Weights:
    """The weights of one seed, checked.

    Args:
        path: of the card.
        card: what stands in it.
        seed: whose.

    Raises:
        SuperbError: the file is gone, cannot be read, or was changed.
    """
    file = weights_path(path)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise SuperbError(
            f"the weights of the head are gone: {file} cannot be read: {error.strerror}. They lie "
            f"beside {path.name}; copy both"
        ) from error
    if hashlib.sha256(data).hexdigest() != card.weights_sha256:
        raise _damaged(file)
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise _damaged(file) from error

    def part(name: str) -> dict[str, Tensor]:
        start = f"{seed}.{name}."
        return {key.removeprefix(start): t for key, t in tensors.items() if key.startswith(start)}

    scaling = part("scaling")
    return Weights(
        part("mix"),
        part("head"),
        (scaling["shift"], scaling["scale"]) if scaling else None,
    )


def mix_of(card: HeadCard) -> Mix:
    """The layer mix of a card."""
    return Mix(card.mix["layer"], card.mix["normalised"])


def _damaged(path: Path) -> SuperbError:
    return SuperbError(
        f"{path} does not match its checksum: it was edited or damaged after it was written. "
        "Delete the result beside it and run again with --save-heads to get both back"
    )
