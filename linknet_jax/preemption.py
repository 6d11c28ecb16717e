"""Signals that end a run, answered with a checkpoint."""

from __future__ import annotations

import signal
import threading

import jax
from jax.experimental import multihost_utils


class Preemption:
    """Turns SIGTERM and Ctrl-C into a request that the loop answers with a checkpoint.

    A second signal ends the run at once. Outside the main thread nothing is installed. Several
    processes leave SIGTERM to JAX, which makes all of them see it at the same step.
    """

    requested = 0

    def after(self, step: int) -> int:
        """The signal that ends the run after `step`, 0 without one."""
        if jax.process_count() == 1:
            return self.requested
        return int(signal.SIGTERM) * multihost_utils.reached_preemption_sync_point(step)

    def __enter__(self) -> Preemption:
        self._previous = {}
        alone = jax.process_count() == 1
        if alone and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: object) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = number
