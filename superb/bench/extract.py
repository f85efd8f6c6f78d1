"""How fast features are made: audio decoded, encoded and stored, by the engine and by others.

All of it is timed, with an empty store every time, so that nothing is found there. Beside the
engine as it is stand the engine with one utterance at a time, and a loop as one would write it with
transformers, with the same weights: padded batches of like length through its fastest attention,
decoded ahead and stored as ours are.
"""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from benchmark.core import HiddenStates, Upstream, Utterance
from benchmark.encoding.arithmetic import exact, matmul_peak
from benchmark.encoding.audio import decode
from benchmark.encoding.features import Encoded, Extraction, ExtractionSettings, extract
from benchmark.encoding.forward import packs
from benchmark.encoding.recordings import estimate_s
from benchmark.encoding.store import FeatureStore
from benchmark.errors import SuperbError
from benchmark.jobs.site import prepare_encoder
from benchmark.progress import Progress
from superb.bench.encoder import SDPA, Contest, load_pair, padded
from superb.bench.timing import Timing, quiet, take_turns
from upstreams.models.transformer import TransformerUpstream

ALONE: Final = "one at a time"
ENGINE: Final = "engine"
THEIRS: Final = "transformers"
WAYS: Final = (ALONE, ENGINE, THEIRS)
# Seconds of audio, padding included, in a batch of transformers'.
_BATCH_S: Final = {"cpu": 32.0}
_BATCH_ELSEWHERE_S: Final = 320.0
# Minutes of audio that keep a device busy long enough for its clock.
_MINUTES: Final = {"cpu": 4.0}
_MINUTES_ELSEWHERE: Final = 40.0


@dataclass(frozen=True)
class Extracted:
    """One encoder in one precision.

    Attributes:
        upstream: its name.
        precision: of its arithmetic.
        audio_s: seconds of audio that were made features of each time.
        timings: way → how long that took; only those that there are.
        encoder_s: seconds of each time, as the engine does it, that the encoder took.
        macs: multiply-accumulates per second of audio; None where they cannot be counted.
        peak: operations per second of a big product of matrices, of which a MAC has two.
    """

    upstream: str
    precision: str
    audio_s: float
    timings: dict[str, Timing]
    encoder_s: Timing
    macs: float | None
    peak: float

    def rates(self, way: str) -> tuple[float, ...]:
        """Seconds of audio per second, of each time."""
        return tuple(self.audio_s / seconds for seconds in self.timings[way].seconds)

    @property
    def peak_share(self) -> float | None:
        """The engine's arithmetic per second over the peak; None where it is not known."""
        if self.macs is None:
            return None
        return 2 * self.macs * self.audio_s / self.timings[ENGINE].median / self.peak


