"""Which image comes when: a pure function of (seed, step), so that resuming needs no state."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int


def train_indices(
    size: int,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[tuple[int, Int[np.ndarray, "local"], Int[np.ndarray, "local"]]]:
    """Endless (step, image indices, their epochs): this process's slice of every global batch.

    Sample k of the endless stream is permutation(seed, k // size)[k % size].
    """
    local = _local_size(size, batch_size, process_count)
    return _train(size, batch_size, seed, start_step, process_index * local, local)


def evaluation_indices(
    size: int, batch_size: int, process_index: int = 0, process_count: int = 1
) -> Iterator[Int[np.ndarray, "local"]]:
    """Every image once, in order; -1 fills the last batch, so that all processes have as many."""
    local = _local_size(size, batch_size, process_count)
    padded = np.full(-(-size // batch_size) * batch_size, -1)
    padded[:size] = np.arange(size)
    return iter(padded.reshape(-1, process_count, local)[:, process_index])


def _train(
    size: int, batch_size: int, seed: int, step: int, first: int, local: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    order = functools.lru_cache(maxsize=2)(lambda epoch: _permutation(size, seed, epoch))
    while True:
        samples = step * batch_size + first + np.arange(local)
        epochs = samples // size
        indices = [order(k // size)[k % size] for k in samples.tolist()]
        yield step, np.array(indices), epochs
        step += 1


def _permutation(size: int, seed: int, epoch: int) -> Int[np.ndarray, "size"]:
    return np.random.default_rng((0, seed, epoch)).permutation(size)


def _local_size(size: int, batch_size: int, process_count: int) -> int:
    if size < 1:
        raise ValueError(f"the split has {size} images, at least 1 is needed; check data.dir")
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"batch_size {batch_size} must be a positive multiple of the {process_count} processes"
        )
    return batch_size // process_count
