"""The small runs that are put to the test, what they come to undisturbed, and their disks."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from tests.faults.case import manifest, record, rows
from tests.faults.kill.points import Points
from tests.faults.kill.warm import Child, cold, start
from tests.made import QUICK, RATE

_ENCODER = Path(__file__).parents[2] / "bands.py"
_DISK = "size=24m"


@dataclass(frozen=True)
class Work:
    """A command, and what it comes to.

    Attributes:
        name: of the command.
        words: of it, but for the places.
        places: option → folder that it writes to, in the folder of a round.
        reference: folder of an undisturbed round.
        seconds: that one takes in a fork.
        points: touches of the disk of one, by what they are (`benchmark` speaks of them by name).
    """

    name: str
    words: Sequence[object]
    places: dict[str, str]
    reference: Path
    seconds: float = 0.0
    points: dict[str, list[int]] = field(default_factory=dict)

    def command(self, folder: Path) -> list[object]:
        """All words of it, for a round's folder."""
        return [*self.words, *(w for o, p in self.places.items() for w in (o, folder / p))]

    def roots(self, folder: Path) -> list[Path]:
        """Where it writes."""
        return [folder / place for place in self.places.values()]

    def begin(
        self,
        folder: Path,
        at: int = 0,
        happens: Callable[[str, str], None] | None = None,
        clock_s: float = 0.0,
        log: str = "log",
    ) -> Child:
        """Start it; at its touch number `at` something happens."""
        roots = self.roots(folder)
        seen = folder / f"{log}.points"

        def prepare() -> Callable[[], None]:
            _hurry()
            if clock_s:
                now, now_ns = time.time, time.time_ns
                time.time = lambda: now() + clock_s
                time.time_ns = lambda: now_ns() + int(clock_s * 1e9)
            points = Points(roots, at, happens) if happens else Points(roots)
            points.watch()
            return lambda: _write(seen, points.seen)

        return start(self.command(folder), folder / log, prepare)

    def pick(self, chance: random.Random) -> int:
        """The number of a touch: first what kind, then which."""
        return chance.choice(self.points[chance.choice(sorted(self.points))])


def _write(path: Path, lines: Sequence[str]) -> None:
    path.write_text("\n".join(lines))


def _hurry() -> None:
    """Do in a second what a run does in minutes: store features and states of training.

    So that there is something to interrupt. A small disk may be filled to its end.
    """
    from benchmark.encoding import audio_hashes, cache, store
    from benchmark.probing.snapshot import Snapshot
    from upstreams.pretraining import train

    store._COMMIT_S = audio_hashes._COMMIT_S = 0.1
    Snapshot.due = property(lambda _: True)  # type: ignore[assignment]
    train.CHECKPOINT_EVERY_S = 0.0
    cache._SPARE_BYTES = 0


def shrink() -> None:
    """Make the encoder that is pretrained tiny."""
    from upstreams.models.generative import APCConfig
    from upstreams.pretraining.generative import APC

    APC.sizes = {"mini": APCConfig(dim=16, layers=2)}


# The quick protocol with fewer updates, and looks at valid, after which there is a state to keep.
_PROTOCOL = (
    QUICK.replace("updates = 60", "updates = 12")
    .replace("updates = 40", "updates = 8")
    .replace("evaluate_every = 20", "evaluate_every = 4")
    .replace("update = 20, keep", "update = 4, keep")
)


