"""What features cost before they are made: bytes on disk, time to extract, time for each epoch.

Frames of all layers are big: those of a Base transformer for LibriSpeech's 100 hours take 360 GB at
half precision. What is chosen of the ways to keep them is said aloud, with its cost and that of the
others, from the measured speed of this encoder and this disk.
"""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import torch
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from benchmark.core import Upstream, UpstreamCard, Utterance
from benchmark.encoding.arithmetic import exact
from benchmark.encoding.audio import decode
from benchmark.encoding.cache import format_bytes, free_bytes
from benchmark.encoding.features import (
    Extraction,
    ExtractionSettings,
    extract,
    left_to_encode,
    storage_of,
)
from benchmark.encoding.forward import FrozenEncoder, packs
from benchmark.encoding.packing import NONE, STORAGES, feature_bytes
from benchmark.encoding.recordings import estimate_s
from benchmark.encoding.store import FeatureStore
from benchmark.errors import AudioError, SuperbError
from benchmark.progress import Progress

AUTO = "auto"
# What is tried in turn until it fits: the loss of ``int8`` is measured, ``none`` loses but time.
PREFERRED = ("float16", "int8", NONE)
# On a card encoding anew costs little beside training, and leaves frames where heads want them.
_PREFERRED_ELSEWHERE = ("float16", NONE)
# Less than this at half precision is not worth a table, nor measuring anything.
WORTH_A_TABLE = 2**30
_SAMPLE = 4
_LONGEST_S = 30.0


@dataclass(frozen=True)
class Amount:
    """How much is to be encoded for one kind of feature."""

    utterances: int
    audio_s: float


@dataclass(frozen=True)
class Speeds:
    """What was measured on this machine.

    Attributes:
        encoder: seconds of audio per second.
        write: storage → values per second, rounding and syncing included.
        read: storage → values per second to float32, from the disk and not from memory.
    """

    encoder: float
    write: Mapping[str, float]
    read: Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """One way to keep features.

    Attributes:
        what: in words.
        storage: as ``--storage`` has it.
        size: bytes on disk.
        extraction_s: seconds to make them.
        epoch_s: seconds to go through them once.
        chosen: whether it is what happens.
        note: why it is not for these tasks.
    """

    what: str
    storage: str
    size: int
    extraction_s: float
    epoch_s: float
    chosen: bool
    note: str


@dataclass(frozen=True)
class Plan:
    """All ways to keep features, and which is taken.

    Attributes:
        title: what is encoded by what.
        rows: one for each way.
        notes: speeds, free space, the reason of the choice.
    """

    title: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def amounts(wanted: Mapping[str, Sequence[Utterance]]) -> dict[str, Amount]:
    """Utterances and seconds of each kind, each utterance once."""
    return {
        kind: Amount(len(once), estimate_s(once))
        for kind, group in wanted.items()
        for once in [list({u.id: u for u in group}.values())]
    }


def size(
    card: UpstreamCard,
    work: Mapping[str, Amount],
    storage: str,
    layers: Sequence[int] | None = None,
) -> int:
    """Bytes that all kinds of feature take together."""
    return sum(
        feature_bytes(
            kind,
            storage_of(kind, storage),
            card.layers if layers is None or kind != "frames" else len(layers),
            card.dim,
            amount.utterances,
            _frames(card, amount),
        )
        for kind, amount in work.items()
    )


def preferred(device: str) -> tuple[str, ...]:
    """The storages that are tried in turn, for an encoder on a device."""
    return PREFERRED if torch.device(device).type == "cpu" else _PREFERRED_ELSEWHERE


def choose(sizes: Mapping[str, int], free: int) -> tuple[str, str]:
    """The first that fits, and the reason in words.

    Args:
        sizes: storage, those of `preferred` → bytes that are still to be written.
        free: bytes that may be.
    """
    too_big = []
    for storage in sizes:
        if sizes[storage] <= free:
            break
        too_big.append(f"{storage} would take {format_bytes(sizes[storage])}")
    room = f"{format_bytes(free)} may be written"
    if not too_big:
        return storage, f"{storage}: it fits, {room}"
    return storage, f"{storage}, since {' and '.join(too_big)} but {room}"


def left_bytes(extraction: Extraction) -> int:
    """What is not stored yet will take."""
    left = left_to_encode(extraction)
    part = _part(amounts(extraction.wanted), left)
    card = extraction.upstream.card
    return size(card, part, extraction.settings.storage, extraction.layers)


def _part(whole: Mapping[str, Amount], left: Mapping[str, int]) -> dict[str, Amount]:
    return {
        kind: Amount(left[kind], amount.audio_s * left[kind] / max(amount.utterances, 1))
        for kind, amount in whole.items()
    }


