"""Batches read by a few threads of Python, without TensorFlow."""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from ml_collections import ConfigDict

from linknet_jax.data.batching import Draw, Source, make_batch, read_example
from linknet_jax.data.detections import DetectionTable
from linknet_jax.types import Batch


def batches(
    source: Source,
    config: ConfigDict,
    stream: Iterator[Draw],
    seed: int,
    detections: DetectionTable | None = None,
) -> Iterator[Batch]:
    """The batches of a stream of draws, in its order.

    Holds `prefetch` batches in the making besides the one that the consumer works on.
    """
    executor = ThreadPoolExecutor(config.threads, thread_name_prefix="linknet-data")
    finish = functools.partial(_finish, source, config.max_objects, seed, detections)
    pending = collections.deque()
    try:
        for draw in stream:
            pending.append((_submit(executor, source, config, draw), draw))
            if len(pending) > config.prefetch:
                yield finish(*pending.popleft())
        while pending:
            yield finish(*pending.popleft())
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _submit(
    executor: ThreadPoolExecutor, source: Source, config: ConfigDict, draw: Draw
) -> tuple[np.ndarray, list[Future]]:
    """Starts the reading of a batch: the workers write the pixels, the futures hold the rest."""
    images = np.empty((len(draw.indices), config.image_size, config.image_size, 3), np.uint8)

    def read(row: int) -> tuple[np.ndarray, float]:
        index, flip = int(draw.indices[row]), bool(draw.flips[row])
        images[row], image_size, scale = read_example(source, index, flip, config.image_size)
        return image_size, scale

    return images, [executor.submit(read, row) for row in range(len(images))]


def _finish(
    source: Source,
    max_objects: int,
    seed: int,
    detections: DetectionTable | None,
    started: tuple[np.ndarray, list[Future]],
    draw: Draw,
) -> Batch:
    images, futures = started
    image_sizes, scales = zip(*(future.result() for future in futures), strict=True)
    sizes = np.array(image_sizes, np.float32)
    scales = np.array(scales)
    return make_batch(source, images, sizes, scales, draw, max_objects, seed, detections)
