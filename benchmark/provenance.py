"""What produced a result: versions, the commit of *this* source, the machine, the command.

Nothing secret goes in: no environment variables, no user or host name, and the home directory is
written ``~``.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "torchaudio",
    "transformers",
    "datasets",
    "pandas",
    "jiwer",
    "scikit-learn",
    "soundfile",
    "numpy",
)

_GIT_SECONDS = 10


def provenance(device: str) -> dict[str, Any]:
    """Describe this process for a result file; imports none of the packages it names.

    Args:
        device: what the run computes on, e.g. ``"cpu"`` or ``"cuda: NVIDIA H100"``.

    Returns:
        ``superb`` (version), ``commit`` and ``dirty`` (None outside a git checkout), ``python``,
        ``packages`` (None for one that is not installed), ``platform``, ``cpu``, ``cpus``
        (those this process may use), ``device`` and ``command`` (a list of words).
    """
    commit, dirty = source_commit(Path(__file__).resolve().parent)
    return {
        "superb": _version("superb"),
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cpus": _cpu_count(),
        "device": device,
        "command": command_line(sys.argv, Path.home()),
    }


def source_commit(folder: Path) -> tuple[str | None, bool | None]:
    """Commit of the source in a folder, and whether files that git knows differ from it.

    Asked of git in the folder of the source, never in the one that the user stands in. When the
    package is installed inside somebody else's repository (a virtual environment in it), git
    does not track the source, and the commit would be a stranger's: None then.
    """
    if not _git(folder, "ls-files", "--", "."):
        return None, None
    commit = _git(folder, "rev-parse", "HEAD")
    status = _git(folder, "status", "--porcelain", "--untracked-files=no")
    if not commit or status is None:
        return None, None
    return commit, bool(status)


def command_line(arguments: list[str], home: Path) -> list[str]:
    """The command as typed, the program by its name alone and the home directory as ``~``."""
    program, *rest = arguments or [""]
    return [Path(program).name, *(_without_home(argument, home) for argument in rest)]


def _without_home(text: str, home: Path) -> str:
    path = str(home)
    if path in ("", "/", "."):
        return text
    # Not the start of a longer name: /home/ann is not part of /home/anna.
    return re.sub(re.escape(path) + r"(?![^/:;,=\s'\"])", "~", text)


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of a git command in a folder; None when it fails or there is no git."""
    # A caller's GIT_DIR (set inside every git hook) would point git at another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    """The processor's name; the architecture where the system does not tell it."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def _cpu_count() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
