"""Reading what others wrote: strictly, and without running anything that is in it."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from benchmark.errors import UpstreamError

# Files of weights, the first that is there counts; each may be in shards, with an index.
FORMS = ("model.safetensors", "pytorch_model.bin")
# How files of weights end, whatever their name.
WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth", ".ckpt"})
# Under which of its keys a training state has the weights.
STATES = ("state_dict", "model_state_dict", "model", "module")
# Parts of names that come from torch.compile and from sharded or checkpointed training.
WRAPPED = re.compile(r"\b(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# What data-parallel training puts before all names.
SHARED = frozenset({"module.", "_forward_module."})
ADAPTER = "adapter_config.json"
POINTER = b"version https://git-lfs"


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


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights: one of `FORMS`, whole or in the shards of an index.

    Raises:
        UpstreamError: there are none, one is missing or only points to its content, the index
            leads elsewhere, or the folder is about an adapter.
    """
    refuse_adapter(folder)
    for form in FORMS:
        index = f"{form}.index.json"
        if (folder / form).is_file():
            files = [folder / form]
        elif (folder / index).is_file():
            files = [folder / name for name in sorted(set(_weight_map(folder, index).values()))]
        else:
            continue
        for path in files:
            if not path.is_file():
                raise UpstreamError(f"{folder} has no {path.name}, which {index} names; fetch it")
            refuse_pointer(path)
        return files
    others = sorted(path.name for path in folder.iterdir() if path.suffix in WEIGHTS)
    raise UpstreamError(
        f"{folder} has no weights: expected {' or '.join(FORMS)}, or the .index.json of one of "
        f"them and its shards{f'; {some(others)} cannot be told to be them' if others else ''}"
    )


def _weight_map(folder: Path, index: str) -> dict[str, str]:
    """Which shard holds each weight."""
    files = read_json(folder, index).get("weight_map")
    # A shard is a file in this folder, never a path: an index cannot make us read elsewhere.
    if not isinstance(files, dict) or any(
        not isinstance(file, str) or Path(file).name != file for file in files.values()
    ):
        raise UpstreamError(
            f"{folder}/{index} must map weights to files of its own folder under weight_map"
        )
    return files


def refuse_adapter(folder: Path) -> None:
    """Refuse a folder of a LoRA or another adapter: what it changes is another checkpoint's.

    Raises:
        UpstreamError: naming that checkpoint.
    """
    if (folder / ADAPTER).is_file():
        base = read_json(folder, ADAPTER).get("base_model_name_or_path")
        raise UpstreamError(
            f"{folder} holds an adapter, to be added to {base or 'a base it does not name'}, and "
            f"adapters are not applied here. Merge it (peft: merge_and_unload, then "
            f"save_pretrained) and give that folder; if its weights are merged already, remove "
            f"{ADAPTER}"
        )


def refuse_pointer(path: Path) -> None:
    """Refuse a text file that git-lfs keeps in the place of a large one.

    Raises:
        UpstreamError: it is one.
    """
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise UpstreamError(
                f"{path} is a pointer of git-lfs, not the weights; in its repository type: "
                "git lfs pull"
            )


def read_weights(folder: Path, whole: Sequence[str] = ()) -> tuple[dict[str, Tensor], str]:
    """Read all weights of a checkpoint folder into memory, on the CPU.

    Args:
        folder: with `weight_files`.
        whole: prefixes that names may have, if no model of that kind has all of its names begin
            alike otherwise: whatever else all begin with then comes from what it was wrapped in.

    Returns:
        The weights without what training tools put around them and their names, and a note of
        what that was; "" for nothing.

    Raises:
        UpstreamError: a file is missing or damaged, or a pickle holds more than tensors and
            numbers.
    """
    weights: dict[str, Tensor] = {}
    notes: dict[str, None] = {}
    files = weight_files(folder)
    for path in files:
        if path.suffix == ".safetensors":
            weights |= safetensors(path)
        else:
            content, key = _unpacked(read_pickle(path, "use a model.safetensors instead"), path)
            weights |= named_tensors(content, str(path))
            notes |= {f"weights from {key!r} of the file": None} if key else {}
    if files[0].name not in FORMS:
        form = FORMS[files[0].suffix != ".safetensors"]
        wanted = _weight_map(folder, f"{form}.index.json")
        if differ := sorted(weights.keys() ^ wanted.keys()):
            raise UpstreamError(f"{folder}: index and shards disagree on {some(differ)}")
    names = bare_names(weights, whole)
    if len(set(names.values())) < len(names):
        raise UpstreamError(f"{folder} holds a weight twice, with and without a wrapper's prefix")
    if removed := {_removed(name, bare) for name, bare in names.items()} - {""}:
        notes[f"names without {', '.join(sorted(removed))}"] = None
    return {names[name]: weight for name, weight in weights.items()}, joined(*notes)


def bare_names(weights: Iterable[str], whole: Sequence[str] = ()) -> dict[str, str]:
    """Names of weights → those that they have in the model itself.

    Compiling and sharding put a part of their own into names, data-parallel training before all.

    Args:
        weights: their names.
        whole: as for `read_weights`.
    """
    names = {name: WRAPPED.sub("", name) for name in weights}
    while True:
        parts = {name.partition(".")[0] + "." for name in names.values()}
        if len(parts) != 1 or (not parts <= SHARED and (not whole or parts & set(whole))):
            return names
        (prefix,) = parts
        if any(name in (prefix, prefix[:-1]) for name in names.values()):
            return names
        names = {name: bare.removeprefix(prefix) for name, bare in names.items()}


def _removed(name: str, bare: str) -> str:
    """What `bare_names` took from the front of a name, or from within it."""
    front = name.removesuffix(bare)
    return front if front != name else "".join(WRAPPED.findall(name))


def _unpacked(content: object, path: Path) -> tuple[object, str]:
    """The named tensors of a training state, and where in it they stood; others as they are."""
    keys: list[str] = []
    while isinstance(content, dict):
        found = [key for key in STATES if isinstance(content.get(key), dict)]
        if len(found) > 1:
            raise UpstreamError(
                f"{path} holds weights under {' and '.join(map(repr, found))}; save one of them"
            )
        if not found:
            break
        content = content[found[0]]
        keys += found
    return content, ".".join(keys)


def refuse_not_finite(weights: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights that are no numbers: every score of theirs would mean nothing.

    Raises:
        UpstreamError: naming the tensors.
    """
    broken = [name for name, weight in weights.items() if not bool(weight.isfinite().all())]
    if broken:
        raise UpstreamError(
            f"{where} holds NaN or infinite weights in {some(broken)}: its training went wrong, "
            "or the file is damaged. Take an earlier checkpoint, or fetch it again"
        )


def safetensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of a file.

    Raises:
        UpstreamError: it is damaged.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UpstreamError(f"{path} is damaged or incomplete ({error}); fetch it again") from error


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
