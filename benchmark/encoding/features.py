"""Stored features of a corpus: what is missing is encoded, once, for every task and probe.

Utterances are shared out by recording: any share may be done anywhere, twice or not at all, since
what is stored is found by its content.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.core import HiddenStates, StoredAudio, Upstream, Utterance
from benchmark.encoding.ahead import ahead, side_by_side, workers
from benchmark.encoding.anew import Anew
from benchmark.encoding.audio import Sound, audio_sha256
from benchmark.encoding.audio_hashes import AudioHashes
from benchmark.encoding.cache import format_bytes, require_room
from benchmark.encoding.forward import FrozenEncoder, forms_of, packs
from benchmark.encoding.loading import Loaded, key_of, load, sound_of
from benchmark.encoding.packing import NONE, Floats, Packed, feature_bytes, packed
from benchmark.encoding.recordings import estimate_s
from benchmark.encoding.store import VISIBLE_S, FeatureStore, store_folder
from benchmark.errors import AudioError, SuperbError
from benchmark.progress import Progress

# Utterances that are read and decoded ahead of the encoder, at least.
_AHEAD = 8
# Packs that are chosen from at a time: the more, the more alike are the lengths in each.
_POOLED_PACKS = 8
# Decoding, pooling and normalising are as much part of a feature as the encoder.
_ENGINE = hashlib.sha256(
    b"".join(
        (Path(__file__).parent / name).read_bytes()
        for name in ("audio.py", "containers.py", "forward.py")
    )
).hexdigest()


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
        channel: the channel that is heard, counted from 0; the mean of all if None.
    """

    cache_dir: Path
    device: str = "cpu"
    precision: str = "float32"
    storage: str = "float16"
    on_bad_audio: str = "fail"
    channel: int | None = None

    def frozen(self, upstream: Upstream) -> FrozenEncoder:
        """An encoder as it computes here."""
        return FrozenEncoder(upstream, self.device, self.precision)


@dataclass(frozen=True)
class Extraction:
    """What is to be encoded by what, and how it is kept.

    Attributes:
        upstream: the frozen encoder.
        fingerprint: hash of everything its output depends on.
        wanted: kind of feature → the utterances that need it.
        settings: precision, storage and places.
        layers: the only layers that frames are needed of, None for all. They make a store of their
            own, with the same values as one of all layers.
    """

    upstream: Upstream
    fingerprint: str
    wanted: Mapping[str, Sequence[Utterance]]
    settings: ExtractionSettings
    layers: tuple[int, ...] | None = None

    @property
    def encoder(self) -> FrozenEncoder:
        """The encoder, where and how it computes."""
        return self.settings.frozen(self.upstream)

    @property
    def utterances(self) -> dict[str, Utterance]:
        """All of them by id; two kinds may want the same.

        Raises:
            SuperbError: when an id stands for two recordings, as tasks of their own corpora may
                have it.
        """
        found: dict[str, Utterance] = {}
        for utterance in chain.from_iterable(self.wanted.values()):
            other = found.setdefault(utterance.id, utterance)
            if (other.audio, other.span) != (utterance.audio, utterance.span):
                raise SuperbError(
                    f"the id {utterance.id!r} is of one recording in one task and of another in "
                    f"another ({other.audio!s:.60} and {utterance.audio!s:.60}). Give recordings "
                    "ids of their own in all tasks of a run, or run these tasks one at a time"
                )
        return found

    def about(self, kind: str) -> dict[str, Any]:
        """Everything that features of a kind depend on, apart from the audio."""
        about = {
            "upstream": self.upstream.card.name,
            "fingerprint": self.fingerprint,
            "sample_rate": self.upstream.card.sample_rate,
            "kind": kind,
            "precision": self.settings.precision,
            "device": torch.device(self.settings.device).type,
            "storage": storage_of(kind, self.settings.storage),
            "layers": list(self.layers) if self.layers is not None and kind == "frames" else None,
            "batching": self.encoder.batching,
            "engine": _ENGINE,
        }
        channel = self.settings.channel
        return about if channel is None else about | {"channel": channel}

    def stores(self, resources: ExitStack) -> dict[str, FeatureStore]:
        """Kind of feature → its store, open until `resources` are closed."""
        cache = self.settings.cache_dir
        return {
            kind: resources.enter_context(FeatureStore(cache, self.about(kind)))
            for kind in self.wanted
        }


@dataclass(frozen=True)
class Skipped:
    """An utterance left out, and why."""

    utterance: str
    reason: str