class _OneByOne:
    """An encoder that the engine gives one utterance at a time, with all threads."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.card = replace(upstream.card, pad_invariant=False)

    def __call__(self, waveforms: list[Tensor]) -> HiddenStates:
        return self.upstream(waveforms)


def sample(utterances: Sequence[Utterance], minutes: float | None, device: str) -> list[Utterance]:
    """Utterances evenly spread over a corpus, so many minutes; what a device needs if None."""
    if minutes is None:
        minutes = _MINUTES.get(torch.device(device).type, _MINUTES_ELSEWHERE)
    once = list({(u.audio, u.span): u for u in utterances}.values())
    step = max(1, round(estimate_s(once) / (60 * minutes)))
    return once[step // 2 :: step]


def measure_extraction(
    name: str,
    utterances: Sequence[Utterance],
    kind: str,
    precisions: Sequence[str],
    settings: ExtractionSettings,
    *,
    random_weights: bool,
    rounds: int,
    progress: Progress,
) -> list[Extracted]:
    """Time the extraction of some utterances in every way.

    Args:
        name: an encoder, as for `superb.load_upstream`.
        utterances: what is made features of.
        kind: of feature, ``frames`` or ``mean``.
        precisions: ``float32``, ``bfloat16``.
        settings: where and how; its precision is not used.
        random_weights: take the architecture alone.
        rounds: timings of each way.
        progress: where to report.

    Raises:
        SuperbError: the encoder does not exist or fails, or audio cannot be used.
    """
    device = settings.device
    with tempfile.TemporaryDirectory() as temporary, quiet(), exact():
        shown, upstream, folder = load_pair(name, random_weights, Path(temporary))
        encoder = prepare_encoder(upstream, device, progress)
        contest = None
        if folder is not None and isinstance(upstream, TransformerUpstream):
            contest = Contest(upstream, folder, device=device)
            contest.check()
        found = []
        for precision in precisions:
            progress.note(f"{shown}: extraction in {precision}")
            own = replace(settings, precision=precision)
            alone = _Engine(_OneByOne(encoder.upstream), utterances, kind)
            engine = _Engine(encoder.upstream, utterances, kind)
            works = {
                ALONE: partial(_in_empty_store, own, alone),
                ENGINE: partial(_in_empty_store, own, engine),
            }
            if contest is not None:
                model = contest.models(getattr(torch, precision))[0]
                model.set_attn_implementation("sdpa" if SDPA in contest.attentions else "eager")
                loop = _Loop(model, contest.upstream, utterances, kind, own)
                works[THEIRS] = partial(_in_empty_store, own, loop)
            timings = take_turns(works, rounds)
            found.append(
                Extracted(
                    upstream=shown,
                    precision=precision,
                    audio_s=engine.found[0].audio_s,
                    timings=timings,
                    encoder_s=Timing(tuple(one.encoder_s for one in engine.found[1:])),
                    macs=encoder.macs,
                    peak=matmul_peak(precision, device, rounds),
                )
            )
        return found


def _in_empty_store(
    settings: ExtractionSettings, work: Callable[[ExtractionSettings], object]
) -> float:
    """Seconds of some work with a cache folder of its own, on the disk of the usual one."""
    with tempfile.TemporaryDirectory(dir=settings.cache_dir) as folder:
        started = time.perf_counter()
        work(replace(settings, cache_dir=Path(folder)))
        return time.perf_counter() - started


class _Engine:
    """Extraction as a run does it; `found` has what each time found out."""

    def __init__(self, upstream: Upstream, utterances: Sequence[Utterance], kind: str) -> None:
        self.upstream, self.wanted = upstream, {kind: utterances}
        self.found: list[Encoded] = []

    def __call__(self, settings: ExtractionSettings) -> None:
        """Make and store all features."""
        extraction = Extraction(self.upstream, "bench", self.wanted, settings)
        self.found.append(extract(extraction, Progress(quiet=True)))
        if skipped := self.found[-1].skipped:
            raise SuperbError(f"{skipped[0].utterance} cannot be used: {skipped[0].reason}")


class _Loop:
    """Extraction as one writes it with transformers."""

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - transformers is not typed
        twin: TransformerUpstream,
        utterances: Sequence[Utterance],
        kind: str,
        settings: ExtractionSettings,
    ) -> None:
        self.model, self.twin, self.kind = model, twin, kind
        self.about = {"storage": settings.storage}
        device = torch.device(settings.device)
        rate = twin.card.sample_rate
        seconds = [len(self._load(utterance)) / rate for utterance in utterances]
        most = _BATCH_S.get(device.type, _BATCH_ELSEWHERE_S)
        # lengths in milliseconds, which `packs` compares
        lengths = [math.ceil(1000 * length) for length in seconds]
        self.batches = [[utterances[at] for at in batch] for batch in packs(lengths, 1000 * most)]
        self.place = {"device": device, "dtype": model.dtype}

    def _load(self, utterance: Utterance) -> Tensor:
        card = self.twin.card
        return decode(
            utterance.audio, card.sample_rate, name=utterance.id, min_samples=card.min_samples,
            span=utterance.span,
        )  # fmt: skip

    def __call__(self, settings: ExtractionSettings) -> None:
        """Make and store all features."""

        def load(batch: Sequence[Utterance]) -> list[Tensor]:
            return [self._load(utterance) for utterance in batch]

        keys = map(str, itertools.count())
        with (
            FeatureStore(settings.cache_dir, self.about) as store,
            ThreadPoolExecutor(1) as pool,
            torch.inference_mode(),
        ):
            for waveforms in pool.map(load, self.batches):
                given = [self.twin.prepare(waveform).to(**self.place) for waveform in waveforms]
                states = torch.stack(
                    self.model(**padded(given), output_hidden_states=True).hidden_states
                )
                samples = torch.tensor([len(waveform) for waveform in waveforms])
                lengths = self.model._get_feat_extract_output_lengths(samples).tolist()
                places = list(enumerate(lengths))
                if self.kind == "mean":
                    means = [states[:, row, :length].float().mean(dim=1) for row, length in places]
                    each = list(torch.stack(means).cpu())
                else:
                    kept = states.float().cpu()  # in one copy, as ours are
                    each = [kept[:, row, :length] for row, length in places]
                for values in each:
                    store.append(next(keys), values.numpy(), np.zeros(len(values), np.float32))
