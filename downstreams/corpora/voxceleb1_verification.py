"""VoxCeleb1 (Nagrani et al. 2017), its verification split: is it the same person? For ASV.

``wav/SPEAKER/VIDEO/NUMBER.wav``, or the same under ``dev/wav`` and ``test/wav`` as the archives
unpack, and a list of trials with lines such as ``1 id10270/x6uYqmx31kE/00001.wav id10270/…``: the
speakers that it names are test, all others train. Forty of these, drawn by a hash of their names,
are valid: the published runs choose on the test trials instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from benchmark.core import SPLITS, Corpus, Utterance
from benchmark.encoding.folders import visible
from benchmark.errors import SuperbError
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
from downstreams.corpora.trials import Trial, read_trials, with_trials
from downstreams.corpora.utterances import built
from downstreams.corpora.voxceleb1 import FOLDERS

NAME: Final = "voxceleb1-verification"
# SUPERB's list (37,720 trials), then its owners': the cleaned one (37,611) and the first (37,720).
LISTS: Final = ("voxceleb1_test_v2.txt", "veri_test2.txt", "veri_test.txt")
VALID_SPEAKERS: Final = 40

# Recordings of the development and test archives; of dev, valid takes 40 speakers.
OFFICIAL: Final[Mapping[str, Official]] = {
    "dev": Official(148_642, 1_211),
    "test": Official(4_708, 40),
}
OBTAIN: Final = (
    "VoxCeleb1 may not be downloaded automatically: ask its owners for access at "
    "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html, unpack the dev and test archives, "
    "and put https://www.openslr.org/resources/49/voxceleb1_test_v2.txt beside them, on which "
    "published values are."
)


def load(task: str, options: CorpusOptions) -> Corpus:
    """Load the verification split, as far as its recordings are there.

    Args:
        task: ``asv``.
        options: the folder that holds the list and the recordings; its splits are fixed.

    Raises:
        SuperbError: another task, options that mean nothing here, no list or recordings in the
            folder, a trial that cannot be understood or whose recording is missing, an empty split.
    """
    root = official_root(
        NAME, task, "asv", options, "its list of trials says who is in test", OBTAIN
    )
    found = survey(root)
    dev = sorted({u.speaker for u in found.utterances if u.split == "dev"}, key=_order)
    valid = set(dev[: min(VALID_SPEAKERS, len(dev) // 10)])
    utterances = [
        Utterance(
            u.id,
            u.audio,
            "test" if u.split == "test" else "valid" if u.speaker in valid else "train",
            u.speaker,
        )
        for u in found.utterances
    ]
    require_splits(NAME, root, Survey(tuple(utterances)), SPLITS, OBTAIN)
    path, trials = _trials(root)
    there = {u.id for u in utterances}
    usable = [trial for trial in trials if {trial.one, trial.other} <= there]
    notes = [partial(found.utterances, OFFICIAL)]
    if len(usable) < len(trials):
        notes.append(f"{len(trials) - len(usable)} of {len(trials)} trials without a recording")
    return built(
        NAME,
        root,
        with_trials(path, usable, utterances),
        notes,
        licence="its owners'; see https://www.robots.ox.ac.uk/~vgg/data/voxceleb/",
        source="https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html",
    )


def survey(root: Path) -> Survey:
    """What is there, by names: recordings of test that no trial names are extra.

    Raises:
        SuperbError: no list or no recordings, or a line that is no trial.
    """
    _, trials = _trials(root)
    folders = [root / folder for folder in FOLDERS if (root / folder).is_dir()]
    if not folders:
        raise not_found("VoxCeleb1", root, " or ".join(f"{name}/" for name in FOLDERS), OBTAIN)
    there = {
        file.relative_to(folder).as_posix(): file
        for folder in folders
        for file in visible(folder, "*/*/*.wav")
    }
    named = dict.fromkeys(name for trial in trials for name in (trial.one, trial.other))
    tested = {name.partition("/")[0] for name in named}
    utterances, extra = [], {}
    for name, file in there.items():
        speaker = name.partition("/")[0]
        if name in named or speaker not in tested:
            split = "test" if name in named else "dev"
            utterances.append(Utterance(name, file, split, speaker))
        else:
            extra[file.relative_to(root)] = "test"
    missing = {
        (folders[-1] / name).relative_to(root): "test" for name in named if name not in there
    }
    return Survey(tuple(utterances), missing, extra, disjoint=(("dev", "test"),))


LAYOUT: Final = Layout(survey, OFFICIAL, (), OBTAIN)


def _trials(root: Path) -> tuple[Path, list[Trial]]:
    path = next((root / name for name in LISTS if (root / name).is_file()), None)
    if path is None:
        raise not_found("list of trials of VoxCeleb1", root, " or ".join(LISTS), OBTAIN)
    trials = read_trials(path)
    odd = next((t for t in trials if t.one.count("/") != 2 or t.other.count("/") != 2), None)
    if odd is not None:
        raise SuperbError(
            f"{path}, line {odd.line}: {odd.one} and {odd.other} are not "
            f"SPEAKER/VIDEO/NUMBER.wav. {OBTAIN}"
        )
    return path, trials


def _order(speaker: str) -> str:
    """A fixed shuffle of speakers."""
    return hashlib.sha256(f"valid {speaker}".encode()).hexdigest()
