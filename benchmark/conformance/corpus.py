"""The contract of a corpus, as one task sees it, as a list of checks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from benchmark.conformance.report import BrokenError, Check, NotApplicableError, hold, run_checks
from benchmark.core import SPLITS, Corpus, DownstreamCard, StoredAudio, Utterance
from benchmark.encoding.audio import audio_sha256, audio_size, decode
from benchmark.errors import AudioError

# Recordings of each split that are decoded.
DECODED: Final = 100
RATE: Final = 16_000

# Name -> what the contract asks for, in the order of the report.
EXPECTED: Final = {
    "corpus": "a superb.Corpus with a name, a hash of its content, and utterances",
    "ids": "ids that are not empty and stand for one utterance each",
    "splits": "train, valid and test, none of them empty, and no other; in each fold, if any",
    "targets": "all that the task needs, in every utterance",
    "closed-set": "no label in valid or test that train does not have, if card.closed_set",
    "speakers": "every speaker known, since intervals are over speakers",
    "audio": "recordings that can be decoded, with finite samples",
    "shared-audio": "no recording of test in train or valid",
    "again": "the same content when it is loaded a second time",
}


def check_corpus(
    corpus: object,
    card: DownstreamCard | None = None,
    *,
    again: Callable[[], object] | None = None,
) -> list[Check]:
    """Check one corpus, as loaded for one task.

    Args:
        corpus: a `Corpus`.
        card: the task; None asks for nothing but audio and splits.
        again: loads it once more.

    Returns:
        One `Check` per entry of `EXPECTED`, in that order; ``again`` only with `again`.
    """
    return _Suite(corpus, card, again).run()


class _Suite:
    """The checks of one corpus: a method each, which returns what it found or raises."""

    def __init__(
        self, corpus: object, card: DownstreamCard | None, again: Callable[[], object] | None
    ) -> None:
        self.given = corpus
        self.corpus: Corpus
        self.card = card
        self.load_again = again

    def run(self) -> list[Check]:
        """Run everything, in order."""
        tests: dict[str, Callable[[], str]] = {
            "corpus": self.is_corpus,
            "ids": self.ids,
            "splits": self.splits,
            "targets": self.targets,
            "closed-set": self.closed_set,
            "speakers": self.speakers,
            "audio": self.audio,
            "shared-audio": self.shared_audio,
        }
        if self.load_again is not None:
            tests["again"] = self.again
        return run_checks(EXPECTED, tests, basics=("corpus",))

    def is_corpus(self) -> str:
        if not isinstance(self.given, Corpus):
            raise BrokenError(f"a {type(self.given).__name__}")
        self.corpus = self.given
        for name in ("name", "sha256", "utterances"):
            if not getattr(self.corpus, name):
                raise BrokenError(f"an empty {name}")
        count, sha256 = len(self.corpus.utterances), self.corpus.sha256
        return f"{self.corpus.name} ({sha256[:8]}), {count} utterances"

    def ids(self) -> str:
        counts = Counter(utterance.id for utterance in self.corpus.utterances)
        bad = [repr(key) for key, count in counts.items() if count > 1 or not key]
        return hold(not bad, f"{_some(bad)} occur twice or are empty" if bad else "all different")

    def splits(self) -> str:
        found = []
        for fold, part in self.corpus.partitions().items():
            counts = Counter(utterance.split for utterance in part.utterances)
            others = [name for name in counts if name not in SPLITS]
            shown = ", ".join(f"{name or 'none'} {counts[name]}" for name in (*SPLITS, *others))
            found.append(f"{fold}: {shown}" if fold else shown)
            if set(counts) != set(SPLITS):
                raise BrokenError(found[-1])
        return "; ".join(found)

    def targets(self) -> str:
        if self.card is None or not self.card.needs:
            raise NotApplicableError("no task was named, or it needs nothing but audio")
        lacking: dict[str, list[str]] = defaultdict(list)
        for utterance in self.corpus.utterances:
            for column in self.card.columns:
                is_label = self.card.labelled and column == self.card.label_from
                if not (utterance.label if is_label else utterance.value(column)):
                    lacking[column].append(utterance.id)
        if lacking:
            column, ids = next(iter(lacking.items()))
            raise BrokenError(f"no {column!r} in {_some(ids)}")
        return f"{', '.join(self.card.columns)}, for task {self.card.name}"

    def closed_set(self) -> str:
        if self.card is None or not self.card.closed_set:
            raise NotApplicableError("the task may have answers that train does not have")
        for part in self.corpus.partitions().values():
            known = {utterance.label for utterance in part.split("train")}
            unseen = [u.id for u in part.utterances if u.label not in known]
            if unseen:
                raise BrokenError(f"labels that train does not have in {_some(unseen)}")
        return f"{len(known)} labels"

    def speakers(self) -> str:
        unknown = [u.id for u in self.corpus.utterances if not u.speaker]
        if len(unknown) == len(self.corpus.utterances):
            raise NotApplicableError(
                "no speaker is known: intervals will be over utterances, and too narrow"
            )
        everybody = {utterance.speaker for utterance in self.corpus.utterances}
        return hold(
            not unknown, f"none in {_some(unknown)}" if unknown else f"{len(everybody)} speakers"
        )

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
        other = None if self.load_again is None else self.load_again()
        sha256 = getattr(other, "sha256", "")
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
