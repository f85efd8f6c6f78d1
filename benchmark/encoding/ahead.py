"""Work that threads do ahead of whoever takes it, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import torch

Item = TypeVar("Item")
Done = TypeVar("Done")


@contextmanager
def workers(count: int, arithmetic: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """Threads for some work; whatever has not begun when the block is left is not begun any more.

    Args:
        count: how many.
        arithmetic: threads that torch uses in each; as many as ever if None.
    """
    begin = partial(torch.set_num_threads, arithmetic) if arithmetic else None
    pool = ThreadPoolExecutor(count, initializer=begin)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def arithmetic_threads(count: int) -> Iterator[None]:
    """Let torch use some threads in this one, and afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def ahead(
    pool: ThreadPoolExecutor, work: Callable[[Item], Done], items: Iterable[Item], most: int
) -> Iterator[tuple[Item, Done]]:
    """Do a few pieces of work, `most` at a time, ahead of whoever takes them, in order.

    Where the items end in an error, it comes after the work that was under way.
    """
    waiting: deque[tuple[Item, Future[Done]]] = deque()
    failure: Exception | None = None
    coming = iter(items)
    while True:
        try:
            item = next(coming)
        except StopIteration:
            break
        except Exception as error:
            failure = error
            break
        waiting.append((item, pool.submit(work, item)))
        if len(waiting) > most:
            first, done = waiting.popleft()
            yield first, done.result()
    while waiting:
        first, done = waiting.popleft()
        yield first, done.result()
    if failure is not None:
        raise failure


def side_by_side(
    count: int, work: Callable[[Item], Done], items: Iterable[Item]
) -> Iterator[tuple[Item, Done]]:
    """Do some work in order: here, or on several threads that share the processor's cores."""
    if count == 1:
        for item in items:
            yield item, work(item)
        return
    each = torch.get_num_threads() // count
    with arithmetic_threads(each), workers(count, each) as pool:
        yield from ahead(pool, work, items, count)
