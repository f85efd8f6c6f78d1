"""Slot filling: characters and the slots they fill, by CTC (Yang et al. 2021, section 3.1)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchmark.answers import Answer, Reply, Span
from benchmark.core import DownstreamCard, Metric, Record, Utterance
from benchmark.errors import SuperbError
from benchmark.scoring import slots
from downstreams import ctc
from downstreams.slots import symbols
from downstreams.text import joined

if TYPE_CHECKING:  # listing tasks is to stay instant
    from torch import Generator, Tensor, nn


class Sf:
    """A transcript with its slots, from the column ``tagged``.

    ``play <song>yesterday</song>``: the tags that begin and end a slot are symbols like characters.
    """

    card = DownstreamCard(
        name="sf",
        title="Slot filling",
        version=1,
        metrics=(Metric("slot_f1", "higher", statistic="mean"), Metric("slot_cer", "lower")),
        features="frames",
        needs=("tagged",),
        head="linear, 2-layer BLSTM, linear; character and slot CTC, greedy",
    )
    training: Mapping[str, Any] = {"head": dict(ctc.RECURRENT_HEAD)}

    def vocabulary(self, train: Sequence[Utterance]) -> tuple[str, ...]:
        """The CTC blank, then the characters and the tags of train, sorted."""
        return (ctc.BLANK, *sorted({symbol for u in train for symbol in _symbols(u)}))

    def example(self, index: int, seconds: float) -> Mapping[str, str]:
        """Some fourteen characters a second, with one of 39 slots."""
        words = ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog"] * math.ceil(
            seconds / 3
        )
        said = " ".join(words)[: max(1, round(14 * seconds))].strip()
        slot = f"slot{index % 39}"
        return {"tagged": f"{said} <{slot}>now</{slot}>"}

    def check_data(self, utterances: Sequence[Utterance]) -> None:
        """Raise for slots that are not closed, and for data without a slot.

        Raises:
            SuperbError: naming the first few utterances.
        """
        wrong = []
        for utterance in utterances:
            try:
                _symbols(utterance)
            except ValueError as error:
                wrong.append(f"{utterance.id}: {error} ({utterance.value('tagged')[:60]!r})")
        if wrong:
            more = f" … ({len(wrong)} in all)" if len(wrong) > 3 else ""
            raise SuperbError(
                f"slots that cannot be read in the column 'tagged': {'; '.join(wrong[:3])}{more}. "
                "Write <slot>its value</slot>, one slot beside the other"
            )
        for split in ("train", "valid", "test"):
            if not any("</" in u.value("tagged") for u in utterances if u.split == split):
                raise SuperbError(
                    f"no utterance of {split} has a slot: the column 'tagged' holds transcripts "
                    "such as: play <song>yesterday</song>"
                )

    def head(
        self,
        dim: int,
        hop_s: float,
        outputs: int,
        settings: Mapping[str, Any],
        generator: Generator,
    ) -> nn.Module:
        """Linear, BLSTM layers, linear; settings as in `ctc.RECURRENT_HEAD`."""
        from downstreams.heads import RecurrentTranscriber

        return RecurrentTranscriber.of(dim, hop_s, outputs, settings, generator)

    def notes(
        self,
        train: Sequence[Utterance],
        lengths: Sequence[int],
        hop_s: float,
        settings: Mapping[str, Any],
    ) -> list[str]:
        """Count the transcripts that are too long for their frames."""
        said = [_symbols(utterance) for utterance in train]
        stack = ctc.stacked(hop_s, settings)
        return ctc.too_long("characters and tags", said, lengths, hop_s, stack)

    def test_notes(self, test: Sequence[Utterance], vocabulary: Sequence[str]) -> list[str]:
        """Name the slots that no output can open."""
        lacking = Counter(
            slot
            for utterance in test
            for slot in slots.values(utterance.value("tagged"))
            if f"<{slot}>" not in vocabulary
        )
        if not lacking:
            return []
        kinds = ", ".join(f"{slot} ({count})" for slot, count in lacking.most_common(8))
        return [f"slots of test that train lacks, which cannot be right: {kinds}"]

    def loss(
        self,
        logits: Tensor,
        lengths: Tensor,
        utterances: Sequence[Utterance],
        vocabulary: Sequence[str],
    ) -> Tensor:
        """CTC loss per symbol, averaged over the batch."""
        targets = [ctc.places(_symbols(utterance), vocabulary) for utterance in utterances]
        return ctc.loss(logits, lengths, targets)

    def answer(
        self,
        logits: Tensor,
        lengths: Tensor,
        utterances: Sequence[Utterance],
        vocabulary: Sequence[str],
    ) -> list[str]:
        """What is heard in each utterance, with its tags."""
        return [joined(heard) for heard in ctc.best_paths(logits, lengths, vocabulary)]

    def explain(self, reply: Reply) -> Answer:
        """What is heard; words with times, and the slot that each fills."""
        (symbols,) = ctc.heard(reply.logits, reply.lengths)
        frame_s = ctc.stacked(reply.hop_s, reply.settings) * reply.hop_s
        return Answer(
            reply.utterance.id,
            reply.answer,
            ctc.confidence(symbols),
            _words(symbols, reply.vocabulary, frame_s),
        )

    def records(self, utterances: Sequence[Utterance], answers: Sequence[str]) -> list[Record]:
        """F1 of slots and character errors of their values, of each utterance."""
        records = []
        for utterance, answer in zip(utterances, answers, strict=True):
            reference = joined(_symbols(utterance))
            said, heard = slots.values(reference), slots.values(answer)
            metrics: dict[str, tuple[float, ...]] = {
                "slot_f1": (slots.type_f1(said, heard),),
                "slot_cer": slots.value_errors(said, heard),
            }
            records.append(Record(utterance.id, (utterance.speaker,), reference, answer, metrics))
        return records


def _symbols(utterance: Utterance) -> list[str]:
    return symbols(utterance.value("tagged"))


def _words(
    symbols: Sequence[ctc.Heard], vocabulary: Sequence[str], frame_s: float
) -> tuple[Span, ...]:
    """Words that were heard, with their slots as `slots.values` reads them."""
    tags = [slots.TAG.fullmatch(vocabulary[symbol.place]) for symbol in symbols]
    found: list[Span] = []
    start, end, slot = 0, -1, ""  # of the words under way; where their slot is closed

    def words(until: int) -> None:
        for word in ctc.words(symbols[start:until], vocabulary, frame_s):
            found.append(replace(word, label=slot))

    for place, tag in enumerate(tags):
        if tag is None:
            continue
        words(place)
        start = place + 1
        if place == end:
            slot = ""
        elif not slot and not tag[1]:
            closing = (
                later
                for later in range(place + 2, len(tags))
                if (own := tags[later]) is not None and own[1] and own[2] == tag[2]
            )
            end = next(closing, -1)
            slot = tag[2] if end >= 0 else ""
    words(len(symbols))
    return tuple(found)
