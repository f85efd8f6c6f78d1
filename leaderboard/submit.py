"""A leaderboard that others add to: a folder of result files in git, and what it takes in.

Results lie in its folder ``results``, where `benchmark.scoring.results.result_path` puts them, so
no name of a stranger leads anywhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmark.errors import SuperbError
from benchmark.scoring.files import replace_together
from benchmark.scoring.results import (
    result_files,
    result_path,
    table_file,
    utterances_path,
)
from leaderboard.read.verify import RefusedError, Standard, verify

RESULTS: Final = "results"
"""The folder of a leaderboard that holds its results."""

_TEMPLATE: Final = Path(__file__).parent / "template"
# What stands in the template → where it goes.
_FILES: Final = {
    "README.md": "README.md",
    "workflow.txt": ".github/workflows/leaderboard.yml",
    "gitattributes.txt": ".gitattributes",
    "results.md": f"{RESULTS}/README.md",
}


@dataclass(frozen=True)
class Submission:
    """What became of the results that were handed in.

    Attributes:
        taken: files on the leaderboard that are new, or would be.
        there: those that stood there before, byte for byte.
        refused: one sentence for each result that was not taken.
    """

    taken: tuple[Path, ...]
    there: tuple[Path, ...]
    refused: tuple[str, ...]


def results_of(leaderboard: Path | str) -> Path:
    """The folder of results of a leaderboard; a plain folder of results is one too.

    Raises:
        SuperbError: it is a link.
    """
    inner = Path(leaderboard) / RESULTS
    if inner.is_symlink():
        raise SuperbError(f"{inner} is a link: the results of a leaderboard are no links")
    return inner if inner.is_dir() else Path(leaderboard)


def start(leaderboard: Path | str) -> list[Path]:
    """Write what a new leaderboard needs beside its results; files that are there stay.

    Returns:
        What was written.

    Raises:
        SuperbError: when nothing can be written there.
    """
    written = []
    try:
        for name, place in _FILES.items():
            path = Path(leaderboard) / place
            if not path.exists():
                text = (_TEMPLATE / name).read_text(encoding="utf-8")
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_together([(path, text.encode())])
                written.append(path)
    except OSError as error:
        raise SuperbError(
            f"{leaderboard} cannot be written: {error.strerror}. Choose a folder that you can "
            "write to"
        ) from error
    return written


def submit(
    results: Path | str, leaderboard: Path | str, standard: Standard, *, check: bool = False
) -> Submission:
    """Copy results that are sound to a leaderboard; each as a whole, or not at all.

    Args:
        results: a folder of them, or one JSON file.
        leaderboard: its folder.
        standard: what tasks and protocols are known to be.
        check: True to write nothing.

    Raises:
        SuperbError: when there are no results, no such leaderboard, a folder in either that is a
            link, or it cannot be written.
    """
    results, leaderboard = Path(results), Path(leaderboard)
    board = leaderboard / RESULTS
    if not board.is_dir():
        raise SuperbError(
            f"{leaderboard} is no leaderboard: it has no folder {RESULTS}. Start one with: "
            f"superb submit --init {leaderboard}"
        )
    # what a linked folder leads to is not what git keeps; links to files are refused one by one
    for place in (board, *sorted(board.rglob("*")), *sorted(results.rglob("*"))):
        if place.is_symlink() and (place == board or place.is_dir()):
            raise SuperbError(f"{place} is a link; put the folder itself in its place")
    taken, there, refused = [], [], []
    files = [results] if results.is_file() else result_files(results)
    accepted = {path.name: path for path in board.rglob("*.json")}
    own: dict[str, Path] = {}
    for path in files:
        try:
            place = _judge(path, results, board, standard, accepted, own)
        except RefusedError as error:
            refused.append(str(error))
            continue
        if place.exists():
            there.append(place)
            continue
        if not check:
            _copy(path, place)
        taken.append(place)
    return Submission(tuple(taken), tuple(there), tuple(refused))


def _judge(
    path: Path,
    results: Path,
    board: Path,
    standard: Standard,
    accepted: Mapping[str, Path],
    own: dict[str, Path],
) -> Path:
    """Where a result belongs.

    Args:
        path: of its JSON file.
        results: the folder it was found in.
        board: that of the leaderboard's results.
        standard: what tasks and protocols are known to be.
        accepted: what the leaderboard has, by the file's name.
        own: those of this submission so far, by run id; this one is added.

    Raises:
        RefusedError: when it is not taken.
    """
    if not path.resolve().is_relative_to(results.resolve()):
        raise RefusedError(f"{path} leads out of {results}: give the files themselves")
    before = accepted.get(path.name)
    if before is not None and _same_files(path, before):
        return before
    result = verify(path, standard)
    if result.run_id in own:
        raise RefusedError(f"{path} holds the same run as {own[result.run_id]}")
    own[result.run_id] = path
    if before is not None:
        raise RefusedError(
            f"{path}: run {result.run_id} is on the leaderboard with other content; one run has "
            f"one result. To replace it, have {before} removed first"
        )
    place = result_path(
        board, str(result.downstream["name"]), str(result.upstream["name"]), result.run_id
    )
    if not place.resolve().is_relative_to(board.resolve()):  # a link that stands there
        raise RefusedError(f"{place} leads out of the leaderboard: remove the link in its way")
    return place


def _same_files(one: Path, other: Path) -> bool:
    pairs = [(one, other), (table_file(one), table_file(other))]
    try:
        return all(a.read_bytes() == b.read_bytes() for a, b in pairs)
    except OSError:
        return False


def _copy(path: Path, place: Path) -> None:
    """Both files of a result, the table of utterances first, neither under its name before both."""
    table = table_file(path)
    packed = ".gz" if table.suffix == ".gz" else ""
    target = utterances_path(place)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_together(
            [
                (target.with_name(target.name + packed), table.read_bytes()),
                (place, path.read_bytes()),
            ]
        )
    except OSError as error:
        raise SuperbError(
            f"{place} cannot be written: {error.strerror}. What was taken before it is whole"
        ) from error
