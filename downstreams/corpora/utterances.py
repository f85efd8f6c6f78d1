"""What every corpus must keep, wherever it comes from; and the valid split, if it has none."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmark.core import SPLITS, Corpus, DownstreamCard, Utterance
from benchmark.errors import LacksError, SuperbError
from downstreams.corpora import content_sha256, mixtures
from downstreams.corpora.pronunciation import columns_read, pronounced
from downstreams.corpora.words import cleaned

# A corpus without a valid split gets this part of its train split.
VALID_PART: Final = 0.1
# With fewer train speakers, one of them is too much of the data to give away whole.
MIN_SPEAKERS_TO_CARVE: Final = 10
# Part of the carve-out's identity: another seed is another corpus.
CARVE_SEED: Final = "valid-0"

# Bytes of a name that file systems take.
_LONGEST_NAME: Final = 255
_MOST_SHOWN: Final = 160
# As a path has it, where two slashes are one.
_URL: Final = re.compile(r"(^|/)[a-z][a-z0-9+.-]+:/")

# What other tools call our splits; only for hints.
_OTHER_SPLITS: Final = {
    "dev": "valid",
    "val": "valid",
    "validation": "valid",
    "training": "train",
    "eval": "test",
    "evaluation": "test",
    "testing": "test",
}


def checked(
    where: str,
    utterances: Sequence[Utterance],
    card: DownstreamCard,
    *,
    name: str,
    source: str = "",
    licence: str = "",
    note: str = "",
    pinned: str = "",
    folds: Mapping[str, Mapping[str, str]] | None = None,
    apart: bool = False,
    places: Sequence[str] | None = None,
    remedy: str = "",
    pronunciations: Path | None = None,
) -> Corpus:
    """Check utterances of any origin for one task, and make a corpus of them.

    Their texts are brought to one form first: see `downstreams.corpora.words`.

    Where the task needs segments and only speakers are known, mixtures are made: see
    `downstreams.corpora.mixtures`.

    Without a valid split, a fixed tenth of train becomes one, and the corpus's note says so: whole
    speakers if there are enough of them and they are not the labels, else some utterances of every
    label. Folds must have one of their own.

    Args:
        where: what messages name first.
        utterances: all of them, with labels where the task needs some.
        card: the task, which says what it needs.
        name: of the corpus.
        source: where it comes from.
        licence: of the audio.
        note: one line for results.
        pinned: what fixes the bytes of all audio, as for `content_sha256`.
        folds: several partitions in place of the splits of utterances, as in `Corpus.folds`.
        apart: whether a fold may not be tested on speakers that it has in train or valid; otherwise
            the note says so.
        places: where each utterance stands, for messages; None for its id.
        remedy: what to do about missing audio, for the message.
        pronunciations: a lexicon, as for `downstreams.corpora.pronunciation.columns_read`.

    Raises:
        SuperbError: for whatever is wrong, naming the first few utterances.
    """

    def found(bad: Callable[[Utterance], bool], show: Callable[[Utterance], str]) -> str:
        """The first few utterances that are bad, and how many there are."""
        items = []
        for index, utterance in enumerate(utterances):
            if bad(utterance):
                place, shown = (places or ids)[index], show(utterance)
                items.append(place if place == shown else f"{place}: {shown}")
        return _some(items)

    if not utterances:
        raise SuperbError(f"{where} has no utterances")
    utterances, dropped = cleaned(where, utterances, places)
    ids = [utterance.id for utterance in utterances]
    if nameless := found(lambda u: not u.id.strip(), lambda u: str(u.audio)[:60]):
        raise SuperbError(f"{where}: empty ids: {nameless}. Give each utterance an id of its own")
    if not folds:
        _check_splits(where, utterances, found, card)
    known = _known(utterances)
    with_text = columns_read(card, known, pronunciations)
    read = mixtures.columns_read(with_text, known)
    _check_values(where, utterances, read, found)
    counts = Counter(ids)
    splits: dict[str, dict[str, None]] = defaultdict(dict)
    for utterance in utterances:
        splits[utterance.id][utterance.split] = None
    twice = [f"{key!r} ({' and '.join(own)})" for key, own in splits.items() if len(own) > 1]
    if twice:
        raise SuperbError(
            f"{where}: utterances in two splits: {_some(twice)}. An id stands for one recording "
            "in one split"
        )
    if double := found(lambda u: counts[u.id] > 1, lambda u: u.id):
        raise SuperbError(
            f"{where}: duplicate ids: {double}. Leave out what is repeated, or give each an id of "
            "its own"
        )
    missing = found(
        lambda u: isinstance(u.audio, Path) and not is_file(u.audio),
        lambda u: _shown(u.audio) if isinstance(u.audio, Path) else "",
    )
    if missing:
        raise SuperbError(f"{where}: missing audio files: {missing}. {remedy}".rstrip(". ") + ".")
    complete, spoken, carved = list(utterances), "", ""
    if with_text is not card:
        complete, spoken = pronounced(where, complete, [pronunciations] if pronunciations else [])
    left_out = {*ids} - {utterance.id for utterance in complete}
    own_folds = {
        fold: {name: split for name, split in of_fold.items() if name not in left_out}
        for fold, of_fold in (folds or {}).items()
    }
    if not own_folds and card.trained:
        recur = card.label_from == "speaker"
        labels = card.closed_columns or ("label",)
        complete, carved = with_valid(where, complete, labels_are_speakers=recur, labels=labels)
    if read is not with_text:
        if own_folds:
            raise LacksError(
                f"{where}: mixtures of single speakers are made of one partition, not of folds; "
                "give it a column split"
            )
        complete, how = mixtures.mixed(where, complete, name)
        carved = "; ".join(filter(None, (carved, how)))
    corpus = Corpus(
        name=name,
        sha256=content_sha256(complete, pinned, own_folds),
        utterances=tuple(complete),
        licence=licence,
        source=source,
        note="; ".join(filter(None, (note, dropped, spoken, carved))),
        folds=own_folds,
    )
    _check_folds(where, corpus)
    if (shared := _shared_speakers(corpus)) and card.label_from != "speaker":
        if apart:
            raise SuperbError(f"{where}, {shared}: give each speaker one fold")
        corpus = replace(corpus, note="; ".join(filter(None, (corpus.note, shared))))
    check_closed_sets(where, corpus, card.closed_columns)
    return corpus


def built(
    name: str,
    where: str | Path,
    utterances: Sequence[Utterance],
    notes: Iterable[str],
    *,
    licence: str,
    source: str,
    folds: Mapping[str, Mapping[str, str]] | None = None,
) -> Corpus:
    """A corpus of a known layout, whose texts are brought to one form as in `checked`.

    Args:
        name: of the corpus.
        where: what messages name.
        utterances: all of them; those that have labels are classified.
        notes: for results; empty ones are left out.
        licence: of the audio.
        source: where it comes from.
        folds: several partitions in place of the splits of utterances, as in `Corpus.folds`.

    Raises:
        SuperbError: a text that is none, a fold without a split, and what `check_closed_set`
            refuses.
    """
    complete, dropped = cleaned(str(where), utterances)
    own_folds = {fold: dict(of_fold) for fold, of_fold in (folds or {}).items()}
    corpus = Corpus(
        name=name,
        sha256=content_sha256(complete, folds=own_folds),
        utterances=tuple(complete),
        licence=licence,
        source=source,
        note="; ".join(filter(None, (*notes, dropped))),
        folds=own_folds,
    )
    _check_folds(str(where), corpus)
    if any(utterance.label for utterance in complete):
        check_closed_sets(str(where), corpus, ["label"])
    return corpus


def is_file(path: Path) -> bool:
    """Whether there is a file; a path that no file system takes names none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _shown(path: Path) -> str:
    """A path that names no file, and what may be wrong with it."""
    written = str(path)
    why = ""
    if not written.isprintable():
        why = "with characters that cannot be seen"
    elif any(len(part.encode()) > _LONGEST_NAME for part in path.parts):
        why = f"{len(written)} characters: is this a path?"
    elif path.is_dir():
        why = "a folder"
    elif _URL.search(written):
        why = "a URL; write a path"
    elif "\\" in written:
        why = "write / for \\"
    elif "~" in (part[:1] for part in path.parts):
        why = "write the home folder for ~"
    shown = written if written.isprintable() else ascii(written)
    if len(shown) > _MOST_SHOWN:
        shown = f"{shown[: _MOST_SHOWN // 2]}…{shown[-_MOST_SHOWN // 2 :]}"
    return f"{shown} ({why})" if why else shown


