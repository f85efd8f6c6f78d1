"""Automatic speech recognition: characters by CTC, greedy decoding; a language model if given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmark.core import DownstreamCard, Metric, Record, Utterance
from benchmark.protocol import LanguageModel
from downstreams.corpora.words import named
from downstreams.text import (
    character_errors,
    characters,
    decode_greedy,
    has_no_spaces,
    normalise,
    word_errors,
)

if TYPE_CHECKING:  # listing tasks is to stay instant
    from torch import Generator, Tensor, nn

_CARD: Final = DownstreamCard(
    name="asr",
    title="Automatic speech recognition",
    version=1,
    metrics=(Metric("wer", "lower"), Metric("cer", "lower")),
    features="frames",
    needs=("text",),
    head="linear, 2-layer BLSTM, linear; character CTC, greedy",
)


_SHOWN: Final = 8


class Transcript(NamedTuple):
    """What was heard: by greedy decoding, and with a language model where there is one."""

    greedy: str
    with_lm: str | None = None


class Asr:
    """Connectionist temporal classification over the characters of train (Graves et al. 2006).

    Args:
        words: decodes the logits ``[frame, symbol]`` of an utterance with a language model, for
            the metric ``wer_lm``; None leaves that metric out.
    """

    training: Mapping[str, Any] = {
        "head": {"frame_s": 0.04, "projection": 128, "hidden": 128, "layers": 2, "dropout": 0.2}
    }

    def __init__(self, words: Callable[[Tensor], str] | None = None) -> None:
        extra = () if words is None else (Metric("wer_lm", "lower"),)
        self.card = replace(_CARD, metrics=(*_CARD.metrics, *extra))
        self._words = words

    def with_language_model(
        self,
        model: Path,
        lexicon: Path | None,
        vocabulary: Sequence[str],
        settings: LanguageModel,
    ) -> Asr:
        """The same task, also scored with a language model.

        Raises:
            SuperbError: when the decoder is not installed, or a file cannot be used.
        """
        from downstreams.decode import WordDecoder, read_words

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
        """Linear, BLSTM layers, linear.

        Settings: ``projection``, ``hidden``, ``layers``, ``dropout``, and ``frame_s``, the seconds
        that a frame of the head covers: shorter frames are stacked. 0 means no stacking.
        """
        from downstreams.heads import RecurrentTranscriber

        return RecurrentTranscriber(
            dim,
            outputs,
            stack=_stack(hop_s, settings),
            projection=settings["projection"],
            hidden=settings["hidden"],
            layers=settings["layers"],
            dropout=settings["dropout"],
            generator=generator,
        )

    def notes(
        self,
        train: Sequence[Utterance],
        lengths: Sequence[int],
        hop_s: float,
        settings: Mapping[str, Any],
    ) -> list[str]:
        """Count the transcripts that are too long for their frames."""
        stack = _stack(hop_s, settings)
        unfit = sum(
            _frames_needed(normalise(utterance.text)) > -(-length // stack)
            for utterance, length in zip(train, lengths, strict=True)
        )
        if not unfit:
            return []
        return [
            f"{unfit} of {len(train)} training transcripts have more characters than the head has "
            f"frames ({stack * hop_s * 1000:.0f} ms each); CTC cannot align them, so they teach "
            "nothing"
        ]

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
        """CTC loss per character, averaged over the batch.

        A transcript that cannot fit into its frames has no alignment; it contributes nothing.
        """
        import torch

        index = {symbol: position for position, symbol in enumerate(vocabulary)}
        # a character that train never had can be in valid: no output stands for it
        targets = [
            [index[c] for c in normalise(utterance.text) if c in index] for utterance in utterances
        ]
        return torch.nn.functional.ctc_loss(
            logits.log_softmax(dim=-1).transpose(0, 1),
            torch.tensor([symbol for target in targets for symbol in target]),
            lengths.cpu(),
            torch.tensor([len(target) for target in targets]),
            zero_infinity=True,
        )

    def answer(
        self,
        logits: Tensor,
        lengths: Tensor,
        utterances: Sequence[Utterance],
        vocabulary: Sequence[str],
    ) -> list[Transcript]:
        """What is heard in each utterance."""
        best = logits.argmax(dim=-1).cpu()
        return [
            Transcript(
                decode_greedy(path[:length].tolist(), vocabulary),
                None if self._words is None else self._words(own[:length]),
            )
            for path, own, length in zip(best, logits, lengths.tolist(), strict=True)
        ]

    def records(
        self, utterances: Sequence[Utterance], answers: Sequence[Transcript]
    ) -> list[Record]:
        """Word and character errors of each transcript."""
        records = []
        for utterance, answer in zip(utterances, answers, strict=True):
            reference = normalise(utterance.text)
            values = {
                "wer": word_errors(reference, answer.greedy),
                "cer": character_errors(reference, answer.greedy),
            }
            if answer.with_lm is not None:
                values["wer_lm"] = word_errors(reference, answer.with_lm)
            records.append(
                Record(utterance.id, (utterance.speaker,), reference, answer.greedy, values)
            )
        return records


def _stack(hop_s: float, settings: Mapping[str, Any]) -> int:
    """How many frames of the encoder make one of the head."""
    return max(1, round(float(settings["frame_s"]) / hop_s))


def _frames_needed(text: str) -> int:
    """CTC needs a frame per character and a blank between equal neighbours."""
    return len(text) + sum(a == b for a, b in pairwise(text))
