"""Checkpoints from the Hugging Face hub: one pinned commit, only the files that are read."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from benchmark.errors import UpstreamError
from upstreams.loading.files import FORMS

COMMIT = re.compile(r"[0-9a-f]{40}")
# One look-up that fails fast: without a network the library's own retries take half a minute.
TIMEOUT_S = 10.0
# Newer checkpoints have what is done to the waveform in processor_config.json alone.
SETTINGS = ("config.json", "preprocessor_config.json", "processor_config.json")
SAFETENSORS = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
PICKLES = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin(\.index\.json)?")


def download(repository: str, revision: str = "", weights: bool = True, code: bool = False) -> Path:
    """Fetch a model repository, or find it in the cache.

    A commit that is already in the cache is used without asking the hub, so a pinned upstream
    works offline once it has been fetched. Pickles are fetched only where there is nothing else.

    Args:
        repository: ``organisation/name``.
        revision: commit, tag or branch; "" for the newest. The folder returned is named by the
            commit this resolved to.
        weights: False for the settings alone.
        code: also what Python code the model brings along, for a user who trusts it.

    Returns:
        The snapshot folder in the cache; its name is the full commit hash.

    Raises:
        UpstreamError: no such repository or revision, no access, no network, or no weights that
            can be read.
    """
    if COMMIT.fullmatch(revision) and (folder := _cached(repository, revision, weights, code)):
        return folder
    try:
        info = HfApi().model_info(repository, revision=revision or None, timeout=TIMEOUT_S)
        files = wanted([file.rfilename for file in info.siblings or []], weights, code)
        folder = Path(snapshot_download(repository, revision=info.sha, allow_patterns=files))
    except GatedRepoError as error:
        raise UpstreamError(
            f"{repository} is gated: ask for access at https://huggingface.co/{repository}, then "
            "log in with: hf auth login"
        ) from error
    except RepositoryNotFoundError as error:
        raise UpstreamError(
            f"the hub has no model {repository!r}, or it is private; look for it at "
            f"https://huggingface.co/models?search={repository.split('/')[-1]}"
        ) from error
    except RevisionNotFoundError as error:
        raise UpstreamError(
            f"{repository} has no revision {revision!r}; its commits are listed at "
            f"https://huggingface.co/{repository}/commits/main"
        ) from error
    except HFValidationError as error:
        raise UpstreamError(f"{repository!r} is no hub id: {error}") from error
    except Exception as error:  # the library's transport, and so its errors, vary by release
        if folder_or_none := _cached(repository, revision, weights, code):
            return folder_or_none
        raise UpstreamError(_unreachable(repository, revision, error)) from error
    if not _complete(folder, weights):
        forms = f", {' or '.join(FORMS)}" if weights else ""
        raise UpstreamError(
            f"{repository} at {folder.name} has no config.json{forms}; only checkpoints in the "
            "transformers format can be read"
        )
    return folder


def wanted(files: list[str], weights: bool = True, code: bool = False) -> list[str]:
    """The files to fetch, of those in a repository: settings, and weights in one format.

    Args:
        files: all there are.
        weights: False for none of them.
        code: also the Python files beside the settings, which is where models bring theirs.
    """
    chosen = [file for file in files if file in SETTINGS]
    if code:
        chosen += [file for file in files if file.endswith(".py") and "/" not in file]
    if not weights:
        return chosen
    safe = [file for file in files if SAFETENSORS.fullmatch(file)]
    return chosen + (safe or [file for file in files if PICKLES.fullmatch(file)])


def _cached(repository: str, revision: str, weights: bool, code: bool) -> Path | None:
    """The snapshot folder if the cache holds all of it; asks nobody."""
    try:
        folder = Path(
            snapshot_download(
                repository,
                revision=revision or None,
                local_files_only=True,
                allow_patterns=list(SETTINGS),
            )
        )
    except (LocalEntryNotFoundError, ValueError):
        return None
    complete = _complete(folder, weights) and not (code and _lacks_code(folder))
    return folder if complete else None


def _lacks_code(folder: Path) -> bool:
    """Whether the settings name code that was left on the hub, as without trust it is."""
    names_code = "auto_map" in (folder / "config.json").read_text(encoding="utf-8")
    return names_code and not any(folder.glob("*.py"))


def _complete(folder: Path, weights: bool) -> bool:
    names = [file.name for file in folder.iterdir() if file.exists()]
    found = any(SAFETENSORS.fullmatch(name) or PICKLES.fullmatch(name) for name in names)
    return "config.json" in names and (found or not weights)


def _unreachable(repository: str, revision: str, error: Exception) -> str:
    name = f"{repository}@{revision}" if revision else repository
    why = (
        "HF_HUB_OFFLINE is set"
        if constants.HF_HUB_OFFLINE
        else f"the hub cannot be reached ({type(error).__name__}: {str(error).splitlines()[0]})"
        if str(error)
        else f"the hub cannot be reached ({type(error).__name__})"
    )
    return (
        f"cannot fetch {name}: {why}, and it is not in the cache {constants.HF_HUB_CACHE} "
        "(set HF_HUB_CACHE to use another). With a network, unset HF_HUB_OFFLINE and run the same "
        "command; without one, copy the checkpoint here and type --upstream /path/to/folder"
    )