def _check_values(
    where: str,
    utterances: Sequence[Utterance],
    card: DownstreamCard,
    found: Callable[[Callable[[Utterance], bool], Callable[[Utterance], str]], str],
) -> None:
    """Raise for what the task needs and is not there, and for speakers known here and there."""
    for column in card.columns:
        is_label = card.labelled and column == card.label_from

        def lacks(u: Utterance, column: str = column, is_label: bool = is_label) -> bool:
            return not (u.label if is_label else u.value(column))

        if all(map(lacks, utterances)):
            known = _known(utterances)
            raise LacksError(
                f"{where}: no utterance has {column!r}, which task {card.name!r} needs. They have "
                f"{', '.join(known) or 'audio alone'}"
            )
        if empty := found(lacks, lambda u: u.id):
            raise SuperbError(
                f"{where}: empty {column!r}: {empty}. Task {card.name!r} needs it: fill it in, or "
                "leave these utterances out"
            )
    unknown = sum(not utterance.speaker for utterance in utterances)
    if 0 < unknown < len(utterances):
        raise SuperbError(
            f"{where}: empty 'speaker': {found(lambda u: not u.speaker, lambda u: u.id)}. Fill all "
            "of them, or leave all of them empty if speakers are not known"
        )


def _known(utterances: Sequence[Utterance]) -> list[str]:
    """The columns in which some utterance has something."""
    fixed = ("text", "speaker", "label")
    known = [name for name in fixed if any(getattr(u, name) for u in utterances)]
    return known + sorted({name for u in utterances for name, own in u.columns.items() if own})


