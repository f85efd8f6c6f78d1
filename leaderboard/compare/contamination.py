"""Whether an encoder has heard a task's corpus in training, by the names on its card.

Three answers, since an undisclosed list is neither clean nor a fault: hiding such rows would punish
those who tell. Names are all there is to go by: a manifest under a name of its own is not
recognised, and neither is a recording that found its way into a crawl.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
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
        itself: True when one of them is the corpus's own name, rather than that of a relative which
            may or may not hold these very recordings.
    """

    verdict: Verdict
    heard: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    itself: bool = False


ITSELF: Final = "the corpus itself"
"""Why a name counts that is the corpus's own, or that of a part of it."""

_LIBRIVOX = "both are cut from LibriVox recordings"
_EXTENDS = ("version 2 extends version 1", "Warden 2018, arXiv 1804.03209")
_NO_VERSION = ("version not said", "Warden 2018, arXiv 1804.03209")
RELATIONS: Final = tuple(
    Relation(*row)
    for row in (
        ("libri-light", "librispeech", _LIBRIVOX, "Kahn et al. 2020, arXiv 1912.07875"),
        ("multilingual-librispeech", "librispeech", _LIBRIVOX,
         "Pratap et al. 2020, arXiv 2012.03411"),
        ("librivox", "librispeech", "it is cut from LibriVox", "Panayotov et al. 2015"),
        ("libritts", "librispeech", "made from the same material",
         "Zen et al. 2019, arXiv 1904.02882"),
        ("libriheavy", "librispeech", "it is cut from Libri-Light",
         "Kang et al. 2023, arXiv 2309.08105"),
        ("librimix", "librispeech", "mixtures of its recordings",
         "Cosentino et al. 2020, arXiv 2005.11262"),
        ("speech-commands-v2", "speech-commands-v1", *_EXTENDS),
        ("speech-commands-v1", "speech-commands-v2", *_EXTENDS),
        ("speech-commands", "speech-commands-v1", *_NO_VERSION),
        ("speech-commands", "speech-commands-v2", *_NO_VERSION),
        ("voxceleb", "voxceleb1", "1 or 2 is not said", "Nagrani et al. 2017, arXiv 1706.08612"),
    )
)  # fmt: skip
"""Corpora that share recordings under different names; a pair that is not here counts as apart."""

PARTS: Final = {
    "voices": {"librispeech": "its sentences (asv, sd)", "arabic-speech-commands": "its words"}
}
"""What corpora are packed of: what shares recordings with a part shares them with the whole."""

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
    "arabicspeechcommands": "arabic-speech-commands",
    "speech-commands-v0.01": "speech-commands-v1",
    "speech-commands-v0.02": "speech-commands-v2",
    "vox1": "voxceleb1",
    "voxceleb-1": "voxceleb1",
    "mini-librispeech": "librispeech",
    # Configurations of the data set "superb" of the hub.
    "superb-asr": "librispeech",
    "superb-si": "voxceleb1",
    "superb-ks": "speech-commands-v1",
    "superb-ic": "fluent-speech-commands",
    "superb-er": "iemocap",
}
# Of these a name may go on with a subset: librispeech-train-clean-100, voxceleb1-dev.
_WITH_SUBSETS: Final = re.compile(
    r"(librispeech|libri-light|librilight|multilingual-librispeech|mls|libritts|libriheavy"
    r"|voxceleb1|speech-commands-v[12])-.+"
)
# Data sets of the hub whose configurations are different corpora.
_BY_CONFIG: Final = ("speech_commands", "superb")


@lru_cache(maxsize=4_096)
def same_name(corpus: str) -> str:
    """One spelling for a corpus, whatever it is called: ``hf:openslr/librispeech_asr:clean`` too.

    >>> same_name("LL60K")
    'libri-light'
    >>> same_name("hf:google/speech_commands:v0.01")
    'speech-commands-v1'
    >>> same_name("librispeech-train-clean-100")
    'librispeech'
    """
    name = corpus.strip().lower()
    if name.startswith("hf:"):
        name, _, config = name.removeprefix("hf:").partition("@")[0].partition(":")
        name = name.rpartition("/")[2]
        if name in _BY_CONFIG and config:
            name += f"-{config}"
    name = re.sub(r"[\s_-]+", "-", name)
    name = _SPELLINGS.get(name, name)
    subset = _WITH_SUBSETS.fullmatch(name)
    return _SPELLINGS.get(subset[1], subset[1]) if subset else name


def judge(trained_on: Iterable[str] | None, corpus: str) -> Contamination:
    """Compare a card's list with a corpus.

    Args:
        trained_on: names of corpora heard in training; None when undisclosed.
        corpus: name of the task's.
    """
    if trained_on is None:
        return Contamination("undisclosed")
    wanted = same_name(corpus)
    parts = PARTS.get(wanted, {})
    related = {part: f"{what} are of it" for part, what in parts.items()}
    for relation in RELATIONS:
        if relation.corpus in (wanted, *parts):
            what = f"with {parts[relation.corpus]}, " if relation.corpus in parts else ""
            related[relation.heard] = f"{what}{relation.how}: {relation.source}"
    found: dict[str, str] = {}
    itself = False
    for name in sorted(trained_on):
        same = same_name(name)
        if same == wanted:
            itself = True
            found[name] = ITSELF
        elif same in related:
            found[name] = related[same]
    if not found:
        return Contamination("clean")
    return Contamination("overlap", tuple(found), tuple(found.values()), itself)
