"""Any other speech encoder in the Hugging Face format, through transformers' own model.

One utterance at a time, never padded beside another: what comes out depends on the utterance
alone, so `pad_invariant` holds whatever the model does with masks. Code that a repository ships
is never run (``trust_remote_code=False``).

Encoder-decoder models give their encoder. *Whisper* (arXiv 2212.04356) always looks at 30 s: its
feature extractor pads with silence and the encoder insists on 3000 mel frames. The frames of that
silence are cut, ``ceil(samples / 320)`` stay. Longer audio is not truncated but encoded in
consecutive windows of 30 s, the last one padded, and their frames are put end to end.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import torch
import transformers
from torch import Tensor, nn

from benchmark.core import Family, HiddenStates, UpstreamCard
from benchmark.errors import UpstreamError
from upstreams import batch
from upstreams.checkpoint import Origin, is_head, read_json

# transformers gives its models and feature extractors no common interface a type checker knows.
Model: TypeAlias = Any
Extractor: TypeAlias = Any

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
    "whisper": "supervised",
    "speech_to_text": "supervised",
    "moonshine": "supervised",
    "parakeet_encoder": "supervised",
}


class HuggingFaceUpstream(nn.Module):
    """A transformers model as an upstream.

    Args:
        model: the encoder, with its weights.
        extractor: its feature extractor: waveform to model input.
        origin: where it comes from.
        family: its pretext school.
        note: one loud line for the card.

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
    ) -> None:
        super().__init__()
        self.model = model
        self.extractor = extractor
        self.sample_rate = int(extractor.sampling_rate)
        # Whisper's extractor alone works on windows of a fixed length.
        fixed = model.config.model_type == "whisper"
        self.window_samples: int | None = int(extractor.n_samples) if fixed else None
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
            note=note,
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights and of the settings of model and feature extractor."""
        settings = [self.model.config.to_dict(), self.extractor.to_dict(), transformers.__version__]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
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
        return batch.stack([self._encode(waveform) for waveform in waveforms])

    def _encode(self, waveform: Tensor) -> Tensor:
        """``[sample]`` to ``[layer, frame, dim]``."""
        if self.window_samples is None:
            return self._states(waveform)
        windows = torch.split(waveform, self.window_samples)
        return torch.cat([self._window(window) for window in windows], dim=1)

    def _window(self, waveform: Tensor) -> Tensor:
        """At most one window of audio, without the frames of the padding after it."""
        frames = math.ceil(waveform.numel() / self.hop_samples)
        return self._states(waveform)[:, :frames]

    @torch.inference_mode()
    def _states(self, waveform: Tensor) -> Tensor:
        """One call of the model: ``[sample]`` to ``[layer, frame, dim]``."""
        inputs = self.extractor(
            waveform.float().cpu().numpy(), sampling_rate=self.sample_rate, return_tensors="pt"
        )
        weight = next(self.model.parameters())
        mask = inputs.get("attention_mask")
        outputs = self.model(
            inputs[self.model.main_input_name].to(weight.device, weight.dtype),
            attention_mask=None if mask is None else mask.to(weight.device),
            output_hidden_states=True,
        )
        states = list(outputs.hidden_states)
        # Pre-norm models: transformers 5 leaves the norm after the last layer out of
        # hidden_states, SUPERB and earlier releases do not.
        if outputs.last_hidden_state.shape == states[-1].shape:
            states[-1] = outputs.last_hidden_state
        return torch.cat(states)

    def _probe(self, name: str) -> tuple[int, int, int, int]:
        """Layers, dim, hop and shortest input, by asking the model."""
        config = self.model.config
        if self.window_samples is not None:
            hop_samples = self.window_samples // config.max_source_positions
            return config.encoder_layers + 1, config.d_model, hop_samples, 1
        second = self.sample_rate
        try:
            short, long = self._states(torch.zeros(second)), self._states(torch.zeros(3 * second))
        except Exception as error:  # whatever a foreign model raises, it means the same
            raise UpstreamError(
                f"{name}: model_type {config.model_type!r} does not take a waveform of 1 s "
                f"({type(error).__name__}: {error}); it is no speech encoder this adapter knows. "
                "Wrap it in a class and pass --upstream my_file.py:MyClass"
            ) from error
        if short.dim() != 3 or not 0 < short.shape[1] < long.shape[1]:
            raise UpstreamError(
                f"{name}: 1 s gives hidden states of shape {tuple(short.shape)} and 3 s "
                f"{tuple(long.shape)}; an upstream needs [layer, frame, dim] with frames that "
                "follow time. Wrap it in a class and pass --upstream my_file.py:MyClass"
            )
        hop_samples = round(2 * second / (long.shape[1] - short.shape[1]))
        return short.shape[0], short.shape[2], hop_samples, self._shortest()

    def _shortest(self) -> int:
        """The fewest samples that give a frame, by bisection up to one second."""
        too_short, enough = 0, self.sample_rate
        while enough - too_short > 1:
            middle = (too_short + enough) // 2
            if self._accepts(middle):
                enough = middle
            else:
                too_short = middle
        return enough

    def _accepts(self, samples: int) -> bool:
        try:
            return self._states(torch.zeros(samples)).shape[1] > 0
        except (RuntimeError, ValueError, IndexError):
            return False


def load_huggingface(folder: Path, origin: Origin) -> HuggingFaceUpstream:
    """Load a checkpoint folder with transformers, strictly and in float32.

    Args:
        folder: with config.json, preprocessor_config.json and weights.
        origin: for the card.

    Raises:
        UpstreamError: transformers cannot read it, or an encoder weight is missing or left over.
    """
    config, extractor = _settings(folder)
    with quiet(), torch.random.fork_rng(devices=[]):
        try:
            model, report = transformers.AutoModel.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported, and then refused by us with the names
            )
        except Exception as error:  # damaged files raise what their format's reader likes
            raise UpstreamError(_unreadable(folder, error)) from error
    _check_report(folder, report, bool(config.is_encoder_decoder))
    architectures = config.architectures or []
    tuned = [
        name for name in architectures if name.endswith(("ForCTC", "ForSequenceClassification"))
    ]
    return HuggingFaceUpstream(
        _encoder(model),
        extractor,
        origin,
        FAMILIES.get(config.model_type, "other"),
        note=f"fine-tuned: {tuned[0]}" if tuned else "",
    )


def untrained_huggingface(folder: Path, origin: Origin, seed: int) -> HuggingFaceUpstream:
    """The model a folder's settings describe, with random weights; its weights are not read.

    Torch's global random state is as before afterwards.

    Args:
        folder: with config.json and preprocessor_config.json.
        origin: for the card.
        seed: of the weights.

    Raises:
        UpstreamError: transformers knows no such model.
    """
    config, extractor = _settings(folder)
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            auto: Any = transformers.AutoModel
            model = auto.from_config(config, trust_remote_code=False, dtype=torch.float32)
        except Exception as error:
            raise UpstreamError(_unreadable(folder, error)) from error
    return HuggingFaceUpstream(_encoder(model), extractor, origin, "untrained")


def _settings(folder: Path) -> tuple[Any, Extractor]:
    read_json(folder, "config.json")
    read_json(folder, "preprocessor_config.json")
    with quiet():
        try:
            config = transformers.AutoConfig.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True
            )
            auto: Any = transformers.AutoFeatureExtractor
            extractor = auto.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        except Exception as error:
            raise UpstreamError(_unreadable(folder, error)) from error
    if not isinstance(getattr(extractor, "sampling_rate", None), int):
        raise UpstreamError(f"{folder}: preprocessor_config.json names no sampling_rate; not audio")
    return config, extractor


def _encoder(model: Model) -> Model:
    return model.get_encoder() if model.config.is_encoder_decoder else model


def _check_report(folder: Path, report: dict[str, Any], encoder_only: bool) -> None:
    """Refuse what transformers only warns about."""

    def matters(key: str) -> bool:
        bare = key.removeprefix("model.")
        if encoder_only:
            return bare.startswith("encoder.")
        return not is_head(bare.split(".", 1)[1] if "." in bare else bare) and not is_head(bare)

    problems = {
        "missing": sorted(filter(matters, report["missing_keys"])),
        "unexpected": sorted(filter(matters, report["unexpected_keys"])),
        "wrong shape": sorted(
            filter(matters, (_key(entry) for entry in report["mismatched_keys"]))
        ),
        "unreadable": sorted(str(message) for message in report["error_msgs"]),
    }
    found = [f"{label}: {', '.join(keys[:5])}" for label, keys in problems.items() if keys]
    if found:
        raise UpstreamError(
            f"{folder} does not hold the weights its config.json describes. {'; '.join(found)}. "
            "Check that both files are of the same model"
        )


def _key(entry: str | tuple[Any, ...]) -> str:
    """A weight with the wrong shape is reported by name, or by name and both shapes."""
    return str(entry if isinstance(entry, str) else entry[0])


def _unreadable(folder: Path, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
    return (
        f"transformers {transformers.__version__} cannot load {folder} "
        f"({type(error).__name__}: {reason}). Code shipped with a checkpoint is never run; a model "
        "that needs its own goes into a file: --upstream my_file.py:MyClass"
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
