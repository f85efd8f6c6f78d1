"""How fast our transformer is, beside other implementations of the same model.

The same weights go into ours, `transformers` (eager and sdpa attention) and torchaudio; all must
give the same hidden states before any is timed. They take turns, round by round, so that whatever
else the machine does falls on all alike, and the median over the rounds counts.

The unit is seconds of audio per second. What the arithmetic costs at least is the model's own:
multiplications and additions of an utterance alone, counted in transformers' model without running
it, against the fastest matrix product that this machine was seen to do.
"""

from __future__ import annotations

import copy
import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

import torch
from torch import Tensor

from benchmark.core import Upstream
from benchmark.encoding.arithmetic import PRECISIONS, matmul_peak, synchronise
from benchmark.errors import SuperbError, UpstreamError, unknown
from superb.bench.timing import quiet, take_turns
from upstreams.catalogue import UPSTREAMS
from upstreams.loading.checkpoint import OWN_FAMILIES, PAPERS
from upstreams.loading.files import read_json
from upstreams.loading.load import UNTRAINED, load_upstream
from upstreams.loading.pretrained import PRETRAINED
from upstreams.models.transformer import EncoderConfig, TransformerUpstream

OURS, EAGER, SDPA, TORCHAUDIO = "ours", "transformers eager", "transformers sdpa", "torchaudio"
PADDED = ", padded"
CONTENDERS = (OURS, EAGER, SDPA, TORCHAUDIO)
SECONDS = (1.0, 8.0, 15.0)
# Seconds, 12 in the mean: drawn once from 2 + 14 × Beta(2.5, 1), as skewed to the long side as
# LibriSpeech's training utterances.
LIBRISPEECH_LIKE = (14.8, 13.1, 10.2, 5.1, 14.7, 14.8, 12.2, 11.0)
# Short utterances are encoded this much audio long per timing, or the clock would be the error.
AT_LEAST_S = 8.0
# Largest difference of a hidden state, relative to its largest value.
TOLERANCE = 1e-3
SEED = 0
MODELS = {
    "hubert": "HubertModel",
    "wav2vec2": "Wav2Vec2Model",
    "unispeech": "UniSpeechModel",
    "unispeech-sat": "UniSpeechSatModel",
    "wavlm": "WavLMModel",
    "data2vec-audio": "Data2VecAudioModel",
}

