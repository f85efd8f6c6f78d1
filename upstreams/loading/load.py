"""From what a user types after ``--upstream`` to an encoder."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from benchmark.core import Upstream, UpstreamCard
from benchmark.errors import SuperbError, UpstreamError
from benchmark.registry import cause, is_target, load_object, plugins
from upstreams.catalogue import UPSTREAMS

if TYPE_CHECKING:  # at run time these modules import torch, so they wait until one is needed
    from upstreams.loading.files import Origin

GROUP = "superb.upstreams"
UNTRAINED = "untrained:"
TORCHAUDIO = "torchaudio:"
FORMS = (
    "Other forms: /path/to/checkpoint/folder, /path/to/training_file.pt, my_file.py:MyClass, "
    "package.module:MyClass, org/name or org/name@revision from the Hugging Face hub, "
    "torchaudio:WAVLM_BASE and its other bundles, and untrained: before any of them."
)
_HUB_ID = re.compile(r"(?P<hf>hf:)?(?P<id>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?")


def load_upstream(
    name_or_path: str,
    trust_remote_code: bool = False,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Upstream:
    """Load an encoder.

    The first of these that fits: ``untrained:`` before any other form; ``path.py:Name``, a class,
    function or object in a file; ``torchaudio:NAME``, a bundle of torchaudio; a name of the
    catalogue, perhaps with the file of its weights, ``hubert-base:/path/to/file.pt``; the name of
    an installed plug-in; ``package.module:Name``; an existing checkpoint folder, or a training file
    of a layout that is known; a hub id ``org/name``, ``hf:org/name``, each perhaps with
    ``@revision``.

    Args:
        name_or_path: what to load.
        trust_remote_code: run code that a checkpoint brings along, where its model needs it; the
            card's note says so.
        settings: of the model in a training file, by name, for what the file does not say.

    Raises:
        UpstreamError: nothing fits (with near matches), or what fits cannot be loaded.
    """
    name = name_or_path.strip()
    try:
        if name.startswith(UNTRAINED):
            upstream = _untrained(name.removeprefix(UNTRAINED), trust_remote_code, settings)
        else:
            upstream = _load(name, trust_remote_code, settings)
        return _checked(name, upstream)
    except UpstreamError:
        raise
    except SuperbError as error:
        raise UpstreamError(str(error)) from error


def upstream_names() -> list[str]:
    """Names that need no path: the table, then installed plug-ins. Imports none of them."""
    return [*UPSTREAMS, *_plugins()]


def _load(name: str, trust_remote_code: bool, settings: Mapping[str, str]) -> object:
    if name.startswith(TORCHAUDIO):
        from upstreams.loading.torchaudio_bundles import load_bundle

        return load_bundle(name.removeprefix(TORCHAUDIO))
    row, _, file = name.partition(":")
    if row in UPSTREAMS and not (file and _names_code(name)):
        return _load_row(row, file, settings)
    if target := _plugins().get(name, name if _names_code(name) else ""):
        return load_object(target, "upstream")
    if is_training_file(name):
        from upstreams.loading.layouts.read import read_training_file

        return read_training_file(Path(name).expanduser(), settings).upstream
    folder, origin = _locate(name, weights=True, code=trust_remote_code)
    from upstreams.loading.folder import load_folder

    return load_folder(folder, origin, trust_remote_code)


def is_training_file(name: str) -> bool:
    """Whether a name is that of a file, or of a row with a file: one whose layout is found out."""
    row, _, file = name.partition(":")
    path = file if row in UPSTREAMS and not _names_code(name) else name
    return bool(path) and Path(path).expanduser().is_file()


def _load_row(name: str, file: str, settings: Mapping[str, str]) -> object:
    """A row of the catalogue, or one with weights from the user's file."""
    entry = UPSTREAMS[name]
    if file:
        from upstreams.loading.layouts.read import read_row

        return read_row(name, Path(file).expanduser(), settings)
    if not entry.loads:
        raise _unavailable(name)
    from upstreams.loading.rows import load_row

    return load_row(name)


