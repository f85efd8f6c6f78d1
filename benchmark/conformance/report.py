"""What all suites share: checks and how they are run, and the watch over global random state."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from benchmark.errors import SuperbError

# Where our own code is, which is not where a plug-in went wrong.
ENGINE: Final = Path(__file__).parents[1]


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: what was checked.
        passed: True or False; None when it was not run or does not apply, `found` says why.
        expected: what the contract asks for.
        found: what came.
    """

    name: str
    passed: bool | None
    expected: str
    found: str


class BrokenError(Exception):
    """A check did not hold; the message is what was found."""


class NotApplicableError(Exception):
    """A check does not apply; the message says why."""


def raise_for_failures(checks: Sequence[Check]) -> None:
    """Raise one error that lists every failed check; return if there is none.

    Raises:
        SuperbError: when a check failed.
    """
    failed = [check for check in checks if check.passed is False]
    if failed:
        lines = [
            f"  {check.name}: expected {check.expected}; found {check.found}" for check in failed
        ]
        raise SuperbError(f"{len(failed)} of {len(checks)} checks failed:\n" + "\n".join(lines))


def run_checks(
    expected: Mapping[str, str],
    tests: Mapping[str, Callable[[], str]],
    basics: Collection[str],
) -> list[Check]:
    """Run tests in their order; each returns what it found, or raises.

    Args:
        expected: name → what the contract asks for.
        tests: name → test.
        basics: those without which the rest is not run.
    """
    checks: list[Check] = []
    broken = ""
    for name, test in tests.items():
        if broken:
            checks.append(Check(name, None, expected[name], f"not run: {broken!r} failed"))
            continue
        checks.append(_run(name, expected[name], test))
        if name in basics and checks[-1].passed is False:
            broken = name
    return checks


def hold(passed: bool, found: str) -> str:
    """Return what was found, or raise it if the check did not pass."""
    if not passed:
        raise BrokenError(found)
    return found


def _run(name: str, expected: str, test: Callable[[], str]) -> Check:
    """Run one check; whatever a plug-in raises is a finding."""
    try:
        return Check(name, True, expected, test())
    except BrokenError as failure:
        return Check(name, False, expected, str(failure))
    except NotApplicableError as reason:
        return Check(name, None, expected, str(reason))
    except Exception as error:
        return Check(name, False, expected, _raised(error))


def _raised(error: Exception) -> str:
    """An exception with the line it came from: the last one that is not a library's or ours."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame
        for frame in frames
        if "site-packages" not in frame.filename
        and ENGINE not in Path(frame.filename).parents
        and not frame.filename.startswith("<")  # what dataclasses generate has no file
    ]
    frame = (own or list(frames))[-1]
    first_line = (str(error).splitlines() or [""])[0]
    return (
        f"{type(error).__name__}: {first_line} ({Path(frame.filename).name}:{frame.lineno}, "
        f"in {frame.name})"
    )


# Global random state ---------------------------------------------------------------------------


def state_kept(act: Callable[[], object]) -> str:
    """Check that something leaves the global generators alone."""
    disturb_random_state()
    before = _random_state()
    act()
    after = _random_state()
    changed = [name for name in before if not _equal(before[name], after[name])]
    return hold(
        not changed,
        f"{' and '.join(changed)} changed; use a torch.Generator of your own"
        if changed
        else "unchanged",
    )


def disturb_random_state() -> None:
    """Move the generators on: what seeds with the state we happen to be in must not pass."""
    torch.rand(1), np.random.rand(), random.random()


@contextmanager
def random_state_restored() -> Iterator[None]:
    """Put the global generators back, whatever a plug-in did to them."""
    state = _random_state()
    try:
        yield
    finally:
        torch.set_rng_state(state["torch"])
        np.random.set_state(state["numpy"])
        random.setstate(state["random"])
        for name, value in state.items():
            if name.startswith("torch.cuda:"):
                torch.cuda.set_rng_state(value, int(name.rpartition(":")[2]))


def _random_state() -> dict[str, Any]:
    return {
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),
        "random": random.getstate(),
        **{f"torch.cuda:{device}": torch.cuda.get_rng_state(device) for device in _devices()},
    }


def _devices() -> range:
    """The CUDA devices in use; asking must not start CUDA."""
    started: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return range(torch.cuda.device_count() if started else 0)


def _equal(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, np.asarray(other))
    if isinstance(one, tuple) and isinstance(other, tuple):  # numpy's has an array in it
        return all(map(_equal, one, other))
    return one == other