# transformers and torchaudio are not typed.
Model: TypeAlias = Any
Encode: TypeAlias = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One workload in one precision.

    Attributes:
        audio: the workload in words.
        precision: ``float32`` or ``bfloat16``.
        rates: contender → seconds of audio per second, median over the rounds; None where it
            cannot run.
        gflop_per_s: what a second of this audio costs, in 10⁹ operations.
        peak_share: our arithmetic per second over the machine's peak in this precision.
        ratio: ours over transformers with sdpa, or eager where the model has no sdpa.
    """

    audio: str
    precision: str
    rates: Mapping[str, float | None]
    gflop_per_s: float
    peak_share: float
    ratio: float


@dataclass(frozen=True)
class Comparison:
    """The outcome of `compare`.

    Attributes:
        upstream: the encoder's name.
        parameters: its weights.
        threads: of torch.
        rounds: timings behind each median.
        peaks: precision → 10⁹ operations per second of a big matrix product.
        rows: one per workload and precision.
        notes: what a reader must know besides.
    """

    upstream: str
    parameters: int
    threads: int
    rounds: int
    peaks: Mapping[str, float]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def compare(
    name: str,
    random_weights: bool = False,
    seconds: Sequence[float] = SECONDS,
    precisions: Sequence[str] = PRECISIONS,
    rounds: int = 5,
    device: str = "cpu",
    report: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """Time one encoder in every implementation at hand.

    Args:
        name: an upstream that our transformer implements, as for `load_upstream`.
        random_weights: take the architecture alone; nothing is fetched but settings.
        seconds: lengths of utterance.
        precisions: ``float32``, ``bfloat16``.
        rounds: timings of each; the median counts.
        device: where they compute.
        report: called with a line before each workload.

    Raises:
        SuperbError: the encoder is another one than our transformer, a value is out of range, or
            the implementations disagree on the hidden states.
    """
    for precision in precisions:
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS)
    if not seconds or not precisions:
        raise SuperbError("give at least one length in seconds and one precision")
    name = name.strip()
    _refuse_others(name)
    with (
        tempfile.TemporaryDirectory() as temporary,
        quiet(),
        torch.random.fork_rng(devices=[]),
    ):
        report("building the models")
        shown, loaded, folder = load_pair(name, random_weights, Path(temporary))
        if not _is_ours(loaded):
            raise _other(name)
        upstream = loaded
        if folder is None:
            raise UpstreamError(
                f"{upstream.card.name} has no checkpoint that transformers reads: add "
                "--random-weights"
            )
        config = upstream.encoder.config
        shortest = config.min_samples / upstream.card.sample_rate
        if not all(shortest <= length < math.inf for length in seconds):
            raise SuperbError(
                f"seconds are at least {shortest:g}, the shortest that {name} takes; got "
                f"{', '.join(f'{length:g}' for length in seconds)}"
            )
        bench = Contest(upstream, folder, rounds, device)
        bench.check()
        workloads: dict[str, tuple[float, ...]] = {f"{length:g} s": (length,) for length in seconds}
        workloads["LibriSpeech-like"] = LIBRISPEECH_LIKE
        peaks: dict[str, float] = {}
        rows: dict[str, list[Row]] = {}
        for precision in dict.fromkeys(precisions):
            report(f"{precision}: peak of this machine")
            peaks[precision] = matmul_peak(precision, device, rounds) / 1e9
            models = bench.models(getattr(torch, precision))
            for audio, lengths in workloads.items():
                report(f"{precision}: {audio}")
                for row in bench.rows(audio, lengths, precision, models, peaks[precision]):
                    rows.setdefault(row.audio, []).append(row)
        return Comparison(
            upstream=shown,
            parameters=sum(weight.numel() for weight in upstream.encoder.parameters()),
            threads=torch.get_num_threads(),
            rounds=rounds,
            peaks=peaks,
            rows=tuple(row for group in rows.values() for row in group),
            notes=tuple(dict.fromkeys(bench.notes)),
        )


def write_random(folder: Path, twin: TransformerUpstream) -> None:
    """Save a random model of transformers' with an encoder's architecture as a checkpoint folder.

    Args:
        folder: to write to.
        twin: whose architecture and waveform settings it gets; its weights are not used.
    """
    import transformers

    settings = their_settings(twin.encoder.config)
    kind = _kind(twin)
    model_class = getattr(transformers, MODELS[kind])
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)
        model = model_class(model_class.config_class(**settings))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"do_normalize": twin.normalize, "sampling_rate": twin.card.sample_rate}),
        encoding="utf-8",
    )


def their_settings(config: EncoderConfig) -> dict[str, Any]:
    """An architecture in the words of transformers' configurations."""
    settings: dict[str, Any] = {
        "hidden_size": config.dim,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.feed_forward_dim,
        "layer_norm_eps": config.norm_eps,
        "feat_extract_norm": config.conv_norm,
        "feat_proj_layer_norm": config.projection_norm,
        "conv_dim": list(config.conv_dims),
        "conv_kernel": list(config.conv_kernels),
        "conv_stride": list(config.conv_strides),
        "conv_bias": config.conv_bias,
        "num_conv_pos_embeddings": config.position_kernel,
        "num_conv_pos_embedding_groups": config.position_groups,
        "do_stable_layer_norm": config.pre_norm,
    }
    if config.relative_buckets:
        settings["num_buckets"] = config.relative_buckets
        settings["max_bucket_distance"] = config.relative_distance
    if config.position_norm:
        settings["conv_pos_kernel_size"] = config.position_kernel
        settings["num_conv_pos_embeddings"] = config.position_layers
    return settings