def _untrained(name: str, trust_remote_code: bool, settings: Mapping[str, str]) -> object:
    from upstreams.loading import untrained
    from upstreams.loading.folder import untrained_folder

    if name.startswith(UNTRAINED):
        raise UpstreamError(f"{UNTRAINED}{name}: write {UNTRAINED} once")
    entry = UPSTREAMS.get(name)
    if entry is not None and entry.architecture:
        from upstreams.loading.rows import untrained_row

        return untrained_row(name)
    if name.startswith(TORCHAUDIO):
        from upstreams.loading.torchaudio_bundles import untrained_bundle

        bundle = untrained_bundle(name.removeprefix(TORCHAUDIO), untrained.SEED)
        bundle.card = untrained.untrained_card(bundle.card)
        return bundle
    if entry is not None and "/" in entry.checkpoint:  # its settings are on the hub alone
        pinned = f"@{entry.revision}" if entry.revision else ""
        folder, origin = _locate(entry.checkpoint + pinned, weights=False, code=False)
        origin = dataclasses.replace(origin, name=name)
    elif is_training_file(name):
        from upstreams.loading.layouts.read import untrained_file

        return untrained_file(Path(name).expanduser(), settings)
    elif _names_code(name) or name in upstream_names():
        return untrained.UntrainedTwin(_checked(name, _load(name, trust_remote_code, settings)))
    else:
        folder, origin = _locate(name, weights=False, code=trust_remote_code)
    return untrained_folder(folder, origin, trust_remote_code)


def _unavailable(name: str) -> UpstreamError:
    """The error for a row whose weights cannot be had by name; never random ones in their place."""
    entry = UPSTREAMS[name]
    message = f"{name}: {entry.note}. "
    if entry.architecture:
        message += f"Random weights: --upstream {UNTRAINED}{name}"
    else:
        message += "To run it, wrap its own code in a class: --upstream my_file.py:MyClass"
    if entry.checkpoint == "local file":
        message += f". A copy of your own: --upstream {name}:/path/to/file.pt"
    return UpstreamError(message)


def _unknown(name: str) -> SuperbError:
    """The error for what fits no form: near matches, and where the names are listed."""
    near = difflib.get_close_matches(name, upstream_names(), n=3, cutoff=0.6)
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    return SuperbError(f"unknown upstream {name!r}.{meant} `superb upstreams` lists names. {FORMS}")


def _plugins() -> dict[str, str]:
    """Installed plug-ins: name → target."""
    return plugins(GROUP, UPSTREAMS, "upstream")


def _names_code(name: str) -> bool:
    """Whether it is a class or function in a file or module, and no repository of the hub."""
    return is_target(name) and not name.startswith("hf:")


def _locate(name: str, weights: bool, code: bool) -> tuple[Path, Origin]:
    """The checkpoint folder a path or hub id stands for, fetched if need be."""
    path = Path(name).expanduser()
    if name and path.is_dir():
        from upstreams.loading.files import Origin

        _refuse_loose_files(path)
        return path, Origin(name=path.resolve().name, source=name)
    match = _HUB_ID.fullmatch(name)
    if match is None:
        if name.startswith((".", "/", "~")):
            raise UpstreamError(f"there is no folder {name}. {FORMS}")
        raise _unknown(name)
    from upstreams.loading.files import hub_origin
    from upstreams.loading.hub import download

    repository, revision = match["id"], match["revision"] or ""
    folder = download(repository, revision, weights, code)
    return folder, hub_origin(repository, repository, revision, folder)


def _refuse_loose_files(folder: Path) -> None:
    """Refuse a folder that has training files in it and is none of transformers or of ours."""
    from upstreams.loading.files import ADAPTER

    files = sorted(
        path.name for path in folder.iterdir() if path.suffix in (".pt", ".pth", ".ckpt")
    )
    if files and not any((folder / name).exists() for name in ("config.json", ADAPTER)):
        listed = ", ".join(files[:5]) + (" and more" if len(files) > 5 else "")
        raise UpstreamError(
            f"{folder} has no config.json and {len(files)} training file"
            f"{'s' if len(files) > 1 else ''}, {listed}; name the one you mean, such as "
            f"--upstream {folder / files[-1]}"
        )


def _checked(name: str, upstream: object) -> Upstream:
    """Refuse what is no upstream, in the words of the contract."""
    contract = (
        "an upstream has an attribute card, a superb.UpstreamCard, and is called with a list of "
        "1-D waveforms to return superb.HiddenStates"
    )
    try:
        card = getattr(upstream, "card", None)
    except Exception as error:
        raise UpstreamError(f"{name}: its card raises {cause(error)}") from error
    if not isinstance(card, UpstreamCard):
        raise UpstreamError(f"{name} gives {type(upstream).__name__} without a card: {contract}")
    if not callable(upstream):
        raise UpstreamError(f"{name} gives {type(upstream).__name__}, not callable: {contract}")
    return cast("Upstream", upstream)
