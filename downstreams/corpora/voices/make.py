"""Pack the corpus `voices` out of copies of the two public corpora that it is of."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmark.encoding.ahead import ahead, workers
from benchmark.encoding.audio import hear
from benchmark.encoding.folders import visible
from benchmark.errors import SuperbError, unknown
from benchmark.progress import Bar, Progress
from downstreams.corpora import librispeech, packed
from downstreams.corpora.layout import not_found
from downstreams.corpora.voices import (
    PEOPLE,
    SENTENCES_FILE,
    TAKES,
    WORDS,
    WORDS_FILE,
    listed,
)

FOLDERS: Final = ("", "dataset", "ArabicSpeechCommands", "ArabicSpeechCommands/dataset")
# In order of preference, should one recording be there twice.
SUFFIXES: Final = (".wav", ".flac")
# 00000001_NO_01: who speaks, and which time.
_NAME: Final = re.compile(r"(?P<who>[0-9]{8})_.*?(?P<take>[0-9]+)")
# Suffix of a file, and what makes one of samples.
CODECS: Final[Mapping[str, tuple[str, Callable[[Any], bytes]]]] = {
    "opus": (".ogg", packed.opus),
    "flac": (".flac", packed.flac),
}
OBTAIN_WORDS: Final = (
    "Arabic Speech Commands is free (CC BY 4.0): https://doi.org/10.5281/zenodo.4662481"
)
NOTICE_FILE: Final = "README.md"
NOTICE: Final = """\
# voices

Recordings of people, packed by `superb data voices` for keyword spotting, speaker identification
and verification, diarization and query by example. They are a selection, as mono at 16 kHz, coded
anew; otherwise unchanged.

- `words.parquet`: Arabic Speech Commands (A. Ghandoura, F. Hjabo, O. Al Dakkak: Building and
  Benchmarking an Arabic Speech Commands Dataset for Small-Footprint Keyword Spotting, Engineering
  Applications of Artificial Intelligence, 2021), CC BY 4.0, https://doi.org/10.5281/zenodo.4662481
- `sentences.parquet`: LibriSpeech (V. Panayotov, G. Chen, D. Povey, S. Khudanpur: LibriSpeech: an
  ASR corpus based on public domain audio books, ICASSP 2015), CC BY 4.0, https://www.openslr.org/12