@dataclass
class Encoded:
    """What one share of an extraction found out; its features are in the stores.

    Attributes:
        keys: utterance id → hash of its audio and span, the key in every store; skipped ones are
            absent.
        skipped: utterances left out because of their audio.
        audio_s: seconds of audio that passed the encoder.
        encoder_s: seconds that the encoder took for them; 0 if all was stored before.
        seconds: that reading, encoding and storing took, on the clock.
        packs: how often the encoder was given something, several utterances or one.
        apart: why several had to be encoded one at a time after all, each time.
    """

    keys: dict[str, str] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    audio_s: float = 0.0
    encoder_s: float = 0.0
    seconds: float = 0.0
    packs: int = 0
    apart: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Features:
    """Where the features of a set of utterances are, and what all shares found out.

    Attributes:
        stores: kind of feature → its store.
        encoded: of all shares together; of `seconds`, the longest.
        layers: the layers that frames are kept of, None for all; time means have all.
        anew: makes the frames of some keys anew, where none are stored.
    """

    stores: Mapping[str, FeatureStore]
    encoded: Encoded
    layers: tuple[int, ...] | None = None
    anew: Callable[[Sequence[str]], list[Tensor]] | None = None

    @property
    def keys(self) -> Mapping[str, str]:
        """Utterance id → key in every store."""
        return self.encoded.keys


def extract(extraction: Extraction, progress: Progress, share: int = 0, shares: int = 1) -> Encoded:
    """Make sure that the wanted features of a share of the recordings are stored.

    Each utterance is encoded at most once. Audio is read once: hashed, and decoded if nothing is
    stored under its hash. Files that have not changed since an earlier run are not read at all. A
    few utterances are in memory at a time, or some packs of them. Bad audio is collected, not
    raised; the rest of the share is then read but not encoded, unless it is to be skipped.

    Args:
        extraction: what is wanted, and how.
        progress: where to report.
        share: which one, from 0; a recording is in one share with all its spans.
        shares: how many there are.

    Raises:
        UpstreamError: when the encoder raises or breaks its contract.
        SuperbError: when the disk has no room.
    """
    started = time.perf_counter()
    found = Encoded()
    everyone = extraction.utterances
    recordings = list(dict.fromkeys(u.audio for u in everyone.values()))[share::shares]
    own = set(recordings)
    utterances = {name: u for name, u in everyone.items() if u.audio in own}
    kinds: dict[str, list[str]] = {name: [] for name in utterances}
    for kind, group in extraction.wanted.items():
        for name in {u.id for u in group} & utterances.keys():
            kinds[name].append(kind)
    with ExitStack() as resources:
        stores = extraction.stores(resources)
        hashes = resources.enter_context(AudioHashes(extraction.settings.cache_dir))
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
            found.keys[name] = key
            if lacks := {kind for kind in kinds[name] if key in missing[kind]}:
                todo.append(utterance)
                lacking[key] = lacking.get(key, set()) | lacks
        if todo:
            _say(extraction, todo, kinds, progress)
            _encode_all(_Share(extraction, kinds, lacking, stores, hashes, found), todo, progress)
        for store in stores.values():
            store.commit()
            if found.encoder_s:
                store.log_session(found.audio_s, found.encoder_s)
    if found.apart:
        progress.warn(
            f"{extraction.upstream.card.name}: {len(found.apart)} of {found.packs} packs of "
            "utterances had to be encoded one at a time, which is slower; the first: "
            f"{found.apart[0]}"
        )
    found.seconds = time.perf_counter() - started
    return found


def find_features(
    extraction: Extraction, shares: Sequence[Encoded], resources: ExitStack
) -> Features:
    """The stored features of an extraction, of which all shares are done.

    Raises:
        AudioError: for audio that cannot be used, all of it named, unless it is to be skipped.
        SuperbError: when what was stored elsewhere is not to be seen from here.
    """
    everyone = extraction.utterances
    place = {name: index for index, name in enumerate(everyone)}
    keys = {name: key for share in shares for name, key in share.keys.items()}
    # shares serve other tasks too
    skipped = sorted(
        (item for share in shares for item in share.skipped),
        key=lambda item: (place.get(item.utterance, len(place)), item.utterance),
    )
    if skipped and extraction.settings.on_bad_audio == "fail":
        raise _bad_audio(skipped, len({*everyone, *keys, *(item.utterance for item in skipped)}))
    skipped = [item for item in skipped if item.utterance in place]
    together = Encoded(
        {name: keys[name] for name in everyone if name in keys},
        skipped,
        math.fsum(share.audio_s for share in shares),
        math.fsum(share.encoder_s for share in shares),
        max(share.seconds for share in shares),
    )
    stores = extraction.stores(resources)
    for kind, group in extraction.wanted.items():
        stores[kind].wait_for([keys[u.id] for u in group if u.id in keys], VISIBLE_S)
    anew = None
    if "frames" in stores and extraction.settings.storage == NONE:
        encoder = extraction.encoder
        anew = Anew(
            encoder,
            extraction.layers,
            {keys[u.id]: u for u in extraction.wanted["frames"] if u.id in keys},
            extraction.settings.channel,
            resources.enter_context(workers(encoder.decoders)),
            torch.get_num_threads(),
        )
    return Features(stores, together, extraction.layers, anew)


