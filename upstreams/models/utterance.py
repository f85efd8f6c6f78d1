"""What encoders of one utterance at a time share: no feature depends on what else is in a batch.

For `cpc`, `wav2vec` and `generative` beside this file: the frozen upstream around an encoder,
 its card from a row of the table, its initial weights, and a strict reader of local files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from benchmark.core import HiddenStates, UpstreamCard
from benchmark.errors import UpstreamError
from benchmark.registry import load_attribute
from upstreams import UPSTREAMS
from upstreams.loading.checkpoint import named_tensors, read_pickle
from upstreams.loading.untrained import SEED, untrained_card
from upstreams.models import batch
from upstreams.models.batch import SAMPLE_RATE


class UtteranceEncoder(nn.Module):
    """An encoder of one utterance at a time: ``[sample]`` to ``[state, frame, dim]``."""

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew, as before training: `draw_weights`, then what is special.

        Args:
            generator: source of randomness; None is torch's own, for callers that guard it.
        """
        draw_weights(self, generator)


class Architecture(Protocol):
    """An architecture as data: what a row of the table names."""

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

    def build(self) -> UtteranceEncoder:
        """The encoder, its weights as torch initialises them (or on the meta device)."""
        ...


class FrozenEncoder(nn.Module):
    """A frozen encoder as an upstream: each utterance is encoded alone, then zero-padded.

    Args:
        encoder: with its weights.
        card: its card.
    """

    def __init__(self, encoder: UtteranceEncoder, card: UpstreamCard) -> None:
        super().__init__()
        self.encoder = encoder
        self.card = card
        self.requires_grad_(False).eval()

    @torch.inference_mode()
    def forward(self, waveforms: list[Tensor]) -> HiddenStates:
        """Encode 1-D waveforms in [-1, 1] at 16 kHz, one per utterance.

        Raises:
            AudioError: for a waveform that is not 1-D, not float, or too short.
        """
        batch.check_waveforms(waveforms, self.card)
        device = next(self.encoder.parameters()).device
        return batch.stack([self.encoder(waveform.to(device).float()) for waveform in waveforms])


def parameter_count(architecture: Architecture) -> int:
    """Weights of an architecture, counted on the meta device: nothing is allocated."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in architecture.build().parameters())


def untrained_upstream(name: str, seed: int = SEED) -> FrozenEncoder:
    """A row of the table with random weights; nothing is fetched, global random state stays.

    Args:
        name: a name in `UPSTREAMS` whose architecture is an `Architecture`.
        seed: of the weights.
    """
    architecture: Architecture = load_attribute(UPSTREAMS[name].architecture)
    with torch.device("meta"):
        encoder = architecture.build()
    encoder.to_empty(device="cpu")
    encoder.reset_parameters(torch.Generator().manual_seed(seed))
    return FrozenEncoder(encoder, untrained_card(architecture_card(name, architecture), seed))


def architecture_card(name: str, architecture: Architecture) -> UpstreamCard:
    """The card of an architecture under the name of a row; whose weights is not its business."""
    entry = UPSTREAMS[name]
    return UpstreamCard(
        name=name,
        layers=architecture.states,
        dim=architecture.dim,
        hop_samples=architecture.hop_samples,
        sample_rate=SAMPLE_RATE,
        family=entry.family,
        parameters=parameter_count(architecture),
        min_samples=architecture.min_samples,
        pad_invariant=True,
        paper=entry.paper,
    )


def read_tensors(path: Path, weights_key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a training checkpoint without running anything that is in it.

    Args:
        path: a file of ``torch.save`` that holds plain containers, numbers, strings and tensors.
        weights_key: where its named tensors are.

    Returns:
        The named tensors, and everything else in the file.

    Raises:
        UpstreamError: unreadable, or holding objects whose unpickling would run code.
    """
    content = read_pickle(path, "save its weights again, as plain data")
    if not isinstance(content, dict) or weights_key not in content:
        raise UpstreamError(f"{path} must hold its weights under {weights_key!r}")
    weights = named_tensors(content.pop(weights_key), f"{path}, under {weights_key!r},")
    return weights, content


