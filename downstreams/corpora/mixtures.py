"""Mixtures of two speakers, made of any corpus that knows its speakers, each time they are heard.

A `Mixture` is a recipe: which parts of which recordings begin when, and how loud. What depends on
chance is drawn from a generator that the name of the corpus, the split and the number of the
mixture seed. Only speech is mixed: of each utterance what lies between the first and the last
10 ms that are loud, and of that a few seconds at most; so a mixture's segments, in the column
``segments``, are the stretches that its parts fill. Loud is what exceeds the background, the level
below which a twentieth of the utterance lies, by `RISE` of the decibels between that and its
loudest 10 ms, and is not softer than these by more than `RANGE_DB`.
"""

from __future__ import annotations

import hashlib
import io
import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from benchmark.core import SPLITS, DownstreamCard, StoredAudio, Utterance
from benchmark.encoding.audio import SILENT_RMS, hear
from benchmark.encoding.recordings import duration_s
from benchmark.errors import AudioError, LacksError, SuperbError
from downstreams import diarization
from downstreams.diarization import COLUMN, Segment

RATE: Final = 16_000
RISE: Final = 0.3
RANGE_DB: Final = 40.0
# Shorter speech is a click or a cut word.
LEAST_MS: Final = 200
# Seconds of silence before speech that are looked through; no more of an utterance is read.
LEAD_S: Final = 2.0
# Part of the origin: raised whenever the same recipe sounds otherwise.
_VERSION: Final = 1
# How loud speech is mixed, as RMS where full scale is 1, and how loud a mixture's peak may be.
_LEVEL: Final = 0.05
_PEAK: Final = 0.99
# Samples over which each part fades in and out: 5 ms.
_FADE: Final = 80
_HEADER: Final = 44
_SECOND_NS: Final = 1_000_000_000


@dataclass(frozen=True)
class Recipe:
    """What is drawn for each mixture, evenly within these ranges.

    Attributes:
        mixtures: split → at most how many; never more than the split has utterances.
        utterances: how many of each speaker.
        part_s: seconds of speech of an utterance that are heard at most.
        overlap: the chance that who speaks next begins before the other ends, and not after a
            pause; for whom nobody else has spoken since, there is always a pause.
        overlap_share: for how much of the shorter of the two.
        pause_s: seconds in which nobody speaks, also before the first and after the last part.
        level_db: how much softer or louder the second speaker is than the first.
    """

    mixtures: Mapping[str, int] = field(
        default_factory=lambda: {"train": 1_000, "valid": 150, "test": 300}, hash=False
    )
    utterances: tuple[int, int] = (1, 3)
    part_s: float = 4.0
    overlap: float = 0.5
    overlap_share: tuple[float, float] = (0.1, 0.8)
    pause_s: tuple[float, float] = (0.1, 0.6)
    level_db: tuple[float, float] = (-5.0, 5.0)

    def __str__(self) -> str:
        low, high = self.utterances
        return (
            f"{low} to {high} utterances of each of two speakers, at most {self.part_s:g} s of "
            f"speech of each; {self.overlap:.0%} of changes of speaker overlap; pauses of "
            f"{self.pause_s[0]:g} to {self.pause_s[1]:g} s; levels {self.level_db[0]:g} to "
            f"{self.level_db[1]:g} dB apart"
        )


@dataclass(frozen=True)
class Part:
    """Speech from one recording, and where it stands in a mixture; times in milliseconds.

    Attributes:
        utterance: the id of the utterance it is from.
        speaker: who speaks.
        audio: the recording.
        first_ms: where the speech begins in the recording.
        length_ms: how long it lasts.
        start_ms: when it begins in the mixture.
        gain_db: how loud it is.
    """

    utterance: str
    speaker: str
    audio: Path | bytes | StoredAudio = field(repr=False)
    first_ms: int
    length_ms: int
    start_ms: int
    gain_db: float

    @property
    def end_ms(self) -> int:
        """When it ends in the mixture."""
        return self.start_ms + self.length_ms


