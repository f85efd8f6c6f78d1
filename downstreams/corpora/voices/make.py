"""Pack the corpus `voices` out of copies of the two public corpora that it is of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmark.encoding.audio import hear
from benchmark.encoding.folders import visible
from benchmark.errors import SuperbError, unknown
from benchmark.progress import Bar, Progress
from downstreams.corpora import librispeech, packed
from downstreams.corpora.layout import not_found
from downstreams.corpora.voices import SENTENCES_FILE, SENTENCES_OF, WORDS, WORDS_FILE

# Of each word, by the paper: thirty people, ten times each.
CONTRIBUTORS: Final = 30
TAKES: Final = 4
# Sentences of each speaker of a split, the first by name.
SENTENCES: Final[Mapping[str, int]] = {"train": 30, "valid": 10, "test": 10}
FOLDERS: Final = ("", "dataset", "ArabicSpeechCommands", "ArabicSpeechCommands/dataset")
SUFFIXES: Final = (".wav", ".flac")
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
and verification, diarization and query by example. Cut and coded anew, otherwise unchanged.

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
    """Write both files, and who is to be named for them.

    Args:
        copies: folders of LibriSpeech which between them hold the speakers of `SENTENCES_OF`.
        words: the folder of Arabic Speech Commands, or the one above.
        output: a folder without these files; it is made.
        codec: ``opus``, about 20 kbit/s, or ``flac``, without loss.
        progress: where to report.

    Returns:
        What was written.

    Raises:
        SuperbError: a codec that is none, a folder without what is wanted, or files that are there
            already.
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
    output.mkdir(parents=True, exist_ok=True)
    # All of it or nothing: half a corpus would be refused for being there.
    with TemporaryDirectory(dir=output) as unfinished:
        whole = Path(unfinished)
        with progress.bar("voices", sum(map(len, tables.values()))) as bar:
            for name, recordings in tables.items():
                packed.write(whole / name, list(_rows(recordings, codec, bar)))
        (whole / NOTICE_FILE).write_text(NOTICE, encoding="utf-8")
        for path in written:
            (whole / path.name).replace(path)
    return written


def _rows(recordings: Sequence[_Recording], codec: str, bar: Bar) -> Iterator[dict[str, Any]]:
    suffix, encode = CODECS[codec]
    for recording in recordings:
        wave = hear(recording.path, packed.RATE, name=recording.name).waveform.numpy()
        yield {
            "utterance": recording.name,
            "audio": packed.stored(f"{recording.name}{suffix}", encode(wave)),
            **recording.fields,
            "milliseconds": str(len(wave) * 1000 // packed.RATE),
        }
        bar.advance()


def _spoken_words(root: Path) -> list[_Recording]:
    """The first takes of every word by every contributor.

    The layout is that of the corpus: a folder for each word, whose files begin with eight digits,
    the number of the contributor, and end with that of the take.
    """
    base = next((own for name in FOLDERS if (own := root / name / WORDS[0]).is_dir()), None)
    if base is None:
        raise not_found("Arabic Speech Commands", root, f"a folder {WORDS[0]!r}", OBTAIN_WORDS)
    found: list[_Recording] = []
    for word in WORDS:
        takes: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(visible(base.parent / word)):
            if path.suffix.lower() in SUFFIXES and path.name[:8].isdigit():
                takes[path.name[:8]].append(path)
        if short := [f"{who} ({len(own)})" for who, own in takes.items() if len(own) < TAKES]:
            raise SuperbError(
                f"{base.parent / word} has fewer than {TAKES} takes of {', '.join(short)}. "
                + OBTAIN_WORDS
            )
        if len(takes) != CONTRIBUTORS:
            raise SuperbError(
                f"{base.parent / word} has recordings of {len(takes)} people, and the corpus is of "
                f"{CONTRIBUTORS}: files such as 00000001_NO_01.wav. {OBTAIN_WORDS}"
            )
        for who, paths in takes.items():
            for take, path in enumerate(paths[:TAKES], start=1):
                fields = {"speaker": who, "word": word, "take": str(take)}
                found.append(_Recording(f"{word}-{who}-{take}", path, fields))
    return found


def _sentences(roots: Sequence[Path]) -> list[_Recording]:
    """The first sentences of every speaker that is wanted."""
    said: dict[tuple[str, str], dict[str, tuple[Path, str]]] = defaultdict(dict)
    for root in roots:
        for own in librispeech.survey(root).utterances:
            if isinstance(own.audio, Path):
                said[own.split, own.speaker].setdefault(own.id, (own.audio, own.text))
    found: list[_Recording] = []
    short: list[str] = []
    for split, (part, speakers) in SENTENCES_OF.items():
        for speaker in map(str, sorted(speakers)):
            there = said[part, speaker]
            short += [f"{part}/{speaker} ({len(there)})"] * (len(there) < SENTENCES[split])
            for name, (path, text) in sorted(there.items())[: SENTENCES[split]]:
                fields = {"speaker": speaker, "split": split, "text": text}
                found.append(_Recording(name, path, fields))
    if short:
        raise SuperbError(
            f"too few recordings of {len(short)} speakers of LibriSpeech in "
            f"{', '.join(map(str, roots))}: {', '.join(short[:5])}"
            f"{', …' if len(short) > 5 else ''}. Wanted are {SENTENCES['train']} of those of "
            f"dev-clean and {SENTENCES['test']} of those of test-clean. {librispeech.OBTAIN}"
        )
    return found
