"""What a run would cost on data that need not be there: the plan from hours and a count alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.core import UpstreamCard
from benchmark.errors import SuperbError, unknown
from downstreams import DOWNSTREAMS, PROTOCOLS, find_downstream

if TYPE_CHECKING:  # at run time these modules import torch, so they wait until one is needed
    from torch import Tensor

    from benchmark.jobs.cost import Plan
    from benchmark.progress import Progress

_TIMED = 4
_LONGEST_S = 30.0


def plan_for(
    upstream: str,
    downstream: Sequence[str],
    hours: float,
    utterances: int,
    *,
    protocol: str,
    layers: Sequence[str],
    storage: str,
    cache_dir: Path | None,
    device: str,
    precision: str,
    random_weights: bool,
    progress: Progress,
) -> Plan:
    """The ways to keep the features of a corpus, priced on this machine.

    The encoder is timed on noise as long as the corpus's mean utterance, up to 30 s. Nothing is
    stored.

    Args:
        upstream: a name, a folder, or a hub id.
        downstream: names of tasks.
        hours: of audio, all splits together.
        utterances: how many.
        protocol: a name, or a TOML file; says how often the training data are gone through.
        layers: layer choices.
        storage: one of `benchmark.encoding.packing.STORAGES`, or ``auto``.
        cache_dir: the folder of features, whose disk is timed; the usual one if None.
        device: where the encoder runs.
        precision: its arithmetic.
        random_weights: take the architecture alone, no checkpoint is needed.
        progress: where to report.

    Raises:
        SuperbError: a name is unknown or a value is out of range.
    """
    from benchmark.encoding.cache import cache_folder, format_bytes, free_bytes
    from benchmark.encoding.features import ExtractionSettings
    from benchmark.encoding.packing import STORAGES
    from benchmark.jobs.cost import AUTO, PREFERRED, Amount, choose, draw_plan, measure, size
    from benchmark.prepare import find_device, prepare_encoder
    from benchmark.probing.layers import expand
    from benchmark.protocol import load_protocol
    from upstreams.loading.load import UNTRAINED

    if not (hours > 0 and utterances > 0 and hours < float("inf")):
        raise SuperbError(
            f"--hours and --utterances must be positive, such as 100.6 and 28539; got {hours:g} "
            f"and {utterances}"
        )
    if storage not in (AUTO, *STORAGES):
        raise unknown("value of --storage", storage, (AUTO, *STORAGES))
    if precision not in ("float32", "bfloat16"):
        raise unknown("value of --precision", precision, ("float32", "bfloat16"))
    names = list(DOWNSTREAMS) if "all" in downstream else list(dict.fromkeys(downstream))
    if not names:
        raise SuperbError(f"no task given; choose from {', '.join(DOWNSTREAMS)}, or all")
    cards = {name: find_downstream(name).card for name in names}
    rules = load_protocol(protocol, PROTOCOLS)
    settings = ExtractionSettings(
        cache_dir or cache_folder(), find_device(device), precision, storage
    )
    name = UNTRAINED + upstream.removeprefix(UNTRAINED) if random_weights else upstream
    encoder = prepare_encoder(name, settings.device, progress)
    card = encoder.card
    mixes = expand(layers, card.layers).values()
    amount = Amount(utterances, hours * 3600)
    work = {"frames" if c.features == "frames" else "mean": amount for c in cards.values()}
    if "mean" in work and any(mix.normalised for mix in mixes):
        work["mean-normalised"] = amount
    chosen = sorted({mix.layer for mix in mixes if mix.layer is not None})
    everything = len(chosen) == card.layers or any(mix.layer is None for mix in mixes)
    kept = None if everything else chosen
    free = free_bytes(settings.cache_dir)
    reason = f"{storage}, as --storage says"
    if storage == AUTO:
        storage, reason = choose({way: size(card, work, way, kept) for way in PREFERRED}, free)
    passes, cropped = [], []
    for name in names:
        training = rules.training(name)
        if training.crop_s:
            cropped.append(
                f"{name} hears {training.crops} crops of {training.crop_s:g} s of each longer "
                f"training utterance: up to {training.crops} times the audio counted here"
            )
        heard = training.updates * training.batch_utterances * training.accumulate
        passes.append(f"{name} {heard / utterances:.1f}")
    return draw_plan(
        card,
        work,
        storage,
        measure(encoder.upstream, _noise(amount.audio_s / utterances, card), settings),
        layers=kept,
        notes=(
            f"epochs of training by protocol {rules.name}, if all of this is train: "
            f"{', '.join(passes)}",
            *cropped,
            f"free: {format_bytes(free)} in {settings.cache_dir}",
            f"chosen: {reason}",
        ),
    )


def _noise(seconds: float, card: UpstreamCard) -> list[Tensor]:
    """A few waveforms of that length, which are as much work for an encoder as speech is."""
    import torch

    samples = max(round(min(seconds, _LONGEST_S) * card.sample_rate), card.min_samples)
    generator = torch.Generator().manual_seed(0)
    return list(0.1 * torch.randn(_TIMED, samples, generator=generator))
