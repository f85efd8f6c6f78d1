"""Audio SNIPS (Lai et al. 2021): requests to an assistant in synthetic voices, for slot filling.

As SUPERB passes it on: ``all.iob.snips.txt`` with a line for every sentence in every voice, words
before a tab and tags after it, and ``SPLIT/VOICE-snips-SPLIT-NUMBER.wav``. ::

    Ivy-snips-train-7 BOS RAIN IN SAN MARTIN TODAY EOS    O O O city city timeRange GetWeather

Train has the train sentences in eight voices, valid and test have their own in four others each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Final

from benchmark.core import SPLITS, Corpus, Utterance
from benchmark.encoding.folders import visible
from benchmark.errors import SuperbError
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

NAME: Final = "audio-snips"
LIST: Final = "all.iob.snips.txt"
# In order of preference, should one recording be there twice; Amazon's own are MP3.
SUFFIXES: Final = (".wav", ".mp3")
VOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "train": ("Ivy", "Joanna", "Joey", "Justin", "Kendra", "Kimberly", "Matthew", "Salli"),
    "valid": ("Aditi", "Amy", "Geraint", "Nicole"),
    "test": ("Brian", "Emma", "Raveena", "Russell"),
}

# Sentences times voices.
OFFICIAL: Final[Mapping[str, Official]] = {
    "train": Official(13_084 * 8, 8),
    "valid": Official(700 * 4, 4),
    "test": Official(700 * 4, 4),
}
SOURCE: Final = "https://huggingface.co/datasets/s3prl/SNIPS"
# Hash and size as the hub records them for this commit.
ARCHIVES: Final = (
    Archive(
        f"{SOURCE}/resolve/cec95911b484624581e1b12c47a92fa33aa7fb2b/snips.zip",
        "1b98431328afdb000f6e7eef2ba6a8e6f0641740fef3dfee6422bd9f40692b51",
        18_668_799_794,
        "",
        SPLITS,
    ),
)
OBTAIN: Final = (
    "Audio SNIPS is free (MIT): superb data download audio-snips --data-root FOLDER brings it, or "
    f"unpack {ARCHIVES[0].url}."
)
_NAME: Final = re.compile(rf"([A-Za-z]+)-snips-({'|'.join(SPLITS)})-[0-9]+")
# The published file has no B- and I-: a value goes on as long as its tag does.
_TAG: Final = re.compile(r"(?:([BI])-)?([A-Za-z0-9_.-]+)")


def load(task: str, options: CorpusOptions) -> Corpus:
    """Load the sentences of every split in its voices, as far as their recordings are there.

    Args:
        task: ``sf``.
        options: the folder that holds the list, or the one above; its splits are fixed.

    Returns:
        A corpus whose utterances have the column ``tagged``: words as in the list, with values of
        slots between tags, such as ``RAIN IN <city>SAN MARTIN</city>``. See `tagged`.

    Raises:
        SuperbError: another task, options that mean nothing here, no list in the folder, a line
            that cannot be understood, and an empty split.
    """
    root = official_root(NAME, task, "sf", options, "voices decide which is in which", OBTAIN)
    found = survey(root)
    require_splits(NAME, root, found, SPLITS, OBTAIN)
    return built(
        NAME,
        root,
        found.utterances,
        [partial(found.utterances, OFFICIAL)],
        licence="MIT",
        source=SOURCE,
    )


def survey(root: Path) -> Survey:
    """The sentences of every split in its voices, by names.

    Raises:
        SuperbError: the list is not there, or a line that cannot be understood.
    """
    path = next(
        (path for path in [root / LIST, *visible(root, f"*/{LIST}")] if path.is_file()), None
    )
    if path is None:
        raise not_found("Audio SNIPS", root, f"{LIST}, there or in a folder", OBTAIN)
    base = path.parent
    there: dict[str, Path] = {}
    extra: dict[Path, str] = {}
    for suffix in SUFFIXES:
        for split in SPLITS:
            for file in visible(base / split, f"*{suffix}"):
                if there.setdefault(f"{split}/{file.stem}", file) != file:
                    extra[file.relative_to(root)] = split
    utterances = []
    missing = {}
    listed: set[str] = set()
    others = 0
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        words, _, tags = (
            [part for part in cell.split(" ") if part] for cell in line.partition("\t")
        )
        name = words[0] if words else ""
        found = _NAME.fullmatch(name)
        framed = words[1:2] == ["BOS"] and words[3:][-1:] == ["EOS"] and tags[:1] == ["O"]
        if not found or not framed or len(words) != len(tags) + 1:
            raise SuperbError(
                f"{where}: {line[:60]!r} is not 'VOICE-snips-SPLIT-NUMBER BOS word … EOS', a tab, "
                f"'O tag … INTENT' with a tag for each word. {OBTAIN}"
            )
        voice, split = found.groups()
        key = f"{split}/{name}"
        if key in listed:
            raise SuperbError(f"{where}: {name} is listed twice. {OBTAIN}")
        listed.add(key)
        if voice not in VOICES[split]:
            others += key in there
        elif key in there:
            columns = {"tagged": tagged(where, words[2:-1], tags[1:-1])}
            utterances.append(Utterance(name, there[key], split, voice, columns=columns))
        else:
            missing[(base / f"{key}{SUFFIXES[0]}").relative_to(root)] = split
    extra |= {there[key].relative_to(root): key.partition("/")[0] for key in there.keys() - listed}
    note = f"{others} recordings in voices of another split left out" if others else ""
    return Survey(
        tuple(utterances),
        missing,
        dict(sorted(extra.items())),
        disjoint=tuple(combinations(SPLITS, 2)),
        notes=(note,) if note else (),
    )


LAYOUT: Final = Layout(survey, OFFICIAL, ARCHIVES, OBTAIN)


def tagged(where: str, words: Sequence[str], tags: Sequence[str]) -> str:
    """A sentence with the values of its slots between tags.

    Words with the same tag in a row are one value, unless B- begins another one. Words of signs
    alone are left out, as in SUPERB, but for ``&``; of other words ``<`` and ``>``, so that
    whatever is between these is a tag.

    >>> tagged("here", ["RAIN", "IN", "SAN", "MARTIN"], ["O", "O", "city", "city"])
    'RAIN IN <city>SAN MARTIN</city>'

    Args:
        where: what messages name first.
        words: what is said.
        tags: for each word O or the name of its slot, perhaps after B- or I-.

    Raises:
        SuperbError: a tag that is none, or I- where no such value goes on.
    """
    values: list[tuple[str, list[str]]] = []  # slot, "" for none, and its words
    for word, tag in zip(words, tags, strict=True):
        found = _TAG.fullmatch(tag)
        if not found:
            raise SuperbError(
                f"{where}: {tag[:60]!r} is no name of a slot, which has letters, digits, '_', '.' "
                f"and '-' alone. {OBTAIN}"
            )
        mark, slot = ("", "") if tag == "O" else found.groups(default="")
        goes_on = bool(values) and values[-1][0] == slot
        if mark == "I" and not goes_on:
            raise SuperbError(
                f"{where}: {tag} for {word!r}, but no value of {slot} goes on there; it begins "
                f"with B-{slot}. {OBTAIN}"
            )
        if mark == "B" or not goes_on:
            values.append((slot, []))
        plain = word.translate({ord("<"): None, ord(">"): None})
        if plain == "&" or any(map(str.isalnum, plain)):
            values[-1][1].append(plain)
    spoken = ((slot, " ".join(own)) for slot, own in values if own)
    return " ".join(f"<{slot}>{value}</{slot}>" if slot else value for slot, value in spoken)


def _lines(path: Path) -> list[str]:
    try:
        # not splitlines, which ends lines at further characters too
        return path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SuperbError(f"cannot read {path}: {error}. {OBTAIN}") from error
