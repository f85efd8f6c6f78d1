"""Encoders: one file per family, and the table that names them.

A bare family name (``hubert``) is the bundled small checkpoint and never needs a network; a size
(``hubert-base``) is the published checkpoint of that size. Importing this imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmark.core import Family


@dataclass(frozen=True)
class Entry:
    """A built-in upstream, as it can be listed without loading it.

    Attributes:
        target: ``module:attribute`` of a function without arguments that returns the upstream.
        family: the pretext school.
        layers: hidden layers returned.
        dim: features per frame.
        hop_samples: samples between frames at 16 kHz.
        parameters: number of weights.
        paper: where it is described.
        year: of the paper.
        checkpoint: a hub id, ``bundled``, or ``none`` where nothing is learned.
        revision: commit of the hub repository; "" takes the newest, which the card then records.
        licence: of the weights.
        trained_on: corpora seen in training.
        note: one loud line.
        architecture: ``module:attribute`` of the `EncoderConfig`, for the untrained twin; "" where
            there is nothing to initialise.
    """

    target: str
    family: Family
    layers: int
    dim: int
    hop_samples: int
    parameters: int
    paper: str
    year: int
    checkpoint: str
    revision: str
    licence: str
    trained_on: frozenset[str]
    note: str
    architecture: str = ""


_KALDI = "Povey et al., The Kaldi Speech Recognition Toolkit, ASRU 2011"
_MERMELSTEIN = "Davis and Mermelstein, IEEE TASSP 28(4), 1980"
_HUBERT = "Hsu et al., HuBERT, arXiv 2106.07447"

UPSTREAMS: dict[str, Entry] = {
    "fbank": Entry(
        target="upstreams.features:fbank",
        family="signal",
        layers=1,
        dim=240,
        hop_samples=160,
        parameters=0,
        paper=_KALDI,
        year=2011,
        checkpoint="none",
        revision="",
        licence="",
        trained_on=frozenset(),
        note="",
    ),
    "fbank-cmvn": Entry(
        target="upstreams.features:fbank_cmvn",
        family="signal",
        layers=1,
        dim=240,
        hop_samples=160,
        parameters=0,
        paper=_KALDI,
        year=2011,
        checkpoint="none",
        revision="",
        licence="",
        trained_on=frozenset(),
        note="normalised to zero mean per utterance: its time mean carries nothing",
    ),
    "mfcc": Entry(
        target="upstreams.features:mfcc",
        family="signal",
        layers=1,
        dim=39,
        hop_samples=160,
        parameters=0,
        paper=_MERMELSTEIN,
        year=1980,
        checkpoint="none",
        revision="",
        licence="",
        trained_on=frozenset(),
        note="without the per-utterance normalisation that SUPERB applies to its MFCC",
    ),
    "hubert": Entry(
        target="upstreams.hubert:mini",
        family="untrained",
        layers=7,
        dim=192,
        hop_samples=320,
        parameters=2_959_680,
        paper=_HUBERT,
        year=2021,
        checkpoint="bundled",
        revision="",
        licence="",
        trained_on=frozenset(),
        note="UNTRAINED: random weights, seed 0; a floor to compare with, not a HuBERT",
        architecture="upstreams.transformer:MINI",
    ),
    "hubert-base": Entry(
        target="upstreams.hubert:base",
        family="predictive",
        layers=13,
        dim=768,
        hop_samples=320,
        parameters=94_370_816,
        paper=_HUBERT,
        year=2021,
        checkpoint="facebook/hubert-base-ls960",
        revision="dba3bb02fda4248b6e082697eee756de8fe8aa8a",
        licence="apache-2.0",
        trained_on=frozenset({"librispeech"}),
        note="",
        architecture="upstreams.transformer:HUBERT_BASE",
    ),
    "hubert-large": Entry(
        target="upstreams.hubert:large",
        family="predictive",
        layers=25,
        dim=1024,
        hop_samples=320,
        parameters=315_437_568,
        paper=_HUBERT,
        year=2021,
        checkpoint="facebook/hubert-large-ll60k",
        revision="ff022d095678a2995f3c49bab18a96a9e553f782",
        licence="apache-2.0",
        trained_on=frozenset({"libri-light"}),
        note="",
        architecture="upstreams.transformer:HUBERT_LARGE",
    ),
    "hubert-xlarge": Entry(
        target="upstreams.hubert:xlarge",
        family="predictive",
        layers=49,
        dim=1280,
        hop_samples=320,
        parameters=962_496_000,
        paper=_HUBERT,
        year=2021,
        checkpoint="facebook/hubert-xlarge-ll60k",
        revision="",
        licence="apache-2.0",
        trained_on=frozenset({"libri-light"}),
        note="",
        architecture="upstreams.transformer:HUBERT_XLARGE",
    ),
}