def _check_splits(
    where: str,
    utterances: Sequence[Utterance],
    found: Callable[[Callable[[Utterance], bool], Callable[[Utterance], str]], str],
    card: DownstreamCard,
) -> None:
    """Raise for unknown split names and for a split without utterances that must have some."""
    counts = Counter(utterance.split for utterance in utterances)
    if set(counts) - set(SPLITS):
        bad = found(lambda u: u.split not in SPLITS, lambda u: repr(u.split))
        hints = [
            f"write {_OTHER_SPLITS[name.lower()]} for {name}"
            for name in sorted(counts)
            if name.lower() in _OTHER_SPLITS
        ]
        hints += [
            f"write {name.lower()} for {name}"
            for name in sorted(counts)
            if name not in SPLITS and name.lower() in SPLITS
        ]
        raise SuperbError(
            f"{where}: unknown values of 'split': {bad}. Allowed: {', '.join(SPLITS)}"
            + "".join(f"; {hint}" for hint in hints)
        )
    wanted = ("train", "test") if card.trained else ("valid", "test")
    empty = [name for name in wanted if not counts[name]]
    if empty:
        raise SuperbError(
            f"{where}: nothing in split {' and '.join(empty)}; found "
            f"{', '.join(f'{name}: {count}' for name, count in counts.items())}. "
            + (
                "A corpus needs train and test; valid is taken from train if it is left out"
                if card.trained
                else f"For {card.name}, which trains nothing, a corpus needs valid and test"
            )
        )


def _check_folds(where: str, corpus: Corpus) -> None:
    """Raise for folds that name what is not there, or lack a split."""
    known = {utterance.id for utterance in corpus.utterances}
    for fold, splits in corpus.folds.items():
        if strangers := [repr(key) for key in splits if key not in known]:
            raise SuperbError(
                f"{where}, fold {fold}: there is no utterance {_some(strangers)}; a fold maps ids "
                "to splits"
            )
        counts = Counter(splits.values())
        if set(counts) != set(SPLITS):
            raise SuperbError(
                f"{where}, fold {fold} has the splits "
                f"{', '.join(f'{name}: {count}' for name, count in counts.items()) or 'none'}; "
                f"each fold needs {', '.join(SPLITS)}, and no other"
            )


def _shared_speakers(corpus: Corpus) -> str:
    """A fold that is tested on speakers that it was trained or chosen on, or ""."""
    for fold, part in corpus.partitions().items() if corpus.folds else ():
        tested = {utterance.speaker for utterance in part.split("test")} - {""}
        known = {u.speaker for u in part.utterances if u.split != "test"}
        if both := sorted(tested & known):
            people = _some(map(repr, both))
            return f"fold {fold}: speakers of test who are in train or valid too: {people}"
    return ""


def check_closed_sets(where: str, corpus: Corpus, columns: Iterable[str]) -> None:
    """Raise for a partition in which train lacks values of some columns."""
    for column in columns:
        for fold, part in corpus.partitions().items():
            check_closed_set(f"{where}, fold {fold}" if fold else where, part.utterances, column)


def check_closed_set(
    where: str | Path, utterances: Sequence[Utterance], column: str = "label"
) -> None:
    """Raise when train has one label only, or valid or test asks for one that it lacks.

    Args:
        where: what the message names.
        utterances: of all splits.
        column: the column that holds the label.

    Raises:
        SuperbError: naming the first few labels and their splits.
    """
    what = "label" if column == "label" else f"value of {column!r}"
    labels = what.replace("value", "values") if column != "label" else "labels"
    known = {utterance.value(column) for utterance in utterances if utterance.split == "train"}
    unseen = Counter(
        f"{utterance.value(column)!r} ({utterance.split})"
        for utterance in utterances
        if utterance.value(column) not in known
    )
    if unseen:
        raise SuperbError(
            f"{where}: {labels} that train does not have: {_some(unseen)}. No classifier can "
            f"answer these; train has {len(known)} {labels}. Move some of their utterances to "
            "train or leave them out"
        )
    if len(known) == 1:
        raise SuperbError(
            f"{where}: every utterance of train has the {what} {min(known)!r}: there is nothing to "
            "tell apart. Give train utterances of at least two"
        )


