"""The corpus `voices`: people who speak, out of two public corpora, for KS, SID, ASV, SD and QbE.

`make` packs it: Arabic words (Ghandoura et al. 2021) into ``words.parquet``, English sentences
(LibriSpeech, Panayotov et al. 2015) into ``sentences.parquet``. What a task hears:

- KS: twelve words; the thirty speakers of the words are split in three (`SPEAKERS`).
- SID: who of the thirty speaks; other words in every split (`WORDS_OF`).
- ASV: trained on the thirty, tried on pairs of sentences of fifteen people of LibriSpeech.
- SD: mixtures of sentences (`downstreams.corpora.mixtures`), other speakers in every split.
- QbE: a word of somebody, searched for in words that others say one after the other.

``sentences.txt`` lists the sentences: split, part of LibriSpeech, name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import product
from pathlib import Path
from typing import Any, Final

from benchmark.core import Corpus, Utterance
from benchmark.errors import SuperbError, unknown
from downstreams.corpora import CorpusOptions, mixtures, refuse_options
from downstreams.corpora.layout import Layout, Official, Survey, data_root, not_found
from downstreams.corpora.utterances import built

NAME: Final = "voices"
TASKS: Final = ("ks", "sid", "asv", "sd", "qbe")
WORDS_FILE: Final = "words.parquet"
SENTENCES_FILE: Final = "sentences.parquet"
LICENCE: Final = "CC BY 4.0"
SOURCE: Final = "https://doi.org/10.5281/zenodo.4662481 and https://www.openslr.org/12"

# Keywords of Arabic Speech Commands, by the English names of its folders.
WORDS: Final = (
    *("close", "down", "left", "next", "no", "open"),
    *("previous", "right", "start", "stop", "up", "yes"),
)
WORDS_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "train": WORDS[:8],
    "valid": WORDS[8:10],
    "test": WORDS[10:],
}
# How often each of thirty people says a word, and who they are: by number in the corpus.
TAKES: Final = ("1", "2", "3", "4")
PEOPLE: Final = tuple(f"{number:08d}" for number in range(1, 31))
# Of KS; who is in neither is in train.
SPEAKERS: Final[Mapping[str, frozenset[int]]] = {
    "valid": frozenset({2, 7, 8, 12, 21, 25}),
    "test": frozenset({3, 4, 10, 14, 26, 28}),
}
SENTENCES: Final = Path(__file__).parent / "sentences.txt"
RECIPE: Final = mixtures.Recipe({"train": 180, "valid": 50, "test": 100}, utterances=(1, 2))
# How many words a document of QbE holds, and a step through the twelve that reaches all of them.
PHRASE: Final = 3
STEP: Final = 5

OBTAIN: Final = (
    "Make it of LibriSpeech and Arabic Speech Commands, which are both free (CC BY 4.0): superb "
    "data voices --librispeech FOLDER --words FOLDER --output FOLDER"
)


def load(task: str, options: CorpusOptions) -> Corpus:
    """Load the part of the corpus that serves one task.

    Args:
        task: ``ks``, ``sid``, ``asv``, ``sd`` or ``qbe``.
        options: the folder that `make` wrote; the splits are fixed.

    Raises:
        SuperbError: another task, names of splits, a folder without the files, or a file that holds
            something else.
    """
    if task not in TASKS:
        raise unknown(f"task of corpus {NAME!r}", task, TASKS)
    refuse_options(NAME, options, "speakers and words decide", root=False)
    root = data_root(NAME, options, OBTAIN)
    words = [] if task == "sd" else _words(root)
    sentences = _sentences(root) if task in ("asv", "sd") else []
    codings = sorted({Path(row["audio"]["path"]).suffix for row in (*words, *sentences)})
    notes = [f"real speech, as {' and '.join(codings)}"]
    utterances: list[Utterance]
    if task == "ks":
        utterances = [_said(row, split_of(row["speaker"])) for row in words]
    elif task == "sid":
        split_of_word = {word: split for split, own in WORDS_OF.items() for word in own}
        utterances = [_spoken(row, split_of_word[row["word"]]) for row in words]
    elif task == "asv":
        tried = {"train": "valid", "valid": "test", "test": "test"}
        utterances = [_spoken(row, "train", label=False) for row in words]
        utterances += [_sentence(row, tried[row["split"]]) for row in sentences]
    elif task == "sd":
        single = [_sentence(row, row["split"]) for row in sentences]
        utterances, how = mixtures.mixed(NAME, single, NAME, RECIPE)
        notes.append(how)
    else:
        utterances = [*_queries(words), *_documents(words)]
    return built(NAME, root, utterances, notes, licence=LICENCE, source=SOURCE)


def survey(root: Path) -> Survey:
    """All that is in both files, each in the part of its name.

    Raises:
        SuperbError: a file is not there, or holds something else.
    """
    words = [_spoken(row, "words", label=False) for row in _words(root)]
    return Survey((*words, *(_sentence(row, "sentences") for row in _sentences(root))))


LAYOUT: Final = Layout(
    survey, {"words": Official(1_440, 30), "sentences": Official(330, 21)}, (), OBTAIN
)


def split_of(contributor: str) -> str:
    """Which split of KS a contributor of words is in, such as ``00000003``: test."""
    return next((name for name, own in SPEAKERS.items() if int(contributor) in own), "train")


def _said(row: Mapping[str, Any], split: str) -> Utterance:
    """A word whose label is the word."""
    name, audio, speaker = row["utterance"], row["audio"]["bytes"], row["speaker"]
    return Utterance(name, audio, split, speaker, label=row["word"])


def _spoken(row: Mapping[str, Any], split: str, *, label: bool = True) -> Utterance:
    """A word whose label, if it has one, is who says it."""
    name, audio, speaker = row["utterance"], row["audio"]["bytes"], row["speaker"]
    return Utterance(name, audio, split, speaker, label=speaker if label else "")


def _sentence(row: Mapping[str, Any], split: str) -> Utterance:
    return Utterance(row["utterance"], row["audio"]["bytes"], split, row["speaker"])


def _queries(rows: Iterable[Mapping[str, Any]]) -> Iterator[Utterance]:
    """Each word once by each speaker of valid and test: the first take."""
    for row in rows:
        split = split_of(row["speaker"])
        if split != "train" and row["take"] == "1":
            columns = {"role": "query", "term": row["word"]}
            name, audio = row["utterance"], row["audio"]["bytes"]
            yield Utterance(name, audio, split, row["speaker"], columns=columns)


def _documents(rows: Iterable[Mapping[str, Any]]) -> Iterator[Utterance]:
    """Words that one speaker of train says after one another, in one take.

    Every other speaker is in valid, the rest in test.
    """
    clips = {(row["speaker"], row["take"], row["word"]): row for row in rows}
    speakers = sorted({who for who, _, _ in clips if split_of(who) == "train"})
    for place, speaker in enumerate(speakers):
        order = [WORDS[(place + STEP * step) % len(WORDS)] for step in range(len(WORDS))]
        for take in ("1", "2"):
            for first in range(0, len(WORDS), PHRASE):
                words = order[first : first + PHRASE]
                own = [clips[speaker, take, word] for word in words]
                yield Utterance(
                    id=f"{speaker}-{take}-{'-'.join(words)}",
                    audio=_joined(own),
                    split=("valid", "test")[place % 2],
                    speaker=speaker,
                    columns={"role": "document", "term": ";".join(words)},
                )


def _joined(rows: Iterable[Mapping[str, Any]]) -> mixtures.Mixture:
    """Clips one after the other, each as loud as another."""
    parts = []
    end = 0
    for row in rows:
        length = int(row["milliseconds"])
        parts.append(
            mixtures.Part(
                row["utterance"], row["speaker"], row["audio"]["bytes"], 0, length, end, 0.0
            )
        )
        end += length
    return mixtures.Mixture(tuple(parts), end, 0)


def _words(root: Path) -> list[dict[str, Any]]:
    """The words, sorted: speakers, then takes, then words.

    Raises:
        SuperbError: a file that lacks one of them, or holds others.
    """
    rows = _rows(root, WORDS_FILE, ("speaker", "take", "word", "milliseconds"))
    wanted = set(product(PEOPLE, TAKES, WORDS))
    found = {(row["speaker"], row["take"], row["word"]): row for row in rows}
    _require(root / WORDS_FILE, len(rows), found.keys(), wanted)
    return [row for _, row in sorted(found.items())]


def _sentences(root: Path) -> list[dict[str, Any]]:
    """The sentences, in the order of `listed`, each with its split.

    Raises:
        SuperbError: a file that lacks one of them, or holds others.
    """
    rows = _rows(root, SENTENCES_FILE, ("speaker",))
    found = {row["utterance"]: row for row in rows}
    wanted = {name: split for split, _, name in listed()}
    _require(root / SENTENCES_FILE, len(rows), found.keys(), wanted.keys())
    return [found[name] | {"split": split} for name, split in wanted.items()]


def _require(path: Path, rows: int, found: Set[Any], wanted: Set[Any]) -> None:
    if found != wanted or rows != len(wanted):
        raise SuperbError(
            f"{path} has {rows} recordings, of which {len(found & wanted)} are among the "
            f"{len(wanted)} of the corpus. {OBTAIN}"
        )


def listed() -> list[tuple[str, str, str]]:
    """The sentences: split here, part of LibriSpeech, name."""
    lines = SENTENCES.read_text(encoding="utf-8").splitlines()
    return [(split, part, name) for split, part, name in map(str.split, lines)]


def _rows(root: Path, file: str, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows of a file, with name, audio and the columns that are wanted, none of them empty."""
    import pyarrow.lib
    import pyarrow.parquet as pq

    wanted = ["utterance", "audio", *columns]
    try:
        table = pq.ParquetFile(root / file)  # type: ignore[no-untyped-call]
        if lost := sorted({*wanted} - {*table.schema_arrow.names}):
            raise SuperbError(f"{root / file} has no column {' and '.join(lost)}. {OBTAIN}")
        rows: list[dict[str, Any]] = table.read(columns=wanted).to_pylist()  # type: ignore[no-untyped-call]
    except FileNotFoundError as error:
        raise not_found(NAME, root, f"{WORDS_FILE} and {SENTENCES_FILE}", OBTAIN) from error
    except (OSError, pyarrow.lib.ArrowException) as error:
        raise SuperbError(f"cannot read {root / file}: {error}. {OBTAIN}") from error
    for row in rows:
        audio = row["audio"]
        texts = [row[name] for name in ("utterance", *columns)]
        sound = isinstance(audio, dict) and audio.get("bytes") and audio.get("path")
        if not sound or not all(isinstance(text, str) and text for text in texts):
            raise SuperbError(f"{root / file}: {row['utterance']!r} has an empty cell. {OBTAIN}")
        if "milliseconds" in row and not row["milliseconds"].isdecimal():
            raise SuperbError(
                f"{root / file}: {row['utterance']!r} lasts {row['milliseconds']!r}, which is no "
                f"number of milliseconds. {OBTAIN}"
            )
    return rows