def load_strictly(
    encoder: UtteranceEncoder,
    weights: Mapping[str, Tensor],
    names: Mapping[str, str],
    where: str,
    ignored: Iterable[str] = (),
) -> None:
    """Give an encoder a checkpoint's weights: every one used, none left over.

    Args:
        encoder: on the meta device or any other; its weights are replaced, in float32 on the CPU.
        weights: theirs.
        names: our names → theirs, for every entry of our ``state_dict``.
        where: the file, for messages.
        ignored: names of theirs that an encoder does not need.

    Raises:
        UpstreamError: a weight is missing, left over, or of another shape; all are named.
    """
    ours = encoder.state_dict()
    skip = set(ignored)
    missing = sorted(set(names.values()) - weights.keys())
    unexpected = sorted(weights.keys() - set(names.values()) - skip)
    wrong = [
        f"{theirs} {tuple(weights[theirs].shape)} instead of {tuple(ours[name].shape)}"
        for name, theirs in names.items()
        # Some store normalisers as [1, channel, 1]; axes of size one carry nothing.
        if theirs in weights and _bare(weights[theirs].shape) != _bare(ours[name].shape)
    ]
    problems = [
        f"{label}: {', '.join(found[:5])}{f' and {len(found) - 5} more' if len(found) > 5 else ''}"
        for label, found in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("wrong shape", wrong),
        )
        if found
    ]
    if problems:
        raise UpstreamError(f"{where} does not hold the weights expected. {'; '.join(problems)}")
    state = {
        name: (
            weights[theirs].float().view(ours[name].shape)
            if weights[theirs].is_floating_point()
            else weights[theirs].view(ours[name].shape)
        )
        for name, theirs in names.items()
    }
    encoder.load_state_dict(state, strict=True, assign=True)


def checkpoint_upstream(
    name: str,
    architecture: Architecture,
    weights: Mapping[str, Tensor],
    names: Mapping[str, str],
    path: str | Path,
    ignored: Iterable[str] = (),
) -> FrozenEncoder:
    """A row of the table with the weights of a local file; see `load_strictly`.

    What they were trained on is not known here, and the card says so.
    """
    with torch.device("meta"):
        encoder = architecture.build()
    load_strictly(encoder, weights, names, str(path), ignored)
    card = replace(
        architecture_card(name, architecture),
        trained_on=None,
        source=str(path),
        note="weights from a local file; where it comes from is not verified",
    )
    return FrozenEncoder(encoder, card)


def _bare(shape: torch.Size) -> tuple[int, ...]:
    """A shape without its ones."""
    return tuple(size for size in shape if size != 1)


def draw_weights(module: nn.Module, generator: torch.Generator | None) -> None:
    """Initial weights of every layer below a module; biases are zero.

    Convolutions: He et al. 2015, so that depth keeps the variance through ReLUs. Linear maps:
    N(0, 0.02), as in BERT. Recurrent layers: uniform in ±1/√units, torch's default.

    Args:
        module: whose layers are drawn.
        generator: source of randomness, on the device of the weights.
    """
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv1d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu", generator=generator)
            elif isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=0.02, generator=generator)
            elif isinstance(part, nn.MultiheadAttention):
                nn.init.normal_(part.in_proj_weight, std=0.02, generator=generator)
                nn.init.zeros_(part.in_proj_bias)
            elif isinstance(part, nn.RNNBase):
                bound = 1 / math.sqrt(part.hidden_size)
                for weight in part.parameters():
                    nn.init.uniform_(weight, -bound, bound, generator=generator)
                continue
            elif isinstance(part, nn.LayerNorm | nn.GroupNorm | nn.BatchNorm1d):
                nn.init.ones_(part.weight)
                if isinstance(part, nn.BatchNorm1d):
                    part.reset_running_stats()
            bias = getattr(part, "bias", None)
            if isinstance(bias, nn.Parameter):
                nn.init.zeros_(bias)
