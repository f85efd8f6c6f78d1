"""Which runs are being made in a folder of results, so that nobody makes the same ones beside them.

A run marks its folder with a file of its own, which it touches while it lives and removes in the
end. Marks need no lock: each is written whole before others are looked at, and the later one gives
way.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmark.errors import SuperbError

_TOUCH_EVERY_S = 20.0
# A mark of another machine that has not been touched for so long is of a run that is no more.
_STALE_S = 120.0
_PREFIX = ".running-"


@contextmanager
def claimed(output: Path, run_ids: Collection[str]) -> Iterator[None]:
    """Make some runs in a folder of results, and nobody else the same ones meanwhile.

    Raises:
        SuperbError: when another process is making one of them there already.
    """
    if not run_ids:
        yield
        return
    output.mkdir(parents=True, exist_ok=True)
    mark = output / f"{_PREFIX}{uuid.uuid4().hex}"
    started = time.time()
    own = {"host": socket.gethostname(), "pid": os.getpid(), "started": started}
    temporary = mark.with_name(f".{mark.name}.tmp")
    temporary.write_text(json.dumps({**own, "runs": sorted(run_ids)}))
    temporary.replace(mark)
    ended = threading.Event()
    keeper = threading.Thread(target=_keep, args=(mark, ended), daemon=True)
    try:
        _refuse_others(output, mark, started, set(run_ids))
        keeper.start()
        yield
    finally:
        ended.set()
        with suppress(OSError):
            mark.unlink(missing_ok=True)


def _keep(mark: Path, ended: threading.Event) -> None:
    while not ended.wait(_TOUCH_EVERY_S):
        with suppress(OSError):
            os.utime(mark)


def _refuse_others(output: Path, mark: Path, started: float, run_ids: set[str]) -> None:
    for other in output.glob(f"{_PREFIX}*"):
        if other == mark:
            continue
        try:
            claim = json.loads(other.read_text())
            touched = other.stat().st_mtime
        except (OSError, ValueError):  # it has just ended
            continue
        if _is_dead(claim, touched):
            with suppress(OSError):
                other.unlink()
        elif run_ids & set(claim["runs"]) and (claim["started"], other.name) < (started, mark.name):
            raise SuperbError(
                f"process {claim['pid']} on {claim['host']} is making the same results in "
                f"{output}. Wait for it: the same command then finds them. Or choose another "
                "folder with --output DIR"
            )


def _is_dead(claim: dict[str, object], touched: float) -> bool:
    if claim["host"] != socket.gethostname():
        return time.time() - touched > _STALE_S
    pid = claim["pid"]
    if pid == os.getpid():
        return False
    try:
        os.kill(int(str(pid)), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
