"""LibriSpeech (Panayotov et al. 2015, https://www.openslr.org/12): read English.

``SPLIT/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NUMBER.flac`` with ``SPEAKER-CHAPTER.trans.txt`` beside.
Trained on ``train-clean-100``, chosen on ``dev-clean``, reported on ``test-clean``, unless other
splits are asked for.

Phones are those of the lexica that lie beside the splits (`LEXICA`), of one that is given, or of
the CMU Pronouncing Dictionary, which lacks a few words in a hundred. For SD, mixtures are made of
the recordings (`downstreams.corpora.mixtures`); SUPERB's own are ``libri2mix``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Final

from benchmark.core import Corpus, Utterance
from benchmark.encoding.folders import visible
from benchmark.errors import SuperbError, unknown
from downstreams.corpora import CorpusOptions, mixtures
from downstreams.corpora.layout import (
    Archive,
    Layout,
    Official,
    Survey,
    choose_splits,
    data_root,
    holds,
    naming,
    not_found,
    partial,
)
from downstreams.corpora.pronunciation import pronounced
from downstreams.corpora.utterances import built, with_valid

NAME: Final = "librispeech"
TASKS: Final = ("asr", "pr", "sd")
# What all archives are packed in.
FOLDER: Final = "LibriSpeech"
DEFAULTS: Final[Mapping[str, str]] = {
    "train": "train-clean-100",
    "valid": "dev-clean",
    "test": "test-clean",
}
# What the archive of Libri-light's parts with labels unpacks to.
FEW_LABELS: Final = "librispeech_finetuning"
# SUPERB's two, which have all words between them, or the one of https://www.openslr.org/11.
LEXICA: Final = (
    "librispeech-lexicon-200k-g2p.txt",
    "librispeech-lexicon-allothers-g2p.txt",
    "librispeech-lexicon.txt",
)
# In order of preference, should one recording be there twice.
SUFFIXES: Final = (".flac", ".wav", ".ogg", ".opus", ".mp3")

# Speakers and hours: table 1 of the paper. Utterances: what the archives hold.
OFFICIAL: Final[Mapping[str, Official]] = {
    "train-clean-100": Official(28_539, 251, 100.6),
    "train-clean-360": Official(104_014, 921, 363.6),
    "train-other-500": Official(148_688, 1_166, 496.7),
    "dev-clean": Official(2_703, 40, 5.4),
    "dev-other": Official(2_864, 33, 5.3),
    "test-clean": Official(2_620, 40, 5.4),
    "test-other": Official(2_939, 33, 5.1),
}


def _archive(split: str, size: int, sha256: str) -> Archive:
    url = f"https://www.openslr.org/resources/12/{split}.tar.gz"
    return Archive(url, sha256, size, "", (split,), top=FOLDER)


# Sizes and hashes as TensorFlow Datasets records them; torchaudio has the same hashes.
ARCHIVES: Final = (
    _archive(
        "train-clean-100",
        6_387_309_499,
        "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2",
    ),
    _archive(
        "train-clean-360",
        23_049_477_885,
        "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf",
    ),
    _archive(
        "train-other-500",
        30_593_501_606,
        "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2",
    ),
    _archive(
        "dev-clean",
        337_926_286,
        "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3",
    ),
    _archive(
        "dev-other",
        314_305_928,
        "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365",
    ),
    _archive(
        "test-clean",
        346_663_984,
        "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23",
    ),
    _archive(
        "test-other",
        328_757_843,
        "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29",
    ),
)
OBTAIN: Final = (
    "LibriSpeech is free (CC BY 4.0): superb data download librispeech --data-root FOLDER brings "
    f"{', '.join(DEFAULTS.values())} (--split NAME another), or unpack the archives of "
    "https://www.openslr.org/12 in one folder."
)


def load(task: str, options: CorpusOptions) -> Corpus:
    """Load the splits that are wanted, as far as they are there.

    Without a split to choose on, where train and test were named and the official valid split is
    absent or one of them, a fixed tenth of train becomes one, as for a manifest.

    Args:
        task: ``asr``, ``pr`` or ``sd``.
        options: the folder that holds the splits, or the one above; the splits wanted, several
            joined by ``+``; and for ``pr`` a lexicon.

    Raises:
        SuperbError: another task, no such folder or split, a split given twice, one without
            transcribed recordings, or a transcript that cannot be read.
    """
    if task not in TASKS:
        raise unknown("task of corpus 'librispeech'", task, TASKS)
    root = data_root(NAME, options, OBTAIN)
    asked = [part.strip() for parts in options.splits.values() for part in parts.split("+")]
    base = _base(root, asked)
    # Only where the user chose both: a run that looks official is not to lack the official valid.
    carve = "valid" not in options.splits and {"train", "test"} <= set(options.splits)
    there = [path.name for path in base.iterdir() if path.is_dir()]
    wanted = choose_splits(str(base), there, DEFAULTS, options.splits, carve=carve, obtain=OBTAIN)
    ours = {own: split for split, parts in wanted.items() for own in parts}
    found = _survey(root, base, list(ours))
    held = {utterance.split for utterance in found.utterances}
    if bare := [own for own in ours if own not in held]:
        raise SuperbError(
            f"no transcribed recordings in {' and '.join(str(base / own) for own in bare)}: wanted "
            f"SPEAKER/CHAPTER/*{SUFFIXES[0]} with SPEAKER-CHAPTER.trans.txt; "
            f"it holds {holds(base / bare[0])}"
        )
    official = {own: OFFICIAL[own] for own in ours if own in OFFICIAL}
    notes = [naming(wanted, DEFAULTS), partial(found.utterances, official), *found.notes]
    if found.missing:
        notes.append(f"{len(found.missing)} transcripts without a recording left out")
    utterances = [replace(u, split=ours[u.split]) for u in found.utterances]
    if task == "pr":
        lexica = [path for path in (base / name for name in LEXICA) if path.is_file()]
        given = [options.pronunciations] if options.pronunciations else lexica
        utterances, spoken = pronounced(str(base), utterances, given)
        notes.append(spoken)
    utterances, carved = with_valid(base, utterances, labels_are_speakers=False)
    if task == "sd":
        utterances, how = mixtures.mixed(str(base), utterances, NAME)
        notes.append(how)
    corpus = built(
        NAME,
        base,
        utterances,
        [*notes, carved],
        licence="CC BY 4.0",
        source="https://www.openslr.org/12",
    )
    if task == "asr":
        corpus = replace(corpus, subsets=_few_labels(root, base))
    said = [u for u in corpus.utterances if task != "sd" and not u.text]
    if empty := [u.id for u in said if not u.value("phones")]:
        raise SuperbError(
            f"empty transcripts in {base}: {', '.join(empty[:3])} ({len(empty)} in all). Write "
            "what is said into the chapter's .trans.txt, or take the line out"
        )
    return corpus


def _few_labels(root: Path, base: Path) -> dict[str, list[list[str]]]:
    """The parts of Libri-light (Kahn et al. 2020, section 3.2), where their folder is there.

    ``1h/0`` to ``1h/5`` are six of ten minutes, together one hour; with ``9h`` they are ten.

    Raises:
        SuperbError: one of these is not there.
    """
    folder = next(
        (own for above in (root, base, base.parent) if (own := above / FEW_LABELS).is_dir()), None
    )
    if folder is None:
        return {}

    def ids(part: str) -> list[str]:
        return sorted(path.stem for path in (folder / part).rglob(f"*{SUFFIXES[0]}"))

    parts = {f"1h/{place}": ids(f"1h/{place}") for place in range(6)} | {"9h": ids("9h")}
    if empty := [part for part, found in parts.items() if not found]:
        raise SuperbError(
            f"{folder} has no recordings in {empty[0]}, so its parts are not those of Libri-light. "
            "Unpack its archive anew, or rename the folder to draw parts instead"
        )
    *tens, nine = parts.values()
    hour = [name for ten in tens for name in ten]
    return {"10min": tens, "1h": [hour], "10h": [[*hour, *nine]]}


def survey(root: Path, splits: Iterable[str] = tuple(OFFICIAL)) -> Survey:
    """Those splits that are there, by names and transcripts.

    Raises:
        SuperbError: there is none at all, or a transcript cannot be read.
    """
    base = _base(root)
    return _survey(root, base, [split for split in splits if (base / split).is_dir()])


def base_for_more(root: Path) -> Path:
    """The folder in which a further split is found: beside those that are there.

    Raises:
        SuperbError: the root is itself one of the splits.
    """
    if base := _holding_splits(root):
        return base
    return root if root.resolve().name == FOLDER else root / FOLDER


LAYOUT: Final = Layout(
    survey, OFFICIAL, ARCHIVES, OBTAIN, defaults=tuple(DEFAULTS.values()), base=base_for_more
)


def _base(root: Path, asked: Collection[str] = ()) -> Path:
    """The folder that holds the splits: official ones, or others that were asked for."""
    if base := _holding_splits(root, asked):
        return base
    wanted = f"folders such as {DEFAULTS['train']}, there or in {FOLDER}/"
    raise not_found("LibriSpeech", root, wanted, OBTAIN)


def _holding_splits(root: Path, asked: Collection[str] = ()) -> Path | None:
    """The root, or LibriSpeech in it, or None where neither holds a split."""
    bases = (root, root / FOLDER)
    for base in bases:
        if asked and all((base / split).is_dir() for split in asked):
            return base
    for base in bases:
        if any((base / split).is_dir() for split in OFFICIAL):
            return base
    if root.resolve().name in (*OFFICIAL, *asked):
        raise SuperbError(f"{root} is one split; give the folder above: {root.resolve().parent}")
    return None


def _survey(root: Path, base: Path, splits: Iterable[str]) -> Survey:
    utterances: list[Utterance] = []
    missing: dict[Path, str] = {}
    extra: dict[Path, str] = {}
    silent = 0
    for split in splits:
        for chapter in visible(base / split, "*/*/"):
            texts = _transcripts(chapter)
            audio: dict[str, Path] = {}
            for path in sorted(visible(chapter), key=_preference):
                if path.suffix.lower() not in SUFFIXES:
                    continue
                if path.stem in texts and path.stem not in audio:
                    audio[path.stem] = path
                else:
                    silent += path.stem not in texts
                    extra[path.relative_to(root)] = split
            for name, text in sorted(texts.items()):
                if name in audio:
                    speaker = chapter.parent.name
                    utterances.append(Utterance(name, audio[name], split, speaker, text))
                else:
                    missing[(chapter / f"{name}.flac").relative_to(root)] = split
    note = f"{silent} recordings without a transcript left out" if silent else ""
    return Survey(
        utterances=tuple(utterances),
        missing=missing,
        extra=extra,
        disjoint=tuple(combinations(OFFICIAL, 2)),
        notes=(note,) if note else (),
    )


def _preference(path: Path) -> tuple[str, int]:
    suffix = path.suffix.lower()
    return path.stem, SUFFIXES.index(suffix) if suffix in SUFFIXES else len(SUFFIXES)


def _transcripts(chapter: Path) -> dict[str, str]:
    """Utterance → what is said; nothing where the chapter has no transcript."""
    path = chapter / f"{chapter.parent.name}-{chapter.name}.trans.txt"
    try:
        # not splitlines, which ends lines at further characters too
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SuperbError(f"cannot read {path}: {error}; unpack the archive again") from error
    texts: dict[str, str] = {}
    for name, _, text in (line.partition(" ") for line in lines if line.strip()):
        if name in texts:
            raise SuperbError(f"{path} has two lines of {name}; take one of them out")
        texts[name] = " ".join(text.split())
    return texts
