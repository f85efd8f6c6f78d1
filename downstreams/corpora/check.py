"""Is a corpus on disk whole and sound? Names and figures first, then every file is decoded."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
from numpy.typing import NDArray

from benchmark.core import Corpus, StoredAudio, Utterance
from benchmark.encoding.audio import MOST_PEAK, audio_sha256, audio_size, hear, opened
from benchmark.errors import AudioError, SuperbError
from benchmark.progress import Progress
from downstreams.corpora.layout import Official, Survey
from downstreams.corpora.words import transcript

# Full scale is 1. Loud but sound speech touches it with a few samples at most.
CLIPPED_LEVEL: Final = 0.999
CLIPPED_SHARE: Final = 0.001
# Official hours are published with one decimal, and rounded in different ways.
HOURS_TOLERANCE: Final = 0.02

# Files that are under way at a time; bounds the memory and the wait after Ctrl-C.
_CHUNK: Final = 64
_AUDIO_FAULTS: Final = {
    "missing file": "missing",
    "unreadable": "undecodable",
    "truncated": "truncated",
    "empty": "empty",
    "not finite": "not finite",
    "out of range": "out of range",
    "no such channel": "no such channel",
}


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        error: whether a score would be wrong or a run would fail; else it is a warning.
        means: what it is, in words.
    """

    error: bool
    means: str


KINDS: Final[Mapping[str, Kind]] = {
    "missing": Kind(True, "named by a list or transcript, but there is no such file"),
    "empty": Kind(True, "no bytes or no samples"),
    "truncated": Kind(True, "the header promises more audio than there is"),
    "undecodable": Kind(True, "damaged, cut short, or no audio"),
    "not finite": Kind(True, "NaN or infinite samples"),
    "out of range": Kind(True, f"samples beyond {MOST_PEAK:g}, where full scale is 1"),
    "no such channel": Kind(True, "fewer channels than --channel asks for"),
    "no transcript": Kind(True, "an empty transcript, where others have one"),
    "duplicate": Kind(True, "the same audio in two splits"),
    "shared speaker": Kind(True, "speakers in two splits that may have none in common"),
    "extra": Kind(False, "audio that no list or transcript names; it is not used"),
    "wrong rate": Kind(False, "resampled whenever it is used"),
    "clipped": Kind(False, f"{CLIPPED_SHARE:.1%} of samples or more at full scale"),
    "silent": Kind(False, "nothing louder than 70 dB below full scale (RMS), or a constant"),
    "cancelled": Kind(False, "channels that cancel out in their mean; choose with --channel"),
    "partial": Kind(False, "less than the corpus officially holds"),
    "not official": Kind(False, "other figures than the official ones"),
}


@dataclass(frozen=True)
class Item:
    """One file, utterance, speaker or figure that is not as it should be.

    Attributes:
        name: a path relative to the root, an utterance's id, a speaker, or a sentence.
        detail: what exactly, or "".
    """

    name: str
    detail: str = ""


@dataclass(frozen=True)
class Finding:
    """All that is wrong in one way in one split.

    Attributes:
        kind: a key of `KINDS`.
        split: the corpus's own name of the split; two joined by " + " where it takes two.
        items: every one, in corpus order.
    """

    kind: str
    split: str
    items: tuple[Item, ...]

    @property
    def error(self) -> bool:
        """Whether a score would be wrong or a run would fail."""
        return KINDS[self.kind].error


@dataclass(frozen=True)
class Figures:
    """What one split holds.

    Attributes:
        utterances: recordings that are there.
        speakers: people whose name is known.
        hours: of audio that can be read; in a quick check, of audio whose header can be read.
        official: what it should hold, or None where nobody says.
    """

    utterances: int
    speakers: int
    hours: float
    official: Official | None


@dataclass(frozen=True)
class Audit:
    """The outcome of a check.

    Attributes:
        splits: the corpus's own name of a split → what is there, for splits that are there.
        findings: errors first, then warnings; each kind split by split.
        notes: what else a reader must know.
    """

    splits: Mapping[str, Figures]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def errors(self) -> int:
        """Items of findings that are errors."""
        return sum(len(finding.items) for finding in self.findings if finding.error)

    @property
    def warnings(self) -> int:
        """Items of findings that are warnings."""
        return sum(len(finding.items) for finding in self.findings if not finding.error)


def survey_corpus(corpus: Corpus, *, speakers_recur: bool) -> Survey:
    """What a corpus of one's own holds, which has a loader but no official layout.

    Args:
        corpus: as loaded.
        speakers_recur: whether test is meant to have the speakers of train, as for SID.
    """
    notes = [corpus.note] if corpus.note else []
    if not speakers_recur:
        notes += _speakers_in_common(corpus)
    return Survey(utterances=corpus.utterances, notes=tuple(notes))


