"""One frozen forward per utterance, for every task, layer choice, learning rate and seed.

The batching rule is ``one``: each utterance passes the encoder alone. Its features are then a
function of that utterance, bit for bit, whatever else is in the corpus and wherever an earlier
run was cut off; and on a processor it is also the fastest rule, since no work goes into padding.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import soundfile
import torch
from torch import Tensor

from benchmark.core import HiddenStates, StoredAudio, Upstream, UpstreamCard, Utterance
from benchmark.encoding.audio import audio_sha256, audio_size, decode
from benchmark.encoding.audio_hashes import AudioHashes
from benchmark.encoding.cache import format_bytes, require_room
from benchmark.encoding.packing import NONE, Floats, feature_bytes
from benchmark.encoding.store import VISIBLE_S, FeatureStore, store_folder
from benchmark.errors import AudioError, SuperbError, UpstreamError
from benchmark.probing.layers import normalise
from benchmark.processes import ALONE, Processes
from benchmark.progress import Progress

Item = TypeVar("Item")
Done = TypeVar("Done")

BATCHING = "one"
_BAD_AUDIO = "bad audio"
_DECODE_AHEAD = 8
_FAR_SAMPLE = 8
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
        keys: utterance id → hash of its audio and span, the key in every store. Skipped ones are
            absent.
        skipped: utterances left out because of their audio.
        layers: the layers that frames are kept of, None for all; time means have all.
        audio_s: seconds of audio that passed the encoder in this run, in all processes together.
        encoder_s: seconds that the encoder took for them, likewise; 0 if all was stored before.
        extraction_s: seconds that reading, encoding and storing took, on the clock.
    """

    stores: dict[str, FeatureStore]
    keys: dict[str, str]
    skipped: list[Skipped]
    layers: tuple[int, ...] | None = None
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
        storage: ``float16``, ``float32`` or ``int8`` on disk, or ``none``: frames are encoded anew
            whenever they are read.
        on_bad_audio: ``fail`` or ``skip``.
        processes: those that share the work.
    """

    cache_dir: Path
    device: str = "cpu"
    precision: str = "float32"
    storage: str = "float16"
    on_bad_audio: str = "fail"
    processes: Processes = ALONE


def features_of(states: HiddenStates, kind: str, layers: Sequence[int] | None = None) -> Tensor:
    """The stored form of one utterance's hidden states (a batch of one).

    Returns:
        ``frames``: ``[layer, frame, dim]``, of the layers asked for; ``mean``: time means
        ``[layer, dim]``; ``mean-normalised``: time means of the layer-normalised frames.
    """
    frames = states.values[:, 0, : int(states.lengths[0])].float()
    if kind == "frames":
        return frames if layers is None else frames[list(layers)]
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
    layers: Sequence[int] | None = None,
) -> Features:
    """Make sure that every wanted feature is stored, encoding each utterance at most once.

    Audio is read once: hashed, and decoded if nothing is stored under its hash. Files that have
    not changed since an earlier run are not read at all. A few utterances are in memory at a time.
    Several processes share the recordings, and each knows in the end what all of them found.

    Args:
        upstream: the frozen encoder.
        fingerprint: hash of everything its output depends on.
        wanted: kind of feature → the utterances that need it.
        settings: precision, storage and places.
        progress: where to report.
        resources: closes the stores when its owner is done.
        layers: the only layers that frames are needed of, None for all. They make a store of their
            own, with the same values as one of all layers; that is used instead if it is complete.

    Raises:
        AudioError: for audio that cannot be used, all of it named, unless it is to be skipped.
        UpstreamError: when the encoder raises or breaks its contract.
        SuperbError: when the disk has no room.
    """
    started = time.perf_counter()
    processes = settings.processes
    kept = processes.agree(lambda: _kept_layers(upstream, fingerprint, wanted, settings, layers))
    layers = None if kept is None else tuple(kept)
    stores = {
        kind: resources.enter_context(
            FeatureStore(settings.cache_dir, about(upstream, fingerprint, kind, settings, layers))
        )
        for kind in wanted
    }
    kinds: dict[str, list[str]] = {}
    utterances: dict[str, Utterance] = {}
    for kind, group in wanted.items():
        # two tasks may want the same
        for name, utterance in {u.id: u for u in group}.items():
            utterances[name] = utterance
            kinds.setdefault(name, []).append(kind)
    features = Features(stores, {}, [], layers)
    with AudioHashes(settings.cache_dir) as hashes:
        known = _known_keys(utterances.values(), hashes)
        missing = {kind: store.missing(known.values()) for kind, store in stores.items()}
        # what is needed of audio that is known, whoever asks for it: one forward serves them all
        lacking: dict[str, set[str]] = {}
        todo = []
        for name, utterance in utterances.items():
            key = known.get(name)
            if key is None:
                todo.append(utterance)
                continue
            features.keys[name] = key
            if lacks := {kind for kind in kinds[name] if key in missing[kind]}:
                todo.append(utterance)
                lacking[key] = lacking.get(key, set()) | lacks
        if todo and processes.main:
            _say(upstream, todo, kinds, settings, progress, layers)
        own = _own(list(utterances.values()), processes)
        todo = [utterance for utterance in todo if utterance.id in own]
        if todo:
            job = _Job(upstream, settings, kinds, lacking, features, hashes)
            _encode_all(job, todo, progress)
    for store in stores.values():
        store.commit()
        if features.encoder_s:
            store.log_session(features.audio_s, features.encoder_s)
    _join(features, own, list(utterances), processes)
    if features.skipped and settings.on_bad_audio == "fail":
        raise _bad_audio(features.skipped, len(utterances))
    if processes.count > 1:
        _await_all(features, wanted)
    if "frames" in stores and settings.storage == NONE:
        stores["frames"].again = _again(upstream, wanted["frames"], features, settings)
    features.extraction_s = time.perf_counter() - started
    return features


def left_to_encode(
    upstream: Upstream,
    fingerprint: str,
    wanted: Mapping[str, Sequence[Utterance]],
    settings: ExtractionSettings,
    layers: Sequence[int] | None = None,
) -> dict[str, int]:
    """Kind of feature → how many of its utterances are not known to be stored; reads no audio."""
    layers = _kept_layers(upstream, fingerprint, wanted, settings, layers)
    left = {kind: len(group) for kind, group in wanted.items()}
    keys: dict[str, str] | None = None
    for kind, group in wanted.items():
        words = about(upstream, fingerprint, kind, settings, layers)
        if not store_folder(settings.cache_dir, words).is_dir():
            continue
        if keys is None:
            with AudioHashes(settings.cache_dir) as hashes:
                everyone = {u.id: u for utterances in wanted.values() for u in utterances}
                keys = _known_keys(everyone.values(), hashes)
        with FeatureStore(settings.cache_dir, words) as store:
            missing = store.missing(keys.values())
        left[kind] = sum(u.id not in keys or keys[u.id] in missing for u in group)
    return left


def _kept_layers(
    upstream: Upstream,
    fingerprint: str,
    wanted: Mapping[str, Sequence[Utterance]],
    settings: ExtractionSettings,
    layers: Sequence[int] | None,
) -> tuple[int, ...] | None:
    """The layers of frames to keep: those asked for, or all (None) if all are stored already."""
    if layers is None or "frames" not in wanted:
        return None
    frames = {"frames": wanted["frames"]}
    if not left_to_encode(upstream, fingerprint, frames, settings)["frames"]:
        return None
    return tuple(layers)


def _own(everyone: Sequence[Utterance], processes: Processes) -> set[str]:
    """The utterances that this process answers for: those of every n-th recording of the corpus.

    That is the same for all processes, however much another has stored when the last one looks; and
    each recording is read by one.
    """
    own = set(processes.share(list(dict.fromkeys(utterance.audio for utterance in everyone))))
    return {utterance.id for utterance in everyone if utterance.audio in own}


def _join(features: Features, own: set[str], order: Sequence[str], processes: Processes) -> None:
    """Wait for all processes; then every one knows the keys and the bad audio that each found."""
    keys = {name: key for name, key in features.keys.items() if name in own}
    skipped = [(item.utterance, item.reason) for item in features.skipped]
    parts = processes.gather((keys, skipped, features.audio_s, features.encoder_s))
    for found, _, _, _ in parts:
        features.keys.update(found)
    place = {name: index for index, name in enumerate(order)}
    bad = sorted((item for part in parts for item in part[1]), key=lambda item: place[item[0]])
    for name, _ in bad:
        features.keys.pop(name, None)  # a file that was known may have gone bad
    features.skipped = [Skipped(name, reason) for name, reason in bad]
    assert features.keys.keys() | {name for name, _ in bad} == place.keys()
    features.audio_s = math.fsum(part[2] for part in parts)
    features.encoder_s = math.fsum(part[3] for part in parts)


def _await_all(features: Features, wanted: Mapping[str, Sequence[Utterance]]) -> None:
    """Wait until what other processes have stored is to be seen from here."""
    for kind, group in wanted.items():
        keys = [features.keys[u.id] for u in group if u.id in features.keys]
        features.stores[kind].wait_for(keys, VISIBLE_S)


def _key(audio: str, span: tuple[float, float] | None) -> str:
    """The key of an utterance in a store: what its audio is, and which part of it is meant."""
    if span is None:
        return audio
    first, seconds = span
    return hashlib.sha256(f"{audio} {first!r} {seconds!r}".encode()).hexdigest()


def about(
    upstream: Upstream,
    fingerprint: str,
    kind: str,
    settings: ExtractionSettings,
    layers: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Everything that features depend on, apart from the audio; `layers` counts for frames."""
    return {
        "upstream": upstream.card.name,
        "fingerprint": fingerprint,
        "sample_rate": upstream.card.sample_rate,
        "kind": kind,
        "precision": settings.precision,
        "device": torch.device(settings.device).type,
        "storage": storage_of(kind, settings.storage),
        "layers": list(layers) if layers is not None and kind == "frames" else None,
        "batching": BATCHING,
        "engine": _ENGINE,
    }


