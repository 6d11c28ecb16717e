"""Batches read by a few threads of Python, without TensorFlow."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from ml_collections import ConfigDict

from linknet_jax.data.batching import Source, make_batch, read_example
from linknet_jax.data.stream import evaluation_indices, train_indices
from linknet_jax.types import Batch


def train_batches(
    source: Source,
    config: ConfigDict,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """This process's share of the batches of steps start_step, start_step + 1, ... without end."""
    size = len(source.annotations)
    stream = train_indices(size, batch_size, seed, start_step, process_index, process_count)
    return _batches(source, config, ((i, epochs) for _, i, epochs in stream), seed)


def evaluation_batches(
    source: Source,
    config: ConfigDict,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """This process's share of every image once; the last batch is filled with masked examples."""
    stream = evaluation_indices(len(source.annotations), batch_size, process_index, process_count)
    return _batches(source, config, ((i, np.zeros_like(i)) for i in stream), 0)


def _batches(
    source: Source,
    config: ConfigDict,
    stream: Iterator[tuple[np.ndarray, np.ndarray]],
    seed: int,
) -> Iterator[Batch]:
    """Holds `prefetch` batches in the making besides the one that the consumer works on."""
    executor = ThreadPoolExecutor(config.threads, thread_name_prefix="linknet-data")
    pending = collections.deque()
    try:
        for indices, epochs in stream:
            pending.append((_submit(executor, source, config, indices), indices, epochs))
            if len(pending) > config.prefetch:
                yield _finish(source, config, seed, *pending.popleft())
        while pending:
            yield _finish(source, config, seed, *pending.popleft())
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _submit(
    executor: ThreadPoolExecutor, source: Source, config: ConfigDict, indices: np.ndarray
) -> tuple[np.ndarray, list[Future]]:
    """Starts the reading of a batch: the workers write the pixels, the futures hold the rest."""
    images = np.empty((len(indices), config.image_size, config.image_size, 3), np.uint8)

    def read(row: int) -> tuple[np.ndarray, float]:
        images[row], image_size, scale = read_example(source, int(indices[row]), config.image_size)
        return image_size, scale

    return images, [executor.submit(read, row) for row in range(len(indices))]


def _finish(
    source: Source,
    config: ConfigDict,
    seed: int,
    started: tuple[np.ndarray, list[Future]],
    indices: np.ndarray,
    epochs: np.ndarray,
) -> Batch:
    images, futures = started
    image_sizes, scales = zip(*(future.result() for future in futures), strict=True)
    return make_batch(
        source.annotations,
        images,
        np.array(image_sizes, np.float32),
        np.array(scales),
        indices,
        epochs,
        config.max_objects,
        seed,
    )
