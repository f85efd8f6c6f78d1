"""Weights from a file of one's own: those that were published outside the hub."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from benchmark.errors import UpstreamError
from upstreams.loading.files import (
    named_tensors,
    refuse_differences,
    refuse_not_finite,
    shapes,
)
from upstreams.loading.pretrained import planned
from upstreams.models.architecture import Architecture, Encoder, Layout


def read_encoder(
    content: object, architecture: Architecture, layout: Layout, where: str
) -> Encoder:
    """An encoder from the content of a training checkpoint.

    Args:
        content: of the file, as plain data.
        architecture: of the encoder; the file may settle what it leaves open.
        layout: of the file.
        where: the file, for messages.

    Raises:
        UpstreamError: it does not hold exactly the weights of the architecture.
    """
    if not isinstance(content, dict) or layout.key not in content:
        raise UpstreamError(f"{where} must hold its weights under {layout.key!r}")
    weights = dict(named_tensors(content[layout.key], f"{where}, under {layout.key!r},"))
    architecture = layout.settled(architecture, content, where)
    encoder = planned(architecture)
    for name in layout.ignored(architecture):
        weights.pop(name, None)
    load_strictly(encoder, weights, layout.names(architecture), where)
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
    bare_wanted, bare_given = bare_shapes(wanted), bare_shapes(given)
    for name, shape in wanted.items():
        if name in given and bare_given[name] == bare_wanted[name]:
            given[name] = shape
    refuse_differences(wanted, given, f"{where} does not hold the weights expected")
    refuse_not_finite({theirs: weights[theirs] for theirs in names.values()}, where)
    state = {name: weights[theirs].view(ours[name].shape) for name, theirs in names.items()}
    encoder.load_state_dict(
        {name: part.float() if part.is_floating_point() else part for name, part in state.items()},
        strict=True,
        assign=True,
    )


def bare_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes without their ones."""
    return {name: tuple(size for size in shape if size != 1) for name, shape in shapes.items()}