@dataclass(frozen=True)
class Mixture:
    """The sum of parts as a WAV file (16 kHz, 16 bit), a `StoredAudio`.

    Attributes:
        parts: in the order in which they begin.
        length_ms: how long it lasts.
        longest_pause_ms: how long nobody may speak.

    Raises:
        SuperbError: for a part that does not fit in, and for a longer pause.
    """

    parts: tuple[Part, ...]
    length_ms: int
    longest_pause_ms: int

    def __post_init__(self) -> None:
        end = 0
        for part in sorted(self.parts, key=lambda part: part.start_ms):
            if part.start_ms - end > self.longest_pause_ms:
                raise SuperbError(self._pause(end, part.start_ms))
            end = max(end, part.end_ms)
            if part.start_ms < 0 or part.length_ms < 1 or end > self.length_ms:
                raise SuperbError(
                    f"a mixture of {self.length_ms} ms cannot hold {part.utterance} from "
                    f"{part.start_ms} to {part.end_ms} ms; make it longer, or move the part"
                )
        if self.length_ms - end > self.longest_pause_ms:
            raise SuperbError(self._pause(end, self.length_ms))

    def _pause(self, start: int, end: int) -> str:
        return (
            f"nobody speaks from {start} to {end} ms of a mixture, and pauses last at most "
            f"{self.longest_pause_ms} ms; move its parts together"
        )

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.length_ms / 1000

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Who speaks when."""
        return tuple(Segment(p.speaker, p.start_ms / 1000, p.end_ms / 1000) for p in self.parts)

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return _HEADER + 2 * self._samples

    @property
    def _samples(self) -> int:
        return self.length_ms * RATE // 1000

    @property
    def origin(self) -> tuple[str, int] | None:
        """A hash of all that it is made of, and when any of its files last changed.

        None where that is not known of some part.
        """
        # of equal recipes, bytes and names of files tell which is which
        digest, states = hashlib.sha256(), []
        for part in self.parts:
            audio = part.audio
            if isinstance(audio, bytes):
                name, state = hashlib.sha256(audio).hexdigest(), (len(audio), 0)
            elif isinstance(audio, Path):
                try:
                    status = audio.stat()
                except OSError:
                    return None
                name, state = str(audio.absolute()), (status.st_size, status.st_mtime_ns)
            elif audio.origin is not None:
                name, state = audio.origin[0], (0, audio.origin[1])
            else:
                return None
            recipe = (name, part.first_ms, part.length_ms, part.start_ms, part.gain_db)
            digest.update(repr(recipe).encode())
            states.append(state)
        digest.update(repr((_VERSION, self.length_ms)).encode())
        latest = max(changed for _, changed in states)
        if latest:  # up to a second earlier, by what all are like: another part is another time
            latest -= int(hashlib.sha256(repr(states).encode()).hexdigest(), 16) % _SECOND_NS
        return f"mixture {digest.hexdigest()}", latest

    @property
    def far(self) -> bool:
        """Whether some part lies across a network."""
        return any(not isinstance(p.audio, Path | bytes) and p.audio.far for p in self.parts)

    def read(self) -> bytes:
        """Read its parts, and mix them.

        Each is scaled to the same RMS and then by its gain; where the sum would exceed full scale,
        all of it is made softer.

        Raises:
            AudioError: a part that cannot be heard.
        """
        import soundfile

        total = np.zeros(self._samples, np.float32)
        for part in self.parts:
            span = (part.first_ms / 1000, part.length_ms / 1000)
            wave = hear(part.audio, RATE, name=part.utterance, span=span).waveform.numpy()
            first = part.start_ms * RATE // 1000
            wave = wave[: part.length_ms * RATE // 1000].astype(np.float32)
            level = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))
            if level < SILENT_RMS / 100:
                raise AudioError(
                    f"{part.utterance} is silent for {span[1]:g} s from {span[0]:g} s on, where "
                    "speech was found; load the corpus again",
                    reason="empty",
                )
            wave = wave * np.float32(_LEVEL / level * 10 ** (part.gain_db / 20))
            fade = np.linspace(0, 1, min(_FADE, len(wave) // 2), dtype=np.float32)
            wave[: len(fade)] *= fade
            wave[len(wave) - len(fade) :] *= fade[::-1]
            total[first : first + len(wave)] += wave
        peak = float(np.abs(total).max())
        total *= min(1.0, _PEAK / peak)
        buffer = io.BytesIO()
        soundfile.write(buffer, total, RATE, format="WAV", subtype="PCM_16")
        return buffer.getvalue()


def columns_read(card: DownstreamCard, there: Collection[str]) -> DownstreamCard:
    """A card that needs speakers in place of segments, where mixtures are to be made.

    Args:
        card: the task; without segments among its needs it stays as it is.
        there: the columns that utterances have.
    """
    if COLUMN not in card.needs or COLUMN in there or "speaker" not in there:
        return card
    return replace(card, needs=tuple("speaker" if n == COLUMN else n for n in card.needs))


def voiced(utterance: Utterance, longest_s: float) -> tuple[int, int] | None:
    """Where an utterance's speech is: first millisecond in its recording, and milliseconds.

    Args:
        utterance: as a corpus has it; no more is read than can be wanted after `LEAD_S`.
        longest_s: how much is wanted at most, from the beginning of speech on.

    Returns:
        None where there is less than `LEAST_MS`.

    Raises:
        AudioError: its audio cannot be used.
    """
    start_s = utterance.span[0] if utterance.span else 0.0
    seconds = min(duration_s(utterance), LEAD_S + longest_s)  # 0 if the header cannot be read
    span = (start_s, seconds) if seconds else None
    waveform = hear(utterance.audio, RATE, name=utterance.id, span=span).waveform.numpy()
    block = RATE // 100
    whole = (len(waveform) - RATE // 1000) // block  # not the last millisecond: rates differ
    blocks = waveform[: max(0, whole) * block].reshape(-1, block)
    power = np.square(blocks, dtype=np.float64).mean(1)
    if not len(power) or power.max() < SILENT_RMS**2:
        return None
    level = 10 * np.log10(np.maximum(power, 1e-12))
    background, peak = np.percentile(level, 5), level.max()
    loud = np.flatnonzero(level >= max(peak - RANGE_DB, background + RISE * (peak - background)))
    loud = loud[loud < loud[0] + round(longest_s * 100)]
    length_ms = 10 * int(loud[-1] + 1 - loud[0])
    if length_ms < LEAST_MS:
        return None
    return round(start_s * 1000) + 10 * int(loud[0]), length_ms


def mixed(
    where: str,
    utterances: Sequence[Utterance],
    name: str,
    recipe: Recipe = Recipe(),
    known: Mapping[str, tuple[int, int]] | None = None,
) -> tuple[list[Utterance], str]:
    """Mixtures of the speakers of each split.

    Who has been heard least comes next, so that all utterances of a split are heard about equally
    often.

    Args:
        where: what messages name.
        utterances: of all splits, each with its speaker; no speaker may be in two splits.
        name: of the corpus, which seeds the generator.
        recipe: what is drawn.
        known: utterance id → what `voiced` gives, where that is known already.

    Returns:
        The mixtures, with the columns ``segments`` and ``parts`` (utterances, where each begins,
        and their levels in dB), and a note on how they were made.

    Raises:
        LacksError: an utterance without a speaker, a speaker in two splits or with a ``;`` in the
            name, fewer than two speakers in a split, audio that stays on a hub.
        AudioError: audio that cannot be used.
    """
    split_of: dict[str, str] = {}
    for utterance in utterances:
        _require_usable(where, utterance, split_of)
    found: list[Utterance] = []
    counts = []
    silent: set[str] = set()
    for split in SPLITS:
        own = [utterance for utterance in utterances if utterance.split == split]
        dealer = _Dealer(where, split, own, recipe, known or {})
        count = min(recipe.mixtures[split], len(own))
        found += [dealer.mixture(f"{name} {split} {number}", number) for number in range(count)]
        silent |= dealer.silent
        counts.append(f"{split} {count}")
    note = f"mixtures made of single speakers ({', '.join(counts)}): {recipe}"
    left = f"; {len(silent)} utterances without speech left out" if silent else ""
    return found, note + left


def _require_usable(where: str, utterance: Utterance, split_of: dict[str, str]) -> None:
    speaker, audio = utterance.speaker, utterance.audio
    if not speaker or ";" in speaker:
        raise LacksError(
            f"{where}: utterance {utterance.id!r} has the speaker {speaker!r}; mixtures are made "
            "of speakers whose names are not empty and have no ';'"
        )
    if split_of.setdefault(speaker, utterance.split) != utterance.split:
        raise LacksError(
            f"{where}: speaker {speaker!r} is in {split_of[speaker]} and in {utterance.split}; "
            "mixtures are tried on new speakers. Give each split, valid too, two speakers or more "
            f"of its own, or give mixtures of your own with a column {COLUMN!r}"
        )
    if not isinstance(audio, Path | bytes) and audio.far:
        raise LacksError(
            f"{where}: mixtures read their parts in any order, and streamed audio comes in that of "
            "the dataset. Download it (hf: instead of hf-stream:)"
        )


class _Dealer:
    """Deals the utterances of one split out to mixtures."""

    def __init__(
        self,
        where: str,
        split: str,
        utterances: Iterable[Utterance],
        recipe: Recipe,
        known: Mapping[str, tuple[int, int]],
    ) -> None:
        self.where, self.split, self.recipe = where, split, recipe
        self.known: dict[str, tuple[int, int]] = dict(known)
        self.of_speaker: dict[str, list[Utterance]] = defaultdict(list)
        for utterance in utterances:
            self.of_speaker[utterance.speaker].append(utterance)
        self.dealt: dict[str, int] = dict.fromkeys(self.of_speaker, 0)
        self.silent: set[str] = set()

    def mixture(self, seed: str, number: int) -> Utterance:
        """The next mixture."""
        chance, recipe = random.Random(seed), self.recipe
        speakers: dict[str, list[Utterance]] = {}
        for speaker in self._least_heard(chance):
            wanted = chance.randint(*recipe.utterances)
            if own := self._deal(speaker, wanted):
                speakers[speaker] = own
            if len(speakers) == 2:
                break
        else:
            raise LacksError(
                f"{self.where}: split {self.split} has speech of {len(speakers)} speakers, and a "
                "mixture needs two; give it utterances of more"
            )
        gains = dict(zip(speakers, (0.0, round(chance.uniform(*recipe.level_db), 1)), strict=True))
        turns = [utterance for own in speakers.values() for utterance in own]
        chance.shuffle(turns)
        parts: list[Part] = []
        end = 0
        free = dict.fromkeys(speakers, 0)  # when each may speak again
        pause = _milliseconds(chance.uniform(*recipe.pause_s))
        for turn in turns:
            first, length = self.known[turn.id]
            start = end + pause
            if parts and parts[-1].speaker != turn.speaker and chance.random() < recipe.overlap:
                share = chance.uniform(*recipe.overlap_share)
                shared = round(share * min(length, parts[-1].length_ms))
                start = max(parts[-1].end_ms - shared, free[turn.speaker])
            who, gain = turn.speaker, gains[turn.speaker]
            part = Part(turn.id, who, turn.audio, first, length, start, gain)
            parts.append(part)
            pause = _milliseconds(chance.uniform(*recipe.pause_s))
            free[turn.speaker] = part.end_ms + pause
            end = max(end, part.end_ms)
        mixture = Mixture(
            tuple(sorted(parts, key=lambda part: (part.start_ms, part.speaker))),
            end + pause,
            _milliseconds(recipe.pause_s[1]),
        )
        return Utterance(
            id=f"{self.split}-{number:05d}",
            audio=mixture,
            split=self.split,
            speaker="+".join(sorted(speakers)),
            columns={
                COLUMN: diarization.written(mixture.segments),
                "parts": "; ".join(
                    f"{part.utterance} {part.first_ms / 1000:.3f} {part.gain_db:+.1f}"
                    for part in mixture.parts
                ),
            },
        )

    def _least_heard(self, chance: random.Random) -> list[str]:
        """Speakers by how often each of their utterances was heard; of equals, by chance."""
        order = sorted(self.of_speaker)
        chance.shuffle(order)
        return sorted(order, key=lambda who: self.dealt[who] / len(self.of_speaker[who]))

    def _deal(self, speaker: str, wanted: int) -> list[Utterance]:
        """The next utterances of a speaker, no one twice; fewer or none where there are no more."""
        own = self.of_speaker[speaker]
        chosen: list[Utterance] = []
        for _ in range(len(own)):
            if len(chosen) == wanted:
                break
            utterance = own[self.dealt[speaker] % len(own)]
            self.dealt[speaker] += 1
            if utterance.id not in self.known and utterance.id not in self.silent:
                if found := voiced(utterance, self.recipe.part_s):
                    self.known[utterance.id] = found
                else:
                    self.silent.add(utterance.id)
            if utterance.id in self.known:
                chosen.append(utterance)
        return chosen


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
