"""IEMOCAP (Busso et al. 2008): ten actors in pairs, for emotion recognition in five folds.

``Session1`` to ``Session5``, each of two actors who are in no other. The emotion of every utterance
is in ``dialog/EmoEvaluation/DIALOG.txt``, in lines such as ::

    [6.2901 - 8.2357]	Ses01F_impro01_F000	neu	[2.5000, 2.5000, 2.5000]

and its recording is ``sentences/wav/DIALOG/Ses01F_impro01_F000.wav``. As in SUPERB, four emotions
are told apart: neutral, happy (with excited), angry and sad.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Final

from benchmark.core import Corpus, Utterance
from benchmark.encoding.folders import visible
from benchmark.errors import SuperbError
from downstreams.corpora import CorpusOptions
from downstreams.corpora.folds import rotated
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

NAME: Final = "iemocap"
FOLDER: Final = "IEMOCAP_full_release"
EVALUATIONS: Final = "dialog/EmoEvaluation"
# Those that count → what they count as.
LABELS: Final[Mapping[str, str]] = {
    "neu": "neu",
    "hap": "hap",
    "exc": "hap",
    "ang": "ang",
    "sad": "sad",
}
# frustrated, fearful, surprised, disgusted, other; xxx where listeners did not agree
LEFT_OUT: Final = ("fru", "fea", "sur", "dis", "oth", "xxx")

# Utterances of the four emotions.
OFFICIAL: Final[Mapping[str, Official]] = {
    "Session1": Official(1_085, 2),
    "Session2": Official(1_023, 2),
    "Session3": Official(1_151, 2),
    "Session4": Official(1_031, 2),
    "Session5": Official(1_241, 2),
}
SOURCE: Final = "https://sail.usc.edu/iemocap/"
OBTAIN: Final = (
    "IEMOCAP may not be downloaded automatically: ask its owners for access at "
    f"{SOURCE}iemocap_release.htm and unpack the archive."
)
# Utterances are named by the dialog and by who speaks in it, F or M.
_LINE: Final = re.compile(
    r"\[[\d.]+ - [\d.]+\]\s+((Ses0[1-5])[FM]_\w+_([FM])[A-Z0-9]+)\s+(\w+)\s+\[[^\]]*\]\s*"
)


def load(task: str, options: CorpusOptions) -> Corpus:
    """Load all five sessions, each of which is tested in one fold.

    A fold is called by the session that it tests; the next session is its valid split, and the
    other three are its train split. No speaker is in two of them.

    Args:
        task: ``er``.
        options: the folder that holds the sessions, or the one above; its splits are fixed.

    Raises:
        SuperbError: another task, options that mean nothing here, a session without recordings, an
            emotion file that cannot be understood, and an emotion that a fold's train lacks.
    """
    root = official_root(NAME, task, "er", options, "its sessions are five folds", OBTAIN)
    found = survey(root)
    why = f"Each session is tested once: five folds take all five. {OBTAIN}"
    require_splits(NAME, root, found, OFFICIAL, why)
    return built(
        NAME,
        root,
        [replace(utterance, split="test") for utterance in found.utterances],
        [partial(found.utterances, OFFICIAL), *found.notes],
        licence="its owners'; see https://sail.usc.edu/iemocap/",
        source=SOURCE,
        folds=rotated(str(root), {u.id: u.split for u in found.utterances}),
    )


def survey(root: Path) -> Survey:
    """The utterances of four emotions, by names, with their sessions as splits.

    Raises:
        SuperbError: no session, one without emotion files, or a line that cannot be understood.
    """
    bases = (root, root / FOLDER)
    base = next((path for path in bases if any((path / name).is_dir() for name in OFFICIAL)), None)
    if base is None:
        if root.resolve().name in OFFICIAL:
            raise SuperbError(
                f"{root} is one session; give the folder above: --data-root {root.resolve().parent}"
            )
        raise not_found("IEMOCAP", root, f"Session1/ to Session5/, or {FOLDER}/", OBTAIN)
    utterances: list[Utterance] = []
    missing: dict[Path, str] = {}
    extra: dict[Path, str] = {}
    others: Counter[str] = Counter()
    for session in OFFICIAL:
        if not (base / session).is_dir():
            continue
        emotions = _emotions(base / session)
        wavs = base / session / "sentences" / "wav"
        there = {path.relative_to(wavs).as_posix(): path for path in visible(wavs, "*/*.wav")}
        for name, (speaker, emotion) in emotions.items():
            path = there.pop(f"{name.rpartition('_')[0]}/{name}.wav", None)
            if emotion in LEFT_OUT:
                others[emotion] += 1
            elif path:
                utterances.append(Utterance(name, path, session, speaker, label=LABELS[emotion]))
            else:
                absent = wavs / name.rpartition("_")[0] / f"{name}.wav"
                missing[absent.relative_to(root)] = session
        extra |= {path.relative_to(root): session for path in there.values()}
    kinds = ", ".join(f"{emotion} {count}" for emotion, count in others.most_common())
    note = f"{others.total()} utterances of other emotions left out: {kinds}"
    return Survey(
        tuple(utterances),
        missing,
        extra,
        disjoint=tuple(combinations(OFFICIAL, 2)),
        notes=(note,) if others else (),
    )


LAYOUT: Final = Layout(survey, OFFICIAL, (), OBTAIN)


def _emotions(folder: Path) -> dict[str, tuple[str, str]]:
    """Utterance → who speaks and the emotion, of all dialogs of a session."""
    emotions: dict[str, tuple[str, str]] = {}
    known = f"known are {', '.join((*LABELS, *LEFT_OUT))}"
    paths = visible(folder / EVALUATIONS, "*.txt")
    if not paths:
        raise not_found("emotion files of IEMOCAP", folder, f"{EVALUATIONS}/DIALOG.txt", OBTAIN)
    for path in paths:
        before = len(emotions)
        # Remarks of the listeners need not be UTF-8; the lines that count are ASCII.
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        for number, line in enumerate(lines, start=1):
            if not line.startswith("["):
                continue
            found = _LINE.fullmatch(line)
            if not found or f"Session{found[2][-1]}" != folder.name:
                raise SuperbError(
                    f"{path}, line {number}: {line[:60]!r} is not '[start - end] NAME EMOTION "
                    f"[v, a, d]' of an utterance of {folder.name}. {OBTAIN}"
                )
            name, session, who, emotion = found.groups()
            if emotion not in (*LABELS, *LEFT_OUT):
                raise SuperbError(
                    f"{path}, line {number}: unknown emotion {emotion!r}; {known}. {OBTAIN}"
                )
            if name in emotions:
                raise SuperbError(f"{path}, line {number}: {name} is listed twice. {OBTAIN}")
            emotions[name] = (f"{session}{who}", emotion)
        if len(emotions) == before:
            raise SuperbError(f"{path} names no utterance and its emotion; {known}. {OBTAIN}")
    return emotions
