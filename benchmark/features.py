"""One frozen forward per utterance, for every task, layer choice, learning rate and seed.

The batching rule is ``one``: each utterance passes the encoder alone. Its features are then a
function of that utterance, bit for bit, whatever else is in the corpus and wherever an earlier
run was cut off; and on a processor it is also the fastest rule, since no work goes into padding.
"""

from __future__ import annotations

import hashlib
import time
import traceback
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from benchmark.audio import audio_sha256, decode
from benchmark.core import HiddenStates, Upstream, Utterance
from benchmark.errors import AudioError, SuperbError, UpstreamError
from benchmark.layers import normalise
from benchmark.progress import Progress
from benchmark.store import FeatureStore, format_bytes, require_room

BATCHING = "one"
_DECODE_AHEAD = 8
# Decoding, pooling and normalising are as much part of a feature as the encoder.
_ENGINE = hashlib.sha256(
    b"".join((Path(__file__).parent / name).read_bytes() for name in ("audio.py", "features.py"))
).hexdigest()


@dataclass(frozen=True)
class Skipped:
    """An utterance left out, and why."""

    utterance: str
    reason: str


@dataclass
class Features:
    """Where the features of a set of utterances are.

    Attributes:
        stores: kind of feature → its store.
        keys: utterance id → hash of its audio, the key in every store. Skipped ones are absent.
        skipped: utterances left out because of their audio.
        audio_s: seconds of audio that passed the encoder in this run.
        encoder_s: seconds that the encoder took for them, 0 if all was stored before.
        extraction_s: seconds that reading, encoding and storing took.
    """

    stores: dict[str, FeatureStore]
    keys: dict[str, str]
    skipped: list[Skipped]
    audio_s: float = 0.0
    encoder_s: float = 0.0
    extraction_s: float = 0.0


@dataclass(frozen=True)
class ExtractionSettings:
    """How features are made and kept.

    Attributes:
        cache_dir: the folder of all stores.
        device: where the encoder runs.
        precision: ``float32`` or ``bfloat16`` arithmetic in the encoder.
        storage: ``float16`` or ``float32`` on disk.
        on_bad_audio: ``fail`` or ``skip``.
    """

    cache_dir: Path
    device: str = "cpu"
    precision: str = "float32"
    storage: str = "float16"
    on_bad_audio: str = "fail"


def features_of(states: HiddenStates, kind: str) -> Tensor:
    """The stored form of one utterance's hidden states (a batch of one).

    Returns:
        ``frames``: ``[layer, frame, dim]``; ``mean``: time means ``[layer, dim]``;
        ``mean-normalised``: time means of the layer-normalised frames.
    """
    frames = states.values[:, 0, : int(states.lengths[0])].float()
    if kind == "frames":
        return frames
    if kind == "mean":
        return frames.mean(dim=1)
    if kind == "mean-normalised":
        return normalise(frames).mean(dim=1)
    raise ValueError(f"no such kind of feature: {kind}")


