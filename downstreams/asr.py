"""Automatic speech recognition: characters, by CTC or another head; a language model if given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmark.answers import Answer, Reply
from benchmark.core import Attention, DownstreamCard, Metric, Record, Utterance
from benchmark.errors import SuperbError
from benchmark.protocol import LanguageModel
from downstreams import ctc
from downstreams.corpora.words import named
from downstreams.recogniser import Attends, Ctc, Recogniser, Times, load_head
from downstreams.text import (
    characters,
    has_no_spaces,
    joined,
    normalise,
    transcript_record,
    word_errors,
)

if TYPE_CHECKING:  # listing tasks is to stay instant
    from torch import Generator, Tensor, nn

CARD: Final = DownstreamCard(
    name="asr",
    title="Automatic speech recognition",
    version=1,
    metrics=(Metric("wer", "lower"), Metric("cer", "lower")),
    features="frames",
    needs=("text",),
    head=Ctc.title,
)


_SHOWN: Final = 8


class Transcript(NamedTuple):
    """What was heard: by greedy decoding, and with a language model where there is one."""

    greedy: str
    with_lm: str | None = None


class Asr:
    """The characters of train, recognised by CTC (Graves et al. 2006) if nothing else is said.

    Args:
        words: decodes the logits ``[frame, symbol]`` of an utterance with a language model, for
            the metric ``wer_lm``; None leaves that metric out.
        recogniser: the head; CTC if None.
    """

    def __init__(
        self,
        words: Callable[[Tensor], str] | None = None,
        recogniser: Recogniser | None = None,
    ) -> None:
        extra = () if words is None else (Metric("wer_lm", "lower"),)
        self._words = words
        self._recogniser = recogniser or Ctc()
        self.training: Mapping[str, Any] = {"head": dict(self._recogniser.settings)}
        card = replace(CARD, metrics=(*CARD.metrics, *extra))
        if self._recogniser.name != Ctc.name:  # which results of before are of
            name = f"{card.name}-{self._recogniser.name}"
            card = replace(card, name=name, head=self._recogniser.title, base=card.name)
        self.card = card

    def with_head(self, head: str) -> Any:  # noqa: ANN401 - a task, perhaps of another kind
        """The same task by another head (`downstreams.recogniser.HEADS`).

        Raises:
            SuperbError: there is none of that name.
        """
        found = load_head(head)
        return Asr(recogniser=found) if isinstance(found, Recogniser) else found

    def with_language_model(
        self,
        model: Path,
        lexicon: Path | None,
        vocabulary: Sequence[str],
        settings: LanguageModel | None,
    ) -> Asr:
        """The same task, also scored with a language model.

        Raises:
            SuperbError: when the decoder is not installed, or a file cannot be used.
        """
        from downstreams.decode import WordDecoder, read_words

        if self._recogniser.name != Ctc.name:
            raise SuperbError(f"--lm is for the head ctc; got {self._recogniser.name}")

        assert settings is not None
        return Asr(WordDecoder(model, read_words(model, lexicon), vocabulary, settings))

    def vocabulary(self, train: Sequence[Utterance]) -> tuple[str, ...]:
        """The CTC blank and the characters of train."""
        return characters(utterance.text for utterance in train)

    def head(
        self,
        dim: int,
        hop_s: float,
        outputs: int,
        settings: Mapping[str, Any],
        generator: Generator,
    ) -> nn.Module:
        """That of the recogniser, with its settings."""
        return self._recogniser.module(dim, hop_s, outputs, settings, generator)

    def notes(
        self,
        train: Sequence[Utterance],
        lengths: Sequence[int],
        hop_s: float,
        settings: Mapping[str, Any],
    ) -> list[str]:
        """Count the transcripts that are too long for the head."""
        said = [normalise(utterance.text) for utterance in train]
        return self._recogniser.notes(said, lengths, hop_s, settings)

    def test_notes(self, test: Sequence[Utterance], vocabulary: Sequence[str]) -> list[str]:
        """Count the words that no output can spell, and tell where words have no spaces."""
        known = {*vocabulary[1:]}
        lacking: Counter[str] = Counter()
        words = unreachable = unspaced = 0
        for text in (normalise(utterance.text) for utterance in test):
            unknown = [character for character in text if character not in known]
            lacking.update(unknown)
            own = text.split()
            words += len(own)
            # without a space, what comes out is one word
            unreachable += sum(" " in unknown or not known.issuperset(word) for word in own)
            unspaced += len(own) == 1 and has_no_spaces(text)
        notes = []
        if lacking:
            kinds = ", ".join(f"{named(c)} ({count})" for c, count in lacking.most_common(_SHOWN))
            more = f" … ({len(lacking)} kinds in all)" if len(lacking) > _SHOWN else ""
            notes.append(
                f"{unreachable} of {words} test words cannot be right: train lacks characters of "
                f"theirs: {kinds}{more}"
            )
        if 2 * unspaced > len(test):
            notes.append(
                f"{unspaced} of {len(test)} test transcripts are in a script without spaces and "
                "count as one word each: wer is the share of wrong transcripts, cer says more"
            )
        return notes

    def loss(
        self,
        logits: Tensor,
        lengths: Tensor,
        utterances: Sequence[Utterance],
        vocabulary: Sequence[str],
    ) -> Tensor:
        """Loss per character, averaged over the batch."""
        texts = [normalise(utterance.text) for utterance in utterances]
        targets = [ctc.places(text, vocabulary) for text in texts]
        return self._recogniser.loss(logits, lengths, targets)

    def answer(
        self,
        logits: Tensor,
        lengths: Tensor,
        utterances: Sequence[Utterance],
        vocabulary: Sequence[str],
    ) -> list[Transcript]:
        """What is heard in each utterance."""
        heard = [
            joined(vocabulary[place] for place in places)
            for places in self._recogniser.transcribe(logits, lengths)
        ]
        if self._words is None:
            return [Transcript(text) for text in heard]
        return [
            Transcript(text, self._words(own[:length]))
            for text, own, length in zip(heard, logits, lengths.tolist(), strict=True)
        ]

    def explain(self, reply: Reply) -> Answer:
        """The transcript; of a recogniser that knows when, its words with times and confidence."""
        text, recogniser = reply.answer.greedy, self._recogniser
        if not isinstance(recogniser, Times):
            return Answer(reply.utterance.id, text)
        (symbols,) = recogniser.heard(reply.logits, reply.lengths)
        return Answer(
            reply.utterance.id,
            text,
            ctc.confidence(symbols),
            ctc.words(symbols, reply.vocabulary, recogniser.frame_s(reply.hop_s, reply.settings)),
        )

    def attention(
        self,
        logits: Tensor,
        lengths: Tensor,
        utterances: Sequence[Utterance],
        vocabulary: Sequence[str],
    ) -> list[Attention]:
        """What each character was spelt from, where the recogniser attends."""
        if not isinstance(self._recogniser, Attends):
            return []
        said = self._recogniser.transcribe(logits, lengths)
        looked = self._recogniser.looked_at(logits, lengths, said)
        return [
            Attention(utterance.id, tuple(vocabulary[place] for place in own), weights)
            for utterance, own, weights in zip(utterances, said, looked, strict=True)
        ]

    def records(
        self, utterances: Sequence[Utterance], answers: Sequence[Transcript]
    ) -> list[Record]:
        """Word and character errors of each transcript."""
        records = []
        for utterance, answer in zip(utterances, answers, strict=True):
            record = transcript_record(utterance, answer.greedy)
            if answer.with_lm is not None:
                errors = word_errors(record.reference, answer.with_lm)
                record = replace(record, values={**record.values, "wer_lm": errors})
            records.append(record)
        return records
