"""What a reader of a score must know of the data behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmark.core import Corpus, UpstreamCard, Utterance
from benchmark.encoding.recordings import Hashes
from benchmark.encoding.store import FeatureStore
from benchmark.probing.fit import SplitData
from benchmark.probing.layers import Mix


def missing_information(
    train: SplitData, stores: Mapping[str, Any], card: UpstreamCard
) -> list[str]:
    """Warn when time means hold nothing, as after mean normalisation of each utterance."""
    if "mean" not in stores:
        return []
    sample = list(range(min(len(train.utterances), 64)))
    means = train.batch(sample, normalised=False).plain.values
    if float(means.square().mean().sqrt()) < 1e-3 * train.frame_size(Mix(None)):
        return [
            f"the time means of {card.name} are zero, as after mean normalisation of each "
            "utterance; a head on time means can only guess"
        ]
    return []


def inaudible(data: Mapping[str, SplitData], store: FeatureStore) -> list[str]:
    """Warn of recordings that hold no sound, or none once their channels are averaged."""
    keys = {
        utterance.id: key
        for split in data.values()
        for utterance, key in zip(split.utterances, split.keys, strict=True)
    }
    remarks = store.remarks(keys.values())
    odd = {name: remarks[key] for name, key in keys.items() if key in remarks}
    notes = []
    for kind, means in (
        ("silent", "nothing but silence or a constant"),
        (
            "cancelled",
            "channels that cancel out in their mean; choose one of them, such as --channel 0",
        ),
    ):
        own = [f"{name}: {what}" for name, what in odd.items() if what.startswith(kind)]
        if own:
            more = ", …" if len(own) > 3 else ""
            notes.append(
                f"{len(own)} of {len(keys)} recordings hold {means} ({', '.join(own[:3])}{more})"
            )
    return notes


def lost_labels(data: Mapping[str, SplitData], corpus: Corpus, column: str) -> list[str]:
    """Warn when no recording of a label is left in train or test, all of them being unusable."""
    notes = []
    for split in ("train", "test"):
        left = {utterance.value(column) for utterance in data[split].utterances}
        if lost := sorted({utterance.value(column) for utterance in corpus.split(split)} - left):
            asked = sum(utterance.value(column) in lost for utterance in data["test"].utterances)
            so = f"{asked} test utterances cannot be answered" if split == "train" else "not asked"
            notes.append(
                f"no usable audio is left in {split} of {', '.join(map(repr, lost[:3]))}"
                f"{f' … ({len(lost)} labels in all)' if len(lost) > 3 else ''}: {so}"
            )
    return notes


def shared_audio(data: Mapping[str, SplitData], corpus: Corpus, files: Hashes) -> list[str]:
    """Warn when the same recording stands in train or valid and in test."""
    heard = set(data["train"].keys) | set(data["valid"].keys)
    # crops have keys of their own; the recordings that they are from tell

    def recording(utterance: Utterance) -> tuple[str, tuple[float, float] | None] | None:
        sha256 = None if isinstance(utterance.audio, bytes) else files.get(utterance.audio)
        return (sha256, utterance.span) if sha256 else None

    known = {recording(u) for u in corpus.utterances if u.split != "test"} - {None}
    shared = [
        utterance.id
        for utterance, key in zip(data["test"].utterances, data["test"].keys, strict=True)
        if key in heard or recording(utterance) in known
    ]
    if not shared:
        return []
    return [
        f"{len(shared)} of {len(data['test'].keys)} test recordings are in train or valid too "
        f"({', '.join(shared[:3])}{', …' if len(shared) > 3 else ''}): the score is too good"
    ]