def make_works(folder: Path, wanted: Sequence[str]) -> dict[str, Work]:
    """The commands ``run`` and ``pretrain``, with what they come to undisturbed."""
    corpus = folder / "corpus"
    corpus.mkdir()
    own = [row for row in rows() if row["audio"].endswith(("0.wav", "2.wav", "3.wav"))]
    record(corpus, own)
    protocol = corpus / "quick.toml"
    protocol.write_text(_PROTOCOL)
    noise = folder / "recordings"
    noise.mkdir()
    chance = np.random.default_rng(0)
    for index in range(6):
        soundfile.write(noise / f"{index}.wav", 0.1 * chance.standard_normal(24_000), RATE)
    past = time.time() - 3600  # what has just been written is hashed again each time
    for path in corpus.iterdir():
        os.utime(path, (past, past))
    works = {
        "run": Work(
            "run",
            ("run", "-u", f"fbank,{_ENCODER}:Bands", "-d", "ks,asr", "--layers", "last", "--corpus",
             manifest(corpus, own), "--protocol", protocol, "--device", "cpu"),
            {"--output": "results", "--cache-dir": "cache"},
            folder / "run",
        ),
        "pretrain": Work(
            "pretrain",
            ("pretrain", "--objective", "apc", "--audio", noise, "--steps", 3, "--batch-seconds",
             3, "--device", "cpu", "--threads", 1),
            {"--output": "encoder"},
            folder / "pretrain",
        ),
    }  # fmt: skip
    return {name: _measured(work, folder) for name, work in works.items() if name in wanted}


def _measured(work: Work, folder: Path) -> Work:
    """Do it undisturbed: once in a process of its own, once in a fork, to count and to time."""
    work.reference.mkdir()
    log = work.reference / "log"
    code = cold(work.command(work.reference), log).wait()
    assert code == 0, log.read_text()
    forked = folder / f"{work.name}-forked"
    forked.mkdir()
    started = time.monotonic()
    end = work.begin(forked).end()
    assert end.code == 0, end.said
    points: dict[str, list[int]] = {}
    for number, line in enumerate((forked / "log.points").read_text().splitlines(), start=1):
        what, _, path = line.partition(" ")
        name = Path(path).relative_to(forked)
        kind = "mark" if ".running-" in name.name else name.parts[0]
        suffix = ".about" if name.stem == "about.json" else name.suffix
        points.setdefault(f"{what} {kind}{suffix}", []).append(number)
    return Work(
        work.name, work.words, work.places, work.reference, time.monotonic() - started, points
    )


# Disks -----------------------------------------------------------------------------------------


@contextmanager
def disks(roots: Sequence[Path]) -> Iterator[None]:
    """A small disk of its own for each of some folders.

    Raises:
        PermissionError: when this process may not mount any.
    """
    with contextlib.ExitStack() as mounted:
        for root in roots:
            root.mkdir(parents=True, exist_ok=True)
            _mount("-t", "tmpfs", "-o", _DISK, "superb-kill", root)
            mounted.callback(subprocess.run, ["umount", "-l", root], check=True)
        yield


def remount(roots: Sequence[Path], mode: str) -> None:
    """Make disks ``ro`` or ``rw``."""
    for root in roots:
        _mount("-o", f"remount,{mode},{_DISK}", root)


def _mount(*words: object) -> None:
    done = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PermissionError(done.stderr.strip() or "mount failed")


FILLER = ".filler"


def fill(roots: Sequence[Path]) -> None:
    """Leave no byte on disks."""
    for root in roots:
        file = os.open(root / FILLER, os.O_WRONLY | os.O_CREAT, 0o644)
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    os.write(file, bytes(size))
        os.close(file)


_GET, _SET, _IMMUTABLE = 0x80086601, 0x40086602, 0x10


def freeze(roots: Sequence[Path], frozen: bool = True) -> None:
    """Let nothing be made, renamed or removed in folders (files that are open can be written).

    Raises:
        OSError: when the file system or the user cannot do that.
    """
    for root in roots:
        for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            flags = ctypes.c_long(0)
            fcntl.ioctl(handle, _GET, flags)
            flags.value = flags.value & ~_IMMUTABLE | (_IMMUTABLE if frozen else 0)
            fcntl.ioctl(handle, _SET, flags)
            os.close(handle)


def children(pid: int) -> list[int]:
    """Processes that a process has started and that run."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in task.read_text().split()]
    return found


def alive(pid: int) -> bool:
    """Whether a process runs, and is not only waited for."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


if sys.platform != "linux":
    raise ImportError("the harness needs /proc and fork")