Licence: https://creativecommons.org/licenses/by/4.0/
"""


@dataclass(frozen=True)
class _Recording:
    """One row before its audio is read."""

    name: str
    path: Path
    fields: Mapping[str, str]


def make(
    copies: Sequence[Path], words: Path, output: Path, codec: str, progress: Progress
) -> tuple[Path, ...]:
    """Write both files, and a notice that names their authors.

    Args:
        copies: folders of LibriSpeech which between them hold the sentences of `listed`.
        words: the folder of Arabic Speech Commands, or the one above.
        output: a folder without these files; it is made.
        codec: ``opus``, about 20 kbit/s, or ``flac``, without loss at 16 bits.
        progress: where to report.

    Returns:
        What was written.

    Raises:
        SuperbError: an unknown codec, a folder without a recording that is wanted, files that are
            there already, or a folder that cannot be written.
        AudioError: a recording that cannot be read.
    """
    if codec not in CODECS:
        raise unknown("codec", codec, CODECS)
    tables = {WORDS_FILE: _spoken_words(words), SENTENCES_FILE: _sentences(copies)}
    written = tuple(output / name for name in (*tables, NOTICE_FILE))
    if there := [str(path) for path in written if path.exists()]:
        raise SuperbError(
            f"{', '.join(there)} would be overwritten; give another folder with --output, or "
            "remove what is there"
        )
    try:
        _write(tables, output, codec, progress)
    except OSError as error:
        raise SuperbError(
            f"{output} cannot be written: {error.strerror or error}. Choose another folder with "
            "--output"
        ) from error
    return written


def _write(
    tables: Mapping[str, Sequence[_Recording]], output: Path, codec: str, progress: Progress
) -> None:
    """All of it or nothing: half a corpus would be refused for being there."""
    output.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=output) as unfinished:
        whole = Path(unfinished)
        with progress.bar("voices", sum(map(len, tables.values()))) as bar:
            for name, recordings in tables.items():
                packed.write(whole / name, list(_rows(recordings, codec, bar)))
        (whole / NOTICE_FILE).write_text(NOTICE, encoding="utf-8")
        for path in list(whole.iterdir()):
            path.replace(output / path.name)


def _rows(recordings: Sequence[_Recording], codec: str, bar: Bar) -> Iterator[dict[str, Any]]:
    """The rows of a file, in order.

    They are coded in threads, where no interrupt arrives: libsndfile writes through Python, and one
    that came in there would be lost, and a page of the file with it.
    """
    suffix, encode = CODECS[codec]

    def coded(recording: _Recording) -> tuple[bytes, int]:
        wave = hear(recording.path, packed.RATE, name=recording.name).waveform.numpy()
        return encode(wave), len(wave) * 1000 // packed.RATE

    count = os.cpu_count() or 1
    with workers(count) as pool:
        for recording, (data, milliseconds) in ahead(pool, coded, recordings, 2 * count):
            yield {
                "utterance": recording.name,
                "audio": packed.stored(f"{recording.name}{suffix}", data),
                **recording.fields,
                "milliseconds": str(milliseconds),
            }
            bar.advance()


def _spoken_words(root: Path) -> list[_Recording]:
    """The takes of every word by every contributor.

    The layout is that of the corpus: a folder for each word, whose files begin with eight digits,
    the number of the contributor, and end with that of the take.

    Raises:
        SuperbError: no such folder, or recordings that are not there.
    """
    base = next((own for name in FOLDERS if (own := root / name / WORDS[0]).is_dir()), None)
    if base is None:
        raise not_found("Arabic Speech Commands", root, f"a folder {WORDS[0]!r}", OBTAIN_WORDS)
    there: dict[tuple[str, str, str], Path] = {}
    for word in WORDS:
        for path in sorted(visible(base.parent / word), key=_preference):
            named = _NAME.fullmatch(path.stem)
            if named and path.suffix.lower() in SUFFIXES and path.is_file():
                there.setdefault((word, named["who"], str(int(named["take"]))), path)
    found: list[_Recording] = []
    missing: list[str] = []
    for word, who, take in product(WORDS, PEOPLE, TAKES):
        if recording := there.get((word, who, take)):
            fields = {"speaker": who, "word": word, "take": take}
            found.append(_Recording(f"{word}-{who}-{take}", recording, fields))
        else:
            missing.append(f"{word}/{who}_NO_{int(take):02d}.wav")
    if missing:
        raise SuperbError(f"{base.parent} lacks {_some(missing)}. {OBTAIN_WORDS}")
    return found


def _preference(path: Path) -> tuple[str, int]:
    suffix = path.suffix.lower()
    return path.stem, SUFFIXES.index(suffix) if suffix in SUFFIXES else len(SUFFIXES)


def _sentences(roots: Sequence[Path]) -> list[_Recording]:
    """The sentences of `listed`.

    Raises:
        SuperbError: recordings that are not there, or a transcript that cannot be read.
    """
    parts = dict.fromkeys(part for _, part, _ in listed())
    there = {
        (own.split, own.id): own
        for root in reversed(roots)
        for own in librispeech.survey(root, tuple(parts)).utterances
    }
    found: list[_Recording] = []
    missing: list[str] = []
    for split, part, name in listed():
        own = there.get((part, name))
        if own is None or not isinstance(own.audio, Path):
            missing.append(f"{part}/{name}")
        else:
            fields = {"speaker": own.speaker, "split": split, "text": own.text}
            found.append(_Recording(name, own.audio, fields))
    if missing:
        raise SuperbError(
            f"LibriSpeech in {', '.join(map(str, roots))} lacks {_some(missing)}. superb data "
            f"download librispeech --data-root FOLDER --split {','.join(parts)} brings all of it"
        )
    return found


def _some(missing: Sequence[str]) -> str:
    more = f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
    return f"{', '.join(missing[:3])}{more}"