def _some(items: Iterable[str], most: int = 3) -> str:
    """The first few items and the count of all, or "" for none."""
    everything = list(items)
    more = f" … ({len(everything)} in all)" if len(everything) > most else ""
    return "; ".join(everything[:most]) + more


# Valid split -----------------------------------------------------------------------------------


def with_valid(
    where: str | Path,
    utterances: list[Utterance],
    *,
    labels_are_speakers: bool,
    labels: Sequence[str] = ("label",),
) -> tuple[list[Utterance], str]:
    """The utterances with a valid split, taken from train if there is none, and a note on it.

    Args:
        where: what messages name.
        utterances: of all splits.
        labels_are_speakers: whether every speaker must stay in train, as for SID.
        labels: columns of which every value must stay in train.

    Returns:
        All utterances, some of train moved to valid; the note is "" where none had to be.

    Raises:
        SuperbError: train is too small to take anything from.
    """
    if any(utterance.split == "valid" for utterance in utterances):
        return utterances, ""
    train = [utterance for utterance in utterances if utterance.split == "train"]
    chosen: set[str] = set()
    how = "whole speakers"
    if not labels_are_speakers:
        chosen = _whole_speakers(train, labels)
    if not chosen:
        labelled = any(u.value(column) for u in train for column in labels)
        how = "some of every label" if labelled else "drawn one by one"
        chosen = _every_label(train, labels)
    if not chosen:
        raise SuperbError(
            f"{where} has no valid split, and its train split (of {len(train)}) is too small to "
            "take one from: mark some utterances as valid"
        )
    note = f"no valid split given: {len(chosen)} of {len(train)} train utterances, {how}, moved"
    return [replace(u, split="valid") if u.id in chosen else u for u in utterances], note


def _order(key: str) -> str:
    """A fixed shuffle that depends on nothing but the key, so other rows do not disturb it."""
    return hashlib.sha256(f"{CARVE_SEED} {key}".encode()).hexdigest()


def _labels(utterance: Utterance, columns: Sequence[str]) -> list[tuple[str, str]]:
    return [(column, utterance.value(column)) for column in columns]


def _whole_speakers(train: Sequence[Utterance], columns: Sequence[str]) -> set[str]:
    """Ids of about a tenth of train, by whole speakers; none where that cannot be done well."""
    of_speaker: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in train:
        of_speaker[utterance.speaker].append(utterance)
    if "" in of_speaker or len(of_speaker) < MIN_SPEAKERS_TO_CARVE:
        return set()
    target = VALID_PART * len(train)
    left = Counter(label for utterance in train for label in _labels(utterance, columns))
    chosen: set[str] = set()
    for speaker in sorted(of_speaker, key=_order):
        own = of_speaker[speaker]
        labels = Counter(label for utterance in own for label in _labels(utterance, columns))
        # Neither a speaker who is most of the data nor one who alone says some label.
        if len(chosen) + len(own) > 1.5 * target or any(labels[x] == left[x] for x in labels):
            continue
        chosen |= {utterance.id for utterance in own}
        left -= labels
        if len(chosen) >= target:
            break
    # Far too little would make a valid split that chooses by noise.
    return chosen if len(chosen) >= target / 2 else set()


def _every_label(train: Sequence[Utterance], columns: Sequence[str]) -> set[str]:
    """Ids of about a tenth of train, spread over the labels; each label keeps one in train."""
    of_labels: dict[tuple[tuple[str, str], ...], list[str]] = defaultdict(list)
    for utterance in train:
        of_labels[tuple(_labels(utterance, columns))].append(utterance.id)
    # An utterance's place within its labels, 0 to 1: the lowest tenth is a tenth of all of them.
    places = [
        ((index + 0.5) / len(ids), _order(identifier), identifier, labels)
        for labels, ids in of_labels.items()
        for index, identifier in enumerate(sorted(ids, key=_order))
    ]
    left = Counter(label for utterance in train for label in _labels(utterance, columns))
    count = max(1, round(VALID_PART * len(train)))
    chosen: set[str] = set()
    for _, _, identifier, labels in sorted(places):
        if len(chosen) < count and all(left[label] > 1 for label in labels):
            chosen.add(identifier)
            left -= Counter(labels)
    return chosen
