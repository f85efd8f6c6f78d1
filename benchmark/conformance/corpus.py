"""The contract of a corpus, as one task sees it, as a list of checks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from benchmark.conformance.report import BrokenError, Check, NotApplicableError, hold, run_checks
from benchmark.core import SPLITS, Corpus, StoredAudio, Utterance
from benchmark.encoding.audio import audio_sha256, audio_size, decode
from benchmark.errors import AudioError

# Recordings of each split that are decoded.
DECODED: Final = 100
RATE: Final = 16_000

# Name -> what the contract asks for, in the order of the report.
EXPECTED: Final = {
    "corpus": "what the task needs: ids of their own, splits as declared, targets, speakers",
    "audio": "recordings that can be decoded, with finite samples",
    "shared-audio": "no recording of test in train or valid",
    "again": "the same content when it is loaded a second time",
}


def check_corpus(corpus: Corpus, *, again: Callable[[], Corpus] | None = None) -> list[Check]:
    """Check one corpus, as loaded for one task.

    Args:
        corpus: what came of loading it, which refuses whatever the task could not use.
        again: loads it once more.

    Returns:
        One `Check` per entry of `EXPECTED`, in that order; ``again`` only with `again`.
    """
    return _Suite(corpus, again).run()


class _Suite:
    """The checks of one corpus: a method each, which returns what it found or raises."""

    def __init__(self, corpus: Corpus, again: Callable[[], Corpus] | None) -> None:
        self.corpus = corpus
        self.load_again = again

    def run(self) -> list[Check]:
        """Run everything, in order."""
        tests: dict[str, Callable[[], str]] = {
            "corpus": self.contents,
            "audio": self.audio,
            "shared-audio": self.shared_audio,
        }
        if self.load_again is not None:
            tests["again"] = self.again
        return run_checks(EXPECTED, tests, basics=("corpus",))

    def contents(self) -> str:
        """What loading has made sure of, counted."""
        splits = []
        for fold, part in self.corpus.partitions().items():
            counts = Counter(utterance.split for utterance in part.utterances)
            shown = ", ".join(f"{name} {counts[name]}" for name in SPLITS)
            splits.append(f"{fold}: {shown}" if fold else shown)
        speakers = {utterance.speaker for utterance in self.corpus.utterances} - {""}
        labels = {utterance.label for utterance in self.corpus.utterances} - {""}
        found = [f"{self.corpus.name} ({self.corpus.sha256[:8]})", *splits]
        found += [f"{len(labels)} labels"] * bool(labels)
        found.append(
            f"{len(speakers)} speakers"
            if speakers
            else "no speaker is known: intervals will be over utterances, and too narrow"
        )
        return "; ".join(found)

    def audio(self) -> str:
        chosen = [u for own in _by_split(self.corpus.utterances).values() for u in _spread(own)]
        bad = []
        for utterance in chosen:
            try:
                decode(utterance.audio, RATE, name=utterance.id, span=utterance.span)
            except AudioError as error:
                bad.append(str(error))
        if bad:
            raise BrokenError(f"{len(bad)} of {len(chosen)} cannot be used: {bad[0]}")
        whole = len(self.corpus.utterances)
        more = "" if len(chosen) == whole else "; superb data check decodes all"
        return f"{len(chosen)} of {whole} decoded{more}"

    def shared_audio(self) -> str:
        if any(_far(utterance.audio) for utterance in self.corpus.utterances):
            raise NotApplicableError("recordings lie across a network and are not compared")
        if not any(utterance.split == "train" for utterance in self.corpus.utterances):
            raise NotApplicableError("no train split: nothing is learned of what is searched")
        found = ""
        hashes: dict[str, str] = {}
        for fold, part in self.corpus.partitions().items():
            shared = _shared(part, hashes)
            if shared:
                where = f" in fold {fold}" if fold else ""
                raise BrokenError(f"{_some(shared)}{where} stand in train or valid too")
            found = f"{len(part.split('test'))} recordings of test are in no other split"
        return found

    def again(self) -> str:
        assert self.load_again is not None
        sha256 = self.load_again().sha256
        return hold(
            sha256 == self.corpus.sha256,
            "the same hash"
            if sha256 == self.corpus.sha256
            else f"{sha256[:8]} the second time, {self.corpus.sha256[:8]} the first",
        )


def _shared(corpus: Corpus, hashes: dict[str, str]) -> list[str]:
    """Test utterances whose recording is also in train or valid; files of one size are hashed."""
    sizes = {u.id: audio_size(u.audio) for u in corpus.utterances}
    of_size: dict[int, list[Utterance]] = defaultdict(list)
    for utterance in corpus.utterances:
        of_size[sizes[utterance.id]].append(utterance)
    shared = []
    for own in of_size.values():
        kinds = {utterance.split == "test" for utterance in own}
        if len(kinds) < 2:
            continue
        for utterance in own:
            if utterance.id not in hashes:
                hashes[utterance.id] = audio_sha256(utterance.audio)
        heard = {(hashes[u.id], u.span) for u in own if u.split != "test"}
        shared += [u.id for u in own if u.split == "test" and (hashes[u.id], u.span) in heard]
    return shared


def _far(audio: Path | bytes | StoredAudio) -> bool:
    return not isinstance(audio, Path | bytes) and audio.far


def _by_split(utterances: Iterable[Utterance]) -> dict[str, list[Utterance]]:
    of_split: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        of_split[utterance.split].append(utterance)
    return of_split


def _spread(utterances: Sequence[Utterance]) -> Sequence[Utterance]:
    """At most `DECODED` of them, from all over."""
    return utterances[:: -(-len(utterances) // DECODED)]


def _some(items: Sequence[str], most: int = 3) -> str:
    more = f" … ({len(items)} in all)" if len(items) > most else ""
    return ", ".join(items[:most]) + more
