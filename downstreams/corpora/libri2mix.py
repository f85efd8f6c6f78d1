"""Libri2Mix (Cosentino et al. 2020) for diarization: mixtures of two readers of LibriSpeech.

``train``, ``dev`` and ``test`` are folders of Kaldi's files, as SUPERB's script writes them beside
the mixtures it has made (16 kHz, as long as the longer of the two) ::

    wav.scp     MIXTURE PATH.wav
    segments    SEGMENT MIXTURE 0.38 4.12
    utt2spk     SEGMENT SPEAKER
    reco2dur    MIXTURE 14.53                (need not be there)

A path that does not exist, as the mixtures have been moved, is looked for under the data root.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final

from benchmark.core import Corpus, Utterance
from benchmark.errors import SuperbError
from downstreams import diarization
from downstreams.corpora import CorpusOptions
from downstreams.corpora.layout import (
    Layout,
    Official,
    Survey,
    not_found,
    official_root,
    partial,
    require_splits,
)
from downstreams.corpora.utterances import built
from downstreams.diarization import COLUMN, Segment

NAME: Final = "libri2mix"
OURS: Final[Mapping[str, str]] = {"train": "train", "dev": "valid", "test": "test"}
OFFICIAL: Final[Mapping[str, Official]] = {
    "train": Official(13_900),
    "dev": Official(3_000),
    "test": Official(3_000),
}
LISTS: Final = ("wav.scp", "segments", "utt2spk")
SOURCE: Final = "https://github.com/s3prl/LibriMix"
OBTAIN: Final = (
    "Libri2Mix is made of LibriSpeech and the noise of WHAM: in a clone of "
    f"{SOURCE}, bash generate_librimix_sd.sh STORAGE, then python3 scripts/prepare_diarization.py "
    "--target_dir FOLDER --source_dir STORAGE/Libri2Mix/wav16k/max/metadata, and give that FOLDER."
)
# Of the paths in wav.scp, what stays where the mixtures are moved begins with one of these.
_TOPS: Final = ("Libri2Mix", "wav16k")
# By how much segments may end after the recording: times are rounded.
_SLACK_S: Final = 0.1


def load(task: str, options: CorpusOptions) -> Corpus:
    """Load all three splits, as far as their mixtures are there.

    Args:
        task: ``sd``.
        options: the folder that holds the splits; they are fixed.

    Raises:
        SuperbError: another task, options that mean nothing here, a split without mixtures, and a
            list that cannot be understood.
    """
    root = official_root(NAME, task, "sd", options, "its splits are three folders", OBTAIN)
    found = survey(root)
    require_splits(NAME, root, found, OFFICIAL, OBTAIN)
    notes = [partial(found.utterances, OFFICIAL)]
    if found.missing:
        notes.append(f"{len(found.missing)} listed mixtures that are not there left out")
    return built(
        NAME,
        root,
        [replace(utterance, split=OURS[utterance.split]) for utterance in found.utterances],
        notes,
        licence="CC BY 4.0; its noise CC BY-NC 4.0",
        source=SOURCE,
    )


def survey(root: Path) -> Survey:
    """All splits that are there, by their lists, each under its own name.

    Raises:
        SuperbError: there is none, or a list cannot be understood.
    """
    utterances: list[Utterance] = []
    missing: dict[Path, str] = {}
    speakers: dict[str, str] = {}
    folders = [root / split for split in OURS if (root / split / LISTS[0]).is_file()]
    if not folders:
        raise not_found("Libri2Mix", root, "train/, dev/ and test/ with wav.scp", OBTAIN)
    for folder in folders:
        segments = _segments(folder)
        seconds = dict(_pairs(folder, "reco2dur")) if (folder / "reco2dur").is_file() else {}
        for mixture, written in _pairs(folder, "wav.scp"):
            own = segments.get(mixture)
            if not own:
                raise SuperbError(f"{folder / 'segments'} has nothing of {mixture}. {OBTAIN}")
            _require_within(folder, mixture, own, seconds.get(mixture))
            names = diarization.speakers(own)
            for name in names:
                if speakers.setdefault(name, folder.name) != folder.name:
                    raise SuperbError(
                        f"{folder}: speaker {name} is in {speakers[name]} too, and no speaker is "
                        f"in two splits of Libri2Mix. {OBTAIN}"
                    )
            path = _located(root, written)
            if path is None:
                missing[Path(written)] = folder.name
                continue
            columns = {COLUMN: diarization.written(own)}
            utterances.append(
                Utterance(mixture, path, folder.name, "+".join(names), columns=columns)
            )
    return Survey(tuple(utterances), missing)


LAYOUT: Final = Layout(survey, OFFICIAL, (), OBTAIN)


def _segments(folder: Path) -> dict[str, list[Segment]]:
    """Mixture → who speaks when in it."""
    speaker_of = dict(_pairs(folder, "utt2spk"))
    found: dict[str, list[Segment]] = defaultdict(list)
    for name, rest in _pairs(folder, "segments"):
        cells = rest.split()
        try:
            mixture, start, end = cells[0], float(cells[1]), float(cells[2])
            who = speaker_of[name]
        except (IndexError, ValueError, KeyError):
            raise SuperbError(
                f"{folder / 'segments'}: {name} {rest[:60]!r} is not SEGMENT MIXTURE START END of "
                f"a segment whose speaker stands in utt2spk. {OBTAIN}"
            ) from None
        found[mixture].append(Segment(who, start, end))
    return found


def _require_within(
    folder: Path, mixture: str, segments: list[Segment], seconds: str | None
) -> None:
    """Raise for a mixture that its segments leave."""
    last = max(segment.end_s for segment in segments)
    try:
        beyond = seconds is not None and last > float(seconds) + _SLACK_S
    except ValueError:
        beyond = True
    if beyond:
        raise SuperbError(
            f"{folder}: the segments of {mixture} end at {last:g} s, and reco2dur says "
            f"{seconds} s. {OBTAIN}"
        )


def _pairs(folder: Path, file: str) -> Iterator[tuple[str, str]]:
    """The first word of each line, and the rest.

    Raises:
        SuperbError: the file cannot be read, or has a line of one word, or a word twice.
    """
    path = folder / file
    seen = set()
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SuperbError(f"cannot read {path}: {error}. {OBTAIN}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, _, rest = line.strip().replace("\t", " ").partition(" ")
        if not rest or name in seen:
            raise SuperbError(
                f"{path}, line {number}: {'no more than' if not rest else 'again'} {name!r}. "
                f"{OBTAIN}"
            )
        seen.add(name)
        yield name, rest.strip()


def _located(root: Path, written: str) -> Path | None:
    """Where a mixture is: as written, or under the data root; None where it is not there."""
    parts = PurePosixPath(written).parts
    moved = [root.joinpath(*parts[parts.index(top) :]) for top in _TOPS if top in parts]
    return next((path for path in (root / written, *moved) if path.is_file()), None)
