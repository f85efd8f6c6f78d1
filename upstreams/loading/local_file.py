"""Weights from a file of one's own: those that were published outside the hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from benchmark.errors import UpstreamError
from upstreams.loading.files import (
    named_tensors,
    read_pickle,
    refuse_differences,
    refuse_not_finite,
    shapes,
)
from upstreams.models.architecture import Architecture, Encoder, Layout


def read_encoder(path: Path, architecture: Architecture, layout: Layout) -> Encoder:
    """Read an encoder from a training checkpoint, without running anything that is in it.

    Args:
        path: a file of ``torch.save`` that holds plain containers, numbers, strings and tensors.
        architecture: of the encoder; the file may settle what it leaves open.
        layout: of the file.

    Raises:
        UpstreamError: unreadable, holding objects whose unpickling would run code, or not holding
            exactly the weights of the architecture.
    """
    content = read_pickle(path, "save its weights again, as plain data")
    if not isinstance(content, dict) or layout.key not in content:
        raise UpstreamError(f"{path} must hold its weights under {layout.key!r}")
    weights = named_tensors(content.pop(layout.key), f"{path}, under {layout.key!r},")
    architecture = layout.settled(architecture, content, str(path))
    with torch.device("meta"):
        encoder = architecture.build()
    for name in layout.ignored(architecture):
        weights.pop(name, None)
    load_strictly(encoder, weights, layout.names(architecture), str(path))
    return encoder


def load_strictly(
    encoder: Encoder, weights: Mapping[str, Tensor], names: Mapping[str, str], where: str
) -> None:
    """Give an encoder a checkpoint's weights: every one used, none left over.

    Some store normalisers as ``[1, channel, 1]``; axes of size one carry nothing.

    Args:
        encoder: on the meta device or any other; its weights are replaced, in float32 on the CPU.
        weights: theirs.
        names: our names → theirs, for every entry of our ``state_dict``.
        where: the file, for messages.

    Raises:
        UpstreamError: a weight is missing, left over, of another shape or not finite; all are
            named.
    """
    ours = encoder.state_dict()
    wanted, given = shapes({theirs: ours[name] for name, theirs in names.items()}), shapes(weights)
    for name, shape in wanted.items():
        if _bare(given.get(name, ())) == _bare(shape) and name in given:
            given[name] = shape
    refuse_differences(wanted, given, f"{where} does not hold the weights expected")
    refuse_not_finite({theirs: weights[theirs] for theirs in names.values()}, where)
    state = {name: weights[theirs].view(ours[name].shape) for name, theirs in names.items()}
    encoder.load_state_dict(
        {name: part.float() if part.is_floating_point() else part for name, part in state.items()},
        strict=True,
        assign=True,
    )


def _bare(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without its ones."""
    return tuple(size for size in shape if size != 1)
