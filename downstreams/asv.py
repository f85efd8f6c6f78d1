"""Speaker verification: is it the same person in two recordings? (Yang et al. 2021, section 3.1).

An x-vector (Snyder et al. 2018) trained to tell the speakers of train apart with an additive margin
(Wang et al. 2018); two recordings are compared by the cosine of theirs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from benchmark.core import DownstreamCard, Metric, Record, Utterance
from benchmark.errors import SuperbError
from downstreams.trials import left_out, pairs_of

if TYPE_CHECKING:  # listing tasks is to stay instant
    from torch import Generator, Tensor, nn

SCALE: Final = 30.0
MARGIN: Final = 0.4


class Asv:
    """An embedding of an utterance, near to those of its speaker's other utterances.

    Trials of a split are those that its utterances name in the column ``trials``, or pairs of its
    utterances: see `downstreams.trials`.
    """

    card = DownstreamCard(
        name="asv",
        title="Speaker verification",
        version=1,
        metrics=(
            Metric("eer", "lower", statistic="equal-error-rate"),
            Metric("min_dcf", "lower", statistic="detection-cost", unit=""),
        ),
        features="frames",
        needs=("speaker",),
        head="x-vector: linear, 5 TDNN layers, statistics pooling, linear, linear; AM-softmax",
    )
    reads_trials = True
    training: Mapping[str, Any] = {
        "head": {"projection": 64, "hidden": 64, "pooled": 192, "embedding": 64},
        # those of other tasks may go by the loss on valid, which speakers that are new do not have
        "halving": [],
    }

    def vocabulary(self, train: Sequence[Utterance]) -> tuple[str, ...]:
        """The speakers of train, sorted."""
        return tuple(sorted({utterance.speaker for utterance in train}))

    def check_data(self, utterances: Sequence[Utterance]) -> None:
        """Raise for a split without trials of both kinds, and for a train split of one speaker.

        Raises:
            SuperbError: also for trials that name no utterance of their split.
        """
        if len(self.vocabulary([u for u in utterances if u.split == "train"])) < 2:
            raise SuperbError("train has one speaker alone: there is nobody to tell apart")
        for split in ("valid", "test"):
            own = [utterance for utterance in utterances if utterance.split == split]
            kinds = Counter(pair.target for pair in pairs_of(own))
            if len(kinds) < 2:
                raise SuperbError(
                    f"{split} has {kinds[True]} trials of one speaker and {kinds[False]} of two; "
                    "an equal error rate takes both kinds. Give it two speakers or more, with two "
                    "utterances or more of one of them"
                )

    def test_notes(self, test: Sequence[Utterance], vocabulary: Sequence[str]) -> list[str]:
        """Say that trials name recordings which cannot be used."""
        lost = left_out(test)
        return [f"trials of recordings that cannot be used, left out: {lost} or more"] * bool(lost)

    def head(
        self,
        dim: int,
        hop_s: float,
        outputs: int,
        settings: Mapping[str, Any],
        generator: Generator,
    ) -> nn.Module:
        """An x-vector; settings: ``projection``, ``hidden``, ``pooled``, ``embedding``."""
        from downstreams.heads import XVector

        return XVector(
            dim,
            outputs,
            projection=settings["projection"],
            hidden=settings["hidden"],
            pooled=int(settings["pooled"]),
            embedding=int(settings["embedding"]),
        )

    def loss(
        self,
        logits: Tensor,
        lengths: Tensor,
        utterances: Sequence[Utterance],
        vocabulary: Sequence[str],
    ) -> Tensor:
        """AM-softmax: cross-entropy of cosines, that of the speaker less the margin, times scale.

        Utterances of speakers that train does not have, as in valid, add nothing.
        """
        import torch

        index = {speaker: place for place, speaker in enumerate(vocabulary)}
        known = [place for place, u in enumerate(utterances) if u.speaker in index]
        if not known:
            return logits.sum() * 0
        cosines = logits[known, : len(vocabulary)]
        targets = torch.tensor([index[utterances[place].speaker] for place in known])
        targets = targets.to(logits.device)
        margin = MARGIN * torch.nn.functional.one_hot(targets, len(vocabulary))
        total = torch.nn.functional.cross_entropy(
            SCALE * (cosines - margin), targets, reduction="sum"
        )
        return total / len(utterances)

    def answer(
        self,
        logits: Tensor,
        lengths: Tensor,
        utterances: Sequence[Utterance],
        vocabulary: Sequence[str],
    ) -> list[Tensor]:
        """The embedding of each utterance, of length 1."""
        import torch

        embeddings = logits[:, len(vocabulary) :]
        return list(torch.nn.functional.normalize(embeddings, dim=-1).cpu())

    def compare(self, one: Tensor, other: Tensor) -> str:
        """The cosine of two embeddings: the higher, the likelier one person speaks in both."""
        return f"{float((one * other).sum(-1)):.4f}"

    def records(self, utterances: Sequence[Utterance], answers: Sequence[Tensor]) -> list[Record]:
        """Each trial and its cosine."""
        import torch

        pairs = pairs_of(utterances, partial=True)
        embeddings = torch.stack(list(answers))
        one, other = (embeddings[[getattr(p, side) for p in pairs]] for side in ("one", "other"))
        scores = (one * other).sum(-1).tolist()
        records = []
        for pair, score in zip(pairs, scores, strict=True):
            first, second = utterances[pair.one], utterances[pair.other]
            people = tuple(sorted({first.speaker, second.speaker}))
            value = (score, float(pair.target))
            records.append(
                Record(
                    f"{first.id}|{second.id}",
                    people,
                    "same" if pair.target else "different",
                    f"{score:.4f}",
                    {"eer": value, "min_dcf": value},
                )
            )
        return records
