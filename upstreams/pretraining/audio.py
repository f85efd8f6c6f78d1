"""Audio for pretraining: folders of any size, streamed as batches of equal-length crops.

Only names and lengths are held in memory. Files are decoded when their batch is near, by threads,
and only as much of them as a crop needs. Which crops make which batch is a function of the seed
and of the number of the step alone.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor
from torchaudio.functional import resample

from benchmark.encoding.audio import opened
from benchmark.encoding.folders import SUFFIXES, recordings
from benchmark.errors import AudioError, SuperbError
from upstreams.models.batch import SAMPLE_RATE
from upstreams.pretraining.objective import Batch

# LibriSpeech ("84/121123/84-121123-0000.flac") and VoxCeleb ("id10001/xxx/00001.wav") say who
# speaks; of other names nothing is assumed.
SPEAKER_PATTERN = r"(?:^|/)(id\d+|\d+)[/_-]"
# Batches are sorted by length within so many; more waste less audio, fewer mix better.
POOL_BATCHES = 32
# Crops start at multiples of the frames' hop, so that targets and features line up.
HOP_SAMPLES = 320
# Batches decoded ahead of the one in use.
AHEAD = 3
# What to do about a file that fails after the start of a run.
ADVICE = "Repair it and type the command again; without it, the audio is that of another run"


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording.

    Attributes:
        audio: a file, or the bytes of one.
        name: how errors call it.
        speaker: who speaks; a clip of an unknown speaker has a speaker of its own.
        samples: length at 16 kHz.
    """

    audio: Path | bytes = field(repr=False)
    name: str
    speaker: str
    samples: int


def scan(folders: list[Path], speaker_pattern: str = SPEAKER_PATTERN) -> list[Clip]:
    """Find all audio files under some folders, in a fixed order; only headers are read.

    Args:
        folders: searched with all their subfolders.
        speaker_pattern: regular expression whose first group, in a file's path relative to its
            folder, names the speaker; where it does not match, the file is its own speaker.

    Raises:
        SuperbError: a folder is missing or holds no audio, is given twice or inside another one,
            or the pattern is none.
        AudioError: a file cannot be read; all such files are counted.
    """
    try:
        pattern = re.compile(speaker_pattern)
    except re.error as error:
        raise SuperbError(f"--speakers: {speaker_pattern!r} is no pattern: {error}") from error
    if pattern.groups < 1:
        raise SuperbError(
            f"--speakers: {speaker_pattern!r} needs a group in parentheses that names the speaker, "
            f"as in {SPEAKER_PATTERN!r}"
        )
    clips: list[Clip] = []
    broken: list[str] = []
    for index, folder in enumerate(folders):
        for other in folders[:index] + folders[index + 1 :]:
            # A file that is taken twice could be trained on and held out.
            if folder.resolve().is_relative_to(other.resolve()):
                raise SuperbError(f"--audio {folder} is in --audio {other}; give each folder once")
        if not folder.is_dir():
            raise SuperbError(f"--audio {folder}: there is no such folder; give one with audio")
        paths = recordings(folder)
        if not paths:
            raise SuperbError(
                f"--audio {folder} holds no audio; these names are looked for: "
                f"{' '.join(sorted(SUFFIXES))}"
            )
        for path in paths:
            try:
                clips.append(measure(path, _speaker(path.relative_to(folder), pattern)))
            except AudioError:
                broken.append(str(path))
    if broken:
        raise AudioError(
            f"{len(broken)} of {len(clips) + len(broken)} files cannot be read as audio: "
            f"{', '.join(broken[:5])}{', …' if len(broken) > 5 else ''}. Remove or repair them",
            reason="unreadable",
        )
    return clips


def measure(audio: Path | bytes, speaker: str, name: str = "") -> Clip:
    """A clip of a file or its bytes, whose length is read from its header.

    Raises:
        AudioError: it is no audio.
    """
    name = name or str(audio)
    try:
        with opened(audio) as file:
            samples = file.frames * SAMPLE_RATE // file.samplerate
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(f"cannot read {name} as audio: {error}", reason="unreadable") from error
    return Clip(audio, name, speaker, samples)


def _speaker(path: Path, pattern: re.Pattern[str]) -> str:
    match = pattern.search(path.as_posix())
    return match[1] if match else path.as_posix()