def draw_plan(
    card: UpstreamCard,
    work: Mapping[str, Amount],
    storage: str,
    speeds: Speeds,
    *,
    layers: Sequence[int] | None = None,
    notes: Sequence[str] = (),
) -> Plan:
    """All ways to keep the features of some audio, priced.

    Args:
        card: of the encoder.
        work: kind of feature → how much.
        storage: what is chosen.
        speeds: of this machine.
        layers: the only layers that frames are needed of, None for all.
        notes: further lines for the reader.
    """
    most = max(work.values(), key=lambda amount: amount.audio_s)
    framed = work.get("frames", most)
    kept = card.layers if layers is None else len(layers)
    rows = [
        _frames_row(card, framed, kept, way, speeds, storage, needed="frames" in work)
        for way in STORAGES
    ]
    if kept > 1:
        rows.insert(1, _frames_row(card, framed, 1, "float16", speeds, "", needed="frames" in work))
    pooled = {kind: amount for kind, amount in work.items() if kind != "frames"}
    rows.append(_means_row(card, pooled or {"mean": most}, storage, speeds, needed=bool(pooled)))
    read = ", ".join(f"{way} {format_bytes(rate)}" for way, rate in _byte_rates(speeds.read))
    hours = most.audio_s / 3600
    return Plan(
        f"{card.name}: {most.utterances} utterances, {hours:.1f} h, "
        f"{card.layers} layers x {card.dim}",
        tuple(rows),
        (f"encoder: {speeds.encoder:.1f} x real time; read per second: {read}", *notes),
    )


def _frames_row(
    card: UpstreamCard,
    amount: Amount,
    kept: int,
    storage: str,
    speeds: Speeds,
    chosen: str,
    *,
    needed: bool,
) -> Row:
    values = _frames(card, amount) * kept * card.dim
    encoding_s = amount.audio_s / speeds.encoder
    one, all_of_them = kept == 1, kept == card.layers
    what = "all layers" if all_of_them else "one layer" if one else f"{kept} layers"
    return Row(
        what=f"frames, {what}" if storage != NONE else "frames, encoded anew",
        storage=storage,
        size=feature_bytes(
            "frames", storage, kept, card.dim, amount.utterances, _frames(card, amount)
        ),
        extraction_s=encoding_s + (0.0 if storage == NONE else values / speeds.write[storage]),
        epoch_s=encoding_s if storage == NONE else values / speeds.read[storage],
        chosen=needed and storage == chosen,
        note="" if needed else "not needed",
    )


def _means_row(
    card: UpstreamCard, pooled: Mapping[str, Amount], storage: str, speeds: Speeds, *, needed: bool
) -> Row:
    way = storage_of("mean", storage)
    values = sum(amount.utterances for amount in pooled.values()) * card.layers * card.dim
    seconds = max(amount.audio_s for amount in pooled.values())
    return Row(
        what="time means",
        storage=way,
        size=size(card, pooled, storage),
        extraction_s=seconds / speeds.encoder + values / speeds.write[way],
        epoch_s=values / speeds.read[way],
        chosen=needed,
        note="" if needed else "not enough",
    )


def _frames(card: UpstreamCard, amount: Amount) -> float:
    return amount.audio_s * card.sample_rate / card.hop_samples


def _byte_rates(rates: Mapping[str, float]) -> list[tuple[str, float]]:
    widths = {"float32": 4, "float16": 2, "int8": 1}
    return [(storage, rate * widths[storage]) for storage, rate in rates.items()]


def plan_run(extraction: Extraction, reason: str, speeds: Speeds | None = None) -> Plan:
    """The plan of a run.

    Args:
        extraction: what it encodes.
        reason: why it is kept as it is.
        speeds: of this machine; if None they are measured, the encoder's on a few utterances.
    """
    card, settings = extraction.upstream.card, extraction.settings
    whole, left = amounts(extraction.wanted), left_to_encode(extraction)
    stored = ", ".join(
        f"{amount.utterances - left[kind]} of {amount.utterances} {kind}"
        for kind, amount in whole.items()
    )
    return draw_plan(
        card,
        whole,
        settings.storage,
        speeds or measure(extraction.upstream, some(extraction), settings),
        layers=extraction.layers,
        notes=(
            f"stored already: {stored}; free for more: "
            f"{format_bytes(free_bytes(settings.cache_dir))} in {settings.cache_dir}",
            f"chosen: {reason}",
        ),
    )