class Contest:
    """The contenders with one set of weights, and what to tell the reader."""

    def __init__(
        self,
        upstream: TransformerUpstream,
        folder: Path,
        rounds: int = 1,
        device: str = "cpu",
    ) -> None:
        import transformers

        self.upstream, self.rounds, self.device = upstream.to(device), rounds, device
        self.rate = upstream.card.sample_rate
        model_class = getattr(transformers, MODELS[read_json(folder, "config.json")["model_type"]])
        self.theirs: Model = model_class.from_pretrained(
            folder, attn_implementation="eager", dtype=torch.float32, local_files_only=True
        ).eval()
        self.theirs.to(device)
        with torch.device("meta"):  # to count in, without memory or work
            self.counted: Model = model_class(copy.deepcopy(self.theirs.config)).eval()
        self.attentions = {EAGER: "eager"}
        self.notes: list[str] = []
        if self.theirs._supports_sdpa:
            self.attentions[SDPA] = "sdpa"
        else:
            self.notes.append(
                f"transformers has no sdpa for {model_class.__name__}: the ratio is against eager"
            )
        self.torchaudio = _torchaudio(self.theirs)
        if self.torchaudio is not None:
            self.torchaudio.to(device)
        else:
            self.notes.append(f"torchaudio does not import {model_class.__name__}")

    def check(self) -> None:
        """Refuse implementations that disagree on the hidden states of a second of noise."""
        samples = max(self.rate, self.upstream.card.min_samples)
        waveform = _noise(samples).to(self.device)
        given = self.upstream.prepare(waveform)[None]
        found = list(self.upstream([waveform]).values[:, 0])
        for attention in self.attentions.values():
            self.theirs.set_attn_implementation(attention)
            with torch.inference_mode():
                output = self.theirs(given, output_hidden_states=True)
            # transformers leaves the norm after the last layer out of its hidden states.
            expected = [*output.hidden_states[:-1], output.last_hidden_state]
            error = _error(found, [state[0] for state in expected])
            if not error <= TOLERANCE:
                raise SuperbError(
                    f"{self.upstream.card.name}: our hidden states and those of transformers "
                    f"({attention}) differ by {error:.1e} relative, more than {TOLERANCE:g}: "
                    "different computations are not timed against each other"
                )
        if self.torchaudio is not None:
            with torch.inference_mode():
                states, _ = self.torchaudio.extract_features(given)
            # It leaves out the input of the first layer, and the norm after the last.
            inner = [state[0] for state in states[:-1]]
            if not _error(found[1:-1], inner) <= TOLERANCE:
                self.torchaudio = None
                self.notes.append("torchaudio computes something else: not timed")

    def models(self, dtype: torch.dtype) -> tuple[Model, Model]:
        """transformers' and torchaudio's model in a precision; None for one that cannot run."""
        theirs, torchaudio = self.theirs, self.torchaudio
        if dtype == torch.float32:
            return theirs, torchaudio
        theirs, torchaudio = copy.deepcopy(theirs).to(dtype), copy.deepcopy(torchaudio)
        if torchaudio is not None:
            torchaudio = torchaudio.to(dtype)
            samples = max(self.rate, self.upstream.card.min_samples)
            shortest = torch.zeros(1, samples, dtype=dtype, device=self.device)
            try:
                with torch.inference_mode():
                    torchaudio.extract_features(shortest)
            except (RuntimeError, TypeError) as error:
                self.notes.append(f"torchaudio does not run in {dtype}: {str(error)[:80]}")
                torchaudio = None
        return theirs, torchaudio

    def rows(
        self,
        audio: str,
        lengths: Sequence[float],
        precision: str,
        models: tuple[Model, Model],
        peak: float,
    ) -> list[Row]:
        """One workload: a row one by one and, of several utterances, one as a padded batch."""
        contenders = self._contenders(lengths, getattr(torch, precision), *models)
        total = sum(lengths)
        repeats = max(1, math.ceil(AT_LEAST_S / total))
        works = {
            label: partial(_time, work, self.device, repeats) for label, work in contenders.items()
        }
        with torch.inference_mode():
            taken = take_turns(works, self.rounds)
        rates = {label: total / timing.median for label, timing in taken.items()}
        gflop_per_s = sum(self._gflop(length) for length in lengths) / total
        rows = []
        for suffix in ("", PADDED) if len(lengths) > 1 else ("",):
            shown = {label: rates.get(label + suffix) for label in CONTENDERS}
            shown[OURS] = ours = rates[OURS]
            against = shown[SDPA] or shown[EAGER]
            rows.append(
                Row(
                    audio=audio + suffix,
                    precision=precision,
                    rates=shown,
                    gflop_per_s=gflop_per_s,
                    peak_share=ours * gflop_per_s / peak,
                    ratio=ours / against if against else math.nan,
                )
            )
        return rows

    def _contenders(
        self, lengths: Sequence[float], dtype: torch.dtype, theirs: Model, torchaudio: Model
    ) -> dict[str, Encode]:
        """What each has to do for one pass over the utterances: all hidden states of each."""
        waveforms = [_noise(round(length * self.rate)).to(self.device) for length in lengths]
        given = [self.upstream.prepare(waveform)[None].to(dtype) for waveform in waveforms]

        def ours() -> None:
            kind = torch.device(self.device).type
            with torch.autocast(kind, dtype, enabled=dtype != torch.float32):
                for waveform in waveforms:
                    self.upstream([waveform])

        def transformers(batches: list[dict[str, Tensor]], attention: str) -> None:
            theirs.set_attn_implementation(attention)
            for inputs in batches:
                theirs(**inputs, output_hidden_states=True)

        def torchaudios() -> None:
            for waveform in given:
                torchaudio.extract_features(waveform)

        alone = [{"input_values": waveform} for waveform in given]
        together = padded([waveform[0] for waveform in given])
        contenders: dict[str, Encode] = {OURS: ours}
        for label, attention in self.attentions.items():
            contenders[label] = partial(transformers, alone, attention)
            if len(given) > 1:
                contenders[label + PADDED] = partial(transformers, [together], attention)
        if torchaudio is not None:
            contenders[TORCHAUDIO] = torchaudios
        return contenders

    def _gflop(self, length: float) -> float:
        """10⁹ operations of the model on one utterance."""
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.utils.flop_counter import FlopCounterMode

        waveform = torch.zeros(1, round(length * self.rate), device="meta")
        # Attention written out, or its products go uncounted.
        with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), FlopCounterMode(display=False) as count:
            self.counted(waveform)
        return float(count.get_total_flops()) / 1e9


