"""Corpora: one file each. This table imports none of them, so that listing stays instant."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmark.core import Utterance
from benchmark.encoding.audio import audio_sha256, audio_size
from benchmark.errors import SuperbError

BUNDLED: Final = "mini"
MANIFEST_SUFFIXES: Final = (".csv", ".tsv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class CorpusOptions:
    """What can be asked of a corpus besides its name.

    Attributes:
        data_root: folder of a corpus that is not bundled.
        splits: our name of a split (``train``, ``valid``, ``test``) → the corpus's own, where
            another than the official one is wanted.
        pronunciations: a lexicon, for tasks that need phones of words.
        trials: a list of the recordings of test that are compared, for speaker verification.
    """

    data_root: Path | None = None
    splits: Mapping[str, str] = field(default_factory=dict)
    pronunciations: Path | None = None
    trials: Path | None = None


@dataclass(frozen=True)
class Manifest:
    """A table of one's own recordings that is to be called something.

    Attributes:
        path: of the table.
        name: of the corpus, in results and tables; that of the file if "".
    """

    path: Path
    name: str = ""


@dataclass(frozen=True)
class CorpusEntry:
    """One line of the list of corpora.

    Attributes:
        name: as typed on the command line.
        title: for tables.
        tasks: the tasks it serves.
        hours: how much audio, in words.
        licence: of the audio.
        where: how to get it, in words.
        target: ``module:attribute`` of the function from a task's name and `CorpusOptions` to the
            corpus.
        layout: ``module:attribute`` of its `downstreams.corpora.layout.Layout`; "" if bundled.
    """

    name: str
    title: str
    tasks: tuple[str, ...]
    hours: str
    licence: str
    where: str
    target: str
    layout: str = ""


CORPORA: Final[Mapping[str, CorpusEntry]] = {
    entry.name: entry
    for entry in (
        CorpusEntry(
            name=BUNDLED,
            title="superb mini (synthetic English)",
            tasks=("asr", "sid", "ks", "pr", "ic", "sf", "asv", "sd", "qbe"),
            hours="1.9 h",
            licence="MIT",
            where="bundled",
            target="downstreams.corpora.mini:load",
        ),
        CorpusEntry(
            name="voices",
            title="superb voices (real, Arabic and English)",
            tasks=("ks", "sid", "asv", "sd", "qbe"),
            hours="1.1 h",
            licence="CC BY 4.0",
            where="make it",
            target="downstreams.corpora.voices:load",
            layout="downstreams.corpora.voices:LAYOUT",
        ),
        CorpusEntry(
            name="librispeech",
            title="LibriSpeech",
            tasks=("asr", "pr", "sd"),
            hours="111 h",
            licence="CC BY 4.0",
            where="own copy",
            target="downstreams.corpora.librispeech:load",
            layout="downstreams.corpora.librispeech:LAYOUT",
        ),
        CorpusEntry(
            name="voxceleb1",
            title="VoxCeleb1 identification",
            tasks=("sid",),
            hours="352 h",
            licence="on request",
            where="own copy",
            target="downstreams.corpora.voxceleb1:load",
            layout="downstreams.corpora.voxceleb1:LAYOUT",
        ),
        CorpusEntry(
            name="voxceleb1-verification",
            title="VoxCeleb1 verification",
            tasks=("asv",),
            hours="352 h",
            licence="on request",
            where="own copy",
            target="downstreams.corpora.voxceleb1_verification:load",
            layout="downstreams.corpora.voxceleb1_verification:LAYOUT",
        ),
        CorpusEntry(
            name="speech-commands-v1",
            title="Speech Commands, 12 classes",
            tasks=("ks",),
            hours="17 h",
            licence="CC BY 4.0",
            where="own copy",
            target="downstreams.corpora.speech_commands:load_v1",
            layout="downstreams.corpora.speech_commands:V1",
        ),
        CorpusEntry(
            name="speech-commands-v2",
            title="Speech Commands, 35 words",
            tasks=("ks",),
            hours="29 h",
            licence="CC BY 4.0",
            where="own copy",
            target="downstreams.corpora.speech_commands:load_v2",
            layout="downstreams.corpora.speech_commands:V2",
        ),
        CorpusEntry(
            name="fluent-speech-commands",
            title="Fluent Speech Commands",
            tasks=("ic",),
            hours="19 h",
            licence="on request",
            where="own copy",
            target="downstreams.corpora.fluent_speech_commands:load",
            layout="downstreams.corpora.fluent_speech_commands:LAYOUT",
        ),
        CorpusEntry(
            name="audio-snips",
            title="Audio SNIPS (synthetic English)",
            tasks=("sf",),
            hours="unknown",
            licence="MIT",
            where="own copy",
            target="downstreams.corpora.audio_snips:load",
            layout="downstreams.corpora.audio_snips:LAYOUT",
        ),
        CorpusEntry(
            name="libri2mix",
            title="Libri2Mix, mixtures of two",
            tasks=("sd",),
            hours="80 h",
            licence="CC BY 4.0",
            where="own copy",
            target="downstreams.corpora.libri2mix:load",
            layout="downstreams.corpora.libri2mix:LAYOUT",
        ),
        CorpusEntry(
            name="iemocap",
            title="IEMOCAP, 4 emotions, 5 folds",
            tasks=("er",),
            hours="part of 12 h",
            licence="on request",
            where="own copy",
            target="downstreams.corpora.iemocap:load",
            layout="downstreams.corpora.iemocap:LAYOUT",
        ),
        CorpusEntry(
            name="quesst14",
            title="QUESST 2014, English",
            tasks=("qbe",),
            hours="unknown",
            licence="see its owners",
            where="own copy",
            target="downstreams.corpora.quesst14:load",
            layout="downstreams.corpora.quesst14:LAYOUT",
        ),
    )
}


def refuse_options(
    name: str, options: CorpusOptions, why: str, *, root: bool = True, splits: bool = True
) -> None:
    """Raise for options that mean nothing to a corpus.

    Args:
        name: of the corpus, for the message.
        options: what was asked for.
        why: what decides instead, for the message.
        root: whether a data root means nothing to it.
        splits: whether names of splits mean nothing to it.

    Raises:
        SuperbError: naming the options to leave out.
    """
    given = ["--data-root"] if root and options.data_root is not None else []
    if splits:
        given += [f"--{split}-split" for split in options.splits]
    if given:
        raise SuperbError(f"corpus {name!r} takes no {' or '.join(given)}: {why}. Leave it out")


def content_sha256(
    utterances: Iterable[Utterance],
    pinned: str = "",
    folds: Mapping[str, Mapping[str, str]] | None = None,
) -> str:
    """Identity of a corpus: ids, splits and all that is known of utterances, in order, and audio.

    Audio in memory counts with its bytes, a file with its size alone: hashing a thousand hours
    would take longer than much of what is done with them. What is in a file is hashed when its
    features are made, which are found by that hash.

    Args:
        utterances: all of them.
        pinned: what fixes the bytes of all audio for ever, such as a commit. It counts instead of
            sizes, which need not be known then.
        folds: as in `Corpus.folds`.

    Raises:
        AudioError: when an audio file is missing.
    """
    digest = hashlib.sha256(json.dumps(pinned).encode() + b"\n" if pinned else b"")
    for utterance in utterances:
        row: list[object] = [
            utterance.id,
            utterance.split,
            utterance.speaker,
            utterance.text,
            utterance.label,
        ]
        if not pinned:
            audio = utterance.audio
            row.append(audio_sha256(audio) if isinstance(audio, bytes) else audio_size(audio))
        if utterance.span is not None:
            row.append(utterance.span)
        if utterance.columns:
            row.append(dict(sorted(utterance.columns.items())))
        # JSON keeps the cells apart whatever they contain.
        digest.update(json.dumps(row).encode() + b"\n")
    if folds:
        digest.update(json.dumps({"folds": folds}, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()
