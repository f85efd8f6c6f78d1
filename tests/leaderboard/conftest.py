"""Results that look real, for boards."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.core import Metric, Record
from benchmark.scoring.results import Result, run_id, write_result

METRICS = {
    "asr": ("wer", "cer"),
    "ks": ("accuracy",),
    "sid": ("accuracy",),
    "qbe": ("mtwv",),  # which trains nothing
}


def build(
    upstream: str,
    downstream: str,
    layer: str,
    value: float | None,
    *,
    half: float = 2.0,
    seeds: tuple[int, ...] = (0, 1, 2),
    created: str = "2026-01-02T03:04:05+00:00",
    fingerprint: str = "",
    corpus_sha256: str = "c0" * 32,
    audio_sha256: str | None = None,
    protocol_version: int = 1,
    version: int = 1,
    family: str = "predictive",
    note: str = "",
    at_edge: bool = False,
    precision: str = "float32",
    storage: str = "float16",
    device: str = "",
    skipped: tuple[str, ...] = (),
    by_utterance: bool | None = None,
    corpus: str = "mini",
    protocol: str = "superb",
    trained_on: tuple[str, ...] | None = (),
    parameters: int | None = 94_000_000,
    throughput: float | None = None,
    utterances: int = 100,
    macs: float | None = None,
    weights: str | None = None,
) -> Result:
    """A result; failed when `value` is None."""
    metrics = METRICS[downstream]
    identity: dict[str, Any] = {
        "upstream": {"name": upstream, "fingerprint": fingerprint or f"{upstream}-weights"},
        "downstream": {"name": downstream, "version": version},
        "corpus": {"name": corpus, "sha256": corpus_sha256},
        "protocol": {"name": protocol, "version": protocol_version, "sha256": "ab" * 32},
        "layer": layer,
        "seeds": list(seeds),
        "precision": precision,
        "storage": storage,
        "skipped_audio": "refuse",
    }
    if device:
        identity["device"] = device
    scores: dict[str, Any] = {}
    if value is not None:
        for position, name in enumerate(metrics):
            scores[name] = {
                "value": value / (1 + position),
                "low": max(0.0, value - half) / (1 + position),
                "high": (value + half) / (1 + position),
                "confidence": 0.95,
                "clusters": 10,
                "utterances": utterances,
                "seed_std": 0.5 if len(seeds) > 1 else None,
            }
            if by_utterance is not None:
                scores[name]["by_utterance"] = by_utterance
    return Result(
        run_id=run_id(identity),
        status="finished" if value is not None else "failed",
        created=created,
        identity=identity,
        upstream={"name": upstream, "family": family, "note": note, "layers": 13, "dim": 768,
                  "trained_on": None if trained_on is None else list(trained_on)},
        downstream={
            "name": downstream,
            "title": downstream.upper(),
            "version": version,
            "metrics": [
                asdict(Metric(name, "lower" if downstream == "asr" else "higher"))
                for name in metrics
            ],
        },
        corpus={"name": corpus, "sha256": corpus_sha256, "licence": "CC0-1.0", "source": "bundled",
                "note": "synthetic voices",
                "splits": {"train": {"hours": 0.65}}, "audio_sha256": audio_sha256},
        protocol={"name": protocol, "version": protocol_version, "updates": 200},
        layer=layer,
        seeds=list(seeds),
        metrics=scores,
        learning_rate=None if value is None else 0 if downstream == "qbe" else 0.001,
        learning_rate_at_edge=at_edge,
        learning_rate_curve=[
            {
                "learning_rate": 0.001,
                "valid": value,
                "status": "failed" if value is None else "finished",
                "updates": 200,
                "reason": "loss is not finite" if value is None else "",
            }
        ],
        per_seed=[],
        history=[],
        layer_weights=None,
        layer_norms=None,
        skipped_audio=[{"utterance": name, "reason": "unreadable"} for name in skipped],
        warnings=[],
        timings={"train": 1.5},
        encoder={"parameters": parameters, "throughput": throughput}
        | ({"weights_sha256": weights} if weights else {})
        | ({} if macs is None else {"macs": macs}),
        provenance={"superb": "0.1.0", "commit": None, "dirty": None},
    )  # fmt: skip


def variant(result: Result, name: str, labels: str = "", seconds: float = 0.0) -> Result:
    """The result of the same task by another head, or on fewer labels."""
    identity = {**result.identity, "downstream": {"name": name, "version": 1}}
    corpus = dict(result.corpus)
    if labels:
        identity["labels"] = {"seconds": seconds}
        corpus["labels"] = {"text": labels, "utterances": {}}
    return replace(
        result,
        run_id=run_id(identity),
        identity=identity,
        downstream={**result.downstream, "name": name, "base": result.downstream["name"]},
        corpus=corpus,
    )


def records(result: Result, speakers: int = 4, each: int = 3) -> dict[int, list[Record]]:
    """A few counts that the score of the result has nothing to do with."""
    wrong = len(result.layer)
    return {
        seed: [
            Record(
                id=f"s{speaker}-{take}",
                clusters=(f"s{speaker}",),
                reference="on",
                hypothesis="off",
                values={
                    name: (int((speaker + take + seed) % wrong == 0), 1) for name in result.metrics
                },
            )
            for speaker in range(speakers)
            for take in range(each)
        ]
        for seed in result.seeds
    }


@pytest.fixture
def result() -> Callable[..., Result]:
    """Build a result."""
    return build


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Build a result and write it below ``tmp_path / "results"``."""

    def save_result(*args: Any, **settings: Any) -> Path:
        made = build(*args, **settings)
        return write_result(tmp_path / "results", made, records(made))

    return save_result


SPEAKERS, EACH = 12, 5


@pytest.fixture
def counts() -> Callable[..., np.ndarray]:
    """Draw a numerator for each of 12 speakers' 5 utterances, anew for each share and seed."""

    def draw(right_share: float, *, words: int = 1, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng([seed, round(1_000 * right_share)])
        return rng.binomial(words, right_share, SPEAKERS * EACH)

    return draw


@pytest.fixture
def write_counts(tmp_path: Path) -> Callable[..., Path]:
    """Write a result whose utterances have these numerators."""

    def write(
        upstream: str,
        downstream: str,
        numerators: np.ndarray,
        *,
        layer: str = "weighted-sum",
        **settings: Any,
    ) -> Path:
        made = build(upstream, downstream, layer, 50.0, **{"seeds": (0,), **settings})
        words = 1 if downstream != "asr" else 10
        rows = [
            Record(
                id=f"u{position:03}",
                clusters=(f"s{position // EACH}",),
                reference="on",
                hypothesis=f"{value} counted",
                values={name: (int(value), words) for name in made.metrics},
            )
            for position, value in enumerate(numerators)
        ]
        return write_result(tmp_path / "results", made, dict.fromkeys(made.seeds, rows))

    return write