def storage_of(kind: str, storage: str) -> str:
    """How a kind of feature is kept: time means take kilobytes, so ``none`` is for frames alone."""
    return "float32" if storage == NONE and kind != "frames" else storage


def _known_keys(utterances: Iterable[Utterance], hashes: AudioHashes) -> dict[str, str]:
    """Utterance id → key, of those whose audio need not be read for it."""
    keys: dict[str, str] = {}
    found: dict[Path | StoredAudio, str | None] = {}  # many spans may be of one recording
    for utterance in utterances:
        audio = utterance.audio
        if isinstance(audio, bytes):
            sha256: str | None = audio_sha256(audio)
        else:
            if audio not in found:
                found[audio] = hashes.find(audio)
            sha256 = found[audio]
        if sha256 is not None:
            keys[utterance.id] = _key(sha256, utterance.span)
    return keys


def _bad_audio(bad: Sequence[Skipped], total: int) -> AudioError:
    shown = "; ".join(f"{item.utterance}: {item.reason}" for item in bad[:5])
    more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
    return AudioError(
        f"{len(bad)} of {total} audio files cannot be used: {shown}{more}. Mend or remove them, "
        "or leave them out with --on-bad-audio skip (the result lists them)"
    )


def duration_s(utterance: Utterance) -> float:
    """Seconds of audio by the file's header; 0 when it cannot be read (found out later)."""
    if utterance.span is not None:
        return utterance.span[1]
    source = utterance.audio
    try:
        if not isinstance(source, Path | bytes):
            source = source.read()
        info = soundfile.info(BytesIO(source) if isinstance(source, bytes) else str(source))
    except (RuntimeError, OSError, TypeError):
        return 0.0
    return float(info.frames) / float(info.samplerate) if info.samplerate else 0.0


