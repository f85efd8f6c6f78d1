"""Where each number comes from, in words, for a reader who clicks on it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmark.scoring.results import MetricValue, Result, no_interval
from leaderboard.read.collect import Run
from leaderboard.read.fields import (
    find_metric,
    identity_of,
    learning_rate_of,
    scores_by_seed,
    weights_of,
)
from leaderboard.read.names import list_some, printable


def pooled(runs: Mapping[str, Run], folder: Path) -> dict[str, Any]:
    """Facts of many runs with each text written once: most of it is the same in all of them.

    Args:
        runs: by run id.
        folder: of results; files are named from there.

    Returns:
        ``texts``, and under ``runs`` for each id a flat list of places in it: name, text, name, …
    """
    places: dict[str, int] = {}
    indexed = {
        run_id: [
            places.setdefault(printable(text), len(places))
            for pair in facts(run.path.relative_to(folder).as_posix(), run.result)
            if pair[1]
            for text in pair
        ]
        for run_id, run in runs.items()
    }
    return {"texts": list(places), "runs": indexed}


def facts(file: str, result: Result) -> Iterator[tuple[str, str]]:
    """Name and text of each fact; the text is "" of what the result does not say."""
    card, protocol, origin = result.downstream, result.protocol, result.provenance
    identity, content = result.identity, identity_of(result, "protocol", "sha256")
    yield "upstream", str(result.upstream["name"])
    yield "task", f"{card['name']} version {card['version']}"
    yield "layers", result.layer
    yield "status", result.status
    for name, score in result.metrics.items():
        yield f"test {name}", _score(score, find_metric(result, name).unit)
    yield "seeds", _seeds(result)
    yield "learning rate", _learning_rate(result)
    for point in result.learning_rate_curve:
        if point["status"] == "failed":
            yield f"failed at {point['learning_rate']:g}", point["reason"]
    yield (
        "protocol",
        f"{protocol['name']} version {protocol['version']} " + (f"({content})" if content else ""),
    )
    yield "corpus", _corpus(result.corpus)
    yield "left out", list_some([str(entry["utterance"]) for entry in result.skipped_audio])
    yield "weights", weights_of(result)
    yield "weights and code", identity_of(result, "upstream", "fingerprint")
    yield "trained on", _trained_on(result.upstream)
    settings = ("precision", "storage", "device")
    yield (
        "features",
        ", ".join(f"{name} {identity[name]}" for name in settings if identity.get(name)),
    )
    for warning in result.warnings:
        yield "warning", warning
    yield "run", result.run_id
    yield "file", file
    yield "created", result.created
    yield "command", _command(origin.get("command"))
    yield "code", _code(origin)
    packages = origin.get("packages")
    if isinstance(packages, Mapping):
        yield "packages", ", ".join(f"{name} {version}" for name, version in packages.items())
    machine = ("platform", "cpu", "gpu", "device")
    yield "machine", ", ".join(str(origin[name]) for name in machine if origin.get(name))
    times = {name.removesuffix("_s"): seconds for name, seconds in result.timings.items()}
    yield "time", ", ".join(f"{name.replace('_', ' ')} {times[name]:.0f} s" for name in times)


def _score(score: MetricValue, unit: str) -> str:
    units = "utterances" if score.get("by_utterance") else "speakers"
    interval = (
        f"{100 * score['confidence']:g} % interval [{score['low']:.3f}, {score['high']:.3f}] over "
        f"{score['clusters']} {units}"
    )
    if why := no_interval(score, unit):
        interval = f"no interval ({why})"
    text = f"{score['value']:.3f} {unit}, {interval}, {score['utterances']} utterances"
    if score["seed_std"] is not None:
        text += f", standard deviation over seeds {score['seed_std']:.3f}"
    return text


def _seeds(result: Result) -> str:
    scores = {
        seed: ": " + ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
        for seed, metrics in scores_by_seed(result).items()
    }
    return "; ".join(f"{seed}{scores.get(seed, '')}" for seed in result.seeds)


def _learning_rate(result: Result) -> str:
    tried = ", ".join(f"{point['learning_rate']:g}" for point in result.learning_rate_curve)
    chosen = learning_rate_of(result)
    if not chosen:
        return f"none chosen of {tried}"
    edge = ", at an edge of the grid" if result.learning_rate_at_edge else ""
    return f"{chosen}, chosen on valid of {tried}{edge}"


def _corpus(corpus: Mapping[str, Any]) -> str:
    named = f"{corpus['name']} ({corpus['sha256']})"
    parts = (named, corpus.get("source"), corpus.get("licence"))
    return ", ".join(str(part) for part in parts if part)


def _trained_on(card: Mapping[str, Any]) -> str:
    corpora = card.get("trained_on")
    if corpora is None:
        return "not disclosed"
    return ", ".join(_texts(corpora)) or "nothing"


def _command(command: object) -> str:
    """As it was typed; the name of the program is that of the module when run with ``-m``."""
    words = _texts(command)
    return shlex.join(["superb", *words[1:]]) if words else ""


def _code(origin: Mapping[str, Any]) -> str:
    text = f"superb {origin.get('superb', 'of unknown version')}"
    if origin.get("commit"):
        text += f", commit {origin['commit']}" + (" with changes" if origin.get("dirty") else "")
    return text + (f", Python {origin['python']}" if origin.get("python") else "")


def _texts(value: object) -> list[str]:
    is_list = isinstance(value, Iterable) and not isinstance(value, str | Mapping)
    return [str(entry) for entry in value] if is_list else []  # type: ignore[attr-defined]