def left_to_encode(extraction: Extraction) -> dict[str, int]:
    """Kind of feature → how many of its utterances are not known to be stored; reads no audio."""
    cache = extraction.settings.cache_dir
    left = {kind: len(group) for kind, group in extraction.wanted.items()}
    keys: dict[str, str] | None = None
    for kind, group in extraction.wanted.items():
        about = extraction.about(kind)
        if not store_folder(cache, about).is_dir():
            continue
        if keys is None:
            with AudioHashes(cache) as hashes:
                keys = _known_keys(extraction.utterances.values(), hashes)
        with FeatureStore(cache, about) as store:
            missing = store.missing(keys.values())
        left[kind] = sum(u.id not in keys or keys[u.id] in missing for u in group)
    return left


def kept_layers(extraction: Extraction) -> tuple[int, ...] | None:
    """The layers of frames to keep: those asked for, or all (None) if all are stored already."""
    if extraction.layers is None or "frames" not in extraction.wanted:
        return None
    frames = replace(extraction, wanted={"frames": extraction.wanted["frames"]}, layers=None)
    return extraction.layers if left_to_encode(frames)["frames"] else None


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
            keys[utterance.id] = key_of(sha256, utterance.span)
    return keys


def _bad_audio(bad: Sequence[Skipped], total: int) -> AudioError:
    shown = "; ".join(f"{item.utterance}: {item.reason}" for item in bad[:5])
    more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
    return AudioError(
        f"{len(bad)} of {total} audio files cannot be used: {shown}{more}. Mend or remove them, "
        "or leave them out with --on-bad-audio skip (the result lists them)"
    )


def _say(
    extraction: Extraction,
    todo: Sequence[Utterance],
    kinds: Mapping[str, Sequence[str]],
    progress: Progress,
) -> None:
    """Say what extraction will take on disk, and refuse what does not fit."""
    card, settings, layers = extraction.upstream.card, extraction.settings, extraction.layers
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
class _Share:
    """What encoding a share needs at every utterance."""

    extraction: Extraction
    kinds: Mapping[str, Sequence[str]]  # utterance id → the kinds of feature it needs
    lacking: Mapping[str, set[str]]  # key → kinds that it lacks, where that is known
    stores: Mapping[str, FeatureStore]
    hashes: AudioHashes
    found: Encoded
    flying: dict[str, _Waiting] = field(default_factory=dict)  # key → what is being encoded

    def needs(self, utterance: Utterance, key: str) -> set[str]:
        """The kinds of feature that are still to be stored for this audio."""
        asked = {*self.kinds[utterance.id], *self.lacking.get(key, ())}
        return {kind for kind in asked if key not in self.stores[kind]}

    def skip(self, utterance: Utterance, error: AudioError) -> None:
        """Leave out an utterance whose audio cannot be used."""
        self.found.keys.pop(utterance.id, None)
        self.found.skipped.append(Skipped(utterance.id, str(error)))

    @property
    def given_up(self) -> bool:
        """Whether bad audio ends the run."""
        return bool(self.found.skipped) and self.extraction.settings.on_bad_audio == "fail"


@dataclass
class _Waiting:
    """A waveform that is to be encoded, and the kinds of feature that are wanted of it."""

    utterance: Utterance
    sound: Sound
    kinds: set[str]


def _encode_all(own: _Share, todo: Sequence[Utterance], progress: Progress) -> None:
    """Read, decode and encode in turn; a few utterances are on the way at any time, never all."""
    encoder, channel = own.extraction.encoder, own.extraction.settings.channel
    read: dict[Path | StoredAudio, str] = {}  # hashes of recordings of which there are spans
    # while a pack is encoded, the next is read
    most = max(_AHEAD, encoder.together(estimate_s(todo) / len(todo)))

    def loaded(utterance: Utterance) -> Loaded | AudioError:
        try:
            return load(utterance, read)
        except AudioError as error:
            return error

    def to_sound(item: tuple[Utterance, Loaded]) -> Sound | AudioError:
        try:
            return encoder.ready(sound_of(*item, encoder.card, channel))
        except AudioError as error:
            return error

    with (
        workers(1) as reading,
        workers(encoder.decoders) as decoding,
        workers(encoder.decoders) as rounding,
        progress.bar(f"{encoder.card.name}: features", len(todo)) as bar,
    ):

        def lacking() -> Iterator[tuple[Utterance, Loaded]]:
            for utterance, found in ahead(reading, loaded, todo, most):
                if isinstance(found, AudioError):
                    own.skip(utterance, found)
                    bar.advance()
                    continue
                if not isinstance(utterance.audio, bytes):
                    own.hashes.remember(utterance.audio, found.status, found.sha256)
                key = key_of(found.sha256, utterance.span)
                own.found.keys[utterance.id] = key
                if own.needs(utterance, key):
                    yield utterance, found
                else:
                    bar.advance()

        def heard() -> Iterator[tuple[Utterance, Sound | AudioError]]:
            for (utterance, _), sound in ahead(decoding, to_sound, lacking(), most):
                bar.advance()
                yield utterance, sound

        for pack, states in _passed(own, _packs(own, heard())):
            _store(own, pack, states, None if encoder.decoders == 1 else rounding)
            own.found.packs += 1
            bar.rate(f"{own.found.audio_s / own.found.encoder_s:.0f} x real time")