def extract(
    upstream: Upstream,
    fingerprint: str,
    wanted: Mapping[str, Sequence[Utterance]],
    settings: ExtractionSettings,
    progress: Progress,
    resources: ExitStack,
) -> Features:
    """Make sure that every wanted feature is stored, encoding each utterance at most once.

    Args:
        upstream: the frozen encoder.
        fingerprint: hash of everything its output depends on.
        wanted: kind of feature → the utterances that need it.
        settings: precision, storage and places.
        progress: where to report.
        resources: closes the stores when its owner is done.

    Raises:
        AudioError: for audio that cannot be used, all of it named, unless it is to be skipped.
        UpstreamError: when the encoder raises or breaks its contract.
        SuperbError: when the disk has no room.
    """
    started = time.perf_counter()
    stores = {
        kind: resources.enter_context(
            FeatureStore(settings.cache_dir, _about(upstream, fingerprint, kind, settings))
        )
        for kind in wanted
    }
    utterances = list({u.id: u for group in wanted.values() for u in group}.values())
    keys: dict[str, str] = {}
    bad: list[Skipped] = []
    for utterance in utterances:
        try:
            keys[utterance.id] = audio_sha256(utterance.audio)
        except AudioError as error:
            bad.append(Skipped(utterance.id, str(error)))
    missing = {
        kind: store.missing(keys[u.id] for u in wanted[kind] if u.id in keys)
        for kind, store in stores.items()
    }
    # one forward serves all kinds, and two utterances with the same audio
    todo: dict[str, Utterance] = {}
    for utterance in utterances:
        key = keys.get(utterance.id)
        if key is not None and any(key in keyset for keyset in missing.values()):
            todo.setdefault(key, utterance)
    features = Features(stores, keys, bad)
    if todo:
        _plan(upstream, todo, missing, settings, progress)
        _encode_all(upstream, todo, missing, settings, progress, features)
        for store in stores.values():
            store.commit()
            store.log_session(features.audio_s, features.encoder_s)
    unusable = {skipped.utterance for skipped in bad}
    # an utterance that shares its audio with a bad one is bad too
    bad_keys = {keys[name] for name in unusable if name in keys}
    for name, key in list(keys.items()):
        if key in bad_keys:
            del keys[name]
            if name not in unusable:
                bad.append(Skipped(name, "same audio as another bad file"))
    if bad and settings.on_bad_audio == "fail":
        raise _bad_audio(bad, len(utterances))
    features.extraction_s = time.perf_counter() - started
    return features


def _about(
    upstream: Upstream, fingerprint: str, kind: str, settings: ExtractionSettings
) -> dict[str, Any]:
    return {
        "upstream": upstream.card.name,
        "fingerprint": fingerprint,
        "sample_rate": upstream.card.sample_rate,
        "kind": kind,
        "precision": settings.precision,
        "device": torch.device(settings.device).type,
        "storage": settings.storage,
        "batching": BATCHING,
        "engine": _ENGINE,
    }


def _bad_audio(bad: Sequence[Skipped], total: int) -> AudioError:
    shown = "; ".join(f"{item.utterance}: {item.reason}" for item in bad[:5])
    more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
    return AudioError(
        f"{len(bad)} of {total} audio files cannot be used: {shown}{more}. Mend or remove them, "
        "or leave them out with --on-bad-audio skip (the result lists them)"
    )


def duration_s(utterance: Utterance) -> float:
    """Seconds of audio by the file's header; 0 when it cannot be read (found out later)."""
    source = utterance.audio
    try:
        info = soundfile.info(BytesIO(source) if isinstance(source, bytes) else str(source))
    except (RuntimeError, OSError, TypeError):
        return 0.0
    return float(info.frames) / float(info.samplerate) if info.samplerate else 0.0


def _plan(
    upstream: Upstream,
    todo: Mapping[str, Utterance],
    missing: Mapping[str, set[str]],
    settings: ExtractionSettings,
    progress: Progress,
) -> None:
    """Say what extraction will cost on disk, and refuse what does not fit."""
    card = upstream.card
    width = card.layers * card.dim * np.dtype(settings.storage).itemsize
    seconds = {key: duration_s(utterance) for key, utterance in todo.items()}
    needed = 0.0
    for kind, keys in missing.items():
        for key in keys:
            frames = seconds[key] * card.sample_rate / card.hop_samples
            needed += width * (frames + 1 if kind == "frames" else 1)
    hours = sum(seconds.values()) / 3600
    require_room(settings.cache_dir, int(needed))
    progress.note(
        f"{card.name}: encoding {len(todo)} utterances, {hours * 60:.1f} min of audio; "
        f"{format_bytes(needed)} of {' and '.join(missing)} in {settings.cache_dir}"
    )


