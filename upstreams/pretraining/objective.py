"""What an objective is: a batch of waveforms in, a loss out.

Everything random in a step (crops, masks, negatives, noise) comes from a generator that is seeded
by the run's seed and the number of the step. So a run that was killed goes on as if nothing had
happened, and no state of any generator is saved.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Generator, Tensor, nn

from benchmark.errors import SuperbError


@dataclass(frozen=True)
class Batch:
    """Crops of equal length: nothing is padded, so no loss needs to know of padding.

    Attributes:
        waveforms: ``[utterance, sample]``, float32 in [-1, 1], at 16 kHz.
        speakers: ``[utterance]``, integer labels of who speaks, as far as file names tell.
    """

    waveforms: Tensor
    speakers: Tensor


@dataclass(frozen=True)
class Moment:
    """Where a step is in its run.

    Attributes:
        progress: from 0 at the first step to 1 at the last, for what is annealed.
        generator: the source of all randomness in the step, on the CPU.
    """

    progress: float
    generator: Generator


@dataclass(frozen=True)
class Loss:
    """Outcome of a step.

    Attributes:
        value: a scalar to minimise.
        parts: what to log beside it, name → detached scalar: accuracies, perplexities, terms.
    """

    value: Tensor
    parts: dict[str, Tensor]


@dataclass(frozen=True)
class Recipe:
    """How to minimise an objective, in the ``mini`` size; the command line can overrule.

    Attributes:
        learning_rate: at its peak.
        batch_seconds: audio per optimiser step.
        crop_seconds: longest crop of an utterance.
        min_seconds: shortest utterance that is used.
        weight_decay: of AdamW, on matrices only.
        clip_norm: largest norm of the gradient.
        warm_up: share of all steps with a rising learning rate; it falls to 0 in the rest.
    """

    learning_rate: float = 1e-3
    batch_seconds: float = 120.0
    crop_seconds: float = 10.0
    min_seconds: float = 1.0
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    warm_up: float = 0.08


def require(fine: bool, name: str, given: object, allowed: str) -> None:
    """Refuse a setting.

    Args:
        fine: whether it is allowed.
        name: of the setting.
        given: its value.
        allowed: in words.

    Raises:
        SuperbError: it is not fine.
    """
    if not fine:
        raise SuperbError(f"{name} must be {allowed}; got {given!r}")


class Objective(Protocol):
    """A pretext task: an ``nn.Module`` that holds the encoder and whatever only training needs.

    Constructed as ``Class(size, settings, generator)`` with all weights drawn from the generator:

    * ``size``: a key of `sizes`;
    * ``settings``: an instance of its dataclass `Settings`, whose fields are what a user can set,
      each with a default and a line in the docstring; nonsense raises a `SuperbError` there.

    Attributes:
        Settings: the dataclass.
        sizes: size → architecture of the encoder (`EncoderConfig`, `CPCConfig`, …).
        recipe: how it is trained when nothing else is asked.
        encoder: what is saved as an upstream in the end.
        architecture: the encoder's, a value of `sizes`.

    An optional attribute ``teachers: list[UpstreamCard]`` is those of encoders whose features are
    learned from: what these were trained on, this one has indirectly been trained on.
    """

    Settings: ClassVar[type[Any]]
    sizes: ClassVar[dict[str, Any]]
    recipe: ClassVar[Recipe]
    encoder: nn.Module
    architecture: Any

    def prepare(self, batches: Iterable[Batch], moment: Moment) -> dict[str, float]:
        """Called once before the first step, with a sample of the audio: fit clusters, say.

        What it finds goes into buffers, which checkpoints hold.

        Args:
            batches: the sample, decoded as it is asked for: who does not look pays nothing.
            moment: progress 0.

        Returns:
            What to log: name → number.
        """
        ...

    def forward(self, batch: Batch, moment: Moment) -> Loss:
        """The loss of a batch, differentiable. On the device of the objective's weights."""
        ...