def some(extraction: Extraction) -> list[Tensor]:
    """Waveforms of a few utterances, as many as show the encoder's speed.

    Raises:
        SuperbError: none of them can be read.
    """
    card, settings = extraction.upstream.card, extraction.settings
    utterances = list(extraction.utterances.values())
    mean_s = max(estimate_s(utterances) / len(utterances), 1 / card.sample_rate)
    step = -(-len(utterances) // enough(extraction.encoder, mean_s))
    waveforms = []
    for utterance in utterances[step // 2 :: step]:
        try:
            waveforms.append(
                decode(
                    utterance.audio,
                    card.sample_rate,
                    name=utterance.id,
                    min_samples=card.min_samples,
                    span=utterance.span,
                    channel=settings.channel,
                )
            )
        except AudioError:
            continue  # extraction reports it
    if not waveforms:
        raise SuperbError("none of the utterances that would time the encoder could be read")
    return waveforms


def measure(
    upstream: Upstream, waveforms: Sequence[Tensor], settings: ExtractionSettings
) -> Speeds:
    """Time an encoder on some waveforms, and the disk of the cache on some megabytes."""
    return Speeds(encoder_speed(upstream, waveforms, settings), *disk_speed(settings.cache_dir))


def enough(encoder: FrozenEncoder, mean_s: float) -> int:
    """How many utterances of some length show an encoder's speed: a pack, or two for each core."""
    return max(_SAMPLE, encoder.together(min(mean_s, _LONGEST_S)), 2 * encoder.side_by_side)


def encoder_speed(
    upstream: Upstream, waveforms: Sequence[Tensor], settings: ExtractionSettings
) -> float:
    """Seconds of audio per second of an encoder that is warm, as extraction has it compute.

    Raises:
        SuperbError: as for `benchmark.encoding.features.extract`.
    """
    encoder, rate = settings.frozen(upstream), upstream.card.sample_rate
    heard = [waveform[: int(_LONGEST_S * rate)] for waveform in waveforms]
    first = packs([waveform.numel() for waveform in heard], encoder.samples_at_once)[0]
    encoder.encode([heard[at] for at in first], ["one of a few"] * len(first))
    free_bytes(settings.cache_dir)  # makes the folder
    with tempfile.TemporaryDirectory(dir=settings.cache_dir) as folder:
        sounds = [
            Utterance(str(index), _as_file(waveform, rate), "train")
            for index, waveform in enumerate(heard)
        ]
        own = replace(settings, cache_dir=Path(folder), storage="float32", channel=None)
        with exact():
            found = extract(
                Extraction(upstream, "timed", {"mean": sounds}, own), Progress(quiet=True)
            )
    if found.skipped:
        raise SuperbError(f"the encoder cannot be timed: {found.skipped[0].reason}")
    return found.audio_s / found.encoder_s


def _as_file(waveform: Tensor, rate: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform.numpy(), rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def disk_speed(root: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Values per second that a store under `root` writes and reads, for every storage.

    Raises:
        SuperbError: when it cannot be written to.
    """
    shape, records = (4, 256, 1024), 8
    values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    count = records * values.size
    write, read = {}, {}
    free_bytes(root)  # makes the folder
    for storage in STORAGES:
        if storage == NONE:
            continue
        with tempfile.TemporaryDirectory(dir=root) as folder:
            started = time.perf_counter()
            with FeatureStore(Path(folder), {"storage": storage}) as store:
                for record in range(records):
                    store.append(str(record), values, values[:, 0, 0])
                store.commit()
                write[storage] = count / (time.perf_counter() - started)
                for file in store.folder.glob("*.bin"):
                    _forget(file)
                started = time.perf_counter()
                for record in range(records):
                    store.read(str(record))
                read[storage] = count / (time.perf_counter() - started)
    return write, read


def _forget(file: Path) -> None:
    """Drop a file from the memory of the operating system, so that the disk is timed."""
    if hasattr(os, "posix_fadvise"):
        handle = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def plan_table(plan: Plan) -> Table:
    """A plan for the terminal; what happens is marked with an arrow."""
    table = Table(
        title=escape(plan.title),
        title_style="bold",
        title_justify="left",
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    table.add_column("", no_wrap=True)
    for column in ("features", "storage"):
        table.add_column(column, no_wrap=True)
    for column in ("on disk", "extraction", "an epoch"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in plan.rows:
        table.add_row(
            "→" if row.chosen else "",
            row.what,
            row.storage,
            format_bytes(row.size),
            format_time(row.extraction_s),
            format_time(row.epoch_s),
            row.note,
            style="bold" if row.chosen else None,
        )
    table.caption = escape("\n".join((*plan.notes, "other ways: --storage NAME, --layers last")))
    table.caption_justify = "left"
    return table


def format_time(seconds: float) -> str:
    """A time in words: 1.2 h."""
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