def _encode_all(
    upstream: Upstream,
    todo: Mapping[str, Utterance],
    missing: Mapping[str, set[str]],
    settings: ExtractionSettings,
    progress: Progress,
    features: Features,
) -> None:
    card = upstream.card
    with progress.bar(f"{card.name}: features", len(todo)) as bar:
        for key, utterance, waveform in _decoded(todo, card.sample_rate, card.min_samples):
            bar.advance()
            if isinstance(waveform, AudioError):
                features.skipped.append(Skipped(utterance.id, str(waveform)))
                continue
            if features.skipped and settings.on_bad_audio == "fail":
                continue  # keep looking for bad files, but encode nothing more
            before = time.perf_counter()
            states = encode(upstream, waveform, settings, utterance.id)
            features.encoder_s += time.perf_counter() - before
            features.audio_s += waveform.numel() / card.sample_rate
            frames = features_of(states, "frames")
            norms = frames.norm(dim=-1).mean(dim=1).numpy()
            for kind, keys in missing.items():
                if key in keys:
                    features.stores[kind].append(key, features_of(states, kind).numpy(), norms)
            bar.rate(f"{features.audio_s / features.encoder_s:.0f} x real time")


def _decoded(
    todo: Mapping[str, Utterance], sample_rate: int, min_samples: int
) -> Iterator[tuple[str, Utterance, Tensor | AudioError]]:
    """Decode a few utterances ahead of the encoder, in order."""

    def read(utterance: Utterance) -> Tensor | AudioError:
        try:
            return decode(utterance.audio, sample_rate, name=utterance.id, min_samples=min_samples)
        except AudioError as error:
            return error

    waiting: deque[tuple[str, Utterance, Future[Tensor | AudioError]]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for key, utterance in todo.items():
            waiting.append((key, utterance, pool.submit(read, utterance)))
            if len(waiting) > _DECODE_AHEAD:
                first = waiting.popleft()
                yield first[0], first[1], first[2].result()
        while waiting:
            first = waiting.popleft()
            yield first[0], first[1], first[2].result()


def encode(
    upstream: Upstream,
    waveform: Tensor,
    settings: ExtractionSettings,
    name: str,
) -> HiddenStates:
    """One utterance through the frozen encoder; the result is on the processor, in float32.

    Raises:
        UpstreamError: when the encoder raises, or what it returns does not fit its card.
    """
    card = upstream.card
    device = torch.device(settings.device)
    seconds = waveform.numel() / card.sample_rate
    half = settings.precision == "bfloat16"
    try:
        with (
            torch.inference_mode(),
            torch.autocast(device.type, torch.bfloat16, enabled=half),
            torch.random.fork_rng(devices=[]),
        ):
            # should an encoder draw at random after all, it draws the same for every utterance
            torch.manual_seed(0)
            states = upstream([waveform.to(device)])
    except SuperbError as error:
        raise UpstreamError(f"upstream {card.name} on {name} ({seconds:.2f} s): {error}") from error
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise UpstreamError(
            f"upstream {card.name} failed on {name} ({seconds:.2f} s): "
            f"{type(error).__name__}: {error} ({place.filename}:{place.lineno}). "
            "superb check on it tells more"
        ) from error
    if not isinstance(states, HiddenStates):
        raise UpstreamError(
            f"upstream {card.name} returned {type(states).__name__}; it must return HiddenStates "
            f"(values [layer, utterance, frame, dim], lengths). superb check on it tells more"
        )
    if not isinstance(states.values, Tensor) or not isinstance(states.lengths, Tensor):
        raise UpstreamError(
            f"upstream {card.name} returned hidden states of {type(states.values).__name__} and "
            f"lengths of {type(states.lengths).__name__}; both must be torch tensors. "
            "superb check on it tells more"
        )
    found = tuple(states.values.shape)
    length = int(states.lengths[0]) if found[1] else 0
    if (found[0], found[1], found[3]) != (card.layers, 1, card.dim) or not 1 <= length <= found[2]:
        raise UpstreamError(
            f"upstream {card.name} broke its contract on {name} ({seconds:.2f} s): its card says "
            f"{card.layers} layers x {card.dim}, it returned [layer, utterance, frame, dim] = "
            f"{list(found)} with length {length}. superb check on it tells more"
        )
    if not bool(torch.isfinite(states.values).all()):
        raise UpstreamError(
            f"upstream {card.name} returned NaN or infinity for {name} ({seconds:.2f} s)"
        )
    return HiddenStates(states.values.detach().float().cpu(), states.lengths.cpu())
