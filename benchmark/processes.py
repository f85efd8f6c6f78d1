"""Several processes that share one run: which one this is, and what they tell one another.

``torchrun`` and ``accelerate launch`` start one command several times and say in the environment
which start is which. What a run shares out is whole utterances and whole trainings, so little has
to be said, and seldom: it goes through the launcher's key-value store. A process group is not made:
its collective operations can neither be interrupted nor left when another process has failed.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from benchmark.errors import SuperbError
from benchmark.progress import Progress

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

Item = TypeVar("Item")

_LOOK_EVERY_S = 0.1
# From the first process that is ready to the last.
_START_S = 600.0
# One process may train for days after another is done. One that fails ends those that wait at once
# and the others at their next look, and launchers end them when one dies, so this is for machines
# that vanish.
_WAIT_S = 7 * 24 * 3600.0
# Launchers end all processes as soon as one has ended: the one that says why goes first.
_SPEAK_S = 5.0
# The store takes at most 8 MiB at a time.
_PART_BYTES = 4 * 2**20
_FAILED = "failed"


class OtherProcessError(SuperbError):
    """Another process of this run has failed, and says why itself."""


@dataclass(frozen=True)
class Processes:
    """The processes that share a run, seen from one of them; by default it is alone.

    Attributes:
        rank: which one this is, from 0.
        count: how many there are.
        local_rank: which one of those on this machine this is.
        store: what they write to and read from; None when alone.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    store: Store | None = field(default=None, repr=False, compare=False)
    _turns: Iterator[int] = field(default_factory=itertools.count, repr=False, compare=False)

    @property
    def main(self) -> bool:
        """Whether this one reports and decides for all."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """Those of the items that are this one's; all processes must have the same items."""
        return list(items[self.rank :: self.count])

    def voice(self, progress: Progress) -> Progress:
        """Where this one reports: one process speaks for all."""
        if self.main:
            return progress
        from rich.console import Console

        return Progress(quiet=True, console=Console(quiet=True))

    def agree(self, decide: Callable[[], Item]) -> Item:
        """What the main process decides, a JSON value; the others do not try."""
        if self.store is None:
            return decide()
        turn = f"{next(self._turns)}"
        if self.main:
            self._put(turn, decide())
        decided: Item = self._take(turn)
        return decided

    def gather(self, value: Item) -> list[Item]:
        """The JSON values of all processes, by rank, once all have come to this point."""
        return [value] if self.store is None else self._gather(value, _WAIT_S)

    def announce(self, word: str) -> None:
        """Let every process know something that only one may have found out."""
        if self.store is not None:
            with _in_touch():
                self.store.set(word, "")

    def announced(self, word: str) -> bool:
        """Whether any process has announced this."""
        if self.store is None:
            return False
        with _in_touch():
            return bool(self.store.check([word]))

    def require_others(self) -> None:
        """Find out that work goes on in vain.

        Raises:
            OtherProcessError: when another process has failed.
        """
        if self.announced(_FAILED):
            raise OtherProcessError("another process failed")

    @contextmanager
    def together(self) -> Iterator[None]:
        """Around the run: when one process fails, all end, and the first to fail says why.

        Raises:
            OtherProcessError: in the others; once it is raised, the reason has been given.
        """
        if self.store is None:
            yield
            return
        try:
            self._gather(None, _START_S)
            yield
            self._leave()
        except KeyboardInterrupt:
            # either all were interrupted, or the launcher ends this one because another failed
            if self._first_to_fail():
                raise
            raise OtherProcessError("another process failed") from None
        except BaseException as error:
            if self._first_to_fail():
                raise
            with suppress(KeyboardInterrupt):
                time.sleep(_SPEAK_S)
            raise OtherProcessError("another process failed") from error

    def _first_to_fail(self) -> bool:
        assert self.store is not None
        try:
            return bool(self.store.add(_FAILED, 1) == 1)
        except RuntimeError:  # nobody can be told any more
            return True

    def _leave(self) -> None:
        """The store may be the main process's own: it stays until the others need it no more."""
        assert self.store is not None
        with _in_touch():
            self.store.set(f"left/{self.rank}", "")
        if self.main:
            for rank in range(self.count):
                self._await(f"left/{rank}", _WAIT_S)

    def _gather(self, value: Item, wait_s: float) -> list[Item]:
        turn = next(self._turns)
        self._put(f"{turn}/{self.rank}", value)
        return [self._take(f"{turn}/{rank}", wait_s) for rank in range(self.count)]

    def _put(self, key: str, value: object) -> None:
        assert self.store is not None
        text = json.dumps(value)  # ASCII: a character is a byte
        starts = range(0, len(text), _PART_BYTES)
        with _in_touch():
            for part, start in enumerate(starts):
                self.store.set(f"{key}/part {part}", text[start : start + _PART_BYTES])
            self.store.set(key, str(len(starts)))

    def _take(self, key: str, wait_s: float = _WAIT_S) -> Any:  # noqa: ANN401 - any JSON value
        assert self.store is not None
        self._await(key, wait_s)
        with _in_touch():
            parts = range(int(self.store.get(key)))
            return json.loads(b"".join(self.store.get(f"{key}/part {part}") for part in parts))

    def _await(self, key: str, wait_s: float) -> None:
        until = time.monotonic() + wait_s
        while not self.announced(key):
            self.require_others()
            if time.monotonic() > until:
                raise SuperbError(
                    f"process {self.rank} of {self.count} (from 0) waited {wait_s:.0f} s for "
                    "another one in vain. Every process that the launcher starts must make the "
                    "same run; to make one in this process alone, take WORLD_SIZE out of its "
                    "environment. Or type the same command again: what is finished is kept"
                )
            time.sleep(_LOOK_EVERY_S)


ALONE = Processes()
_runs = itertools.count()


def find_processes() -> Processes:
    """The processes that a launcher started to share the next run of this program.

    ``torchrun`` and ``accelerate launch`` say so by ``WORLD_SIZE``, ``RANK``, ``LOCAL_RANK``,
    ``MASTER_ADDR`` and ``MASTER_PORT``. Without them, or with one process, nothing is imported.

    Raises:
        SuperbError: when the environment names several processes that cannot be reached.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return ALONE
    from torch.distributed.distributed_c10d import PrefixStore

    store, rank, count = _rendezvous()
    local_rank = int(os.environ.get("LOCAL_RANK", rank))
    # a launcher that starts failed processes again keeps the store, and what they wrote to it
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    prefix = f"superb run {next(_runs)}, attempt {attempt}"
    return Processes(rank, count, local_rank, PrefixStore(prefix, store))


@cache
def _rendezvous() -> tuple[Store, int, int]:
    from torch.distributed.rendezvous import rendezvous

    try:
        found: tuple[Store, int, int] = next(
            rendezvous("env://", timeout=timedelta(seconds=_START_S))
        )
    except (ValueError, RuntimeError) as error:
        raise SuperbError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']} says that several processes share this run, "
            f"but they do not find each other: {str(error).splitlines()[0]}. Start them with "
            "torchrun --nproc-per-node N -m superb, or take WORLD_SIZE out of the environment"
        ) from error
    return found


@contextmanager
def _in_touch() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise SuperbError(
            f"the launcher or process 0 cannot be reached any more: {str(error).splitlines()[0]}. "
            "Type the same command again: what is finished is kept"
        ) from error
