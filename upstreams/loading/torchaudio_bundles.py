"""torchaudio's pretrained bundles by name: ``torchaudio:WAVLM_BASE``.

The architecture comes from torchaudio's own model factory with the bundle's settings, the weights
from the file that ``torch.hub`` keeps in its cache: fetched when it is not there, and read as
tensors only (``weights_only=True``), so that no code in it runs. The output layer of a bundle that
was fine-tuned for ASR is left out.

One utterance at a time, never padded beside another: what comes out depends on the utterance alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from benchmark.core import Family, HiddenStates, UpstreamCard
from benchmark.errors import UpstreamError, unknown
from upstreams.loading.files import (
    named_tensors,
    read_pickle,
    refuse_differences,
    refuse_not_finite,
    shapes,
)
from upstreams.models import batch

PREFIX = "torchaudio:"
PAGE = "https://download.pytorch.org/torchaudio/models/"
# The head of a bundle for ASR or alignment.
HEAD = "aux."

# torchaudio is not typed.
Bundle: TypeAlias = Any
Wav2Vec2: TypeAlias = Any


@dataclass(frozen=True)
class Facts:
    """What torchaudio's bundles do not say of themselves.

    Attributes:
        family: the pretext school.
        paper: where it is described.
        trained_on: corpora seen in training, transcribed ones included.
        licence: of the weights, as torchaudio redistributes them.
    """

    family: Family
    paper: str
    trained_on: frozenset[str]
    licence: str = "mit"


_WAV2VEC2 = "Baevski et al., wav2vec 2.0, arXiv 2006.11477"
_XLSR = "Conneau et al., XLSR, arXiv 2006.13979"
_XLS_R = "Babu et al., XLS-R, arXiv 2111.09296"
_VOXPOPULI = "Wang et al., VoxPopuli, arXiv 2101.00390"
_HUBERT = "Hsu et al., HuBERT, arXiv 2106.07447"
_WAVLM = "Chen et al., WavLM, arXiv 2110.13900"
_MMS = "Pratap et al., MMS, arXiv 2305.13516"
_LS = frozenset({"librispeech"})
_LL = frozenset({"libri-light"})
_XLSR_DATA = frozenset({"multilingual-librispeech", "common-voice", "babel"})
_XLS_R_DATA = _XLSR_DATA | {"voxpopuli", "voxlingua107"}
_WAVLM_DATA = frozenset({"libri-light", "gigaspeech", "voxpopuli"})

_BASE = Facts("contrastive", _WAV2VEC2, _LS)
_BASE_LL = Facts("contrastive", _WAV2VEC2, _LS | _LL)
_LV60K = Facts("contrastive", _WAV2VEC2, _LL)
_VOX = Facts("contrastive", _VOXPOPULI, frozenset({"voxpopuli"}), "cc-by-nc-4.0")

BUNDLES: dict[str, Facts] = {
    "WAV2VEC2_BASE": _BASE,
    "WAV2VEC2_LARGE": _BASE,
    "WAV2VEC2_LARGE_LV60K": _LV60K,
    "WAV2VEC2_XLSR53": Facts("contrastive", _XLSR, _XLSR_DATA),
    "WAV2VEC2_XLSR_300M": Facts("contrastive", _XLS_R, _XLS_R_DATA),
    "WAV2VEC2_XLSR_1B": Facts("contrastive", _XLS_R, _XLS_R_DATA),
    "WAV2VEC2_XLSR_2B": Facts("contrastive", _XLS_R, _XLS_R_DATA),
    "WAV2VEC2_ASR_BASE_10M": _BASE_LL,
    "WAV2VEC2_ASR_BASE_100H": _BASE,
    "WAV2VEC2_ASR_BASE_960H": _BASE,
    "WAV2VEC2_ASR_LARGE_10M": _BASE_LL,
    "WAV2VEC2_ASR_LARGE_100H": _BASE,
    "WAV2VEC2_ASR_LARGE_960H": _BASE,
    "WAV2VEC2_ASR_LARGE_LV60K_10M": _LV60K,
    "WAV2VEC2_ASR_LARGE_LV60K_100H": _BASE_LL,
    "WAV2VEC2_ASR_LARGE_LV60K_960H": _BASE_LL,
    "VOXPOPULI_ASR_BASE_10K_DE": _VOX,
    "VOXPOPULI_ASR_BASE_10K_EN": _VOX,
    "VOXPOPULI_ASR_BASE_10K_ES": _VOX,
    "VOXPOPULI_ASR_BASE_10K_FR": _VOX,
    "VOXPOPULI_ASR_BASE_10K_IT": _VOX,
    "HUBERT_BASE": Facts("predictive", _HUBERT, _LS),
    "HUBERT_LARGE": Facts("predictive", _HUBERT, _LL),
    "HUBERT_XLARGE": Facts("predictive", _HUBERT, _LL),
    "HUBERT_ASR_LARGE": Facts("predictive", _HUBERT, _LS | _LL),
    "HUBERT_ASR_XLARGE": Facts("predictive", _HUBERT, _LS | _LL),
    "WAVLM_BASE": Facts("predictive", _WAVLM, _LS),
    "WAVLM_BASE_PLUS": Facts("predictive", _WAVLM, _WAVLM_DATA),
    "WAVLM_LARGE": Facts("predictive", _WAVLM, _WAVLM_DATA),
    "MMS_FA": Facts("contrastive", _MMS, frozenset({"mms"}), "cc-by-nc-4.0"),
}


class TorchaudioUpstream(nn.Module):
    """A wav2vec 2.0, HuBERT or WavLM of torchaudio as an upstream.

    Args:
        model: torchaudio's model, with its weights and without a head.
        card: its card.
        normalize: bring each waveform to zero mean and unit variance first.
    """

    def __init__(self, model: Wav2Vec2, card: UpstreamCard, normalize: bool) -> None:
        super().__init__()
        self.model = model
        self.card = card
        self.normalize = normalize
        self.requires_grad_(False).eval()

    @torch.inference_mode()
    def forward(self, waveforms: list[Tensor]) -> HiddenStates:
        """Encode 1-D waveforms in [-1, 1] at the card's sample rate, each on its own.

        Raises:
            AudioError: for a waveform that is not 1-D, not float, or too short.
        """
        batch.check_waveforms(waveforms, self.card)
        return batch.stack([self._encode(waveform) for waveform in waveforms])

    def _encode(self, waveform: Tensor) -> Tensor:
        """``[sample]`` to ``[layer, frame, dim]``.

        torchaudio's own ``extract_features`` leaves out the input of the first layer and the norm
        after the last, so its loop over the layers is written out here.
        """
        weight = next(self.model.parameters())
        x = waveform.to(weight.device, weight.dtype).unsqueeze(0)
        if self.normalize:
            x = nn.functional.layer_norm(x, x.shape)
        features, _ = self.model.feature_extractor(x, None)
        transformer = self.model.encoder.transformer
        x = transformer._preprocess(self.model.encoder.feature_projection(features))
        states = [x]
        bias = None  # WavLM's first layer makes it for all others
        for layer in transformer.layers:
            x, bias = layer(x, None, position_bias=bias)
            states.append(x)
        # torchaudio's name for it is the other way round: the norm comes first in post-norm models.
        if not transformer.layer_norm_first:
            states[-1] = transformer.layer_norm(x)
        return torch.cat(states)


def load_bundle(name: str) -> TorchaudioUpstream:
    """Load a bundle, strictly and in float32.

    Args:
        name: as torchaudio spells it, ``WAVLM_BASE``.

    Raises:
        UpstreamError: its weights are not in the cache and cannot be fetched, or do not fit.
        SuperbError: no such bundle (with near matches).
    """
    bundle = _bundle(name)
    path = weights_path(bundle)
    if not path.is_file():
        _fetch(name, bundle, path)
    weights = _read(path)
    with torch.device("meta"):  # no memory, no random numbers
        model = _build(bundle)
    refuse_differences(
        shapes(model.state_dict()),
        shapes(weights),
        f"{path} does not hold the weights of {PREFIX}{name}; delete it to fetch it again",
    )
    refuse_not_finite(weights, str(path))
    model.load_state_dict({key: value.float() for key, value in weights.items()}, assign=True)
    return TorchaudioUpstream(model, _card(name, bundle, model), bool(bundle._normalize_waveform))


def untrained_bundle(name: str, seed: int) -> TorchaudioUpstream:
    """A bundle's architecture with random weights; needs no file.

    Torch's global random state is as before afterwards.

    Args:
        name: as torchaudio spells it.
        seed: of the weights.

    Raises:
        SuperbError: no such bundle (with near matches).
    """
    bundle = _bundle(name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = _build(bundle)
    return TorchaudioUpstream(model, _card(name, bundle, model), bool(bundle._normalize_waveform))


def weights_path(bundle: Bundle) -> Path:
    """Where ``torch.hub`` keeps, or would keep, a bundle's weights."""
    return Path(torch.hub.get_dir(), "checkpoints", _url(bundle).rpartition("/")[2])


