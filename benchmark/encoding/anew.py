"""Frames by encoding anew, for what is not stored: they stay where the encoder computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from torch import Tensor

from benchmark.core import HiddenStates, Utterance
from benchmark.encoding.ahead import arithmetic_threads, side_by_side
from benchmark.encoding.forward import FrozenEncoder, frames_of, packs
from benchmark.encoding.loading import audio_name, key_of, load, sound_of
from benchmark.errors import SuperbError


@dataclass(frozen=True)
class Anew:
    """Makes frames whenever they are asked for: the same but for the rounding of packs.

    Attributes:
        encoder: what by.
        layers: those that are wanted, None for all.
        utterances: by key.
        channel: the channel that is heard; the mean of all if None.
        decoding: threads that decode.
        threads: how many the encoder computes on; heads that train here have one.
    """

    encoder: FrozenEncoder
    layers: tuple[int, ...] | None
    utterances: Mapping[str, Utterance]
    channel: int | None
    decoding: ThreadPoolExecutor
    threads: int

    def __call__(self, keys: Sequence[str]) -> list[Tensor]:
        """``[layer, frame, dim]`` of each, perhaps a view of more, on the encoder's device.

        Raises:
            SuperbError: when audio is another than before, or as for `FrozenEncoder.encode`.
        """
        waveforms = list(self.decoding.map(self._heard, keys))
        every = packs([waveform.numel() for waveform in waveforms], self.encoder.samples_at_once)

        def through(places: Sequence[int]) -> HiddenStates:
            names = [self.utterances[keys[place]].id for place in places]
            return self.encoder.encode([waveforms[place] for place in places], names)

        found: dict[int, Tensor] = {}
        with arithmetic_threads(self.threads):
            for places, states in side_by_side(self.encoder.side_by_side, through, every):
                found |= zip(places, frames_of(states, self.layers), strict=True)
        return [found[place] for place in range(len(keys))]

    def _heard(self, key: str) -> Tensor:
        utterance = self.utterances[key]
        loaded = load(utterance, {})
        if key_of(loaded.sha256, utterance.span) != key:
            raise SuperbError(
                f"the audio of {audio_name(utterance)} changed during the run; run again"
            )
        sound = sound_of(utterance, loaded, self.encoder.card, self.channel)
        return self.encoder.ready(sound).waveform
