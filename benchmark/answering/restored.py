"""A trained head that answers again: encoder, layer mix, head and task, as they were for a score.

A recording takes the way it took when its features were stored: through the encoder alone, rounded
to what was kept on disk. So an answer is the one in the table of the result's utterances.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from benchmark.answering.saved import Weights
from benchmark.answers import Answer, Compares, Explains, Reply
from benchmark.core import Attends, Downstream, HiddenStates, Utterance
from benchmark.encoding.ahead import arithmetic_threads
from benchmark.encoding.arithmetic import exact
from benchmark.encoding.audio import decode
from benchmark.encoding.features import storage_of
from benchmark.encoding.forward import FrozenEncoder, forms_of, normalise
from benchmark.encoding.packing import NONE, pack, unpack
from benchmark.errors import SuperbError
from benchmark.probing.fit import build_head, logits_of, one_thread
from benchmark.probing.layers import LayerMix, Mix


@dataclass(frozen=True)
class RestoredHead:
    """An encoder and a head that answer.

    Attributes:
        encoder: the frozen encoder, behind an amplifier where the protocol has one.
        downstream: the task, with all that it has learnt beside the head.
        vocabulary: the output symbols.
        settings: of the head.
        mix: the layer mix.
        head: the head.
        storage: how features were kept (`benchmark.encoding.packing.STORAGES`).
        half: whether the head computes in bfloat16 where that is safe.
        channel: of recordings, the one that is heard; the mean of all if None.
    """

    encoder: FrozenEncoder
    downstream: Downstream
    vocabulary: tuple[str, ...]
    settings: Mapping[str, Any]
    mix: LayerMix
    head: nn.Module
    storage: str
    half: bool = False
    channel: int | None = None

    @property
    def hop_s(self) -> float:
        """Seconds between frames of the encoder."""
        return self.encoder.card.hop_samples / self.encoder.card.sample_rate

    @property
    def layer_weights(self) -> list[float] | None:
        """What the head learnt of layers: weights that sum to 1, or None for a single layer."""
        return self.mix.weights

    def __call__(
        self,
        waveform: ArrayLike | Tensor,
        sample_rate: int | None = None,
        *,
        attention: bool = False,
    ) -> Answer:
        """The answer to one waveform.

        Args:
            waveform: floats ``[sample]`` within -1 and 1.
            sample_rate: in Hz, that of the encoder if None; another one is resampled.
            attention: whether to tell what each symbol was answered from, where the head attends.

        Raises:
            SuperbError: it is no such waveform, or the task is about two of them.
        """
        recording = Utterance("waveform", _wav(waveform, sample_rate or self._rate), "test")
        return self.answer(recording, attention=attention)

    def answer(self, utterance: Utterance, *, attention: bool = False) -> Answer:
        """The answer to one recording.

        Raises:
            AudioError: its audio cannot be used.
            SuperbError: the task is about two recordings.
        """
        if isinstance(self.downstream, Compares):
            raise SuperbError(f"{self.downstream.card.name} compares recordings; give two of them")
        reply = self.reply(utterance)
        found = self._explained(reply)
        if not (attention and isinstance(self.downstream, Attends)):
            return found
        with one_thread(), torch.inference_mode():
            looked = self.downstream.attention(
                reply.logits, reply.lengths, [utterance], self.vocabulary
            )
        return replace(found, attention=looked[0] if looked else None)

    def compare(self, one: Reply, other: Reply) -> Answer:
        """The answer to two recordings.

        Raises:
            SuperbError: the task answers one at a time.
        """
        if not isinstance(self.downstream, Compares):
            raise SuperbError(f"{self.downstream.card.name} compares no recordings")
        return Answer(
            f"{one.utterance.id}|{other.utterance.id}",
            self.downstream.compare(one.answer, other.answer),
        )

    def compare_waveforms(
        self, one: ArrayLike | Tensor, other: ArrayLike | Tensor, sample_rate: int | None = None
    ) -> Answer:
        """The answer to two waveforms; see `__call__`."""
        replies = [
            self.reply(Utterance(name, _wav(waveform, sample_rate or self._rate), "test"))
            for name, waveform in (("one", one), ("other", other))
        ]
        return self.compare(*replies)

    def reply(self, utterance: Utterance) -> Reply:
        """What the head gives for one recording, and the task's answer.

        Raises:
            AudioError: its audio cannot be used.
            UpstreamError: the encoder fails on it.
        """
        card = self.encoder.card
        waveform = decode(
            utterance.audio,
            card.sample_rate,
            name=utterance.id,
            min_samples=card.min_samples,
            span=utterance.span,
            channel=self.channel,
        )
        with exact(), torch.inference_mode():
            states = self._states(waveform, utterance.id)
            with one_thread():
                logits, lengths = logits_of(self.mix, self.head, states, self.half)
                (answer,) = self.downstream.answer(logits, lengths, [utterance], self.vocabulary)
        return Reply(utterance, answer, logits, lengths, self.vocabulary, self.hop_s, self.settings)

    @property
    def _rate(self) -> int:
        return self.encoder.card.sample_rate

    def _states(self, waveform: Tensor, name: str) -> HiddenStates:
        """Hidden states as the head has been told them in training and on test."""
        encoder, frames = self.encoder, self.downstream.card.features == "frames"
        normalised = self.mix.mix.normalised
        kind = "frames" if frames else "mean-normalised" if normalised else "mean"
        # as many threads for an utterance as extraction has
        with arithmetic_threads(torch.get_num_threads() // encoder.side_by_side):
            states = encoder.encode([waveform], [name])
        ((forms, _),) = forms_of(states, [kind], None)
        values, storage = forms[kind], storage_of(kind, self.storage)
        if storage != NONE:
            values = unpack(pack(values, storage), values.shape, storage)
        stored = torch.from_numpy(np.array(values, np.float32))
        stored = stored[:, None] if frames else stored[:, None, None]
        place = next(self.head.parameters(), torch.empty(0)).device
        lengths = torch.tensor([stored.shape[2]], device=place)
        stored = stored.to(place)
        return HiddenStates(normalise(stored) if frames and normalised else stored, lengths)

    def _explained(self, reply: Reply) -> Answer:
        task, utterance = self.downstream, reply.utterance
        if isinstance(task, Explains):
            with one_thread(), torch.inference_mode():
                return task.explain(reply)
        try:  # what the table of utterances would have, though nobody knows the right answer
            records = task.records([utterance], [reply.answer])
        except Exception:  # a task of somebody else's, which may want that answer
            records = []
        text = records[0].hypothesis if len(records) == 1 else str(reply.answer)
        return Answer(utterance.id, text)


def restore(
    encoder: FrozenEncoder,
    downstream: Downstream,
    mix: Mix,
    weights: Weights,
    *,
    vocabulary: Sequence[str],
    settings: Mapping[str, Any],
    seed: int,
    storage: str,
    half: bool = False,
    device: str = "cpu",
    channel: int | None = None,
) -> RestoredHead:
    """Build a head and put into it what it had learnt.

    Args:
        encoder: the encoder.
        downstream: the task, with all that it has learnt beside the head.
        mix: the layer mix.
        weights: of both.
        vocabulary: the output symbols.
        settings: of the head.
        seed: of the head, which draws whatever of it is not learnt.
        storage: how features were kept.
        half: whether the head computes in bfloat16 where that is safe.
        device: where the head computes.
        channel: of recordings, the one that is heard.

    Raises:
        KeyError, RuntimeError, TypeError, ValueError: they do not belong together.
    """
    card = encoder.card
    head, _ = build_head(
        downstream,
        settings,
        seed,
        dim=card.dim,
        hop_s=card.hop_samples / card.sample_rate,
        outputs=len(vocabulary),
        device=device,
    )
    head.load_state_dict(dict(weights.head))
    scaling = weights.scaling
    if scaling is not None:
        scaling = (scaling[0].to(device), scaling[1].to(device))
    layers = LayerMix(mix, card.layers, scaling).to(device)
    layers.load_state_dict(dict(weights.mix))
    return RestoredHead(
        encoder,
        downstream,
        tuple(vocabulary),
        settings,
        layers.eval(),
        head.eval(),
        storage,
        half,
        channel,
    )


def _wav(waveform: ArrayLike | Tensor, sample_rate: int) -> bytes:
    """A waveform as a file in memory, so that it is looked at as any recording is."""
    samples = np.asarray(waveform.detach().cpu() if isinstance(waveform, Tensor) else waveform)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise SuperbError(
            "a waveform is one row of floats [sample] within -1 and 1; got "
            f"{samples.dtype} {list(samples.shape)}"
        )
    file = io.BytesIO()
    soundfile.write(file, samples.astype(np.float32), sample_rate, format="WAV", subtype="FLOAT")
    return file.getvalue()
