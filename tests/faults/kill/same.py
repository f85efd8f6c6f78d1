"""Is what a run left the same as what the uninterrupted one left, and is nothing else there?"""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark.encoding.store import FEATURES, FeatureStore
from benchmark.scoring.results import Result, read_records, read_result, result_files

# Times and places; all else must be equal to the last bit.
_STAMPS = ("created", "timings", "provenance", "checksum")
# What may lie in the folders of a finished run. Every writer of a store has files of its own, so
# there are some for each start; arrays of a killed one that no log speaks of stay with the store,
# 64 MiB or what five seconds of encoding make at most, until `superb cache clear`.
_HEX = "[0-9a-f]+"
# The mark that a run was just writing when it was killed goes when another one begins two minutes
# later: so long it could be another machine's.
_RESULTS = re.compile(rf"[a-z]+/[a-z]+/{_HEX}\.(json|utterances\.csv)|\.running-{_HEX}\.tmp")
_CACHE = re.compile(rf"audio/{_HEX}\.log|features/{_HEX}/(about\.json|{_HEX}\.(bin|log))")
_ENCODER = re.compile(
    r"(config|card)\.json|model\.safetensors"
    r"|training/(run\.json|checkpoint\.pt|loss\.(csv|png)|tensorboard/events\.[^/]+)"
)


def results_differ(ours: Path, theirs: Path) -> Iterator[str]:
    """What differs between two folders of results: metrics, intervals, seeds, utterances."""
    found, wanted = _results(ours), _results(theirs)
    if found.keys() != wanted.keys():
        yield f"results {sorted(found.keys() ^ wanted.keys())}"
    for name in found.keys() & wanted.keys():
        first, second = _document(found[name]), _document(wanted[name])
        yield from (f"{name}: {key}" for key in first if first[key] != second[key])
        if read_records(ours / name) != read_records(theirs / name):
            yield f"{name}: records"


def _results(folder: Path) -> dict[str, Result]:
    return {str(path.relative_to(folder)): read_result(path) for path in result_files(folder)}


def _document(result: Result) -> dict[str, Any]:
    document = dataclasses.asdict(result)
    del document["encoder"]["throughput"]
    return {key: value for key, value in document.items() if key not in _STAMPS}


def stores_differ(ours: Path, theirs: Path) -> Iterator[str]:
    """What differs between two caches: every record is read, and its checksum verified."""
    found, wanted = ({f.name for f in (c / FEATURES).iterdir()} for c in (ours, theirs))
    if found != wanted:
        yield f"stores {sorted(found ^ wanted)}"
    for name in found & wanted:
        first, second = _arrays(ours, name), _arrays(theirs, name)
        if first.keys() != second.keys():
            yield f"store {name}: records"
        for key in first.keys() & second.keys():
            if not all(map(np.array_equal, first[key], second[key])):
                yield f"store {name}: {key}"


def _arrays(root: Path, name: str) -> dict[str, list[Any]]:
    about = json.loads((root / FEATURES / name / "about.json").read_text())
    with FeatureStore(root, about) as store:
        assert store.folder.name == name
        rows = store._rows
        return {
            key: [store.read(key), *(store._records[row][f] for f in ("norms", "audio_s", "error"))]
            for key, row in rows.items()
        }


def encoders_differ(ours: Path, theirs: Path) -> Iterator[str]:
    """What differs between two pretrained encoders: weights, optimiser, losses, card."""
    for name in ("model.safetensors", "config.json", "training/run.json"):
        if (ours / name).read_bytes() != (theirs / name).read_bytes():
            yield name
    if not (ours / "training" / "loss.png").read_bytes().endswith(b"IEND\xaeB`\x82"):
        yield "loss.png"
    if _losses(ours) != _losses(theirs):
        yield "loss.csv"
    cards = [json.loads((folder / "card.json").read_text()) for folder in (ours, theirs)]
    for card in cards:
        del card["compute"], card["command"], card["held_out"]["audio_per_second"]
    if cards[0] != cards[1]:
        yield "card.json"
    states = [torch.load(folder / "training" / "checkpoint.pt") for folder in (ours, theirs)]
    for key in ("step", "facts", "objective", "optimizer"):
        if not _equal(states[0][key], states[1][key]):
            yield f"checkpoint.pt: {key}"


def _losses(folder: Path) -> list[dict[str, str]]:
    with (folder / "training" / "loss.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row.pop("audio_per_second", None)
    return rows


def _equal(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(_equal(ours[k], theirs[k]) for k in ours)
    if isinstance(ours, list | tuple):
        return len(ours) == len(theirs) and all(map(_equal, ours, theirs))
    return bool(ours == theirs)


def left_over(folder: Path) -> Iterator[str]:
    """Files in a round's folder that no finished run should leave."""
    for part, allowed in (("results", _RESULTS), ("cache", _CACHE), ("encoder", _ENCODER)):
        root = folder / part
        for path in sorted(root.rglob("*")) if root.exists() else []:
            name = str(path.relative_to(root))
            if path.is_file() and not allowed.fullmatch(name):
                yield f"left over: {part}/{name}"


def differ(ours: Path, theirs: Path) -> list[str]:
    """All of it, for two rounds' folders."""
    found = list(left_over(ours))
    if (theirs / "results").exists():
        found += results_differ(ours / "results", theirs / "results")
        found += stores_differ(ours / "cache", theirs / "cache")
    else:
        found += encoders_differ(ours / "encoder", theirs / "encoder")
    return found
