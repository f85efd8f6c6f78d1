"""Commands in forks of one warm process: importing torch costs seconds, a fork nothing.

That is sound as long as nothing in the parent runs in parallel: one thread, and no parallel region
before the fork (`warm_up` makes sure of the threads). What the uninterrupted run comes to, which
all others are compared with, is found by a process of its own that forks nothing (`cold`).
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

_IMPORTED = (
    *("PIL.PngImagePlugin", "accelerate", "matplotlib.pyplot", "torch._dynamo"),
    *("torch.utils.tensorboard", "superb.pretraining", "superb.running", "superb.summary"),
    *("upstreams.pretraining.plot", "upstreams.pretraining.train"),
)


def warm_up() -> None:
    """Import all that the commands do."""
    for name in _IMPORTED:
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)
    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == 1, f"{threads} threads before the first fork"


@dataclass(frozen=True)
class End:
    """How a command ended: exit code, or minus the signal; and all it said."""

    code: int
    said: str

    @property
    def killed(self) -> bool:
        """Whether by SIGKILL."""
        return self.code == -signal.SIGKILL

    @property
    def clear(self) -> bool:
        """Whether it ended well, or refused with exit code 2 and one message."""
        wrong = "Traceback" in self.said or "Exception" in self.said
        errors = sum(line.startswith("error:") for line in self.said.splitlines())
        return not wrong and (self.code, errors) in ((0, 0), (2, 1))


@dataclass(frozen=True)
class Child:
    """A command that is under way."""

    pid: int
    log: Path
    started: float

    def kill_at(self, seconds: float) -> None:
        """Kill it so many seconds after its start, unless it has ended by then."""
        while (left := self.started + seconds - time.monotonic()) > 0:
            time.sleep(min(left, 0.01))
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> End:
        """Wait for it."""
        _, status = os.waitpid(self.pid, 0)
        return End(os.waitstatus_to_exitcode(status), self.log.read_text(errors="replace"))


def start(
    words: Sequence[object], log: Path, prepare: Callable[[], Callable[[], None] | None]
) -> Child:
    """Run ``superb WORDS`` in a fork.

    Args:
        words: of the command.
        log: file that gets all it says.
        prepare: called in the fork first; what it returns, last.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Child(pid, log, time.monotonic())
    code = 1
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        leave = prepare()
        try:
            code = _main(words)
        finally:
            if leave is not None:
                leave()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _main(words: Sequence[object]) -> int:
    from superb.cli import main

    sys.argv = ["superb", *map(str, words)]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    return 0


def cold(words: Sequence[object], log: Path) -> subprocess.Popen[bytes]:
    """``superb WORDS`` in a new process that has imported nothing."""
    program = (
        "from tests.faults.kill.world import shrink; shrink(); from superb.cli import main; main()"
    )
    environment: Mapping[str, str] = {**os.environ, **ONE_THREAD}
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-c", program, *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment,
            cwd=Path(__file__).parents[3],
        )
