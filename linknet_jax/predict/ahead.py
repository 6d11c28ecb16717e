"""Work that runs ahead of its consumer in threads, with a bounded number of results waiting."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A, B = TypeVar("A"), TypeVar("B")
_END = object()


def taken(items: Iterable[A], depth: int) -> Iterator[A]:
    """The same items, taken in one thread that is up to `depth` ahead; its error is raised here."""
    source = iter(items)
    with _pool(1) as pool:
        pending = collections.deque(pool.submit(next, source, _END) for _ in range(depth))
        while (item := pending.popleft().result()) is not _END:
            pending.append(pool.submit(next, source, _END))
            yield item


def mapped(function: Callable[[A], B], items: Iterable[A], threads: int, depth: int) -> Iterator[B]:
    """`function` of every item, in their order, up to `depth` ahead in so many threads."""
    pending: collections.deque[Future[B]] = collections.deque()
    with _pool(threads) as pool:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


@contextlib.contextmanager
def _pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """On an error, or where the consumer stops early, what has not begun is dropped."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