def _speakers_in_common(corpus: Corpus) -> list[str]:
    """A note on speakers of test that train has too: for own data, only its owner can judge."""
    train, test = (
        {utterance.speaker for utterance in corpus.split(split)} - {""}
        for split in ("train", "test")
    )
    if not train & test:
        return []
    return [
        f"{len(train & test)} of {len(test)} speakers in test are in train too: as it must be for "
        "speaker identification, but scores of other tasks say little about new speakers"
    ]


def audit(
    survey: Survey,
    official: Mapping[str, Official],
    root: Path,
    *,
    quick: bool = False,
    progress: Progress | None = None,
    channel: int | None = None,
) -> Audit:
    """Check all that a survey found.

    Args:
        survey: what is there, by names.
        official: the corpus's own name of a split → what it should hold.
        root: folder that findings name files relative to.
        quick: read headers only: nothing is decoded, and contents are not compared.
        progress: where to report.
        channel: the one that is heard, counted from 0; the mean of all if None.

    Raises:
        SuperbError: the survey found nothing at all, or a quick check would fetch all audio.
    """
    if not survey.utterances and not survey.missing:
        raise SuperbError(f"no audio in {root}; give the folder that holds the corpus")
    if quick and any(_far(utterance.audio) for utterance in survey.utterances):
        raise SuperbError(
            "--quick reads headers, but those of a streamed dataset come with all of its audio. "
            "Download it (hf: instead of hf-stream:), or leave --quick out"
        )
    order = list(dict.fromkeys([*official, *(u.split for u in survey.utterances)]))
    found: dict[tuple[str, str], list[Item]] = defaultdict(list)
    for path, split in survey.missing.items():
        found["missing", split].append(Item(str(path)))
    for path, split in survey.extra.items():
        found["extra", split].append(Item(str(path)))
    _check_names(survey, found)
    heard = partial(_listen, rate=survey.rate, quick=quick, channel=channel)
    seconds = _check_audio(survey, root, heard, progress or Progress(quiet=True), found)
    figures = {
        split: _figures(split, survey.utterances, seconds, official.get(split)) for split in order
    }
    for split, of_split in figures.items():
        if of_split.utterances and (item := _against_official(of_split)):
            kind, sentence = item
            found[kind, split].append(Item(sentence))
    notes = list(survey.notes)
    if absent := [split for split, of_split in figures.items() if not of_split.utterances]:
        notes.append(f"not there: {', '.join(absent)}")
    if quick:
        notes.append("quick: headers only; nothing was decoded, contents were not compared")
    kinds = sorted(KINDS, key=lambda kind: not KINDS[kind].error)
    ranked = sorted(found.items(), key=lambda entry: kinds.index(entry[0][0]))
    return Audit(
        splits={split: figures[split] for split in order if figures[split].utterances},
        findings=tuple(Finding(kind, split, tuple(items)) for (kind, split), items in ranked),
        notes=tuple(notes),
    )


def _far(audio: Path | bytes | StoredAudio) -> bool:
    return not isinstance(audio, Path | bytes) and audio.far


# Names and figures -----------------------------------------------------------------------------


def _check_names(survey: Survey, found: dict[tuple[str, str], list[Item]]) -> None:
    """Empty transcripts, and speakers in two splits that may have none in common."""
    if any(utterance.text for utterance in survey.utterances):
        for utterance in survey.utterances:
            if not transcript(utterance.text):
                found["no transcript", utterance.split].append(Item(utterance.id))
    speakers: dict[str, dict[str, None]] = defaultdict(dict)  # a set that keeps its order
    for utterance in survey.utterances:
        if utterance.speaker:
            speakers[utterance.split][utterance.speaker] = None
    for first, second in survey.disjoint:
        shared = [speaker for speaker in speakers[first] if speaker in speakers[second]]
        if shared:
            found["shared speaker", f"{first} + {second}"] += map(Item, shared)


def _figures(
    split: str,
    utterances: Sequence[Utterance],
    seconds: Mapping[str, float],
    official: Official | None,
) -> Figures:
    own = [utterance for utterance in utterances if utterance.split == split]
    return Figures(
        utterances=len(own),
        speakers=len({utterance.speaker for utterance in own} - {""}),
        hours=seconds.get(split, 0.0) / 3600,
        official=official,
    )


