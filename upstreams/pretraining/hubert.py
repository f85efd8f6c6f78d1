"""HuBERT (Hsu et al., arXiv 2106.07447): name the cluster of every frame that is masked.

The paper's figure 1, from left to right::

    waveform ─► convolutions ─► frames ─► mask ─► transformer ─► likeness to each code ─► loss
        └─► teacher's features ─► clusters ───────────────────────── the right code ───────▲

The teacher is MFCC in the first iteration and a middle layer of the first model in the second:
``--set teacher=runs/hubert-1 --set layer=4``. Several teachers, and parts of their features, have a
codebook each, all of which are named (cluster ensembles, section II.C):
``--set teacher=mfcc,apc --set layer=0,2 --set parts=3,1``. Other kinds of targets
(`upstreams.pretraining.targets`), disturbed inputs (`upstreams.pretraining.noise`) and a loss that
asks for who speaks (`upstreams.pretraining.utterances`) are settings.
Unlike in fairseq: no dropout, and no penalty on the output of the convolutions. Codebooks all have
as many codes, and the loss is their mean where the paper has the sum.
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
from upstreams.pretraining.bodies import SIZES, Body, build, frame_dim, outputs
from upstreams.pretraining.masking import masked_front
from upstreams.pretraining.noise import disturb
from upstreams.pretraining.objective import Batch, Loss, Moment, Recipe, require
from upstreams.pretraining.targets import TEACHERS, Kind, Targets, teacher_names
from upstreams.pretraining.utterances import utterance_contrast


@dataclass(frozen=True)
class HuBERTSettings:
    """What can be set.

    Attributes:
        targets: ``kmeans`` (HuBERT), ``gmm``, or ``random-projection`` (BEST-RQ).
        clusters: number of codes, of each codebook.
        teacher: the upstream whose features are coded, by any of its names, or several with a comma
            between; "" takes MFCC, or FBANK for random projections.
        layer: of the teacher, or one for each.
        parts: what the features of the teacher are cut into, a codebook each; or one number for
            each teacher. Three of MFCC are the coefficients, their differences, and those of these.
        mask_share: starts of masked spans over frames.
        mask_span: frames masked from each start on.
        masked_weight: weight of the loss on masked frames; the rest is on those that are heard
            (alpha of section II.B). The paper takes 1 in the end; the bundled encoder has a half.
        code_dim: width in which states and codes are compared.
        temperature: by which their cosines are divided.
        disturbed: share of utterances with noise or another voice mixed in (WavLM); the targets
            are those of the clean utterance.
        utterance_weight: of telling utterances apart, beside naming codes (UniSpeech-SAT).
        utterance_layer: whose output that looks at, from 1; 0 takes the one in the middle.

    Raises:
        SuperbError: a value is out of its range.
    """

    targets: str = "kmeans"
    clusters: int = 100
    teacher: str = ""
    layer: str = "0"
    parts: str = "1"
    mask_share: float = 0.08
    mask_span: int = 10
    masked_weight: float = 0.5
    code_dim: int = 128
    temperature: float = 0.1
    disturbed: float = 0.0
    utterance_weight: float = 0.0
    utterance_layer: int = 0

    def __post_init__(self) -> None:
        if self.targets not in get_args(Kind):
            raise SuperbError(
                f"targets is one of {', '.join(get_args(Kind))}; got {self.targets!r}"
            )
        for name, holds, allowed in (
            ("clusters", self.clusters >= 2, "at least 2"),
            ("mask_share", 0 < self.mask_share <= 1, "above 0 and at most 1"),
            ("mask_span", self.mask_span >= 1, "at least 1"),
            ("masked_weight", 0 < self.masked_weight <= 1, "above 0 and at most 1"),
            ("code_dim", self.code_dim >= 1, "at least 1"),
            ("temperature", 0 < self.temperature < math.inf, "a finite number above 0"),
            ("disturbed", 0 <= self.disturbed <= 1, "from 0 to 1"),
            (
                "utterance_weight",
                0 <= self.utterance_weight < math.inf,
                "a finite number, at least 0",
            ),
            ("utterance_layer", self.utterance_layer >= 0, "at least 0"),
        ):
            require(holds, name, getattr(self, name), allowed)
        if self.utterance_layer and not self.utterance_weight:
            raise SuperbError("utterance_layer says nothing without an utterance_weight above 0")
        self.codebooks()  # raises

    def codebooks(self) -> list[tuple[str, int, int]]:
        """Teacher, layer and number of parts, for each teacher."""
        teachers = teacher_names(self.teacher)
        if len(teachers) > 1 and "" in teachers:
            raise SuperbError(f"teacher has a name missing between its commas: {self.teacher!r}")
        names = [name or TEACHERS[self.targets] for name in teachers]
        layers = _numbers("layer", self.layer, 0, len(names))
        parts = _numbers("parts", self.parts, 1, len(names))
        return list(zip(names, layers, parts, strict=True))


def _numbers(name: str, given: str, least: int, count: int) -> list[int]:
    """A whole number, or one for each teacher."""
    found = [text.strip() for text in str(given).split(",")]
    fine = all(text.isascii() and text.isdigit() and int(text) >= least for text in found)
    require(fine and len(found) in (1, count), name, given, _allowed(least, count))
    numbers = [int(text) for text in found]
    return numbers * count if len(numbers) == 1 else numbers


def _allowed(least: int, count: int) -> str:
    one = f"a whole number, at least {least}"
    return one if count == 1 else f"{one}, or {count} of them with commas between, as of teachers"


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
        codebooks = settings.codebooks()
        count = sum(parts for _, _, parts in codebooks)
        self.projection = nn.Parameter(
            torch.randn(count, settings.code_dim, dim, generator=generator) / dim**0.5
        )
        self.codes = nn.Parameter(
            torch.randn(count, settings.clusters, settings.code_dim, generator=generator)
        )
        layers = self.architecture.layers
        self.utterance_layer = layer = settings.utterance_layer or (layers + 1) // 2
        require(layer <= layers, "utterance_layer", layer, f"at most {layers}")
        if settings.utterance_weight:
            self.utterance_projection = nn.Parameter(
                torch.randn(dim, settings.code_dim, generator=generator) / dim**0.5
            )
        teachers = [load_upstream(name) for name, _, _ in codebooks]
        self.teachers = [teacher.card for teacher in teachers]
        made = [
            Targets(
                teacher,
                layer,
                cast(Kind, settings.targets),
                settings.clusters,
                self.architecture.hop_samples,
                parts,
            )
            for teacher, (_, layer, parts) in zip(teachers, codebooks, strict=True)
        ]
        self.targets = nn.ModuleList(made)

    def prepare(self, batches: Iterable[Batch], moment: Moment) -> dict[str, float]:
        """Fit the clusters to a sample; see `upstreams.pretraining.targets.code_measures`.

        Of several codebooks, a measure's name has its number behind it, from 1.
        """
        sample = batches if len(self.targets) == 1 else list(batches)
        found: list[dict[str, float]] = []
        for own in self.targets:
            found += cast(Targets, own).fit(sample, moment.generator)
        if len(found) == 1:
            return found[0]
        return {
            f"{name}_{number}": value
            for number, measures in enumerate(found, 1)
            for name, value in measures.items()
        }

    def right_codes(self, waveforms: Tensor, frames: int) -> Tensor:
        """Of all codebooks: ``[utterance, sample]`` to int64 ``[utterance, frame, codebook]``."""
        return torch.cat([own(waveforms, frames) for own in self.targets], dim=2)

    def forward(self, batch: Batch, moment: Moment) -> Loss:
        """Cross-entropy of the codes of masked frames, mean over frames and codebooks (II.B, II.C).

        Logged beside it: ``accuracy`` over masked frames, and ``masked``, their share; where
        utterances are told apart, that loss and its accuracy over masked frames.
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
        outputs_btd = outputs(self.encoder, masked.frames_btd)
        last_btd = outputs_btd[-1]
        code_btk = self.right_codes(clean, last_btd.shape[1])
        code_nk = masked.rows(code_btk)
        logits_nkc = self.logits(masked.rows(last_btd))
        loss = F.cross_entropy(logits_nkc.flatten(0, 1), code_nk.flatten())
        if settings.masked_weight < 1:
            heard_mkc = self.logits(masked.heard(last_btd))
            heard = F.cross_entropy(heard_mkc.flatten(0, 1), masked.heard(code_btk).flatten())
            loss = settings.masked_weight * loss + (1 - settings.masked_weight) * heard
        accuracy = (logits_nkc.argmax(2) == code_nk).float().mean()
        share = torch.full_like(accuracy, code_nk.numel() / code_btk.numel())
        logged = {"accuracy": accuracy, "masked": share}
        if settings.utterance_weight:
            states_btp = outputs_btd[self.utterance_layer - 1] @ self.utterance_projection
            told = utterance_contrast(states_btp, masked.index_n, settings.temperature)
            loss = loss + settings.utterance_weight * told.loss
            logged |= {"utterance_loss": told.loss.detach(), "utterance_accuracy": told.accuracy}
        return Loss(loss, logged)

    def logits(self, states_nd: Tensor) -> Tensor:
        """Cosine of projected states with each code, over the temperature (equation 3).

        ``[frame, dim]`` to float32 ``[frame, codebook, code]``.
        """
        with torch.autocast(states_nd.device.type, enabled=False):
            projected_nkp = torch.einsum("nd,kpd->nkp", states_nd.float(), self.projection.float())
            codes_kcp = F.normalize(self.codes.float(), dim=2)
            cosines_nkc = torch.einsum("nkp,kcp->nkc", F.normalize(projected_nkp, dim=2), codes_kcp)
            return cosines_nkc / self.settings.temperature
