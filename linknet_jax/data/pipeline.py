"""Batches read through tf.data; outside of `tfds` the only file that imports TensorFlow."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# oneDNN computes nothing here, but logs that it could.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from linknet_jax.data.batching import Draw, Source, make_batch, read_example
from linknet_jax.data.detections import DetectionTable
from linknet_jax.types import Batch

tf.config.set_visible_devices([], "GPU")


def batches(
    source: Source,
    config: ConfigDict,
    stream: Iterator[Draw],
    seed: int,
    detections: DetectionTable | None = None,
) -> Iterator[Batch]:
    """The batches of a stream of draws, in its order.

    tf.data schedules the reading, in parallel and a few batches ahead. The pixels go straight into
    the batch: a copy into tensors and back would cost a tenth of the decoding.
    """
    first = next(stream)
    making: dict[int, tuple[Draw, np.ndarray]] = {}
    failures: list[Exception] = []
    draws = itertools.chain([first], stream)
    dataset = _examples(source, config, draws, making, failures)
    dataset = dataset.batch(len(first.indices), drop_remainder=True).prefetch(config.prefetch)
    try:
        for numbers, image_sizes, scales in dataset.as_numpy_iterator():
            draw, images = making.pop(int(numbers[0]))
            places = images, image_sizes, scales
            yield make_batch(source, *places, draw, config.max_objects, seed, detections)
    except tf.errors.OpError as error:
        raise failures[0] if failures else error from None


def _examples(
    source: Source,
    config: ConfigDict,
    draws: Iterator[Draw],
    making: dict[int, tuple[Draw, np.ndarray]],
    failures: list[Exception],
) -> tf.data.Dataset:
    """(number of the batch, valid size, scale) of single examples, whose pixels are in `making`.

    `failures` keeps the errors that TensorFlow turns into text.
    """
    size = config.image_size

    def rows() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for number, draw in enumerate(draws):
            count = len(draw.indices)
            making[number] = draw, np.empty((count, size, size, 3), np.uint8)
            yield np.full(count, number), np.arange(count)

    def read(number: int, row: int) -> tuple[np.ndarray, np.float64]:
        draw, images = making[int(number)]
        index, flip = int(draw.indices[row]), bool(draw.flips[row])
        try:
            images[row], image_size, scale = read_example(source, index, flip, size)
        except Exception as error:
            failures.append(error)
            raise
        return image_size, np.float64(scale)

    def load(number: tf.Tensor, row: tf.Tensor) -> tuple[tf.Tensor, ...]:
        image_size, scale = tf.numpy_function(read, [number, row], (tf.float32, tf.float64))
        return number, tf.ensure_shape(image_size, (2,)), tf.ensure_shape(scale, ())

    spec = tf.TensorSpec([None], tf.int64)
    dataset = tf.data.Dataset.from_generator(rows, output_signature=(spec, spec))
    return dataset.unbatch().map(load, num_parallel_calls=config.threads, deterministic=True)