def _passed(
    own: _Share, every: Iterable[dict[str, _Waiting]]
) -> Iterator[tuple[dict[str, _Waiting], HiddenStates]]:
    """Packs and their hidden states; on a processor side by side, where the encoder allows it.

    An utterance has a core to itself then, on up to eight cores, and its features do not depend on
    how many there are.
    """
    encoder, found = own.extraction.encoder, own.found
    compared = False

    def through(pack: dict[str, _Waiting]) -> tuple[HiddenStates, float]:
        nonlocal compared
        names = [one.utterance.id for one in pack.values()]
        waveforms = [one.sound.waveform for one in pack.values()]
        before = time.perf_counter()
        states = encoder.encode(waveforms, names, lambda error: found.apart.append(str(error)))
        longer = waveforms[-1].numel() - waveforms[0].numel()
        if not compared and longer > 2 * encoder.card.hop_samples:
            encoder.require_invariance(states, waveforms, names)
            compared = True
        return states, time.perf_counter() - before

    count = encoder.side_by_side
    for pack, (states, taken) in side_by_side(count, through, every):
        found.encoder_s += taken / count
        yield pack, states


def _packs(
    own: _Share, heard: Iterable[tuple[Utterance, Sound | AudioError]]
) -> Iterator[dict[str, _Waiting]]:
    """What is encoded together, by key: whoever waits longest, with those of like length."""
    most = own.extraction.encoder.samples_at_once
    waiting: dict[str, _Waiting] = {}
    samples = 0

    def next_pack() -> dict[str, _Waiting]:
        keys = list(waiting)
        lengths = [waiting[key].sound.waveform.numel() for key in keys]
        places = next(places for places in packs(lengths, most) if 0 in places)
        nonlocal samples
        samples -= sum(lengths[place] for place in places)
        pack = {keys[place]: waiting.pop(keys[place]) for place in places}
        own.flying.update(pack)
        return pack

    for utterance, sound in heard:
        key = own.found.keys[utterance.id]
        if isinstance(sound, AudioError):
            own.skip(utterance, sound)
            continue
        # the same audio may have come by since this was read
        if own.given_up or not (kinds := own.needs(utterance, key)):
            continue  # given up: keep looking for bad files, but encode nothing more
        if same := waiting.get(key) or own.flying.get(key):
            same.kinds |= kinds
            continue
        waiting[key] = _Waiting(utterance, sound, kinds)
        samples += sound.waveform.numel()
        while waiting and samples >= _POOLED_PACKS * most:
            yield next_pack()
    while waiting and not own.given_up:
        yield next_pack()


def _store(
    own: _Share,
    pack: Mapping[str, _Waiting],
    states: HiddenStates,
    rounding: ThreadPoolExecutor | None,
) -> None:
    """Store what is wanted of a pack, rounded here or by some threads."""
    card, layers = own.extraction.upstream.card, own.extraction.layers
    kinds = set().union(*(one.kinds for one in pack.values()))
    # of frames that are not kept, which stay where they are, their shape will do
    kept = {kind for kind in kinds if own.stores[kind].storage != NONE}
    count = card.layers if layers is None else len(layers)
    forms = forms_of(states, kept, layers)

    def made(one: _Waiting, values: Mapping[str, Floats], length: int) -> dict[str, Packed]:
        return {
            kind: packed(values[kind], own.stores[kind].storage)
            if kind in kept
            else Packed((count, length, card.dim))
            for kind in one.kinds
        }

    given = (pack.values(), [values for values, _ in forms], states.lengths.tolist())
    every = map(made, *given) if rounding is None else rounding.map(made, *given)
    for (key, one), (_, norms), features in zip(pack.items(), forms, every, strict=True):
        seconds = one.sound.waveform.numel() / card.sample_rate
        own.found.audio_s += seconds
        for kind, values in features.items():
            own.stores[kind].append(key, values, norms, seconds, one.sound.oddity)
        del own.flying[key]
