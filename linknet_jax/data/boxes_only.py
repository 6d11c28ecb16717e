"""Batches without pixels, for `model.visual=False`: annotations and sizes are all they need."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ml_collections import ConfigDict

from linknet_jax.data.batching import FILLER, Draw, Source, make_batch
from linknet_jax.data.detections import DetectionTable
from linknet_jax.data.transforms import covered
from linknet_jax.types import Annotation, Batch


def batches(
    source: Source,
    config: ConfigDict,
    stream: Iterator[Draw],
    seed: int,
    detections: DetectionTable | None = None,
) -> Iterator[Batch]:
    """The batches of a stream of draws, in its order; their images are 0 pixels wide and high."""
    for draw in stream:
        images = np.zeros((len(draw.indices), 0, 0, 3), np.uint8)
        sizes, scales = _frames(source, config.image_size, draw.indices)
        places = images, sizes, scales
        yield make_batch(source, *places, draw, config.max_objects, seed, detections)


def _frames(source: Source, size: int, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(height, width) and scale as the photographs would have them in a square of `size`."""
    images = [(size, size) if k == FILLER else _size(source.annotations[k]) for k in indices]
    sizes, scales = zip(*(covered(*image, size) for image in images), strict=True)
    return np.array(sizes), np.array(scales)


def _size(annotation: Annotation) -> tuple[int, int]:
    return annotation.width, annotation.height