def padded(waveforms: Sequence[Tensor]) -> dict[str, Tensor]:
    """Waveforms as a batch for transformers' models, where they are."""
    values = torch.nn.utils.rnn.pad_sequence(list(waveforms), batch_first=True)
    samples = torch.tensor([len(waveform) for waveform in waveforms])
    mask = (torch.arange(values.shape[1]) < samples[:, None]).long()
    return {"input_values": values, "attention_mask": mask.to(values.device)}


def _time(work: Encode, device: str, repeats: int) -> float:
    synchronise(device)
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    synchronise(device)
    return (time.perf_counter() - start) / repeats


def _noise(samples: int) -> Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(SEED + samples))


def _error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest relative difference of a state; infinite when their shapes differ."""
    if [state.shape for state in found] != [state.shape for state in expected]:
        return math.inf
    errors = [
        float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True)
    ]
    return math.inf if any(math.isnan(error) for error in errors) else max(errors, default=0.0)


def _torchaudio(theirs: Model) -> Model:
    """torchaudio's model with transformers' weights; None where it cannot read them."""
    from torchaudio.models.wav2vec2.utils import import_huggingface_model

    try:
        return import_huggingface_model(theirs).eval()
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        return None


def _kind(twin: TransformerUpstream) -> str:
    """The model type, in transformers' words, that an architecture is built as."""
    config = twin.encoder.config
    if config.relative_buckets:
        return "wavlm"
    if config.position_norm:
        return "data2vec-audio"
    if not config.projection_norm:  # an option of this one alone
        return "hubert"
    return next((kind for kind, paper in PAPERS.items() if paper == twin.card.paper), "wav2vec2")


def _names() -> list[str]:
    return [
        name
        for name, entry in UPSTREAMS.items()
        if entry.architecture.startswith("upstreams.models.transformer:")
        and entry.architecture != "upstreams.models.transformer:MINI"
    ]


def _refuse_others(name: str) -> None:
    bare = name.removeprefix(UNTRAINED)
    if bare in UPSTREAMS and bare not in _names():
        raise _other(name)


def _other(name: str) -> SuperbError:
    return SuperbError(
        f"bench compares transformers on waveforms only, and {name} is another kind. By name: "
        f"{', '.join(_names())}; or a folder or hub id of model_type {', '.join(OWN_FAMILIES)}"
    )


def load_pair(
    name: str, random_weights: bool, temporary: Path
) -> tuple[str, Upstream, Path | None]:
    """An encoder, and a checkpoint from which transformers makes the same model.

    Args:
        name: as for `load_upstream`.
        random_weights: take the architecture alone.
        temporary: an empty folder, where that of random weights goes.

    Returns:
        Its name for readers, the encoder, and the folder; None where transformers has no such
        model, or the checkpoint is of our own kind.
    """
    if not (random_weights or name.startswith(UNTRAINED)):
        upstream = load_upstream(name)
        return upstream.card.name, upstream, _folder(upstream) if _is_ours(upstream) else None
    shown = UNTRAINED + name.removeprefix(UNTRAINED)
    upstream = load_upstream(shown)
    if not _is_ours(upstream):
        return shown, upstream, None
    write_random(temporary, upstream)
    return shown, load_upstream(str(temporary)), temporary


def _is_ours(upstream: object) -> TypeGuard[TransformerUpstream]:
    # what starts from log mel energies exists in no other library
    return isinstance(upstream, TransformerUpstream) and not upstream.encoder.config.log_mel


def _folder(upstream: TransformerUpstream) -> Path | None:
    """Where a loaded checkpoint lies that transformers reads."""
    card = upstream.card
    if card.revision:
        from upstreams.loading.hub import download

        return download(card.source, card.revision)
    folder = Path(card.source).expanduser()
    if (
        card.source in ("", "bundled")
        or read_json(folder, "config.json").get("model_type") == PRETRAINED
    ):
        return None
    return folder
