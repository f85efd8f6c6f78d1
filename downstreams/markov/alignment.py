"""Which state each frame of a recording is in, as the classical system on MFCC hears it."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmark.core import Material, Utterance
from benchmark.encoding import audio
from downstreams.markov.mixtures import Frames
from downstreams.markov.training import Alignment, Recipe, System, least_frames, train
from downstreams.markov.tying import Monophones
from downstreams.markov.units import Unit, units

HOP_S: Final = 0.01
PLACES: Final = 3
_RATE: Final = 16_000
# Samples of the window of an MFCC; shorter recordings have none.
_WINDOW: Final = 400
# What alignments come from, beside this code.
_PACKAGES: Final = ("kaldi-hmm-gmm", "kaldi-decoder", "kaldifst", "torchaudio", "scikit-learn")

States = NDArray[np.int16]


def alignments(
    material: Material, said: Mapping[str, Sequence[str]], phones: tuple[str, ...], recipe: Recipe
) -> dict[str, States]:
    """The state of `Monophones` of each 10 ms of each utterance; none where it does not fit.

    The system learns from train alone. What it found is kept, since many encoders need the same.

    Args:
        material: train and valid.
        said: utterance id → the phones of each of its words, where all words have some.
        phones: all of them, silence first.
        recipe: of the system.
    """
    both = [u for u in (*material.train, *material.valid) if u.id in said]
    kept = material.folder / f"{_key(material, both, said, phones, recipe)}.npz"
    found = _read(kept, both)
    if found is not None:
        return found
    taught = [utterance for utterance in material.train if utterance.id in said]
    material.say(f"aligning {len(both)} utterances by Gaussian mixtures on MFCC")
    heard = {utterance.id: mfcc(material.waveform, utterance) for utterance in both}
    spoken = {
        utterance.id: [units(word.split()) for word in said[utterance.id]] for utterance in both
    }
    system = train(
        [heard[utterance.id] for utterance in taught],
        [spoken[utterance.id] for utterance in taught],
        phones,
        PLACES,
        recipe,
    )
    plain = Monophones(phones, PLACES)
    aligned = {
        utterance.id: _states(system, spoken[utterance.id], heard[utterance.id], plain)
        for utterance in both
    }
    _write(kept, aligned)
    return {name: states for name, states in aligned.items() if len(states)}


def at_frames(states: States, count: int, frame_s: float) -> NDArray[np.int64]:
    """The state in the middle of each of `count` frames of so many seconds."""
    middles = (np.arange(count) + 0.5) * frame_s / HOP_S
    found: NDArray[np.int64] = states[np.minimum(middles.astype(int), len(states) - 1)].astype(
        np.int64
    )
    return found


def mfcc(waveform: Callable[[Utterance, int], object], utterance: Utterance) -> Frames:
    """13 MFCC every 10 ms with their deltas, with mean 0 and variance 1 in the utterance."""
    import torch
    from torchaudio.compliance.kaldi import mfcc as kaldi_mfcc
    from torchaudio.functional import compute_deltas

    samples = waveform(utterance, _RATE)
    assert isinstance(samples, torch.Tensor)
    if len(samples) < _WINDOW:
        return np.zeros((0, 39), np.float32)
    own = kaldi_mfcc(samples[None] * 2**15, dither=0.0, use_energy=False).T
    first = compute_deltas(own)
    return normalised(torch.cat([own, first, compute_deltas(first)]).T.numpy())


def normalised(frames: Frames) -> Frames:
    """Mean 0 and variance 1 in each dimension."""
    spread = np.maximum(frames.std(axis=0), 1e-3)
    return np.ascontiguousarray((frames - frames.mean(axis=0)) / spread, dtype=np.float32)


def _states(
    system: System, spoken: Sequence[Sequence[Unit]], frames: Frames, plain: Monophones
) -> States:
    if least_frames(spoken, PLACES) > len(frames):
        return np.zeros(0, np.int16)
    found: Alignment = system.align(spoken, frames) or []
    return np.array([plain.state(unit, place) for unit, place in found], np.int16)


def _key(
    material: Material,
    utterances: Sequence[Utterance],
    said: Mapping[str, Sequence[str]],
    phones: tuple[str, ...],
    recipe: Recipe,
) -> str:
    """What the alignments depend on: audio, phones, who teaches, and this code."""
    versions = [version(package) for package in _PACKAGES]
    taught = [utterance.id for utterance in material.train]
    mark = hashlib.sha256(repr((phones, recipe, taught, material.channel, versions)).encode())
    for utterance in utterances:
        mark.update(repr((material.keys[utterance.id], said[utterance.id])).encode())
    for source in [*sorted(Path(__file__).parent.glob("*.py")), Path(audio.__file__)]:
        mark.update(source.read_bytes())
    return mark.hexdigest()[:32]


def _read(path: Path, utterances: Sequence[Utterance]) -> dict[str, States] | None:
    try:
        with path.open("rb") as file, np.load(file) as kept:
            lengths, states = kept["lengths"], kept["states"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    if len(lengths) != len(utterances) or lengths.sum() != len(states):
        return None
    parts = np.split(states, np.cumsum(lengths)[:-1])
    return {u.id: own for u, own in zip(utterances, parts, strict=True) if len(own)}


def _write(path: Path, found: Mapping[str, States]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.npz")
    np.savez_compressed(
        draft,
        lengths=np.array([len(own) for own in found.values()], np.int32),
        states=np.concatenate([np.zeros(0, np.int16), *found.values()]),
    )
    draft.replace(path)