def read_crop(clip: Clip, start: int, samples: int) -> Tensor:
    """Decode a stretch of a clip, mono at 16 kHz: float32 ``[sample]``.

    Args:
        clip: of which.
        start: its first sample, at 16 kHz.
        samples: its length, at 16 kHz.

    Raises:
        AudioError: the file is gone or damaged, or holds less than its header promised.
    """
    try:
        with opened(clip.audio) as file:
            rate = file.samplerate
            file.seek(start * rate // SAMPLE_RATE)
            # One sample more where a rate does not divide ours.
            wanted = -(-samples * rate // SAMPLE_RATE) + (rate != SAMPLE_RATE)
            channels = file.read(wanted, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(
            f"cannot read {clip.name}: {error}. {ADVICE}", reason="unreadable"
        ) from error
    waveform = torch.from_numpy(channels.mean(axis=1))
    if rate != SAMPLE_RATE:
        waveform = resample(waveform, rate, SAMPLE_RATE)
    # A resampled file may end a sample early; more is missing audio.
    if waveform.numel() < samples - 2 or not bool(waveform.isfinite().all()):
        raise AudioError(
            f"{clip.name} holds less audio than its header says, or samples that are no numbers. "
            f"{ADVICE}",
            reason="truncated",
        )
    return torch.nn.functional.pad(waveform[:samples], (0, max(0, samples - waveform.numel())))


@dataclass(frozen=True, slots=True)
class Crop:
    """A stretch of a clip.

    Attributes:
        clip: index of the clip.
        start: first sample.
    """

    clip: int
    start: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The crops of one batch, all of them so many samples long."""

    crops: tuple[Crop, ...]
    samples: int


class Stream:
    """Endless batches of crops of equal length.

    An epoch is a permutation of all clips. Clips of like length go together and are cut, at a
    random place, to the shortest of them or to the longest crop allowed; so nothing is padded and
    little is left out.

    Args:
        clips: the recordings; each at least as long as the shortest crop wanted.
        batch_seconds: audio in a batch, at most (one crop is always taken).
        crop_seconds: longest crop.
        seed: of order and places.
    """

    def __init__(
        self, clips: Sequence[Clip], batch_seconds: float, crop_seconds: float, seed: int
    ) -> None:
        if not clips:
            raise SuperbError("there is no audio to train on")
        self.clips = clips
        self.batch_samples = max(1, int(batch_seconds * SAMPLE_RATE))
        self.crop_samples = max(1, int(crop_seconds * SAMPLE_RATE))
        self.seed = seed
        self.speakers = {
            speaker: index for index, speaker in enumerate(sorted({c.speaker for c in clips}))
        }

    def epoch(self, number: int) -> list[Plan]:
        """The batches of one pass over all clips."""
        random = np.random.default_rng((self.seed, number))
        lengths = np.array([min(clip.samples, self.crop_samples) for clip in self.clips])
        order = random.permutation(len(self.clips))
        total = int(lengths.sum())
        # No pool is empty, however little fits into a batch.
        pools = min(len(order), max(1, round(total / (self.batch_samples * POOL_BATCHES))))
        plans: list[Plan] = []
        for pool in np.array_split(order, pools):
            # Equal lengths stay in their random order.
            ordered = pool[np.argsort(-lengths[pool], kind="stable")]
            rows: list[int] = []
            for index in ordered:
                # The longest comes first: with its length the batch is full at so many.
                if rows and (len(rows) + 1) * lengths[rows[0]] > self.batch_samples:
                    plans.append(self._plan(rows, random))
                    rows = []
                rows.append(int(index))
            plans.append(self._plan(rows, random))
        return [plans[index] for index in random.permutation(len(plans))]

    def _plan(self, rows: list[int], random: np.random.Generator) -> Plan:
        samples = min(self.crop_samples, *(self.clips[row].samples for row in rows))
        crops = []
        for row in rows:
            places = (self.clips[row].samples - samples) // HOP_SAMPLES + 1
            crops.append(Crop(row, HOP_SAMPLES * int(random.integers(places))))
        return Plan(tuple(crops), samples)

    def plans(self, start: int = 0, stride: int = 1) -> Iterator[Plan]:
        """All batches from one on, for ever; `stride` processes take turns."""
        everything = itertools.chain.from_iterable(map(self.epoch, itertools.count()))
        return itertools.islice(everything, start, None, stride)

    def batches(self, start: int = 0, stride: int = 1, threads: int = 2) -> Iterator[Batch]:
        """Decoded batches from one on, for ever, a few of them made ahead by threads.

        Args:
            start: number of the first batch.
            stride: batches from one to the next.
            threads: that decode.

        Raises:
            AudioError: a file cannot be decoded.
        """
        plans = self.plans(start, stride)
        with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
            waiting: list[tuple[Plan, list[Future[Tensor]]]] = []
            try:
                while True:
                    while len(waiting) < AHEAD:
                        plan = next(plans)
                        waiting.append((plan, self._submit(pool, plan)))
                    plan, futures = waiting[0]
                    batch = self._batch(plan, [future.result() for future in futures])
                    del waiting[0]
                    yield batch
            finally:
                for _, futures in waiting:
                    for future in futures:
                        future.cancel()

    def _submit(self, pool: ThreadPoolExecutor, plan: Plan) -> list[Future[Tensor]]:
        return [
            pool.submit(read_crop, self.clips[crop.clip], crop.start, plan.samples)
            for crop in plan.crops
        ]

    def _batch(self, plan: Plan, waveforms: list[Tensor]) -> Batch:
        speakers = [self.speakers[self.clips[crop.clip].speaker] for crop in plan.crops]
        return Batch(torch.stack(waveforms), torch.tensor(speakers))

    def read(self, plan: Plan) -> Batch:
        """Decode one batch at once."""
        return self._batch(
            plan,
            [read_crop(self.clips[crop.clip], crop.start, plan.samples) for crop in plan.crops],
        )


def hold_out(clips: Sequence[Clip], share: float, seed: int) -> tuple[list[Clip], list[Clip]]:
    """Split into (train, held out), at least one clip each, by chance.

    Raises:
        SuperbError: there are less than two clips.
    """
    if len(clips) < 2:
        raise SuperbError(
            f"pretraining needs at least 2 usable clips, one to train on and one to hold out; "
            f"there {'is 1' if clips else 'are none'}"
        )
    order = np.random.default_rng((seed, 1)).permutation(len(clips))
    held = min(len(clips) - 1, max(1, round(share * len(clips))))
    chosen = set(order[:held].tolist())
    return (
        [clip for index, clip in enumerate(clips) if index not in chosen],
        [clip for index, clip in enumerate(clips) if index in chosen],
    )


def seconds(clips: Iterable[Clip]) -> float:
    """Length of all clips together."""
    return sum(clip.samples for clip in clips) / SAMPLE_RATE
