"""Architectures as data: what each says of itself, and where published files keep its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar

import torch

from benchmark.identity import ADDED

T = TypeVar("T")


def added(default: T) -> T:
    """A field that a later version brought to an architecture.

    Files from before it lack it, and hashes from before it stay as they are where it has its
    default, with which all is computed as it was.
    """
    value: T = field(default=default, metadata={ADDED: True})
    return value


# A torch module with `reset_parameters(generator)`; which class, its architecture says.
Encoder: TypeAlias = Any


class Architecture(Protocol):
    """The configuration of an encoder, a frozen dataclass."""

    @property
    def states(self) -> int:
        """Hidden states returned."""
        ...

    @property
    def dim(self) -> int:
        """Features per frame."""
        ...

    @property
    def hop_samples(self) -> int:
        """Samples between two frames."""
        ...

    @property
    def min_samples(self) -> int:
        """Shortest waveform that yields a frame."""
        ...

    def build(self) -> Encoder:
        """The encoder, its weights as torch initialises them (or on the meta device)."""
        ...


@dataclass(frozen=True)
class Layout:
    """How a published training checkpoint keeps the weights of an architecture.

    Attributes:
        key: of the named tensors in the file.
        names: an architecture → our names → theirs, for every entry of our ``state_dict``.
        ignored: an architecture → names of theirs that its encoder does not need.
        settled: an architecture, the rest of the file and the file's name → the architecture with
            what the file says of it; raises `UpstreamError` if that is another model.
    """

    key: str
    names: Callable[[Any], dict[str, str]]
    ignored: Callable[[Any], Iterable[str]] = lambda architecture: ()
    settled: Callable[[Any, Mapping[str, Any], str], Architecture] = (
        lambda architecture, rest, where: architecture
    )


def parameter_count(architecture: Architecture) -> int:
    """Weights of an architecture, counted on the meta device: nothing is allocated."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in architecture.build().parameters())


def untrained_encoder(architecture: Architecture, seed: int) -> Encoder:
    """An encoder with random weights, on the CPU; torch's global random state stays as it was.

    Args:
        architecture: its architecture.
        seed: of the weights.
    """
    with torch.device("meta"):
        encoder = architecture.build()
    encoder.to_empty(device="cpu")
    encoder.reset_parameters(torch.Generator().manual_seed(seed))
    return encoder
