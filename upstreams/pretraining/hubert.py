"""HuBERT (Hsu et al., arXiv 2106.07447): name the cluster of every frame that is masked.

The paper's figure 1, from left to right::

    waveform ─► convolutions ─► frames ─► mask ─► transformer ─► likeness to each code ─► loss
        └─► teacher's features ─► clusters ───────────────────────── the right code ───────▲

The teacher is MFCC in the first iteration and a middle layer of the first model in the second:
``--set teacher=runs/hubert-1 --set layer=4``. Other kinds of targets
(`upstreams.pretraining.targets`) and disturbed inputs (`upstreams.pretraining.noise`) are settings.
Unlike in fairseq: no dropout, and no penalty on the output of the convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, cast, get_args

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from benchmark.errors import SuperbError
from upstreams.loading.load import load_upstream
from upstreams.pretraining.bodies import SIZES, Body, build, contexts, frame_dim
from upstreams.pretraining.masking import masked_front
from upstreams.pretraining.noise import disturb
from upstreams.pretraining.objective import Batch, Loss, Moment, Recipe, require
from upstreams.pretraining.targets import TEACHERS, Kind, Targets


@dataclass(frozen=True)
class HuBERTSettings:
    """What can be set.

    Attributes:
        targets: ``kmeans`` (HuBERT), ``gmm``, or ``random-projection`` (BEST-RQ).
        clusters: number of codes.
        teacher: the upstream whose features are coded, by any of its names; "" takes MFCC, or
            FBANK for random projections.
        layer: of the teacher.
        mask_share: starts of masked spans over frames.
        mask_span: frames masked from each start on.
        masked_weight: weight of the loss on masked frames; the rest is on those that are heard
            (alpha of section II.B). The paper takes 1 in the end; the bundled encoder has a half.
        code_dim: width in which states and codes are compared.
        temperature: by which their cosines are divided.
        disturbed: share of utterances with noise or another voice mixed in (WavLM); the targets
            are those of the clean utterance.

    Raises:
        SuperbError: a value is out of its range.
    """

    targets: str = "kmeans"
    clusters: int = 100
    teacher: str = ""
    layer: int = 0
    mask_share: float = 0.08
    mask_span: int = 10
    masked_weight: float = 0.5
    code_dim: int = 128
    temperature: float = 0.1
    disturbed: float = 0.0

    def __post_init__(self) -> None:
        if self.targets not in get_args(Kind):
            raise SuperbError(
                f"targets is one of {', '.join(get_args(Kind))}; got {self.targets!r}"
            )
        for name, holds, allowed in (
            ("clusters", self.clusters >= 2, "at least 2"),
            ("layer", self.layer >= 0, "0 or more"),
            ("mask_share", 0 < self.mask_share <= 1, "above 0 and at most 1"),
            ("mask_span", self.mask_span >= 1, "at least 1"),
            ("masked_weight", 0 < self.masked_weight <= 1, "above 0 and at most 1"),
            ("code_dim", self.code_dim >= 1, "at least 1"),
            ("temperature", 0 < self.temperature < math.inf, "a finite number above 0"),
            ("disturbed", 0 <= self.disturbed <= 1, "from 0 to 1"),
        ):
            require(holds, name, getattr(self, name), allowed)


class HuBERT(nn.Module):
    """Masked prediction of cluster numbers.

    Args:
        size: a key of `sizes`.
        settings: see there.
        generator: of all weights.
    """

    Settings: ClassVar[type[HuBERTSettings]] = HuBERTSettings
    sizes: ClassVar[dict[str, Body]] = SIZES
    recipe: ClassVar[Recipe] = Recipe(learning_rate=2e-3, batch_seconds=40.0, crop_seconds=5.0)

    def __init__(self, size: str, settings: HuBERTSettings, generator: Generator) -> None:
        super().__init__()
        self.settings = settings
        self.architecture = self.sizes[size]
        # On the meta device nothing is drawn from the global random state.
        with torch.device("meta"):
            self.encoder = build(self.architecture)
        self.to_empty(device="cpu")
        self.encoder.reset_parameters(generator)
        dim = self.architecture.dim
        self.mask_embedding = nn.Parameter(
            torch.rand(frame_dim(self.architecture), generator=generator)
        )
        self.projection = nn.Parameter(
            torch.randn(settings.code_dim, dim, generator=generator) / dim**0.5
        )
        self.codes = nn.Parameter(
            torch.randn(settings.clusters, settings.code_dim, generator=generator)
        )
        teacher = load_upstream(settings.teacher or TEACHERS[settings.targets])
        self.teacher = teacher.card
        self.targets = Targets(
            teacher,
            settings.layer,
            cast(Kind, settings.targets),
            settings.clusters,
            self.architecture.hop_samples,
        )

    def prepare(self, batches: Iterable[Batch], moment: Moment) -> dict[str, float]:
        """Fit the clusters to a sample; see `upstreams.pretraining.targets.code_measures`."""
        return self.targets.fit(batches, moment.generator)

    def forward(self, batch: Batch, moment: Moment) -> Loss:
        """Cross-entropy of the codes of masked frames, mean over frames (section II.B).

        Logged beside it: ``accuracy`` over masked frames, and ``masked``, their share.
        """
        settings = self.settings
        clean = batch.waveforms
        waveforms = clean
        if settings.disturbed:
            waveforms = disturb(clean, settings.disturbed, moment.generator)
        masked = masked_front(
            self.encoder,
            self.mask_embedding,
            waveforms,
            settings.mask_share,
            settings.mask_span,
            1.0,
            moment.generator,
        )
        last_btd = contexts(self.encoder, masked.frames_btd)
        code_bt: Tensor = self.targets(clean, last_btd.shape[1])
        code_n = masked.rows(code_bt)
        logits_nc = self.logits(masked.rows(last_btd))
        loss = F.cross_entropy(logits_nc, code_n)
        if settings.masked_weight < 1:
            heard_mc = self.logits(masked.heard(last_btd))
            heard = F.cross_entropy(heard_mc, masked.heard(code_bt))
            loss = settings.masked_weight * loss + (1 - settings.masked_weight) * heard
        accuracy = (logits_nc.argmax(1) == code_n).float().mean()
        share = torch.full_like(accuracy, len(code_n) / code_bt.numel())
        return Loss(loss, {"accuracy": accuracy, "masked": share})

    def logits(self, states_nd: Tensor) -> Tensor:
        """Cosine of projected states with each code, over the temperature (equation 3).

        ``[frame, dim]`` to float32 ``[frame, code]``.
        """
        with torch.autocast(states_nd.device.type, enabled=False):
            projected = F.normalize(states_nd.float() @ self.projection.float().T, dim=1)
            cosines = projected @ F.normalize(self.codes.float(), dim=1).T
            return cosines / self.settings.temperature
