"""Lists of trials: which recordings of test are compared, and whether one person speaks in both.

Lines are ``1 ONE OTHER`` and ``0 ONE OTHER`` (VoxCeleb), or ``ONE OTHER target`` and ``ONE OTHER
nontarget`` (Kaldi). Trials become the column ``trials`` of test utterances.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from benchmark.core import Utterance
from benchmark.errors import SuperbError
from downstreams.trials import COLUMN

_KINDS: Final = {"1": True, "0": False, "target": True, "nontarget": False}


class Trial(NamedTuple):
    """One line of a list."""

    line: int
    one: str
    other: str
    target: bool


def read_trials(path: Path) -> list[Trial]:
    """Read a list of trials.

    Raises:
        SuperbError: a file that cannot be read, a line that is no trial, a trial that occurs twice,
            or trials of one kind only.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SuperbError(f"the trials {path} cannot be read: {error}") from error
    found: dict[tuple[str, str], Trial] = {}
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        kinds = [word for word in (words[0], words[-1]) if word in _KINDS]
        if len(words) != 3 or len(kinds) != 1:
            raise SuperbError(
                f"{path}, line {number}: {line[:60]!r} is no trial: write 1 ONE OTHER or 0 ONE "
                "OTHER, or ONE OTHER target (nontarget)"
            )
        one, other = words[1:] if words[0] in _KINDS else words[:2]
        trial = Trial(number, one, other, _KINDS[kinds[0]])
        if (one, other) in found:
            raise SuperbError(
                f"{path}, line {number}: {one} and {other} are compared in line "
                f"{found[one, other].line} already"
            )
        found[one, other] = trial
    kinds_there = {trial.target for trial in found.values()}
    if len(kinds_there) < 2:
        only = "one person" if kinds_there == {True} else "two persons"
        raise SuperbError(
            f"{path} has {len(found)} trials, all of {only if found else 'nobody'}: an equal error "
            "rate takes both kinds"
        )
    return list(found.values())


def with_trials(
    path: Path, trials: Sequence[Trial], utterances: Sequence[Utterance]
) -> list[Utterance]:
    """Utterances of which those of test name the others that they are compared with.

    Args:
        path: of the list, for messages.
        trials: what it says.
        utterances: of all splits; ids are what the list names.

    Raises:
        SuperbError: a trial of an utterance that is not in test, or whose kind is not what the
            speakers of both say.
    """
    speakers = {u.id: u.speaker for u in utterances if u.split == "test"}
    others: dict[str, list[str]] = defaultdict(list)
    for trial in trials:
        if strange := [name for name in (trial.one, trial.other) if name not in speakers]:
            raise SuperbError(
                f"{path}, line {trial.line}: no utterance of test is called {strange[0]!r}; such "
                f"as {', '.join(list(speakers)[:2])}"
            )
        if (speakers[trial.one] == speakers[trial.other]) != trial.target:
            raise SuperbError(
                f"{path}, line {trial.line}: {trial.one} is of {speakers[trial.one]!r} and "
                f"{trial.other} of {speakers[trial.other]!r}, and the list says that they are "
                f"{'one person' if trial.target else 'two'}"
            )
        others[trial.one].append(trial.other)
    return [
        replace(u, columns={**u.columns, COLUMN: " ".join(others[u.id])}) if u.id in others else u
        for u in utterances
    ]