def estimate_s(utterances: Sequence[Utterance], sample: int = 256) -> float:
    """Seconds of audio, from the headers of at most `sample` files and the sizes of all.

    Opening every header of a big corpus takes minutes. Files without a readable header count 0.
    Of audio across a network the first few are looked at, which are wanted first anyway.
    """
    spans = math.fsum(u.span[1] for u in utterances if u.span is not None)
    whole = [u for u in utterances if u.span is None]
    step = max(1, -(-len(whole) // sample))
    looked_at = whole[:_FAR_SAMPLE] if any(map(_far, whole[:1])) else whole[::step]
    seconds = math.fsum(map(duration_s, looked_at))
    if len(looked_at) == len(whole):
        return spans + seconds
    size = sum(map(_size, looked_at))
    return spans + (seconds / size * sum(map(_size, whole)) if size else 0.0)


def _far(utterance: Utterance) -> bool:
    return not isinstance(utterance.audio, Path | bytes) and utterance.audio.far


def _size(utterance: Utterance) -> int:
    try:
        return audio_size(utterance.audio)
    except AudioError:
        return 0


def _say(
    upstream: Upstream,
    todo: Sequence[Utterance],
    kinds: Mapping[str, Sequence[str]],
    settings: ExtractionSettings,
    progress: Progress,
    layers: Sequence[int] | None,
) -> None:
    """Say what extraction will take on disk, and refuse what does not fit."""
    card = upstream.card
    seconds = estimate_s(todo)
    wanted = Counter(kind for utterance in todo for kind in kinds[utterance.id])
    needed = sum(
        feature_bytes(
            kind,
            storage_of(kind, settings.storage),
            card.layers if layers is None or kind != "frames" else len(layers),
            card.dim,
            count,
            seconds * count / len(todo) * card.sample_rate / card.hop_samples,
        )
        for kind, count in wanted.items()
    )
    require_room(settings.cache_dir, needed)
    progress.note(
        f"{card.name}: encoding {len(todo)} utterances, {seconds / 60:.1f} min of audio; "
        f"{format_bytes(needed)} of {' and '.join(wanted)} in {settings.cache_dir}"
    )


@dataclass(frozen=True)
class _Job:
    """What extraction needs at every utterance."""

    upstream: Upstream
    settings: ExtractionSettings
    kinds: Mapping[str, Sequence[str]]  # utterance id → the kinds of feature it needs
    lacking: Mapping[str, set[str]]  # key → kinds that it lacks, where that is known
    features: Features
    hashes: AudioHashes

    def needs(self, utterance: Utterance, key: str) -> set[str]:
        """The kinds of feature that are still to be stored for this audio."""
        asked = {*self.kinds[utterance.id], *self.lacking.get(key, ())}
        return {kind for kind in asked if key not in self.features.stores[kind]}

    def skip(self, utterance: Utterance, error: AudioError) -> None:
        """Leave out an utterance whose audio cannot be used."""
        self.features.keys.pop(utterance.id, None)
        self.features.skipped.append(Skipped(utterance.id, str(error)))
        self.settings.processes.announce(_BAD_AUDIO)

    @property
    def given_up(self) -> bool:
        """Whether bad audio, found here or by another process, ends the run."""
        self.settings.processes.require_others()
        if self.settings.on_bad_audio != "fail":
            return False
        return bool(self.features.skipped) or self.settings.processes.announced(_BAD_AUDIO)


@dataclass(frozen=True)
class _Loaded:
    """Audio that has been read, or needs not be to know its hash."""

    audio: Path | bytes | StoredAudio
    sha256: str
    status: os.stat_result | None = None


def _encode_all(job: _Job, todo: Sequence[Utterance], progress: Progress) -> None:
    """Read, decode and encode in turn; a few utterances are on the way at any time, never all."""
    card, features = job.upstream.card, job.features
    read: dict[Path | StoredAudio, str] = {}  # hashes of recordings of which there are spans

    def load(utterance: Utterance) -> _Loaded | AudioError:
        try:
            return _load(utterance, read)
        except AudioError as error:
            return error

    def to_waveform(item: tuple[Utterance, _Loaded]) -> Tensor | AudioError:
        try:
            return _waveform(*item, card)
        except AudioError as error:
            return error

    with (
        ThreadPoolExecutor(1) as pool,
        progress.bar(f"{card.name}: features", len(todo)) as bar,
    ):

        def lacking() -> Iterator[tuple[Utterance, _Loaded]]:
            for utterance, loaded in _ahead(pool, load, todo):
                if isinstance(loaded, AudioError):
                    job.skip(utterance, loaded)
                    bar.advance()
                    continue
                if not isinstance(utterance.audio, bytes):
                    job.hashes.remember(utterance.audio, loaded.status, loaded.sha256)
                key = _key(loaded.sha256, utterance.span)
                features.keys[utterance.id] = key
                if job.needs(utterance, key):
                    yield utterance, loaded
                else:
                    bar.advance()

        for (utterance, _), waveform in _ahead(pool, to_waveform, lacking()):
            bar.advance()
            key = features.keys[utterance.id]
            if isinstance(waveform, AudioError):
                job.skip(utterance, waveform)
                continue
            if job.given_up:
                continue  # keep looking for bad files, but encode nothing more
            # the same audio may have come by since this was read
            kinds = job.needs(utterance, key)
            if not kinds:
                continue
            before = time.perf_counter()
            states = encode(job.upstream, waveform, job.settings, utterance.id)
            features.encoder_s += time.perf_counter() - before
            seconds = waveform.numel() / card.sample_rate
            features.audio_s += seconds
            norms = features_of(states, "frames").norm(dim=-1).mean(dim=1).numpy()
            for kind in kinds:
                values = features_of(states, kind, features.layers).numpy()
                features.stores[kind].append(key, values, norms, seconds)
            bar.rate(f"{features.audio_s / features.encoder_s:.0f} x real time")


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[Item], Done], items: Iterable[Item]
) -> Iterator[tuple[Item, Done]]:
    """Do a few pieces of work ahead of whoever takes them, in order."""
    waiting: deque[tuple[Item, Future[Done]]] = deque()
    for item in items:
        waiting.append((item, pool.submit(work, item)))
        if len(waiting) > _DECODE_AHEAD:
            first, done = waiting.popleft()
            yield first, done.result()
    while waiting:
        first, done = waiting.popleft()
        yield first, done.result()


