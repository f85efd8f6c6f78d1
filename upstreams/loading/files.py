"""Reading what others wrote: strictly, and without running anything that is in it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from benchmark.errors import UpstreamError


@dataclass(frozen=True)
class Origin:
    """Where a checkpoint comes from, for its card.

    Attributes:
        name: the upstream's name.
        source: hub id, or the folder as typed.
        revision: commit hash, or "".
        note: what a reader must know of it, or "".
    """

    name: str
    source: str
    revision: str = ""
    note: str = ""


def hub_origin(name: str, repository: str, asked: str, folder: Path) -> Origin:
    """Of a snapshot; one that was not asked for by its commit may be another one tomorrow.

    Args:
        name: the upstream's name.
        repository: hub id.
        asked: the revision asked for, "" for the newest.
        folder: the snapshot, named by its commit.
    """
    commit = folder.name
    pinned = asked == commit
    note = "" if pinned else f"revision not pinned, this is {repository}@{commit}"
    return Origin(name, repository, commit, note)


def joined(*notes: str) -> str:
    """Those of several notes that say something, as one."""
    return "; ".join(note for note in notes if note)


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Read a JSON object of a checkpoint folder.

    Raises:
        UpstreamError: it is missing, unreadable, or no object.
    """
    path = folder / name
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UpstreamError(
            f"{folder} has no {name}; a checkpoint folder holds config.json, "
            "preprocessor_config.json and model.safetensors, as save_pretrained writes them"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UpstreamError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise UpstreamError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read all weights of a checkpoint folder into memory, on the CPU.

    ``model.safetensors`` comes first, then its sharded form, then ``pytorch_model.bin``.

    Raises:
        UpstreamError: none of them is there, one is damaged, or a pickle holds more than tensors.
    """
    if (folder / "model.safetensors").is_file():
        return _safetensors(folder / "model.safetensors")
    if (folder / "model.safetensors.index.json").is_file():
        return _shards(folder)
    if (folder / "pytorch_model.bin").is_file():
        path = folder / "pytorch_model.bin"
        return named_tensors(read_pickle(path, "use a model.safetensors instead"), str(path))
    raise UpstreamError(
        f"{folder} has no weights: expected model.safetensors, model.safetensors.index.json or "
        "pytorch_model.bin"
    )


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UpstreamError(f"{path} is damaged or incomplete ({error}); fetch it again") from error


def _shards(folder: Path) -> dict[str, Tensor]:
    files = read_json(folder, "model.safetensors.index.json").get("weight_map")
    # A shard is a file in this folder, never a path: an index cannot make us read elsewhere.
    if not isinstance(files, dict) or any(
        not isinstance(file, str) or Path(file).name != file for file in files.values()
    ):
        raise UpstreamError(
            f"{folder}/model.safetensors.index.json must map weights to files of its own folder "
            "under weight_map"
        )
    weights: dict[str, Tensor] = {}
    for file in sorted(set(files.values())):
        weights.update(_safetensors(folder / file))
    if weights.keys() != files.keys():
        differ = sorted(weights.keys() ^ files.keys())
        raise UpstreamError(f"{folder}: index and shards disagree on {some(differ)}")
    return weights


def read_pickle(path: Path, advice: str) -> object:
    """Read a file of ``torch.save`` without running anything that is in it, on the CPU.

    Args:
        path: holds plain containers, numbers, strings and tensors.
        advice: what to do where that fails.

    Raises:
        UpstreamError: unreadable, or holding objects whose unpickling would run code.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on its way to refusing a file, torch wonders aloud
            return cast("object", torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a damaged or hostile pickle can raise anything
        reason = next(iter(str(error).split(". ")[0].splitlines()), "no reason given")
        raise UpstreamError(
            f"{path} cannot be read as plain data ({type(error).__name__}: {reason}). It is "
            f"missing or damaged, or unpickling it would run code, which is refused; {advice}"
        ) from error


def named_tensors(content: object, where: str) -> dict[str, Tensor]:
    """What was read, if it is tensors by name.

    Raises:
        UpstreamError: it holds anything else.
    """
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise UpstreamError(f"{where} must hold named tensors and nothing else")
    return content


def shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of every weight."""
    return {name: tuple(weight.shape) for name, weight in weights.items()}


def refuse_differences(
    wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]], where: str
) -> None:
    """Every weight is used, and none is left over.

    Args:
        wanted: shapes of the weights that are needed.
        given: of those that are there.
        where: they should be, for messages: "x does not hold the weights of y".

    Raises:
        UpstreamError: a weight is missing, left over, or of another shape; all are named.
    """
    problems = {
        "missing": sorted(wanted.keys() - given.keys()),
        "unexpected": sorted(given.keys() - wanted.keys()),
        "wrong shape": [
            f"{name} {given[name]} instead of {shape}"
            for name, shape in wanted.items()
            if given.get(name, shape) != shape
        ],
    }
    if found := "; ".join(f"{what}: {some(names)}" for what, names in problems.items() if names):
        raise UpstreamError(f"{where}. {found}. Check that it is of the same model")


def some(names: Sequence[str], at_most: int = 5) -> str:
    """The first few of many names."""
    more = len(names) - at_most
    return ", ".join(names[:at_most]) + (f" and {more} more" if more > 0 else "")
