"""Speaker diarization: who of two speaks in each frame (Yang et al. 2021, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from benchmark.answers import Answer, Reply, Span
from benchmark.core import DownstreamCard, Metric, Record, Utterance
from benchmark.errors import SuperbError
from downstreams import diarization
from downstreams.diarization import COLUMN, Activity, Segment

if TYPE_CHECKING:  # listing tasks is to stay instant
    from torch import Generator, Tensor, nn

# What may be chosen on valid; of equals, what stands first.
THRESHOLDS: Final = (0.3, 0.4, 0.5, 0.6, 0.7)
MEDIANS: Final = (1, 11)
# Seconds by which labels may go on after the last frame: encoders drop the end of a recording.
_SLACK_S: Final = 0.1


@dataclass(frozen=True)
class Sd:
    """Two tracks of speech in a mixture, whose order means nothing.

    The column ``segments`` says who speaks when: ``A 0.00 1.25; B 0.90 3.00``. A frame is labelled
    by who speaks at its centre.

    Attributes:
        hop_s: seconds between frames; None until `at_hop` was called.
        threshold: the probability above which somebody speaks.
        median: frames of the median filter over that.
    """

    hop_s: float | None = None
    threshold: float = 0.5
    median: int = 11

    card: ClassVar[DownstreamCard] = DownstreamCard(
        name="sd",
        title="Speaker diarization",
        version=1,
        metrics=(Metric("der", "lower"),),
        features="frames",
        needs=(COLUMN,),
        head="1-layer LSTM, linear of every frame; two tracks",
    )
    training: ClassVar[Mapping[str, Any]] = {"head": {"hidden": 64}}

    def at_hop(self, hop_s: float) -> Sd:
        """The same task for frames of so many seconds."""
        return replace(self, hop_s=hop_s)

    def tuned(self, utterances: Sequence[Utterance], answers: Sequence[NDArray[np.float32]]) -> Sd:
        """The same task with the threshold and the filter of least error on these answers."""
        grid = [
            replace(self, threshold=threshold, median=median)
            for threshold, median in product(THRESHOLDS, MEDIANS)
        ]
        references = [diarization.in_milliseconds(_segments(u)) for u in utterances]

        def error(task: Sd) -> int:
            return sum(
                diarization.errors(reference, task._heard(answer))[0]
                for reference, answer in zip(references, answers, strict=True)
            )

        return min(grid, key=error)

    def kept(self) -> Mapping[str, Any]:
        """The threshold and the filter."""
        return {"threshold": self.threshold, "median": self.median}

    def with_kept(self, kept: Mapping[str, Any]) -> Sd:
        """The same task with a threshold and a filter that were chosen."""
        return replace(self, threshold=float(kept["threshold"]), median=int(kept["median"]))

    def vocabulary(self, train: Sequence[Utterance]) -> tuple[str, ...]:
        """The two tracks, whoever speaks."""
        return ("first", "second")

    def example(self, index: int, seconds: float) -> Mapping[str, str]:
        """One speaker after another, who begins before the first has ended."""
        middle = seconds / 2
        pair = [Segment("A", 0, 1.2 * middle), Segment("B", 0.8 * middle, seconds)]
        return {COLUMN: diarization.written(pair)}

    def check_data(self, utterances: Sequence[Utterance]) -> None:
        """Raise for segments that cannot be read, and for mixtures of other than two speakers.

        Raises:
            SuperbError: naming the first few utterances.
        """
        wrong = [f"{u.id}: {fault}" for u in utterances if (fault := _fault(u))]
        if wrong:
            more = f" … ({len(wrong)} in all)" if len(wrong) > 3 else ""
            raise SuperbError(
                f"segments that cannot be used in the column {COLUMN!r}: {'; '.join(wrong[:3])}"
                f"{more}. Write who speaks from which second to which, two speakers in each "
                "recording: A 0.00 1.25; B 0.90 3.00"
            )

    def head(
        self,
        dim: int,
        hop_s: float,
        outputs: int,
        settings: Mapping[str, Any],
        generator: Generator,
    ) -> nn.Module:
        """LSTM, linear; setting: ``hidden``."""
        from downstreams.heads import RecurrentTagger

        return RecurrentTagger(dim, settings["hidden"], outputs)

    def notes(
        self,
        train: Sequence[Utterance],
        lengths: Sequence[int],
        hop_s: float,
        settings: Mapping[str, Any],
    ) -> list[str]:
        """Count the recordings that end before their segments do."""
        beyond = sum(
            max(segment.end_s for segment in _segments(utterance)) > length * hop_s + _SLACK_S
            for utterance, length in zip(train, lengths, strict=True)
        )
        if not beyond:
            return []
        return [f"{beyond} of {len(train)} training recordings end before their last segment does"]

    def loss(
        self,
        logits: Tensor,
        lengths: Tensor,
        utterances: Sequence[Utterance],
        vocabulary: Sequence[str],
    ) -> Tensor:
        """Cross-entropy per frame and track in the better order of tracks, mean over utterances.

        Permutation-invariant training (Yu et al. 2017; for diarization, Fujita et al. 2019).
        """
        import torch

        count = logits.shape[1]
        hop_s = self._hop()
        labels = [diarization.at_centres(_segments(u), count, hop_s) for u in utterances]
        wanted = torch.from_numpy(np.stack(labels)).to(logits)
        own = torch.arange(count, device=logits.device) < lengths[:, None]
        entropy = torch.stack(
            [
                torch.nn.functional.binary_cross_entropy_with_logits(
                    logits, order, reduction="none"
                )
                for order in (wanted, wanted.flip(-1))
            ]
        )
        of_order = (entropy * own[..., None]).sum((2, 3)) / (2 * lengths)
        return of_order.min(0).values.mean()

    def answer(
        self,
        logits: Tensor,
        lengths: Tensor,
        utterances: Sequence[Utterance],
        vocabulary: Sequence[str],
    ) -> list[NDArray[np.float32]]:
        """The probability ``[frame, 2]`` that a track speaks, for each utterance."""
        probabilities = logits.sigmoid().float().cpu().numpy()
        return [
            own[:length].copy() for own, length in zip(probabilities, lengths.tolist(), strict=True)
        ]

    def explain(self, reply: Reply) -> Answer:
        """Who speaks when, whatever their names are."""
        segments = diarization.segments_of(self._heard(reply.answer), reply.vocabulary)
        ordered = sorted(segments, key=lambda segment: (segment.start_s, segment.speaker))
        return Answer(
            reply.utterance.id,
            diarization.shown(segments),
            spans=tuple(Span(who, start, end) for who, start, end in ordered),
        )

    def records(
        self, utterances: Sequence[Utterance], answers: Sequence[NDArray[np.float32]]
    ) -> list[Record]:
        """Milliseconds of error and of speech in each mixture, which belongs to both speakers."""
        records = []
        for utterance, answer in zip(utterances, answers, strict=True):
            segments = _segments(utterance)
            names = diarization.speakers(segments)
            heard = self._heard(answer)
            reference = diarization.in_milliseconds(segments)
            wrong, speech, crossed = diarization.errors(reference, heard)
            found = diarization.segments_of(heard, names[::-1] if crossed else names)
            records.append(
                Record(
                    utterance.id,
                    names,
                    diarization.shown(segments),
                    diarization.shown(found),
                    {"der": (wrong, speech)},
                )
            )
        return records

    def _heard(self, answer: NDArray[np.float32]) -> Activity:
        """Who speaks in each millisecond, by an answer."""
        frames = diarization.smoothed(np.asarray(answer), self.threshold, self.median)
        return diarization.stretched(frames, self._hop())

    def _hop(self) -> float:
        if self.hop_s is None:
            raise SuperbError("sd needs the time between frames: use what at_hop(seconds) returns")
        return self.hop_s


def _segments(utterance: Utterance) -> tuple[diarization.Segment, ...]:
    return diarization.read(utterance.value(COLUMN))


def _fault(utterance: Utterance) -> str:
    """What is wrong with the segments of an utterance, or ""."""
    try:
        segments = _segments(utterance)
    except ValueError as error:
        return str(error)
    if not segments:
        return "no speech"
    names = diarization.speakers(segments)
    if len(names) != 2:
        few = ", ".join(names[:3])
        return f"{len(names)} speaker{'s' * (len(names) > 1)} ({few}), not two"
    seconds = _seconds(utterance)
    last = max(segments, key=lambda segment: segment.end_s)
    if seconds and last.end_s > seconds + _SLACK_S:
        return f"{diarization.shown([last])} ends beyond the recording, which lasts {seconds:g} s"
    return ""


def _seconds(utterance: Utterance) -> float:
    """How long a recording is; 0 where that is found out when it is read (see `Sd.notes`)."""
    from benchmark.encoding.recordings import duration_s

    if utterance.span or isinstance(utterance.audio, Path | bytes):
        return duration_s(utterance)
    return float(getattr(utterance.audio, "seconds", None) or 0)
