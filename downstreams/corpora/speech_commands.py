"""Speech Commands (Warden 2018): single words of one second, for keyword spotting.

``speech-commands-v1`` is the task of SUPERB on v0.01, with 12 classes: ten keywords, ``_unknown_``
for every other word, and ``_silence_``.

- train and valid come from ``speech_commands_v0.01``, by the hash of the speaker: see `part`. What
  the rule calls testing, 10 to 20 %, is left out.
- test is ``speech_commands_test_set_v0.01``, one folder per class, silence included.
- silence of train and valid is cut from the long recordings in ``_background_noise_``: see
  `silence`.

``speech-commands-v2`` is v0.02 with its 35 words and its own lists for valid and test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Final

from benchmark.core import SPLITS, Corpus, Utterance
from benchmark.encoding.folders import visible
from benchmark.errors import AudioError, SuperbError
from downstreams.corpora import CorpusOptions
from downstreams.corpora.layout import (
    Archive,
    Layout,
    Official,
    Survey,
    not_found,
    official_root,
    partial,
    require_splits,
)
from downstreams.corpora.utterances import built

KEYWORDS: Final = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
UNKNOWN: Final = "_unknown_"
SILENCE: Final = "_silence_"
NOISE: Final = "_background_noise_"
NOISES: Final = (
    *("doing_the_dishes.wav", "dude_miaowing.wav", "exercise_bike.wav", "pink_noise.wav"),
    *("running_tap.wav", "white_noise.wav"),
)
FOLDER_V1: Final = "speech_commands_v0.01"
TEST_FOLDER_V1: Final = "speech_commands_test_set_v0.01"
FOLDER_V2: Final = "speech_commands_v0.02"
# v0.02: file with the names of a split's recordings → that split; the rest is train.
LISTS_V2: Final[Mapping[str, str]] = {"validation_list.txt": "valid", "testing_list.txt": "test"}

# Length of a piece of silence in milliseconds, as long as the words.
SILENCE_MS: Final = 1000

# A constant of the rule that came with the corpus; it keeps a speaker in one part for ever.
_HASHES: Final = 2**27 - 1
_DISJOINT: Final = tuple(combinations(SPLITS, 2))

# As the lists and the test archive have it. Train and valid of v0.01 without silence, which is cut
# from six longer recordings and no file.
OFFICIAL_V1: Final[Mapping[str, Official]] = {
    "train": Official(51_088),
    "valid": Official(6_798),
    "test": Official(3_081),
}
OFFICIAL_V2: Final[Mapping[str, Official]] = {
    "train": Official(84_843),
    "valid": Official(9_981),
    "test": Official(11_005),
}
_URL: Final = "http://download.tensorflow.org/data"
# Hashes as torchaudio records them, the size as TensorFlow Datasets does. Neither knows more.
ARCHIVES_V1: Final = (
    Archive(
        f"{_URL}/{FOLDER_V1}.tar.gz",
        "743935421bb51cccdb6bdd152e04c5c70274e935c82119ad7faeec31780d811d",
        None,
        FOLDER_V1,
        ("train", "valid"),
    ),
    Archive(f"{_URL}/{TEST_FOLDER_V1}.tar.gz", None, None, TEST_FOLDER_V1, ("test",)),
)
ARCHIVES_V2: Final = (
    Archive(
        f"{_URL}/{FOLDER_V2}.tar.gz",
        "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
        2_428_923_189,
        FOLDER_V2,
        SPLITS,
    ),
)
OBTAIN_V1: Final = (
    "Speech Commands is free (CC BY 4.0): superb data download speech-commands-v1 --data-root "
    f"FOLDER brings it, or unpack {ARCHIVES_V1[0].url} and {ARCHIVES_V1[1].url} each in a folder "
    f"of its name, {FOLDER_V1} and {TEST_FOLDER_V1}."
)
OBTAIN_V2: Final = (
    "Speech Commands is free (CC BY 4.0): superb data download speech-commands-v2 --data-root "
    f"FOLDER brings it, or unpack {ARCHIVES_V2[0].url} in a folder {FOLDER_V2}."
)


def load_v1(task: str, options: CorpusOptions) -> Corpus:
    """Load v0.01 with the 12 classes of SUPERB.

    Args:
        task: ``ks``.
        options: the folder that holds both unpacked archives; its splits are fixed.

    Raises:
        SuperbError: another task, options that mean nothing here, no such folders in the root, no
            background noise or none that is long enough, a split that is empty, and a class that
            train does not have.
    """
    root = official_root(
        "speech-commands-v1", task, "ks", options, "its splits are fixed", OBTAIN_V1
    )
    found = survey_v1(root)
    require_splits("speech-commands-v1", root, found, SPLITS, OBTAIN_V1)
    utterances = list(found.utterances)
    folder = _folder(root, FOLDER_V1)
    noise = _noise(folder) if folder else ()
    if not noise:
        raise SuperbError(f"no {NOISE}/*.wav in {folder}, of which silence is made. {OBTAIN_V1}")
    lengths = {path: _length_ms(path) for path in noise}
    for split in ("train", "valid"):
        words = sum(u.split == split and u.label in KEYWORDS for u in found.utterances)
        utterances += silence(lengths, split, max(1, round(words / len(KEYWORDS))))
    notes = [partial(found.utterances, OFFICIAL_V1)]
    there = {path.name for path in noise} & set(NOISES)
    if len(there) < len(NOISES):
        notes.append(f"silence from {len(there)} of {len(NOISES)} background recordings")
    return _corpus("speech-commands-v1", root, utterances, *notes)


def load_v2(task: str, options: CorpusOptions) -> Corpus:
    """Load v0.02 with its 35 words.

    Args:
        task: ``ks``.
        options: the folder that holds the unpacked archive; its splits are fixed.

    Raises:
        SuperbError: another task, options that mean nothing here, no such folder or lists in the
            root, a split that is empty, and a word that train does not have.
    """
    root = official_root(
        "speech-commands-v2", task, "ks", options, "its splits are fixed", OBTAIN_V2
    )
    found = survey_v2(root)
    require_splits("speech-commands-v2", root, found, SPLITS, OBTAIN_V2)
    note = partial(found.utterances, OFFICIAL_V2)
    return _corpus("speech-commands-v2", root, found.utterances, note)


def survey_v1(root: Path) -> Survey:
    """The words of v0.01 and its test set, by names; without the silence that `load_v1` makes.

    Raises:
        SuperbError: neither folder is there.
    """
    folders = {name: _folder(root, name) for name in (FOLDER_V1, TEST_FOLDER_V1)}
    if not any(folders.values()):
        raise _absent(root, f"{FOLDER_V1}/ and {TEST_FOLDER_V1}/", OBTAIN_V1)
    utterances: list[Utterance] = []
    extra: dict[Path, str] = {}
    left_out = 0
    for path in _recordings(folders[FOLDER_V1]):
        split = part(path.name)
        if "_nohash_" not in path.name:
            extra[path.relative_to(root)] = ""
        elif split == "testing":
            left_out += 1
        else:
            word = path.parent.name
            utterances.append(_utterance(path, split, word if word in KEYWORDS else UNKNOWN))
    for path in _recordings(folders[TEST_FOLDER_V1]):
        label = path.parent.name
        if label in (*KEYWORDS, UNKNOWN, SILENCE):
            utterances.append(_utterance(path, "test", label))
        else:
            extra[path.relative_to(root)] = "test"
    notes = [f"no folder {name}" for name, folder in folders.items() if folder is None]
    if left_out:
        notes.append(
            f"{left_out} recordings of {FOLDER_V1} are in no split: its own test part, in whose "
            f"place {TEST_FOLDER_V1} stands"
        )
    missing: dict[Path, str] = {}
    sources: tuple[Path, ...] = ()
    if folder := folders[FOLDER_V1]:
        sources = _noise(folder)
        there = {path.name for path in sources}
        missing = {
            (folder / NOISE / name).relative_to(root): "train"
            for name in NOISES
            if name not in there
        }
    return Survey(
        tuple(utterances),
        missing=missing,
        extra=extra,
        sources=sources,
        disjoint=_DISJOINT,
        notes=tuple(notes),
    )


def survey_v2(root: Path) -> Survey:
    """The words of v0.02, by names.

    Raises:
        SuperbError: the folder or a list is not there.
    """
    folder = _folder(root, FOLDER_V2)
    if folder is None:
        raise _absent(root, f"{FOLDER_V2}/", OBTAIN_V2)
    splits: dict[str, str] = {}
    for name, split in LISTS_V2.items():
        if not (folder / name).is_file():
            raise not_found("list of Speech Commands v0.02", folder, name, OBTAIN_V2)
        lines = (folder / name).read_text(encoding="utf-8", errors="replace").split()
        splits |= dict.fromkeys(lines, split)
    utterances: list[Utterance] = []
    extra: dict[Path, str] = {}
    for path in _recordings(folder):
        name = path.relative_to(folder).as_posix()
        if "_nohash_" in path.name:
            utterances.append(_utterance(path, splits.pop(name, "train"), path.parent.name))
        else:
            extra[path.relative_to(root)] = ""
    return Survey(
        tuple(utterances),
        missing={(folder / name).relative_to(root): split for name, split in splits.items()},
        extra=extra,
        disjoint=_DISJOINT,
    )


V1: Final = Layout(survey_v1, OFFICIAL_V1, ARCHIVES_V1, OBTAIN_V1)
V2: Final = Layout(survey_v2, OFFICIAL_V2, ARCHIVES_V2, OBTAIN_V2)


def part(name: str) -> str:
    """The part that a recording belongs to by the name of its file: the rule of the corpus.

    Whatever stands before ``_nohash_`` (a hash of the speaker) is hashed with SHA-1 into a
    percentage. Below 10 it is valid, below 20 testing, else train. (Warden 2018, section 7; the
    lists of v0.02 were made by it.)

    Returns:
        ``train``, ``valid`` or ``testing``.
    """
    speaker = name.partition("_nohash_")[0]
    number = int(hashlib.sha1(speaker.encode(), usedforsecurity=False).hexdigest(), 16)
    percentage = (number % (_HASHES + 1)) * (100.0 / _HASHES)
    return "valid" if percentage < 10 else "testing" if percentage < 20 else "train"


def silence(lengths: Mapping[Path, int], split: str, count: int) -> list[Utterance]:
    """Pieces of background noise that stand for silence, the same ones in every run.

    The last tenth of each recording (no less than a piece) is for valid, what comes before for
    train, so that the two share no sample. Pieces are dealt to the recordings in turn, and within
    a recording they start at equal distances, from the first possible place to the last, in whole
    milliseconds; where there are more pieces than seconds they overlap.

    Args:
        lengths: recording → its length in milliseconds.
        split: ``train`` or ``valid``.
        count: how many pieces; `load_v1` wants as many as a keyword has on average.

    Returns:
        Utterances with a span of one second; their recording stands where a speaker would.

    Raises:
        SuperbError: a recording is too short to give both splits a piece.
    """
    pieces = []
    for index, (path, length) in enumerate(lengths.items()):
        border = min(length * 9 // 10, length - SILENCE_MS)
        if border < SILENCE_MS:
            raise SuperbError(
                f"{path} lasts {length / 1000:g} s; silence for train and valid takes "
                f"{2 * SILENCE_MS / 1000:g} s. Unpack the archive again"
            )
        start, end = (0, border) if split == "train" else (border, length)
        own = len(range(index, count, len(lengths)))
        for number in range(own):
            first = start + number * (end - SILENCE_MS - start) // max(own - 1, 1)
            pieces.append(
                Utterance(
                    id=f"{split}/{SILENCE}/{path.name}#{number}",
                    audio=path,
                    split=split,
                    speaker=f"{SILENCE}/{path.stem}",
                    label=SILENCE,
                    span=(first / 1000, SILENCE_MS / 1000),
                )
            )
    return pieces


def _folder(root: Path, name: str) -> Path | None:
    """An unpacked archive: in the root, or in SpeechCommands there as torchaudio unpacks it."""
    folders = (root / name, root / "SpeechCommands" / name)
    return next((folder for folder in folders if folder.is_dir()), None)


def _absent(root: Path, wanted: str, obtain: str) -> SuperbError:
    if root.name in (FOLDER_V1, TEST_FOLDER_V1, FOLDER_V2):
        return SuperbError(
            f"{root} is itself an archive; give the folder above: --data-root {root.parent}"
        )
    return not_found("Speech Commands", root, wanted, obtain)


def _noise(folder: Path) -> tuple[Path, ...]:
    """The long recordings that silence is cut from."""
    return tuple(visible(folder / NOISE, "*.wav"))


def _recordings(folder: Path | None) -> Iterator[Path]:
    """The recordings of all words, in order; background noise is no word."""
    if folder is None:
        return
    for word in visible(folder, "*/"):
        if word.name != NOISE:
            # The test set has names that end in .wav.wav.
            yield from visible(word, "*.wav")


def _utterance(path: Path, split: str, label: str) -> Utterance:
    # _unknown_ of the test set puts the word first: bed_0a7c2a8d_nohash_0.wav
    speaker, mark, _ = path.name.partition("_nohash_")
    return Utterance(
        id=f"{split}/{path.parent.name}/{path.name}",
        audio=path,
        split=split,
        # Silence has no speaker; where it was recorded is what intervals cluster by.
        speaker=speaker.rpartition("_")[2] if mark else f"{label}/{path.stem}",
        label=label,
    )


def _length_ms(path: Path) -> int:
    import soundfile

    try:
        info = soundfile.info(path)
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(f"cannot read {path}: {error}", reason="unreadable") from error
    return int(info.frames * 1000 // info.samplerate)


def _corpus(name: str, root: Path, utterances: Sequence[Utterance], *notes: str) -> Corpus:
    return built(name, root, utterances, notes, licence="CC BY 4.0", source=_URL)
