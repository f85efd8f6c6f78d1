"""Training files: what is in one, and one as a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape
from rich.table import Table

from benchmark.core import Upstream
from benchmark.errors import SuperbError, unknown
from superb.summary import plain_table
from upstreams.loading.convert import TARGETS, convert
from upstreams.loading.layouts.read import read_training_file
from upstreams.loading.layouts.settings import parse_settings
from upstreams.loading.load import load_upstream


def file_details(path: Path, settings: Sequence[str]) -> Table:
    """What is in a training file: the encoder, how it was trained, what is left out.

    Args:
        path: the file.
        settings: ``name=value``, for what the file does not say.

    Raises:
        SuperbError: there is no encoder in it that is read here.
    """
    found = read_training_file(path, parse_settings(tuple(settings)))
    card = found.upstream.card
    rate = f"{card.sample_rate:,} Hz".replace(",000 Hz", " kHz")
    normalize = getattr(found.upstream, "normalize", None)
    corpora = card.trained_on
    rows = {
        "layout": found.layout,
        "family": card.family,
        "layers x dim": f"{card.layers} x {card.dim}, a frame every {card.hop_samples} samples at "
        f"{rate}",
        "weights": f"{(card.parameters or 0) / 1e6:.1f} M = {card.parameters:,}",
        "waveforms": {True: "normalised", False: "as they are", None: ""}[normalize],
        "training": card.training or "the file does not say",
        "trained on": "undisclosed" if corpora is None else ", ".join(sorted(corpora)),
        "left out": ", ".join(found.left_out),
        "paper": card.paper,
        "note": card.note,
        "run it": " ".join(
            [
                f"superb run --upstream {path} --downstream ks",
                *(f"--set {pair}" for pair in settings),
            ]
        ),
    }
    table = plain_table(f"superb upstreams {escape(str(path))}")
    table.show_header = False
    table.add_column("", no_wrap=True)
    table.add_column("")
    for key, text in rows.items():
        if text:
            table.add_row(key, escape(text))
    return table


def convert_file(source: str, folder: Path, to: str, settings: Sequence[str]) -> str:
    """Write an encoder as a folder, load it again and compare.

    Args:
        source: a training file, or any name of an encoder of ours.
        folder: where to.
        to: one of ``TARGETS``.
        settings: ``name=value``, for what a training file does not say.

    Returns:
        What was written, in words.

    Raises:
        SuperbError: the encoder cannot be read or written, or the folder holds another one.
    """
    target = next((target for target in TARGETS if target == to), None)
    if target is None:
        raise unknown("folder", to, TARGETS, "Type --to superb or --to transformers.")
    upstream = load_upstream(source, settings=parse_settings(tuple(settings)))
    convert(upstream, folder, target)
    again = load_upstream(str(folder))
    if (off := _difference(upstream, again)) > 0:
        raise SuperbError(
            f"{folder} was written, but what it gives differs from {source} by {off:.1g} of the "
            "largest value; do not use it, and report this"
        )
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    how = (
        f"AutoModel.from_pretrained({str(folder)!r})"
        if target == "transformers"
        else f"superb run --upstream {folder} --downstream ks"
    )
    return (
        f"{folder}: {size:,.1f} MB. Loaded again, it gives the same features of two seconds of "
        f"noise, in all {upstream.card.layers} layers, bit for bit.\n{how}"
    )


def _difference(one: Upstream, other: Upstream) -> float:
    noise = 0.1 * torch.randn(2 * one.card.sample_rate, generator=torch.Generator().manual_seed(0))
    mine: Any = one([noise]).values
    theirs: Any = other([noise]).values
    if mine.shape != theirs.shape:
        return float("inf")
    return float((mine - theirs).abs().max() / mine.abs().max())
