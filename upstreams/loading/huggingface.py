"""Any other speech encoder in the Hugging Face format, through transformers' own model.

One utterance at a time, never padded beside another: what comes out depends on the utterance
alone, so `pad_invariant` holds whatever the model does with masks. Code that a repository ships
is never run unless the user says so (``--trust-remote-code``), and then the card says it was.

What the model is called with comes from its own feature extractor. Layers, width, hop and shortest
input are found by asking: the model is run on silence of several lengths. Of a model with more than
one part, an encoder-decoder or a language model that hears, only the part that hears is built and
only its weights are read.

Some models always look at a window of fixed length, such as *Whisper* (arXiv 2212.04356): its
feature extractor pads with silence to 30 s and the encoder insists on 3000 mel frames. The frames
of that silence are cut, ``ceil(samples / hop)`` stay. Longer audio is not truncated but encoded in
consecutive windows, the last one padded, and their frames are put end to end.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import torch
import transformers
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from benchmark.core import Family, HiddenStates, UpstreamCard
from benchmark.errors import UpstreamError
from benchmark.source import modules_source, update_code
from upstreams.loading.checkpoint import extractor_settings, is_head, tuned
from upstreams.loading.files import (
    Origin,
    bare_names,
    joined,
    read_json,
    read_weights,
    refuse_not_finite,
    weight_files,
)
from upstreams.models import batch

# transformers gives its models and feature extractors no common interface a type checker knows.
Model: TypeAlias = Any
Extractor: TypeAlias = Any
Config: TypeAlias = Any
AutoClass: TypeAlias = Any

# Entries of a configuration that say who wrote it, not what the model computes.
_BOOKKEEPING = frozenset(
    {"_name_or_path", "_commit_hash", "architectures", "dtype", "torch_dtype", "processor_class"}
    | {"transformers_version"}
)

FAMILIES: dict[str, Family] = {
    "wav2vec2": "contrastive",
    "wav2vec2-conformer": "contrastive",
    "wav2vec2-bert": "contrastive",
    "unispeech": "contrastive",
    "sew": "contrastive",
    "sew-d": "contrastive",
    "hubert": "predictive",
    "wavlm": "predictive",
    "unispeech-sat": "predictive",
    "data2vec-audio": "predictive",
    "lasr_encoder": "supervised",
    "whisper": "supervised",
    "speech_to_text": "supervised",
    "speecht5": "predictive",
    "moonshine": "supervised",
    "moonshine_streaming": "supervised",
    "canary": "supervised",
    "cohere_asr": "supervised",
    "lasr_ctc": "supervised",
    "granite_speech5_ctc": "supervised",
    "granite_speech5_encoder": "supervised",
    "nemotron3_5_asr": "supervised",
    "nemotron_asr_streaming": "supervised",
    "nemotron_asr_streaming_encoder": "supervised",
    "parakeet_ctc": "supervised",
    "parakeet_encoder": "supervised",
    "parakeet_rnnt": "supervised",
    "parakeet_tdt": "supervised",
    "seamless_m4t": "supervised",
    "seamless_m4t_v2": "supervised",
    "audio-spectrogram-transformer": "supervised",
}

REMOTE_NOTE = "ran code shipped with the checkpoint (--trust-remote-code)"


def windows_at_once(device: torch.device) -> int:
    """Windows of fixed length in one call of a model: on a CPU one at a time is fastest."""
    return 1 if device.type == "cpu" else 8


@dataclass(frozen=True)
class Part:
    """Where the part that hears sits, in models that do not say so themselves.

    Attributes:
        path: of the module within the model.
        auto: the class of transformers that builds the model.
        codec: True for the convolutions of a codec: ``[utterance, dim, frame]``, one layer.
    """

    path: str
    auto: str = "AutoModel"
    codec: bool = False


PARTS: dict[str, Part] = {
    # Their get_encoder() is the text encoder.
    "seamless_m4t": Part("speech_encoder"),
    "seamless_m4t_v2": Part("speech_encoder"),
    # A language model whose audio encoder is called encoder.
    "granite_speech": Part("encoder"),
    "granite_speech_plus": Part("encoder"),
    # The bare model has no layers that read a waveform.
    "speecht5": Part("speecht5.encoder", auto="AutoModelForSpeechSeq2Seq"),
    # Codecs answer with codes; what comes before the quantiser has frames over time.
    "dac": Part("encoder", codec=True),
    "encodec": Part("encoder", codec=True),
    "mimi": Part("encoder"),
}
# Arguments of these names tell which input is padding; all are 1 for what is audio.
MASKS = ("attention_mask", "input_features_mask", "padding_mask", "input_values_mask")
# One model asks for the opposite: what is padding.
PADDED = "audio_mel_mask"


class HuggingFaceUpstream(nn.Module):
    """A transformers model as an upstream.

    Args:
        model: the encoder, with its weights.
        extractor: its feature extractor: waveform to model input.
        origin: where it comes from.
        family: its pretext school.
        note: one loud line for the card.
        codec: the model is a codec's convolutions, see `Part`.
        config: of the whole, where the model is a part that has none of its own.

    Raises:
        UpstreamError: the model does not turn waveforms into frames over time.
    """

    def __init__(
        self,
        model: Model,
        extractor: Extractor,
        origin: Origin,
        family: Family,
        note: str = "",
        codec: bool = False,
        config: Config = None,
    ) -> None:
        super().__init__()
        self.model = model
        self._config = getattr(model, "config", config)
        self.extractor = extractor
        self.codec = codec
        self.sample_rate = int(extractor.sampling_rate)
        self.window_samples: int | None = None
        # Input steps of the model per frame, None until known.
        self.steps_per_frame: int | None = None
        # What the feature extractor is asked for beyond its defaults.
        self.padding: dict[str, Any] = {}
        # Whether the model is told which input is padding.
        self.masked = True
        # Layers that are listened to, where the model does not give all hidden states itself.
        self.blocks: tuple[nn.Module, ...] = ()
        # Hidden states of another frame rate or width than the last, in the latest call.
        self.left_out = 0
        self.requires_grad_(False).eval()
        layers, dim, hop_samples, min_samples = self._probe(origin.name)
        self.hop_samples = hop_samples
        self.card = UpstreamCard(
            name=origin.name,
            layers=layers,
            dim=dim,
            hop_samples=hop_samples,
            sample_rate=self.sample_rate,
            family=family,
            parameters=sum(weight.numel() for weight in self.parameters()),
            min_samples=min_samples,
            pad_invariant=True,
            source=origin.source,
            revision=origin.revision,
            note=joined(note, self._left_out_note(), origin.note),
        )

    def _left_out_note(self) -> str:
        if not self.left_out:
            return ""
        states = "1 hidden state" if self.left_out == 1 else f"{self.left_out} hidden states"
        return f"left out {states} of another frame rate or width than the last"

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights, of the settings of model and feature extractor, and of their code.

        The code of transformers counts by its version.
        """
        config = {} if self._config is None else self._config.to_dict()
        config.pop("_name_or_path", None)  # where it lies
        return self._hashed([config, self.extractor.to_dict(), transformers.__version__])

    @cached_property
    def weights_sha256(self) -> str:
        """Hash of the same without versions: of settings, what is not the default of its class.

        What a later `transformers` adds to a configuration, with its default, changes nothing.
        """
        return self._hashed([_set_apart(self._config), _set_apart(self.extractor)])

    def _hashed(self, settings: list[Any]) -> str:
        parts = [self.model, self._config, self.extractor]
        names = [type(part).__qualname__ for part in parts]
        digest = hashlib.sha256(json.dumps([names, settings], sort_keys=True, default=str).encode())
        for part in parts:  # code that came with the checkpoint
            update_code(digest, type(part))
            digest.update(modules_source(type(part)))
        for name, weight in self.model.state_dict().items():
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            flat = weight.cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @torch.inference_mode()
    def forward(self, waveforms: list[Tensor]) -> HiddenStates:
        """Encode 1-D waveforms in [-1, 1] at the card's sample rate, each on its own.

        Raises:
            AudioError: for a waveform that is not 1-D, not float, or too short.
        """
        batch.check_waveforms(waveforms, self.card)
        if self.window_samples is None:
            return batch.stack([self._states([waveform])[:, 0] for waveform in waveforms])
        return batch.stack(self._in_windows(waveforms, self.window_samples))

    def _in_windows(self, waveforms: Sequence[Tensor], window_samples: int) -> list[Tensor]:
        """Each waveform cut into windows; the windows of all of them go through together.

        Returns:
            ``[layer, frame, dim]`` per waveform, without the frames of padding.
        """
        pieces = [torch.split(waveform, window_samples) for waveform in waveforms]
        windows = [window for piece in pieces for window in piece]
        at_once = windows_at_once(self._weight().device)
        encoded: list[Tensor] = []
        for start in range(0, len(windows), at_once):
            group = windows[start : start + at_once]
            states = self._states(group)
            # copies: what is heard of one second would keep the window of thirty
            encoded += [
                states[:, index, : math.ceil(window.numel() / self.hop_samples)].clone()
                for index, window in enumerate(group)
            ]
        each = iter(encoded)
        return [torch.cat([next(each) for _ in piece], dim=1) for piece in pieces]

    def _weight(self) -> Tensor:
        return cast("Tensor", next(self.model.parameters()))

    @torch.inference_mode()
    def _states(self, waveforms: Sequence[Tensor]) -> Tensor:
        """One call of the model on waveforms whose input is of one size.

        Returns:
            ``[layer, utterance, frame, dim]``
        """
        inputs = self._inputs(waveforms)
        arguments = self._arguments(inputs)
        steps = arguments[0].shape[self._time_axis(arguments[0])]
        states = self._call(*arguments)
        if self.steps_per_frame is not None and self.window_samples is None:
            # The extractor may pad to a multiple of what the model reads at once.
            valid = min((int(mask.sum()) for mask in _masks(inputs, steps)), default=steps)
            states = states[:, :, : math.ceil(valid / self.steps_per_frame)]
        return states

    def _inputs(self, waveforms: Sequence[Tensor]) -> Mapping[str, Any]:
        """What the feature extractor makes of waveforms.

        One that divides by the spread of its input gives NaN or infinity for what has none, such
        as silence; its distance from the mean is 0, and so is what it stands for.
        """
        arrays = [waveform.float().cpu().numpy() for waveform in waveforms]
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            inputs = self.extractor(arrays, **self._basics, **self.padding)
        return {
            name: value.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
            if isinstance(value, Tensor) and value.is_floating_point()
            else value
            for name, value in inputs.items()
        }

    @property
    def _basics(self) -> dict[str, Any]:
        """Sample rate, type of output and device, for a feature extractor that wants to know."""
        device = self._weight().device
        basics = {"sampling_rate": self.sample_rate, "return_tensors": "pt", "device": str(device)}
        takes = inspect.signature(type(self.extractor).__call__).parameters
        return {name: value for name, value in basics.items() if name in takes}

    def _arguments(self, inputs: Mapping[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """The model's first argument and the others by name, on its device."""
        weight = self._weight()
        tensors = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
        main = getattr(self.model, "main_input_name", None)
        if main not in tensors:  # called differently by model and extractor
            main = next(name for name in self.extractor.model_input_names if name in tensors)
        first = tensors[main].to(weight.device, weight.dtype)
        named: dict[str, Any] = {}
        if not self.codec:
            mask = next((tensors[name] for name in MASKS if name in tensors), None)
            wanted = next((name for name in (*MASKS, PADDED) if name in self._accepted), None)
            if self.masked and wanted and mask is not None:
                mask = mask.to(weight.device)
                named[wanted] = mask.logical_not() if wanted == PADDED else mask
            if "output_hidden_states" in self._accepted or "kwargs" in self._accepted:
                named["output_hidden_states"] = True
        return first, named

    @cached_property
    def _accepted(self) -> frozenset[str]:
        return frozenset(inspect.signature(self.model.forward).parameters)

    def _time_axis(self, first: Tensor) -> int:
        """Which axis of the model's input is time: the one that is not the mel bands'."""
        bands = {getattr(self.extractor, name, None) for name in ("feature_size", "num_mel_bins")}
        return 1 if first.dim() == 3 and first.shape[1] not in bands else first.dim() - 1

    def _call(self, first: Tensor, named: dict[str, Any]) -> Tensor:
        """``[layer, utterance, frame, dim]`` of one call."""
        if self.codec:
            return cast("Tensor", self.model(first)).transpose(1, 2).unsqueeze(0)
        if self.blocks:
            with _recording(self.blocks) as states:
                outputs = self.model(first, **named)
        else:
            outputs = self.model(first, **named)
            states = list(outputs.get("hidden_states") or ())
            if states and states[0].dim() == 3 and states[0].shape[1] == states[-1].shape[1] + 1:
                # A token for the whole stands before the frames; the last state is without it.
                states = [state[:, 1:] for state in states[:-1]] + states[-1:]
            # Pooled after the last layer, or not given: listen to the layers themselves.
            if not states or states[-1].shape != states[len(states) // 2].shape:
                self.blocks = _blocks(self.model)
                return self._call(first, named)
        last = outputs.get("last_hidden_state")
        if last is not None and last.shape == states[-1].shape:
            # Pre-norm models: transformers 5 leaves the norm after the last layer out of
            # hidden_states, SUPERB and earlier releases do not.
            states[-1] = last
        # Layers before one that halves the frame rate have no frames in common with the last.
        kept = [state for state in states if state.shape == states[-1].shape]
        self.left_out = len(states) - len(kept)
        values = torch.stack(kept)
        if values.dim() == 3:  # frames of all utterances in a row; there is one
            values = values.unsqueeze(1)
        return self._frames(values)

    def _frames(self, values: Tensor) -> Tensor:
        """AST's patches, averaged over frequency; anything else as it is."""
        config = self.model.config
        if config.model_type != "audio-spectrogram-transformer":
            return values
        bands = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
        # Two tokens stand before the patches, which come band by band.
        layers, utterances, tokens, dim = values[:, :, 2:].shape
        return values[:, :, 2:].reshape(layers, utterances, bands, tokens // bands, dim).mean(dim=2)

    def _probe(self, name: str) -> tuple[int, int, int, int]:
        """Layers, dim, hop and shortest input, by asking the model.

        Of the ways to use the feature extractor, the first under which frames follow time is
        taken, else the first under which the model takes windows of fixed length.
        """
        second = self.sample_rate
        windows: dict[str, Any] | None = None
        windows_masked = True
        failure: Exception | None = None
        shapes = ""
        ways = _ways(self.extractor, getattr(self.model, "config", None))
        for way, self.masked in [(way, True) for way in ways] + [({}, False)]:
            if windows is not None and ("padding" not in way or not self.masked):
                continue
            self.padding = way
            try:
                short, long = self._heard(second), self._heard(3 * second)
            except Exception as error:  # whatever a foreign model raises, it means the same
                failure = failure or error
                continue
            shapes = shapes or f"1 s gives {tuple(short.shape)} and 3 s {tuple(long.shape)}"
            if 0 < short.shape[2] < long.shape[2]:
                hop_samples = self._hop(short.shape[2], long.shape[2])
                self.steps_per_frame = self._steps_per_frame(second, hop_samples)
                return long.shape[0], long.shape[3], hop_samples, self._shortest()
            if windows is None and short.shape == long.shape and short.shape[2] > 1:
                windows, windows_masked = way, self.masked
        if windows is not None:
            self.padding, self.masked = windows, windows_masked
            return self._probe_windows()
        kind = getattr(getattr(self.model, "config", None), "model_type", type(self.model).__name__)
        wrap = "Wrap it in a class and pass --upstream my_file.py:MyClass"
        if shapes:
            raise UpstreamError(
                f"{name}: {shapes}; an upstream needs [layer, utterance, frame, dim] with frames "
                f"that follow time. {wrap}"
            )
        raise UpstreamError(
            f"{name}: model_type {kind!r} does not take a waveform of 1 s "
            f"({type(failure).__name__}: {failure}); it is no speech encoder this adapter knows. "
            f"{wrap}"
        ) from failure

    def _heard(self, samples: int) -> Tensor:
        """The hidden states of so many samples of noise."""
        return self._states([_noise(samples)])

    def _steps(self, samples: int) -> int:
        """Steps of the model's input for so many samples."""
        first, _ = self._arguments(self._inputs([_noise(samples)]))
        return first.shape[self._time_axis(first)]

    def _probe_windows(self) -> tuple[int, int, int, int]:
        """The same for a model that always looks at a window of fixed length."""
        states = self._heard(self.sample_rate)
        layers, _, frames, dim = states.shape
        config = self.model.config
        if config.model_type == "audio-spectrogram-transformer":  # its mel frames are 10 ms apart
            hop_samples = config.time_stride * self.sample_rate // 100
        else:
            step_samples = int(self.extractor.hop_length)
            hop_samples = self._steps(self.sample_rate) * step_samples // frames
        self.window_samples = frames * hop_samples
        return layers, dim, hop_samples, self._shortest()

    def _hop(self, short: int, long: int) -> int:
        """Samples between frames, given the frames of 1 s and of 3 s."""
        second = self.sample_rate
        hop_samples = round(2 * second / (long - short))
        exact = 2 * second % (long - short) == 0
        if exact and self._heard(second + 50 * hop_samples).shape[2] - short == 50:
            return hop_samples

        def begins(frames: int) -> int:
            """The fewest samples that give so many frames."""
            below, enough = 0, 3 * second
            while enough - below > 1:
                middle = (below + enough) // 2
                if self._accepts(middle, frames):
                    enough = middle
                else:
                    below = middle
            return enough

        return round((begins(long) - begins(short)) / (long - short))

    def _steps_per_frame(self, samples: int, hop_samples: int) -> int:
        """Steps of the model's input per frame."""
        more = self._steps(samples + 50 * hop_samples) - self._steps(samples)
        return max(1, round(more / 50))

    def _shortest(self) -> int:
        """The fewest samples that give a frame, by bisection up to one second."""
        too_short, enough = 0, self.sample_rate
        if self._accepts(1):
            return 1
        while enough - too_short > 1:
            middle = (too_short + enough) // 2
            if self._accepts(middle):
                enough = middle
            else:
                too_short = middle
        return enough

    def _accepts(self, samples: int, frames: int = 1) -> bool:
        try:
            states = self._heard(samples)
            return states.shape[2] >= frames and bool(states.isfinite().all())
        except Exception:  # whatever a foreign model raises for what is too short
            return False


def _set_apart(thing: Model | Extractor | Config) -> dict[str, Any]:
    """The settings of a configuration or an extractor that are not the defaults of its class."""
    if thing is None:
        return {}
    try:
        standard = type(thing)().to_dict()
    except Exception:  # code of a stranger that takes no defaults: all settings count
        standard = {}
    return {
        name: value
        for name, value in thing.to_dict().items()
        if name not in _BOOKKEEPING and repr(value) != repr(standard.get(name))
    }


def _noise(samples: int) -> Tensor:
    """A waveform to ask a model with."""
    return torch.rand(samples, generator=torch.Generator().manual_seed(0)) - 0.5


def _ways(extractor: Extractor, config: Config) -> list[dict[str, Any]]:
    """Ways to call a feature extractor, the plainest first."""
    if frame_ms := getattr(config, "frame_ms", 0):  # Moonshine reads whole blocks of samples
        block = round(frame_ms * extractor.sampling_rate / 1000)
        return [{"padding": True, "pad_to_multiple_of": block, "return_attention_mask": True}]
    takes = inspect.signature(type(extractor).__call__).parameters
    mask = {"return_attention_mask": True}
    unpadded = {"padding": "longest", "truncation": False}
    ways: list[dict[str, Any]] = [{}, mask, unpadded, {**unpadded, **mask}]
    return [way for way in ways if way.keys() <= takes.keys()]


def _masks(inputs: Mapping[str, Any], steps: int) -> list[Tensor]:
    """The masks of one utterance's input that have an entry per step."""
    found = [inputs[name] for name in MASKS if name in inputs]
    return [mask for mask in found if isinstance(mask, Tensor) and mask.numel() == steps]


def _blocks(model: nn.Module) -> tuple[nn.Module, ...]:
    """The layers of an encoder: its biggest list of modules of one class."""

    def weights(layers: Iterable[nn.Module]) -> int:
        return sum(weight.numel() for layer in layers for weight in layer.parameters())

    lists = [
        module
        for module in model.modules()
        if isinstance(module, nn.ModuleList) and len({type(layer) for layer in module}) == 1
    ]
    if not lists:
        raise UpstreamError(f"{type(model).__name__} has no list of layers")
    return tuple(max(lists, key=weights))


@contextmanager
def _recording(blocks: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Collects the input of the first layer and the output of each, while the model runs."""
    states: list[Tensor] = []

    def before(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        states.append((given[0] if given else named["hidden_states"]).clone())

    def after(_: nn.Module, given: tuple[Any, ...], output: Tensor | tuple[Any, ...]) -> None:
        # A copy: what follows may write into it.
        states.append((output[0] if isinstance(output, tuple) else output).clone())

    handles = [blocks[0].register_forward_pre_hook(before, with_kwargs=True)]
    handles += [block.register_forward_hook(after) for block in blocks]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def load_huggingface(
    folder: Path, origin: Origin, trust_remote_code: bool = False
) -> HuggingFaceUpstream:
    """Load a checkpoint folder with transformers, strictly and in float32.

    Args:
        folder: with config.json, preprocessor_config.json and weights.
        origin: for the card.
        trust_remote_code: run code in the folder if the model needs it; the card says so.

    Raises:
        UpstreamError: transformers cannot read it, or an encoder weight is missing or left over.
    """
    files = weight_files(folder)
    config, extractor = _settings(folder, trust_remote_code)
    part = _part(config, trust_remote_code, folder)
    unwrapped, note = _unwrapped(folder, files)
    options: dict[str, Any] = {
        "dtype": torch.float32,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # reported, and then refused by us with the names
    }
    model: Model = None
    with quiet(), torch.random.fork_rng(devices=[]):
        try:
            if part.model is not None:
                kind = type(part.model)
                weights = _under(part.path, unwrapped) if note else _read_part(files, part.path)
                model, report = kind.from_pretrained(
                    None, config=part.model.config, state_dict=weights, **options
                )
                # Names from before a renaming are known to the whole alone.
                model = None if _problems(report, whole=False) else model
            if model is None:
                if note:
                    whole, report = part.whole.from_pretrained(
                        None, config=config, state_dict=unwrapped, **options
                    )
                else:
                    whole, report = _auto(part.auto).from_pretrained(
                        folder,
                        config=config,
                        trust_remote_code=trust_remote_code,
                        local_files_only=True,
                        **options,
                    )
                if found := _problems(report, whole=True, path=part.path):
                    raise UpstreamError(
                        f"{folder} does not hold the weights its config.json describes. "
                        f"{'; '.join(found)}. Check that both files are of the same model"
                    )
                model = _submodule(whole, part.path)
        except UpstreamError:
            raise
        except Exception as error:  # damaged files raise what their format's reader likes
            raise UpstreamError(_unreadable(folder, error)) from error
    # Buffers may hold infinities of their own, in masks.
    refuse_not_finite(dict(model.named_parameters()), str(folder))
    remote = REMOTE_NOTE if _is_remote(model, config, extractor) else ""
    return HuggingFaceUpstream(
        model,
        extractor,
        origin,
        FAMILIES.get(config.model_type, "other"),
        note=joined(tuned({"architectures": config.architectures}), note, remote),
        codec=part.codec,
        config=config,
    )


def untrained_huggingface(
    folder: Path, origin: Origin, seed: int, trust_remote_code: bool = False
) -> HuggingFaceUpstream:
    """The model a folder's settings describe, with random weights; its weights are not read.

    Torch's global random state is as before afterwards.

    Args:
        folder: with config.json and preprocessor_config.json.
        origin: for the card.
        seed: of the weights.
        trust_remote_code: run code in the folder if the model needs it; the card says so.

    Raises:
        UpstreamError: transformers knows no such model.
    """
    config, extractor = _settings(folder, trust_remote_code)
    part = _part(config, trust_remote_code, folder)
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            if part.model is None:
                whole = _auto(part.auto).from_config(
                    config, trust_remote_code=trust_remote_code, dtype=torch.float32
                )
                model = _submodule(whole, part.path)
            else:
                model = type(part.model)._from_config(part.model.config, dtype=torch.float32)
        except Exception as error:
            raise UpstreamError(_unreadable(folder, error)) from error
    note = REMOTE_NOTE if _is_remote(model, config, extractor) else ""
    return HuggingFaceUpstream(model, extractor, origin, "untrained", note, part.codec, config)


def needs_remote_code(folder: Path) -> bool:
    """Whether only code in a checkpoint folder can build its model."""
    settings = read_json(folder, "config.json")
    known = settings.get("model_type") in transformers.CONFIG_MAPPING
    return "AutoModel" in str(settings.get("auto_map", "")) and not known


def _settings(folder: Path, trust_remote_code: bool) -> tuple[Config, Extractor]:
    if needs_remote_code(folder) and not trust_remote_code:
        raise UpstreamError(
            f"{folder}: its model is built by code shipped with the checkpoint, which is never run "
            "unless you say so. Read that code; if you trust it, add --trust-remote-code"
        )
    extractor_settings(folder)  # or say in our words that there are none
    with quiet():
        try:
            options = {"trust_remote_code": trust_remote_code, "local_files_only": True}
            config = transformers.AutoConfig.from_pretrained(folder, **options)
            auto: Any = transformers.AutoFeatureExtractor
            extractor = auto.from_pretrained(folder, **options)
        except Exception as error:
            raise UpstreamError(_unreadable(folder, error)) from error
    if not isinstance(getattr(extractor, "sampling_rate", None), int):
        raise UpstreamError(f"{folder}: preprocessor_config.json names no sampling_rate; not audio")
    return config, extractor


def _auto(name: str) -> AutoClass:
    # No user's string: one of `PARTS`.
    return getattr(transformers, name)


def _is_remote(*things: object) -> bool:
    return any(type(thing).__module__.startswith("transformers_modules") for thing in things)


@dataclass(frozen=True)
class _FoundPart(Part):
    """The part that hears of one checkpoint.

    Attributes:
        model: a model without memory, when the part can be built and read alone; None when the
            whole is.
        whole: the class of the model that the part is of.
    """

    model: Model = None
    whole: Any = None


def _part(config: Config, trust_remote_code: bool, folder: Path) -> _FoundPart:
    """Finds the part that hears."""
    part = PARTS.get(config.model_type)
    auto = part.auto if part else "AutoModel"
    with quiet(), torch.random.fork_rng(devices=[]):  # some initialisations ignore the device
        try:
            with torch.device("meta"):  # no memory
                whole = _auto(auto).from_config(config, trust_remote_code=trust_remote_code)
        except Exception as error:
            raise UpstreamError(_unreadable(folder, error)) from error
    if part:
        path = part.path
        found = _submodule(whole, path)
    else:
        found = _encoder(whole)
        path = next((name for name, module in whole.named_modules() if module is found), "")
    # Remote code may build its model by rules of its own, so it builds all of it.
    alone = bool(path) and isinstance(found, transformers.PreTrainedModel) and not _is_remote(whole)
    codec = part.codec if part else False
    return _FoundPart(path, auto, codec, found if alone else None, type(whole))


def _encoder(model: Model) -> Model:
    """The part that hears, by what the model says of itself."""
    hears = model.main_input_name in ("input_values", "input_features", "audio_mel")
    named_after_task = re.search(r"For[A-Z]", type(model).__name__)
    if model.config.is_encoder_decoder or (hears and named_after_task):
        return model.get_encoder()
    return model if hears else model.get_encoder(modality="audio")


def _submodule(model: Model, path: str) -> Model:
    return model.get_submodule(path) if path else model


def _unwrapped(folder: Path, files: Sequence[Path]) -> tuple[dict[str, Tensor], str]:
    """Weights that transformers would not know for what they are wrapped in, and a note of it.

    Nothing and no note where it can read them itself.
    """
    if files[0].suffix == ".safetensors":
        names: list[str] = []
        for file in files:
            with _opened(file) as opened:
                names += opened.keys()
        if all(name == bare for name, bare in bare_names(names).items()):
            return {}, ""
    weights, note = read_weights(folder)
    return (weights, note) if note else ({}, "")


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """A file of weights, of which only what is asked for is read."""
    try:
        with safe_open(file, framework="pt") as opened:
            yield opened
    except (OSError, SafetensorError) as error:
        raise UpstreamError(f"{file} is damaged or incomplete ({error}); fetch it again") from error


def _read_part(files: Sequence[Path], path: str) -> dict[str, Tensor]:
    """The weights under a path, however the whole they belong to is prefixed."""
    if files[0].suffix != ".safetensors":
        return _under(path, read_weights(files[0].parent)[0])
    tensors: dict[str, Tensor] = {}
    names: dict[str, Path] = {}
    for file in files:
        with _opened(file) as opened:
            names.update(dict.fromkeys(opened.keys(), file))
    wanted = _under(path, {name: name for name in names})
    for file in files:
        with _opened(file) as opened:
            for short, name in wanted.items():
                if names[name] == file:
                    tensors[short] = opened.get_tensor(name)
    return tensors


Value = TypeVar("Value")


def _under(path: str, entries: Mapping[str, Value]) -> dict[str, Value]:
    """The entries below a path, their names from there on."""
    pattern = re.compile(rf"(?P<prefix>(.*\.)?){re.escape(path)}\.(?P<name>.*)")
    prefixes = [match["prefix"] for name in entries if (match := pattern.fullmatch(name))]
    start = f"{min(prefixes, key=len, default='')}{path}."
    return {
        name.removeprefix(start): value for name, value in entries.items() if name.startswith(start)
    }


def _problems(report: Mapping[str, Any], whole: bool, path: str = "") -> list[str]:
    """What transformers only warns about.

    Args:
        report: of `from_pretrained`.
        whole: whether the model was loaded with its other parts and heads.
        path: of the part that matters; "" for all but the heads.
    """

    def matters(key: str) -> bool:
        bare = key.removeprefix("model.")
        if not whole:
            return True
        if path:
            return bare.startswith(f"{path}.")
        return not is_head(bare.split(".", 1)[1] if "." in bare else bare) and not is_head(bare)

    problems = {
        "missing": sorted(filter(matters, report["missing_keys"])),
        "unexpected": sorted(filter(matters, report["unexpected_keys"])),
        "wrong shape": sorted(
            filter(matters, (_key(entry) for entry in report["mismatched_keys"]))
        ),
        "unreadable": sorted(str(message) for message in report["error_msgs"]),
    }
    return [f"{label}: {', '.join(keys[:5])}" for label, keys in problems.items() if keys]


def _key(entry: str | tuple[Any, ...]) -> str:
    """A weight with the wrong shape is reported by name, or by name and both shapes."""
    return str(entry if isinstance(entry, str) else entry[0])


def _unreadable(folder: Path, error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return (
            f"{folder} needs code shipped with the checkpoint, which is never run unless you say "
            "so. Read that code; if you trust it, add --trust-remote-code"
        )
    reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
    return (
        f"transformers {transformers.__version__} cannot load {folder} "
        f"({type(error).__name__}: {reason}). A model that transformers does not know goes into a "
        "file: --upstream my_file.py:MyClass"
    )


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings and progress bars from transformers inside; its settings return afterwards."""
    library: Any = transformers.utils.logging
    verbosity, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity(logging.CRITICAL)
    if bars:
        library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(verbosity)
        if bars:
            library.enable_progress_bar()
