"""VoxCeleb1 (Nagrani et al. 2017): celebrities in interviews, for speaker identification.

``wav/SPEAKER/VIDEO/NUMBER.wav``, or the same under ``dev/wav`` and ``test/wav`` as the archives
unpack, and the list ``iden_split.txt`` with lines such as ``1 id10001/1zcIwhmdeo4/00001.wav``:
1 for train, 2 for valid, 3 for test. All 1,251 speakers are in all three.
"""

from __future__ import annotations

from collections.abc import Mapping
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

NAME: Final = "voxceleb1"
# The owners' name, and the one under which SUPERB passes the same list on.
LISTS: Final = ("iden_split.txt", "veri_test_class.txt")
FOLDERS: Final = ("wav", "dev/wav", "test/wav")

# Counted in the list; the number of speakers is the paper's.
OFFICIAL: Final[Mapping[str, Official]] = {
    "train": Official(138_361, 1_251),
    "valid": Official(6_904, 1_251),
    "test": Official(8_251, 1_251),
}
ARCHIVES: Final[tuple[Archive, ...]] = ()
OBTAIN: Final = (
    "VoxCeleb1 may not be downloaded automatically: ask its owners for access at "
    "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html, unpack the dev and test archives, "
    "and put https://www.robots.ox.ac.uk/~vgg/data/voxceleb/meta/iden_split.txt beside them."
)


def load(task: str, options: CorpusOptions) -> Corpus:
    """Load the identification split, as far as its recordings are there.

    Args:
        task: ``sid``.
        options: the folder that holds the list and the recordings; its splits are fixed.

    Raises:
        SuperbError: another task, options that mean nothing here, no list or recordings in the
            folder, a line of the list that cannot be understood, an empty split, and speakers of
            valid or test that are not in train.
    """
    root = official_root(
        NAME, task, "sid", options, "iden_split.txt says which is in which", OBTAIN
    )
    found = survey(root)
    require_splits(NAME, root, found, SPLITS, OBTAIN)
    return built(
        NAME,
        root,
        found.utterances,
        [partial(found.utterances, OFFICIAL)],
        licence="its owners'; see https://www.robots.ox.ac.uk/~vgg/data/voxceleb/",
        source="https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html",
    )


def survey(root: Path) -> Survey:
    """What of the list is there, by names.

    Raises:
        SuperbError: no list or no recordings, or a line that cannot be understood.
    """
    path = next((root / name for name in LISTS if (root / name).is_file()), None)
    if path is None:
        raise not_found("list of VoxCeleb1", root, " or ".join(LISTS), OBTAIN)
    folders = [root / folder for folder in FOLDERS if (root / folder).is_dir()]
    if not folders:
        raise not_found("VoxCeleb1", root, " or ".join(f"{name}/" for name in FOLDERS), OBTAIN)
    there = {
        file.relative_to(folder).as_posix(): file
        for folder in folders
        for file in visible(folder, "**/*.wav")
    }
    utterances = []
    missing = {}
    listed = _listed(path)
    for name, split in listed.items():
        speaker = name.partition("/")[0]
        if name in there:
            utterances.append(Utterance(name, there[name], split, speaker, label=speaker))
        else:
            missing[(folders[0] / name).relative_to(root)] = split
    extra = {there[name].relative_to(root): "" for name in sorted(there.keys() - listed.keys())}
    return Survey(tuple(utterances), missing, extra)


LAYOUT: Final = Layout(survey, OFFICIAL, ARCHIVES, OBTAIN)


def _listed(path: Path) -> dict[str, str]:
    """Recording → split, as the list says."""
    listed: dict[str, str] = {}
    # A damaged character makes a line that is not understood, or a recording that is not there.
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or words[0] not in ("1", "2", "3") or words[1].count("/") != 2:
            raise SuperbError(
                f"{path}, line {number}: {line[:60]!r} is not '1 SPEAKER/VIDEO/NUMBER.wav' (1 for "
                f"train, 2 for valid, 3 for test). {OBTAIN}"
            )
        if words[1] in listed:
            raise SuperbError(f"{path}, line {number}: {words[1]} is listed twice. {OBTAIN}")
        listed[words[1]] = SPLITS[int(words[0]) - 1]
    return listed
