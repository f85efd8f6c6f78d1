"""Which runs are being made in a folder of results, so that nobody makes the same ones beside them.

A run marks its folder with a file of its own, which it touches while it lives and removes in the
end. Marks need no lock and no clock: each is written before others are looked at, so that of two
that begin together at least one sees the other. Who sees a run that is held gives way; of those
that are still looking, the first by name waits and the others give way.
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
from typing import Any

from benchmark.errors import SuperbError

_TOUCH_EVERY_S = 20.0
# A mark of another machine that has not been touched for so long is of a run that is no more.
_STALE_S = 120.0
# How long those that begin together look at each other.
_LOOK_S, _LOOK_EVERY_S = 10.0, 0.02
_PREFIX = ".running-"


@contextmanager
def claimed(output: Path, run_ids: Collection[str]) -> Iterator[None]:
    """Make some runs in a folder of results, and nobody else the same ones meanwhile.

    Raises:
        SuperbError: when another process is making one of them there already, or nothing can be
            written there.
    """
    if not run_ids:
        list(_living(output, None))  # a run that was killed at its very end has left its mark
        yield
        return
    mark = output / f"{_PREFIX}{uuid.uuid4().hex}"
    pid = os.getpid()
    claim = {"host": socket.gethostname(), "pid": pid, "born": _born(pid), "runs": sorted(run_ids)}
    ended = threading.Event()
    keeper = threading.Thread(target=_keep, args=(mark, ended), daemon=True)
    try:
        try:
            output.mkdir(parents=True, exist_ok=True)
            _write(mark, {**claim, "held": False})
            _take_turn(output, mark, set(run_ids))
            _write(mark, {**claim, "held": True})
        except OSError as error:
            raise SuperbError(
                f"nothing can be written to {output}: {error}. Free some space there, or choose "
                "another folder with --output DIR"
            ) from error
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


def _write(mark: Path, claim: dict[str, Any]) -> None:
    temporary = mark.with_name(f"{mark.name}.tmp")
    try:
        temporary.write_text(json.dumps(claim))
        temporary.replace(mark)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _take_turn(output: Path, mark: Path, run_ids: set[str]) -> None:
    """Return once nobody else wants these runs.

    Raises:
        SuperbError: when somebody has them, or is before this one.
    """
    until = time.monotonic() + _LOOK_S
    while rivals := [
        (other, claim)
        for other, claim in _living(output, mark)
        if run_ids.intersection(claim["runs"])
    ]:
        for other, claim in rivals:
            if claim.get("held", True) or other.name < mark.name or time.monotonic() > until:
                raise SuperbError(
                    f"process {claim['pid']} on {claim['host']} is making the same results in "
                    f"{output}. Wait for it: the same command then finds them. Or choose another "
                    "folder with --output DIR"
                )
        time.sleep(_LOOK_EVERY_S)


def _living(output: Path, mark: Path | None) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The other marks of processes that live; those of others are removed."""
    # the file system's own clock tells ages: that of a machine may be wrong, or be set back
    now = None if mark is None else mark.stat().st_mtime
    for other in output.glob(f"{_PREFIX}*"):
        if other == mark:
            continue
        try:
            age_s = 0.0 if now is None else abs(now - other.stat().st_mtime)
            partial = other.suffix == ".tmp"
            claim = {} if partial else json.loads(other.read_text())
        except (OSError, ValueError):  # it has just ended
            continue
        if age_s > _STALE_S if partial else _is_dead(claim, age_s):
            with suppress(OSError):
                other.unlink()
        elif not partial:
            yield other, claim


def _is_dead(claim: dict[str, Any], age_s: float) -> bool:
    if claim["host"] != socket.gethostname():
        return age_s > _STALE_S
    try:
        os.kill(claim["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    # the number may have been given to another process since, as after a restart
    return bool(claim.get("born")) and claim["born"] != _born(claim["pid"])


def _born(pid: int) -> str:
    """When a process of this machine began, in ticks since which start; "" where nobody knows."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
    return f"{boot} {ticks}"
