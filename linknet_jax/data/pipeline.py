"""Batches read through tf.data; the only file that imports TensorFlow."""

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
from linknet_jax.types import Batch

tf.config.set_visible_devices([], "GPU")


def batches(
    source: Source,
    config: ConfigDict,
    stream: Iterator[Draw],
    seed: int,
) -> Iterator[Batch]:
    """The batches of a stream of draws, in its order."""
    first = next(stream)
    failures: list[Exception] = []
    dataset = _examples(source, config, itertools.chain([first], stream), failures)
    dataset = dataset.batch(len(first.indices), drop_remainder=True).prefetch(config.prefetch)
    try:
        for *pixels, indices, epochs, flips in dataset.as_numpy_iterator():
            draw = Draw(indices, epochs, flips)
            yield make_batch(source, *pixels, draw, config.max_objects, seed)
    except tf.errors.OpError as error:
        raise failures[0] if failures else error from None


def _examples(
    source: Source,
    config: ConfigDict,
    stream: Iterator[Draw],
    failures: list[Exception],
) -> tf.data.Dataset:
    """Single examples in the stream's order; `failures` keeps what TensorFlow turns into text."""
    size = config.image_size

    def read(index: int, flip: bool) -> tuple[np.ndarray, np.ndarray, np.float64]:
        try:
            image, image_size, scale = read_example(source, int(index), bool(flip), size)
            return image, image_size, np.float64(scale)
        except Exception as error:
            failures.append(error)
            raise

    def load(index: tf.Tensor, epoch: tf.Tensor, flip: tf.Tensor) -> tuple[tf.Tensor, ...]:
        types = (tf.uint8, tf.float32, tf.float64)
        image, image_size, scale = tf.numpy_function(read, [index, flip], types)
        image = tf.ensure_shape(image, (size, size, 3))
        image_size, scale = tf.ensure_shape(image_size, (2,)), tf.ensure_shape(scale, ())
        return image, image_size, scale, index, epoch, flip

    spec = tuple(tf.TensorSpec([None], kind) for kind in (tf.int64, tf.int64, tf.bool))
    draws = map(tuple, stream)  # TensorFlow takes a named tuple for another structure
    dataset = tf.data.Dataset.from_generator(lambda: draws, output_signature=spec)
    return dataset.unbatch().map(load, num_parallel_calls=config.threads, deterministic=True)
