"""Timing that survives a shared machine: rivals take turns, the fastest turn of each counts."""

from __future__ import annotations

import time
from collections.abc import Callable

import jax


def interleaved(functions: dict[str, Callable[[], object]], repeats: int = 5) -> dict[str, float]:
    """Seconds of the fastest of `repeats` calls of each function, after one warm-up call.

    The functions take no arguments and run in turn, so that a slow spell of the machine hits all
    of them. JAX arrays in the result are waited for.
    """
    for function in functions.values():
        jax.block_until_ready(function())
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            best[name] = min(best[name], time.perf_counter() - start)
    return best