def _against_official(figures: Figures) -> tuple[str, str] | None:
    """Kind and wording of a difference from the official figures; None if there is none."""
    official = figures.official
    if official is None:
        return None
    counts = [(figures.utterances, official.utterances, "utterances")]
    if official.speakers is not None:
        counts.append((figures.speakers, official.speakers, "speakers"))
    wording = ", ".join(f"{here} of {there} {noun}" for here, there, noun in counts)
    if any(here < there for here, there, _ in counts):
        return "partial", wording
    if any(here > there for here, there, _ in counts):
        return "not official", wording
    if official.hours is not None and not _same_hours(figures.hours, official.hours):
        return "not official", f"{figures.hours:.2f} of {official.hours:g} hours, in {wording}"
    return None


def _same_hours(here: float, official: float) -> bool:
    return abs(here - official) <= max(0.1, HOURS_TOLERANCE * official)


# Audio -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Heard:
    """What one file holds: length, identity of its bytes ("" if quick), and (kind, detail)."""

    seconds: float
    sha256: str
    faults: tuple[tuple[str, str], ...]


def _check_audio(
    survey: Survey,
    root: Path,
    listen: Callable[[Path | bytes | StoredAudio], _Heard],
    progress: Progress,
    found: dict[tuple[str, str], list[Item]],
) -> dict[str, float]:
    """Open every file once, however many utterances it holds; seconds of audio per split."""
    of_file: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in survey.utterances:
        of_file[_name(utterance.audio, utterance.id, root)].append(utterance)
    audio = {name: utterances[0].audio for name, utterances in of_file.items()}
    audio |= {_name(path, "", root): path for path in survey.sources}
    files = list(audio)
    seconds: dict[str, float] = defaultdict(float)
    # Where an audio was met first; spans of one recording are different audio.
    known: dict[tuple[str, tuple[float, float] | None], tuple[str, str]] = {}
    with (
        progress.bar("checking audio", len(files)) as bar,
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
    ):
        for start in range(0, len(files), _CHUNK):
            chunk = files[start : start + _CHUNK]
            heard_of = pool.map(lambda name: listen(audio[name]), chunk)
            for name, heard in zip(chunk, heard_of, strict=True):
                bar.advance()
                own = of_file.get(name, [])
                for kind, detail in heard.faults:
                    found[kind, own[0].split if own else ""].append(Item(name, detail))
                for utterance in own:
                    seconds[utterance.split] += (
                        utterance.span[1] if utterance.span else heard.seconds
                    )
                    if heard.sha256:
                        split, other = known.setdefault(
                            (heard.sha256, utterance.span), (utterance.split, name)
                        )
                        if split != utterance.split:
                            found["duplicate", f"{split} + {utterance.split}"].append(
                                Item(name, f"= {other}")
                            )
    return seconds


def _name(audio: Path | bytes | StoredAudio, utterance: str, root: Path) -> str:
    """How findings call an utterance's file."""
    if not isinstance(audio, Path):
        return utterance
    return str(audio.relative_to(root) if audio.is_relative_to(root) else audio)


def _listen(
    audio: Path | bytes | StoredAudio, rate: int, quick: bool, channel: int | None
) -> _Heard:
    """Read one file; no fault of a file raises."""
    try:
        if audio_size(audio) == 0:
            return _fault("empty", "0 bytes")
        if not isinstance(audio, Path | bytes):
            audio = audio.read()
        with opened(audio) as file:
            samples, own_rate = int(file.frames), int(file.samplerate)
        faults = [] if own_rate == rate else [("wrong rate", f"{own_rate} Hz, not {rate} Hz")]
        if quick:
            faults += [("empty", "0 samples")] * (samples == 0)
            return _Heard(samples / own_rate, "", tuple(faults))
        # The engine's decoder at the file's own rate: what it refuses, it would refuse in a run.
        sound = hear(audio, own_rate, name="", channel=channel)
        waveform = sound.waveform.numpy()
        if sound.oddity:
            kind, _, detail = sound.oddity.partition(", ")
            faults.append((kind, detail))
        else:
            faults += _clipped(waveform)
        return _Heard(waveform.size / own_rate, audio_sha256(audio), tuple(faults))
    except AudioError as error:
        kind = _AUDIO_FAULTS[error.reason]
        return _fault(kind, "a sound header, then damage or a cut" if kind == "undecodable" else "")
    except (soundfile.SoundFileError, OSError) as error:
        return _fault("undecodable", str(error).rpartition(": ")[2].rstrip("."))


def _fault(kind: str, detail: str = "") -> _Heard:
    return _Heard(0.0, "", ((kind, detail),))


def _clipped(waveform: NDArray[np.float32]) -> list[tuple[str, str]]:
    """Whether a waveform ``[sample]``, as encoders hear it, is cut at full scale."""
    clipped = float(np.mean(np.abs(waveform) >= CLIPPED_LEVEL))
    return [("clipped", f"{clipped:.1%} of samples")] if clipped >= CLIPPED_SHARE else []