def _load(utterance: Utterance, read: dict[Path | StoredAudio, str]) -> _Loaded:
    """Read audio once, for its hash and for its samples; of a span, only the span later on."""
    audio = utterance.audio
    if isinstance(audio, bytes):
        return _Loaded(audio, audio_sha256(audio))
    if utterance.span is not None:
        if audio in read:
            return _Loaded(audio, read[audio])
        status = audio.stat() if isinstance(audio, Path) and audio.is_file() else None
        read[audio] = audio_sha256(audio)
        return _Loaded(audio, read[audio], status)
    if not isinstance(audio, Path):
        try:
            data = audio.read()
        except OSError as error:
            raise AudioError(
                f"cannot read the audio of {utterance.id}: {error}", reason="unreadable"
            ) from error
        return _Loaded(data, audio_sha256(data))
    try:
        with audio.open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read()
    except FileNotFoundError as error:
        raise AudioError(
            f"no audio file at {_named(utterance)}; check the path in the corpus",
            reason="missing file",
        ) from error
    except OSError as error:
        raise AudioError(
            f"cannot read {_named(utterance)}: {error.strerror}", reason="unreadable"
        ) from error
    return _Loaded(data, audio_sha256(data), status)


def _waveform(utterance: Utterance, loaded: _Loaded, card: UpstreamCard) -> Tensor:
    return decode(
        loaded.audio,
        card.sample_rate,
        name=_named(utterance),
        min_samples=card.min_samples,
        span=utterance.span,
    )


def _named(utterance: Utterance) -> str:
    """How messages call its audio: by its file if that says more than its id."""
    name, audio = utterance.id, utterance.audio
    if not isinstance(audio, Path):
        return name
    return str(audio) if str(audio).endswith(name) else f"{name} ({audio})"


def _again(
    upstream: Upstream,
    utterances: Sequence[Utterance],
    features: Features,
    settings: ExtractionSettings,
) -> Callable[[str], Floats]:
    """Frames by encoding anew, for storage ``none``: the same values as when first encoded."""
    by_key = {features.keys[u.id]: u for u in utterances if u.id in features.keys}
    threads = torch.get_num_threads()

    def again(key: str) -> Floats:
        utterance = by_key[key]
        loaded = _load(utterance, {})
        if _key(loaded.sha256, utterance.span) != key:
            raise SuperbError(f"the audio of {_named(utterance)} changed during the run; run again")
        waveform = _waveform(utterance, loaded, upstream.card)
        # heads train on one thread; the encoder computes on as many as the first time
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            states = encode(upstream, waveform, settings, utterance.id)
        finally:
            torch.set_num_threads(before)
        frames: Floats = features_of(states, "frames", features.layers).numpy()
        return frames

    return again


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
