"""Pretext tasks: one file per idea, and the table that names them.

An objective turns a batch of waveforms into a loss (`objective`); `audio` streams the batches,
`train` minimises the loss, and what comes out is a folder that ``superb run --upstream`` takes.
Importing this imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmark.core import Family


@dataclass(frozen=True)
class Entry:
    """An objective, as it can be listed without loading it.

    Attributes:
        target: ``module:attribute`` of the class, an `objective.Objective`.
        school: the pretext school.
        title: what is predicted from what, in a few words.
        paper: where it is described.
    """

    target: str
    school: Family
    title: str
    paper: str


OBJECTIVES: dict[str, Entry] = {
    "cpc": Entry(
        "upstreams.pretraining.cpc:CPC",
        "contrastive",
        "tell the latents ahead from others, by one bilinear form per step (InfoNCE)",
        "van den Oord et al., CPC, arXiv 1807.03748",
    ),
    "modified-cpc": Entry(
        "upstreams.pretraining.cpc:ModifiedCPC",
        "contrastive",
        "the same with channel norm, LSTM and a transformer that predicts all steps",
        "Rivière et al., Modified CPC, arXiv 2002.02848",
    ),
    "bidirectional-cpc": Entry(
        "upstreams.pretraining.cpc:BidirectionalCPC",
        "contrastive",
        "the same from the past forwards and from the future backwards",
        "Kawakami et al., Bidirectional CPC, arXiv 2001.11128",
    ),
    "wav2vec2": Entry(
        "upstreams.pretraining.wav2vec2:Wav2Vec2",
        "contrastive",
        "tell the quantised latent behind a mask from those of other masked frames",
        "Baevski et al., wav2vec 2.0, arXiv 2006.11477",
    ),
    "wav2vec-c": Entry(
        "upstreams.pretraining.wav2vec2:Wav2VecC",
        "contrastive",
        "the same, and reconstruct the spectrum from the quantised latents",
        "Sadhu et al., wav2vec-C, arXiv 2103.08393",
    ),
    "hubert": Entry(
        "upstreams.pretraining.hubert:HuBERT",
        "predictive",
        "name the cluster of each masked frame",
        "Hsu et al., HuBERT, arXiv 2106.07447",
    ),
    "w2v-bert": Entry(
        "upstreams.pretraining.w2v_bert:W2VBERT",
        "predictive",
        "contrast in the lower layers, name the code of each masked frame in the upper ones",
        "Chung et al., w2v-BERT, arXiv 2108.06209",
    ),
    "apc": Entry(
        "upstreams.pretraining.generative:APC",
        "generative",
        "write the mel frame some steps ahead",
        "Chung et al., APC, arXiv 1904.03240",
    ),
    "masked-reconstruction": Entry(
        "upstreams.pretraining.generative:MaskedReconstruction",
        "generative",
        "write the masked mel frames from both sides (Mockingjay, TERA)",
        "Liu et al., Mockingjay, arXiv 1910.12638; TERA, arXiv 2007.06028",
    ),
}
