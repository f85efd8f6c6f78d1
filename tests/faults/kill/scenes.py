"""What is done to runs: one function a scenario, which yields what came of each round."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.kill import world
from tests.faults.kill.points import die, die_in_half
from tests.faults.kill.same import differ
from tests.faults.kill.warm import End, cold
from tests.faults.kill.world import Work

_MOST_KILLS, _AGAIN = 6, 0.5
_WENT_ON = ("finished before", "goes on after", "going on with", "steps are done")
_PATIENCE_S = 15.0
_DAY_S = 86_400.0


@dataclass
class Round:
    """What came of one.

    Attributes:
        kind: of what was done.
        faults: kills, or what else was done to it.
        refused: ends with one message and exit code 2.
        resumed: starts that found and took what a stopped one had done.
        wrong: what is not as it should be; nothing when all is identical in the end.
    """

    kind: str
    faults: int = 0
    refused: int = 0
    resumed: int = 0
    wrong: list[str] = field(default_factory=list)

    def note(self, end: End) -> None:
        """Count an end, and see that it was a clear one."""
        if end.killed:
            self.faults += 1
            return
        self.refused += end.code == 2
        if not end.clear:
            self.wrong.append(f"exit code {end.code}: {end.said[-2000:]}")

    def finish(self, work: Work, folder: Path) -> Round:
        """The same command once more, undisturbed, which must come to the same."""
        end = work.begin(folder).end()
        self.note(end)
        self.resumed += any(words in end.said for words in _WENT_ON)
        if end.code == 0:
            self.wrong += differ(folder, work.reference)
        else:
            self.wrong.append(f"did not finish: {end.said[-500:]}")
        return self


Scene = Callable[[dict[str, Work], Path, random.Random, int], Iterator[Round]]


def run(
    works: dict[str, Work], folder: Path, chance: random.Random, number: int
) -> Iterator[Round]:
    """Kill a run, often several times, and let it end."""
    yield _killed(works["run"], folder, chance, number)


def pretrain(
    works: dict[str, Work], folder: Path, chance: random.Random, number: int
) -> Iterator[Round]:
    """The same with pretraining."""
    yield _killed(works["pretrain"], folder, chance, number)


def _killed(work: Work, folder: Path, chance: random.Random, number: int) -> Round:
    by_clock = bool(number % 2)
    when = "at any moment" if by_clock else "at a touch of the disk"
    found = Round(f"{work.name}, killed {when}")
    while found.faults == 0 or (found.faults < _MOST_KILLS and chance.random() < _AGAIN):
        if by_clock:
            child = work.begin(folder)
            child.kill_at(chance.uniform(0, work.seconds))
        else:
            child = work.begin(folder, work.pick(chance), chance.choice((die, die_in_half)))
        end = child.end()
        found.note(end)
        found.resumed += found.faults > 1 and any(words in end.said for words in _WENT_ON)
        if not end.killed:
            break
    return found.finish(work, folder)


def full(
    works: dict[str, Work], folder: Path, chance: random.Random, number: int
) -> Iterator[Round]:
    """Fill a disk up at a touch of it (a tmpfs), then make room."""
    work = works["run" if number % 2 else "pretrain"]
    roots = _some(work.roots(folder), chance)
    found = Round(f"{work.name}, disk full", faults=1)
    with world.disks(work.roots(folder)):
        end = work.begin(folder, work.pick(chance), lambda *_: world.fill(roots)).end()
        found.note(end)
        for root in roots:
            (root / world.FILLER).unlink(missing_ok=True)
        yield found.finish(work, folder)


def readonly(
    works: dict[str, Work], folder: Path, chance: random.Random, number: int
) -> Iterator[Round]:
    """Make a disk read-only before a start (tmpfs), or folders immutable under way."""
    work = works["run" if number % 2 else "pretrain"]
    roots, at = _some(work.roots(folder), chance), work.pick(chance)
    if number % 4 < 2:
        found = Round(f"{work.name}, read-only from the start", faults=1)
        with world.disks(work.roots(folder)):
            work.begin(folder, at, die).end()
            world.remount(roots, "ro")
            found.note(work.begin(folder).end())
            world.remount(roots, "rw")
            yield found.finish(work, folder)
        return
    found = Round(f"{work.name}, read-only under way", faults=1)
    for root in roots:
        root.mkdir(exist_ok=True)
    try:
        found.note(work.begin(folder, at, lambda *_: world.freeze(roots)).end())
    finally:
        world.freeze(roots, frozen=False)
    yield found.finish(work, folder)


def at_once(
    works: dict[str, Work], folder: Path, chance: random.Random, number: int
) -> Iterator[Round]:
    """Start the same run two or four times at about the same time."""
    work, many = works["run"], 2 if number % 2 else 4
    found = Round(f"run, {many} at once", faults=many - 1)
    spread = chance.choice((0.0, 0.05, work.seconds))
    started = []
    for index in range(many):
        started.append(work.begin(folder, log=f"log-{index}"))
        time.sleep(chance.uniform(0, spread))
    ends = [child.end() for child in started]
    for end in ends:
        found.note(end)
    if not any(end.code == 0 for end in ends):
        found.wrong.append("all of them gave way")
    found.wrong += _made_twice(folder)
    yield found.finish(work, folder)


def clock(
    works: dict[str, Work], folder: Path, chance: random.Random, number: int
) -> Iterator[Round]:
    """Let the clock jump back a day: after a kill, or between two starts of the same run."""
    work = works["run"]
    if number % 2:
        found = Round("run, killed, clock set back")
        found.note(work.begin(folder, work.pick(chance), die).end())
        found.note(work.begin(folder, work.pick(chance), die, clock_s=-_DAY_S).end())
    else:
        found = Round("run, two at once, clock set back between", faults=1)
        first = work.begin(folder, log="log-0")
        until = time.monotonic() + _PATIENCE_S
        while not list((folder / "results").glob(".running-*")) and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, work.seconds / 4))
        for end in (work.begin(folder, clock_s=-_DAY_S, log="log-1").end(), first.end()):
            found.note(end)
        found.wrong += _made_twice(folder)
    yield found.finish(work, folder)


def workers(
    works: dict[str, Work], folder: Path, chance: random.Random, number: int
) -> Iterator[Round]:
    """Kill one of two workers, or the process that drives them, of processes that fork nothing."""
    work = works["run"]
    driver = bool(number % 2)
    found = Round(f"run --workers 2, {'driver' if driver else 'a worker'} killed")
    process = cold([*work.command(folder), "--workers", 2], folder / "log-0")
    until = time.monotonic() + 4 * _PATIENCE_S
    while process.poll() is None and time.monotonic() < until:
        if len(world.children(process.pid)) >= 2:
            break
        time.sleep(0.02)
    time.sleep(chance.uniform(0, work.seconds))
    own = world.children(process.pid)
    target = process.pid if driver or not own else chance.choice(own)
    if process.poll() is None:
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(target, signal.SIGKILL)
            found.faults += 1
    code = process.wait()
    said = (folder / "log-0").read_text(errors="replace")
    if not driver:
        found.note(End(code, said))
    until = time.monotonic() + _PATIENCE_S
    while any(map(world.alive, own)) and time.monotonic() < until:
        time.sleep(0.05)
    found.wrong += [f"worker {pid} lives on" for pid in own if world.alive(pid)]
    for pid in filter(world.alive, own):
        os.kill(pid, signal.SIGKILL)
    yield found.finish(work, folder)


def _some(roots: list[Path], chance: random.Random) -> list[Path]:
    return chance.sample(roots, chance.randint(1, len(roots)))


def _made_twice(folder: Path) -> list[str]:
    """Results that more than one process wrote."""
    written = [
        line.rpartition("/.")[2].partition(".")[0]
        for log in folder.glob("log-*.points")
        for line in log.read_text().splitlines()
        if line.startswith("rename") and ".json." in line
    ]
    return [f"{name} was made twice" for name in sorted(set(written)) if written.count(name) > 1]


SCENES: dict[str, Scene] = {
    "run": run,
    "pretrain": pretrain,
    "full": full,
    "readonly": readonly,
    "once": at_once,
    "clock": clock,
    "workers": workers,
}
# Rounds of these take longer; so many times fewer are done.
SLOW = {"workers": 5}
