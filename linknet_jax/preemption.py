"""Signals that end a run, answered with a checkpoint."""

from __future__ import annotations

import signal
import threading


class Preemption:
    """Turns SIGTERM and Ctrl-C into a request that the loop answers with a checkpoint.

    A second signal ends the run at once. Outside the main thread nothing is installed.
    """

    requested = 0

    def __enter__(self) -> Preemption:
        self._previous = {}
        if threading.current_thread() is threading.main_thread():
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
