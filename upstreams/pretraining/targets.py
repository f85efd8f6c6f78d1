"""Targets of masked prediction: numbers for every frame, from features that nobody labelled.

Three ways to turn a teacher's features into codes:

* ``kmeans``: the nearest of the centroids fitted to a sample (HuBERT, section II.A);
* ``gmm``: the likeliest of the Gaussians, with diagonal covariances, fitted to a sample;
* ``random-projection``: the nearest of random directions after a random projection; nothing is
  learned (BEST-RQ, arXiv 2202.01855, section 3.1).

Features in several parts have a codebook each, such as MFCC, their differences and those of these:
product quantisation (HuBERT, section II.C).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from benchmark.core import Upstream
from benchmark.errors import SuperbError
from upstreams.pretraining.objective import Batch

Kind = Literal["kmeans", "gmm", "random-projection"]
# Frames that clusters are fitted to, at most.
FIT_FRAMES = 200_000
# Width of BEST-RQ's projection.
PROJECTION_DIM = 16


class Coder(Protocol):
    """Features to codes; an ``nn.Module`` whose numbers are buffers."""

    def fit(self, features_nd: Tensor, generator: Generator) -> None:
        """Learn the codes from features of a sample, ``[frame, dim]``."""
        ...

    def __call__(self, features: Tensor) -> Tensor:
        """``[…, dim]`` to int64 codes ``[…]``."""
        ...


class KMeans(nn.Module):
    """Nearest centroid."""

    centroids: Tensor

    def __init__(self, dim: int, codes: int) -> None:
        super().__init__()
        self.register_buffer("centroids", torch.zeros(codes, dim))

    def fit(self, features_nd: Tensor, generator: Generator) -> None:
        """k-means by scikit-learn in mini-batches, k-means++ starts (HuBERT, section IV.B)."""
        from sklearn.cluster import MiniBatchKMeans

        _require(features_nd, self.centroids.shape[0])
        with warnings.catch_warnings():
            # Equal points, as digital silence gives, leave clusters empty; perplexity shows it.
            warnings.simplefilter("ignore")
            model = MiniBatchKMeans(
                self.centroids.shape[0],
                batch_size=10_000,
                n_init=5,
                max_iter=100,
                random_state=_seed(generator),
            ).fit(features_nd.numpy())
        self.centroids.copy_(torch.from_numpy(model.cluster_centers_))

    def forward(self, features: Tensor) -> Tensor:
        """``[…, dim]`` to the index of the nearest centroid, ``[…]``."""
        distance = torch.cdist(features.float().flatten(0, -2), self.centroids)
        return distance.argmin(1).view(features.shape[:-1])


class GaussianMixture(nn.Module):
    """Likeliest Gaussian, diagonal covariances."""

    means: Tensor
    precisions: Tensor
    log_weights: Tensor

    def __init__(self, dim: int, codes: int) -> None:
        super().__init__()
        self.register_buffer("means", torch.zeros(codes, dim))
        self.register_buffer("precisions", torch.ones(codes, dim))
        self.register_buffer("log_weights", torch.zeros(codes))

    def fit(self, features_nd: Tensor, generator: Generator) -> None:
        """Expectation maximisation by scikit-learn."""
        from sklearn.mixture import GaussianMixture as Mixture

        _require(features_nd, self.means.shape[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it stops before convergence
            model = Mixture(
                self.means.shape[0],
                covariance_type="diag",
                max_iter=20,
                reg_covar=1e-3,
                random_state=_seed(generator),
            ).fit(features_nd.numpy())
        self.means.copy_(torch.from_numpy(model.means_))
        self.precisions.copy_(torch.from_numpy(model.precisions_))
        self.log_weights.copy_(torch.from_numpy(np.log(model.weights_)))

    def forward(self, features: Tensor) -> Tensor:
        """``[…, dim]`` to the index of the likeliest component, ``[…]``."""
        x_nd = features.float().flatten(0, -2)
        scaled_cd = self.means * self.precisions
        score_nc = (
            x_nd @ scaled_cd.T
            - 0.5 * x_nd.square() @ self.precisions.T
            - 0.5 * (self.means * scaled_cd).sum(1)
            + 0.5 * self.precisions.log().sum(1)
            + self.log_weights
        )
        return score_nc.argmax(1).view(features.shape[:-1])


class RandomProjection(nn.Module):
    """Nearest random direction of a random projection (arXiv 2202.01855, equation 1)."""

    mean: Tensor
    deviation: Tensor
    projection: Tensor
    directions: Tensor

    def __init__(self, dim: int, codes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))
        self.register_buffer("projection", torch.zeros(dim, PROJECTION_DIM))
        self.register_buffer("directions", torch.zeros(codes, PROJECTION_DIM))

    def fit(self, features_nd: Tensor, generator: Generator) -> None:
        """Draw projection and directions; only the scale of the features is measured."""
        deviation, mean = torch.std_mean(features_nd, dim=0)
        self.mean.copy_(mean)
        self.deviation.copy_(deviation.clamp(min=1e-5))
        nn.init.xavier_uniform_(self.projection, generator=generator)
        self.directions.copy_(
            F.normalize(torch.randn(self.directions.shape, generator=generator), dim=1)
        )

    def forward(self, features: Tensor) -> Tensor:
        """``[…, dim]`` to the index of the nearest direction, ``[…]``."""
        x_nd = (features.float().flatten(0, -2) - self.mean) / self.deviation
        # Both have length one, so the nearest has the largest product.
        score_nc = F.normalize(x_nd @ self.projection, dim=1) @ self.directions.T
        return score_nc.argmax(1).view(features.shape[:-1])


CODERS: dict[str, type[KMeans] | type[GaussianMixture] | type[RandomProjection]] = {
    "kmeans": KMeans,
    "gmm": GaussianMixture,
    "random-projection": RandomProjection,
}
# Whose features, where nobody says otherwise.
TEACHERS = {"kmeans": "mfcc", "gmm": "mfcc", "random-projection": "fbank"}


def teacher_names(given: str) -> list[str]:
    """The names of teachers, which have a comma between; a path that exists is one of them."""
    if Path(given).expanduser().exists():
        return [given]
    return [name.strip() for name in given.split(",")]


class Targets(nn.Module):
    """A teacher's features as codes, one of each codebook per frame of the encoder.

    Args:
        teacher: any upstream whose hop divides `hop_samples`.
        layer: which of its hidden states.
        kind: how features become codes.
        codes: how many in each codebook.
        hop_samples: of the frames that are to be predicted.
        parts: what the features are cut into, a codebook each.

    Raises:
        SuperbError: the teacher has no such layer, its hop does not fit, or its features cannot be
            cut so.
    """

    def __init__(
        self,
        teacher: Upstream,
        layer: int,
        kind: Kind,
        codes: int,
        hop_samples: int,
        parts: int = 1,
    ) -> None:
        super().__init__()
        card = teacher.card
        if not 0 <= layer < card.layers:
            raise SuperbError(
                f"teacher {card.name} has layers 0 to {card.layers - 1}; layer={layer} is none"
            )
        if hop_samples % card.hop_samples or card.sample_rate != 16_000:
            raise SuperbError(
                f"teacher {card.name} has a frame every {card.hop_samples} samples at "
                f"{card.sample_rate} Hz; targets need a divisor of {hop_samples} at 16000 Hz"
            )
        # In a tuple, so that its weights are no part of this module's.
        self._teacher = (teacher,)
        self.layer = layer
        self.per_frame = hop_samples // card.hop_samples
        # BEST-RQ stacks what the hop joins; clusters take the first frame, whose window is the
        # receptive field of the front end.
        self.stacked = kind == "random-projection"
        if card.dim % parts:
            raise SuperbError(
                f"teacher {card.name} has {card.dim} numbers a frame, which parts={parts} does not "
                "divide"
            )
        dim = card.dim // parts * (self.per_frame if self.stacked else 1)
        self.coders = nn.ModuleList(CODERS[kind](dim, codes) for _ in range(parts))

    @torch.no_grad()
    def features(self, waveforms: Tensor) -> Tensor:
        """The teacher's features, ``[utterance, sample]`` to ``[utterance, frame, dim]``.

        In float32 also under autocast, as codes were fitted to them.
        """
        (teacher,) = self._teacher
        move = getattr(teacher, "to", None)
        if move is not None:
            move(waveforms.device)
        with torch.autocast(waveforms.device.type, enabled=False):
            states: Tensor = teacher(list(waveforms)).values[self.layer].clone()
        if not self.stacked:
            return states[:, :: self.per_frame]
        whole, dim = states.shape[1] // self.per_frame * self.per_frame, states.shape[2]
        # a part of each frame that is stacked, then the next part of each
        parts = len(self.coders)
        stacked = states[:, :whole].reshape(len(states), -1, self.per_frame, parts, dim // parts)
        return stacked.transpose(2, 3).flatten(2)

    @torch.no_grad()
    def forward(self, waveforms: Tensor, frames: int) -> Tensor:
        """Codes of so many frames, int64.

        ``[utterance, sample]`` to ``[utterance, frame, codebook]``. The last code is repeated where
        the teacher has a frame less than the encoder.
        """
        features_btd = self.features(waveforms)
        with torch.autocast(waveforms.device.type, enabled=False):
            codes = [coder(part_btd) for coder, part_btd in self._parts(features_btd)]
        codes_btk = torch.stack(codes, dim=2)[:, :frames]
        lacking = frames - codes_btk.shape[1]
        if lacking:
            codes_btk = torch.cat([codes_btk, codes_btk[:, -1:].expand(-1, lacking, -1)], dim=1)
        return codes_btk

    def fit(self, batches: Iterable[Batch], generator: Generator) -> list[dict[str, float]]:
        """Learn the codes from a sample of audio, and judge them.

        Raises:
            SuperbError: the sample is too short, or the teacher gives numbers that are none.

        Returns:
            Of each codebook what `code_measures` says, and ``speaker_nmi``: the information that a
            code gives about who speaks, over the speakers' entropy. Phones give little.
        """
        device = next(self.coders.buffers()).device
        features: list[Tensor] = []
        speakers: list[Tensor] = []
        for batch in batches:
            some_btd = self.features(batch.waveforms.to(device)).float().cpu()
            features.append(some_btd)
            speakers.append(batch.speakers.cpu().repeat_interleave(some_btd.shape[1]))
        frames_nd = torch.cat([some.flatten(0, 1) for some in features])
        if not bool(frames_nd.isfinite().all()):
            (teacher,) = self._teacher
            raise SuperbError(
                f"teacher {teacher.card.name} gives features that are no numbers in layer "
                f"{self.layer}; choose another teacher or layer, or look at it with superb check"
            )
        speaker_n = torch.cat(speakers).numpy()
        chosen = torch.randperm(len(frames_nd), generator=generator)[:FIT_FRAMES]
        self.coders.cpu()
        found = []
        for place, (coder, part_nd) in enumerate(self._parts(frames_nd)):
            coder.fit(part_nd[chosen], generator)
            codes = [coder(some.chunk(len(self.coders), dim=-1)[place]) for some in features]
            flat_codes = torch.cat([some.flatten() for some in codes]).numpy()
            speaker_nmi = purity(flat_codes, speaker_n)["nmi"]
            found.append({**code_measures(part_nd, codes), "speaker_nmi": speaker_nmi})
        self.coders.to(device)
        return found

    def _parts(self, features: Tensor) -> Iterator[tuple[Coder, Tensor]]:
        """Each codebook and its part of the features, ``[…, dim]``."""
        parts = features.chunk(len(self.coders), dim=-1)
        for coder, part in zip(self.coders, parts, strict=True):
            yield cast(Coder, coder), part


def code_measures(features_nd: Tensor, codes: Sequence[Tensor]) -> dict[str, float]:
    """What can be said of codes without knowing the phones.

    Args:
        features_nd: ``[frame, dim]``, in the order of the codes.
        codes: ``[utterance, frame]`` each.

    Returns:
        ``code_perplexity``: exponential of the entropy of the codes, at most their number;
        ``code_frames``: frames in a row with the same code, in the mean (a phone takes about four
        of 20 ms); ``explained_variance``: share of the features' variance between codes.
    """
    flat_n = torch.cat([some.flatten() for some in codes])
    share = flat_n.bincount().double() / len(flat_n)
    share = share[share > 0]
    runs = sum(int((some.diff(dim=1) != 0).sum()) + len(some) for some in codes)
    x_nd = features_nd.double()
    total = float((x_nd - x_nd.mean(0)).square().sum())
    count_c = flat_n.bincount().clamp(min=1).double()
    sum_cd = torch.zeros(len(count_c), x_nd.shape[1], dtype=torch.float64)
    sum_cd.index_add_(0, flat_n, x_nd)
    within = float((x_nd - (sum_cd / count_c.unsqueeze(1))[flat_n]).square().sum())
    return {
        "code_perplexity": float((-(share * share.log()).sum()).exp()),
        "code_frames": len(flat_n) / runs,
        "explained_variance": 1 - within / total if total > 0 else math.nan,
    }


def purity(codes_n: NDArray[np.int64], labels_n: NDArray[np.int64]) -> dict[str, float]:
    """How codes and given labels (phones, speakers) agree, frame by frame (HuBERT, section IV.C).

    Args:
        codes_n: a code per frame.
        labels_n: a label per frame.

    Returns:
        ``label_purity``: share of frames that have their code's most frequent label;
        ``code_purity``: share that have their label's most frequent code; ``nmi``: the information
        that the code gives about the label, over the label's entropy (the paper's PNMI).

    Raises:
        SuperbError: there are not as many of both, or none.
    """
    if len(codes_n) != len(labels_n) or not len(codes_n):
        raise SuperbError(
            f"purity needs a label for every code; got {len(codes_n)} codes, {len(labels_n)} labels"
        )
    from sklearn.metrics import mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    table_lc = contingency_matrix(labels_n, codes_n)
    share_l = table_lc.sum(1) / table_lc.sum()
    entropy = float(-(share_l * np.log(share_l)).sum())
    information = float(mutual_info_score(labels_n, codes_n))
    return {
        "label_purity": float(table_lc.max(0).sum() / table_lc.sum()),
        "code_purity": float(table_lc.max(1).sum() / table_lc.sum()),
        "nmi": information / entropy if entropy > 0 else 1.0,
    }


def _require(features_nd: Tensor, codes: int) -> None:
    if len(features_nd) < codes:
        raise SuperbError(
            f"{codes} clusters need at least as many frames; the sample has {len(features_nd)}. "
            "Give more audio, or fewer clusters: --set clusters=…"
        )


def _seed(generator: Generator) -> int:
    return int(torch.randint(2**31 - 1, (), generator=generator))
