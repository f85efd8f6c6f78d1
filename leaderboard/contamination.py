"""Whether an encoder has heard a task's corpus in training, by the names on its card.

Three answers, since an undisclosed list is neither clean nor a fault: hiding such rows would punish
those who tell. Names are all there is to go by: a manifest under a name of its own is not
recognised, and neither is a recording that found its way into a crawl.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

Verdict = Literal["clean", "overlap", "undisclosed"]


@dataclass(frozen=True)
class Relation:
    """Two corpora that share recordings.

    Attributes:
        heard: the one in a card's list.
        corpus: the task's.
        how: what they share, in words.
        source: where that is written.
    """

    heard: str
    corpus: str
    how: str
    source: str


@dataclass(frozen=True)
class Contamination:
    """What can be said of one encoder on one corpus.

    Attributes:
        verdict: ``clean`` when nothing on the card's list shares recordings with the corpus as
            far as is known; ``undisclosed`` when there is no list.
        heard: the names on the list that do; empty unless ``overlap``.
        reasons: for each, how.
    """

    verdict: Verdict
    heard: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


_LIBRIVOX = "both are cut from LibriVox recordings"
RELATIONS: Final = (
    Relation("libri-light", "librispeech", _LIBRIVOX, "Kahn et al. 2020, arXiv 1912.07875"),
    Relation(
        "multilingual-librispeech", "librispeech", _LIBRIVOX, "Pratap et al. 2020, arXiv 2012.03411"
    ),
    Relation("librivox", "librispeech", "it is cut from LibriVox", "Panayotov et al. 2015"),
    Relation(
        "libritts",
        "librispeech",
        "made from the same material",
        "Zen et al. 2019, arXiv 1904.02882",
    ),
    Relation(
        "librimix",
        "librispeech",
        "mixtures of its recordings",
        "Cosentino et al. 2020, arXiv 2005.11262",
    ),
    Relation(
        "speech-commands-v2",
        "speech-commands-v1",
        "version 2 extends version 1",
        "Warden 2018, arXiv 1804.03209",
    ),
    Relation(
        "speech-commands-v1",
        "speech-commands-v2",
        "version 2 extends version 1",
        "Warden 2018, arXiv 1804.03209",
    ),
    Relation(
        "speech-commands", "speech-commands-v1", "version not said", "Warden 2018, arXiv 1804.03209"
    ),
    Relation(
        "speech-commands", "speech-commands-v2", "version not said", "Warden 2018, arXiv 1804.03209"
    ),
    Relation(
        "voxceleb", "voxceleb1", "1 or 2 is not said", "Nagrani et al. 2017, arXiv 1706.08612"
    ),
)
"""Corpora that share recordings under different names; a pair that is not here counts as apart."""

# Other spellings of the same corpus: of papers, checkpoints (ll60k, ls960) and hub data sets.
_SPELLINGS: Final = {
    "librispeech-asr": "librispeech",
    "librispeech-960": "librispeech",
    "librispeech-960h": "librispeech",
    "ls960": "librispeech",
    "ls-960": "librispeech",
    "librilight": "libri-light",
    "libri-light-60k": "libri-light",
    "ll60k": "libri-light",
    "ll-60k": "libri-light",
    "lv60": "libri-light",
    "lv60k": "libri-light",
    "mls": "multilingual-librispeech",
    "libritts-r": "libritts",
    "libri2mix": "librimix",
    "libri3mix": "librimix",
    "google-speech-commands": "speech-commands",
    "speech-commands-v0.01": "speech-commands-v1",
    "speech-commands-v0.02": "speech-commands-v2",
    "vox1": "voxceleb1",
    "voxceleb-1": "voxceleb1",
}


def same_name(corpus: str) -> str:
    """One spelling for a corpus, whatever it is called: ``hf:openslr/librispeech_asr:clean`` too.

    >>> same_name("LL60K")
    'libri-light'
    >>> same_name("hf:google/speech_commands:v0.01")
    'speech-commands-v1'
    """
    name = corpus.strip().lower()
    if name.startswith("hf:"):
        name, _, config = name.removeprefix("hf:").partition("@")[0].partition(":")
        name = name.rpartition("/")[2]
        # The one data set whose configurations are different corpora.
        if name == "speech_commands" and config:
            name += f"-{config}"
    name = re.sub(r"[\s_-]+", "-", name)
    return _SPELLINGS.get(name, name)


def judge(trained_on: Iterable[str] | None, corpus: str) -> Contamination:
    """Compare a card's list with a corpus.

    Args:
        trained_on: names of corpora heard in training; None when undisclosed.
        corpus: name of the task's.
    """
    if trained_on is None:
        return Contamination("undisclosed")
    wanted = same_name(corpus)
    related = {
        relation.heard: f"{relation.how}: {relation.source}"
        for relation in RELATIONS
        if relation.corpus == wanted
    }
    found: dict[str, str] = {}
    for name in sorted(trained_on):
        same = same_name(name)
        if same == wanted:
            found[name] = "the corpus itself"
        elif same in related:
            found[name] = related[same]
    if not found:
        return Contamination("clean")
    return Contamination("overlap", tuple(found), tuple(found.values()))
