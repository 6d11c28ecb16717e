"""Where the time of a run goes."""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
PARTS = ("data", "device", "checkpoint")  # waiting for each of them; `host` is the rest


class Stopwatch:
    """Seconds that the loop waits, by part, since the last `shares`."""

    def __init__(self):
        self._seconds: collections.Counter[str] = collections.Counter()
        self._start = time.monotonic()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts the time within for `name`."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] += time.monotonic() - start

    def waiting(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """The items; the time until each of them comes counts for `name`."""
        iterator = iter(items)
        while True:
            with self.part(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def restart(self) -> None:
        """Begins anew, after what does not belong to the steps."""
        self._seconds.clear()
        self._start = time.monotonic()

    def shares(self) -> dict[str, float]:
        """The part of the time since the last call that went into each part, and into the rest."""
        whole = max(time.monotonic() - self._start, 1e-9)
        shares = {name: self._seconds[name] / whole for name in PARTS}
        self.restart()
        return {**shares, "host": max(0.0, 1 - sum(shares.values()))}