def _url(bundle: Bundle) -> str:
    path = str(bundle._path)
    return path if path.startswith("https") else PAGE + path


def _bundle(name: str) -> Bundle:
    if name not in BUNDLES:
        raise unknown("torchaudio bundle", name, BUNDLES, f"Type {PREFIX}WAVLM_BASE, for example.")
    from torchaudio import pipelines  # seconds

    return vars(pipelines)[name]


def _fetch(name: str, bundle: Bundle, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(_url(bundle), str(path), progress=False)
    except Exception as error:  # no network has many names
        raise UpstreamError(
            f"{PREFIX}{name}: its weights are not at {path}, and {_url(bundle)} cannot be fetched "
            f"({type(error).__name__}: {error}). Put that file there, or set TORCH_HOME to a "
            f"folder that has it as hub/checkpoints/{path.name}"
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    """The encoder's weights of a bundle's file; a head is left out."""
    weights = named_tensors(read_pickle(path, "delete it to fetch another"), str(path))
    return {key: value for key, value in weights.items() if not key.startswith(HEAD)}


def _build(bundle: Bundle) -> Wav2Vec2:
    from torchaudio.models import wav2vec2_model, wavlm_model

    factory: Any = {"Wav2Vec2": wav2vec2_model, "WavLM": wavlm_model}[bundle._model_type]
    return factory(**{**bundle._params, "aux_num_out": None})


def _card(name: str, bundle: Bundle, model: Wav2Vec2) -> UpstreamCard:
    facts = BUNDLES[name]
    hop_samples, min_samples = 1, 1
    for convolution in reversed(model.feature_extractor.conv_layers):
        min_samples = (min_samples - 1) * convolution.stride + convolution.kernel_size
        hop_samples *= convolution.stride
    transformer = model.encoder.transformer
    return UpstreamCard(
        name=PREFIX + name,
        layers=len(transformer.layers) + 1,
        dim=transformer.layer_norm.normalized_shape[0],
        hop_samples=hop_samples,
        sample_rate=int(bundle._sample_rate),
        family=facts.family,
        parameters=sum(weight.numel() for weight in model.parameters()),
        min_samples=min_samples,
        pad_invariant=True,
        trained_on=facts.trained_on,
        licence=facts.licence,
        paper=facts.paper,
        source=_url(bundle),
        note="fine-tuned: CTC" if "_ASR_" in name or name == "MMS_FA" else "",
    )
