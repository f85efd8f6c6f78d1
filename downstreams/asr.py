"""Automatic speech recognition: characters by CTC, greedy decoding; a language model if given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.core import DownstreamCard, Tally, Utterance
from benchmark.protocol import LanguageModel
from downstreams.decode import WordDecoder, read_words
from downstreams.heads import RecurrentTranscriber
from downstreams.text import (
    character_errors,
    characters,
    decode_greedy,
    normalise,
    word_errors,
)


class Asr:
    """Connectionist temporal classification over the characters of train (Graves et al. 2006).

    Args:
        card: what the task is.
        words: decodes the logits ``[frame, symbol]`` of an utterance with a language model, for
            the metric ``wer_lm``; None leaves that metric out.
    """

    def __init__(self, card: DownstreamCard, words: Callable[[Tensor], str] | None = None) -> None:
        self.card = card
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
        words = WordDecoder(model, read_words(model, lexicon), vocabulary, settings)
        card = replace(self.card, metrics=(*self.card.metrics, "wer_lm"))
        return Asr(card, words)

    def vocabulary(self, train: Sequence[Utterance]) -> tuple[str, ...]:
        """The CTC blank and the characters of train."""
        return characters(utterance.text for utterance in train)

    def head(
        self,
        dim: int,
        hop_s: float,
        outputs: int,
        settings: Mapping[str, Any],
        generator: torch.Generator,
    ) -> nn.Module:
        """Linear, BLSTM layers, linear.

        Settings: ``projection``, ``hidden``, ``layers``, ``dropout``, and ``frame_s``, the seconds
        that a frame of the head covers: shorter frames are stacked. 0 means no stacking.
        """
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
        index = {symbol: position for position, symbol in enumerate(vocabulary)}
        # a character that train never had can be in valid: no output stands for it
        targets = [
            [index[c] for c in normalise(utterance.text) if c in index] for utterance in utterances
        ]
        return nn.functional.ctc_loss(
            logits.log_softmax(dim=-1).transpose(0, 1),
            torch.tensor([symbol for target in targets for symbol in target]),
            lengths.cpu(),
            torch.tensor([len(target) for target in targets]),
            zero_infinity=True,
        )

    def tally(
        self,
        logits: Tensor,
        lengths: Tensor,
        utterances: Sequence[Utterance],
        vocabulary: Sequence[str],
    ) -> list[Tally]:
        """Greedy transcripts with their word and character errors."""
        best = logits.argmax(dim=-1).cpu()
        tallies = []
        for utterance, path, own, length in zip(
            utterances, best, logits, lengths.tolist(), strict=True
        ):
            reference = normalise(utterance.text)
            hypothesis = decode_greedy(path[:length].tolist(), vocabulary)
            counts = {
                "wer": word_errors(reference, hypothesis),
                "cer": character_errors(reference, hypothesis),
            }
            if self._words is not None:
                counts["wer_lm"] = word_errors(reference, self._words(own[:length]))
            tallies.append(Tally(utterance.id, utterance.speaker, reference, hypothesis, counts))
        return tallies


def _stack(hop_s: float, settings: Mapping[str, Any]) -> int:
    """How many frames of the encoder make one of the head."""
    return max(1, round(float(settings["frame_s"]) / hop_s))


def _frames_needed(text: str) -> int:
    """CTC needs a frame per character and a blank between equal neighbours."""
    return len(text) + sum(a == b for a, b in pairwise(text))
