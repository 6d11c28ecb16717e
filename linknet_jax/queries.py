"""Photographs that are asked about: read, checked, and made into the network's input."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from ml_collections import ConfigDict

from linknet_jax.data.batching import FILLER, Draw, make_batch
from linknet_jax.data.transforms import covered, resize_and_pad, upright
from linknet_jax.types import Annotation, Batch, Vocabulary

NO_RELATIONS = np.zeros((0, 3), np.int32)


class Query(NamedTuple):
    """A photograph with what is given of it.

    Attributes:
      annotation: its name, size, boxes and labels; label 1 where none is given.
      pixels, valid, scale: as `transforms.load_image` returns them; no pixels for a model without.
      source: where the photograph came from.
    """

    annotation: Annotation
    pixels: UInt8[np.ndarray, "s s 3"]
    valid: Float[np.ndarray, "2"]
    scale: float
    source: Any


def read(
    image: Any,
    boxes: Any,
    labels: Sequence[str] | None,
    image_id: int | str,
    config: ConfigDict,
    vocabulary: Vocabulary,
) -> Query:
    """Decodes and scales a photograph (`transforms.upright`) and checks what is given of it.

    `image_id` names it where it is no file. ImageError, and ValueError for boxes that are not
    finite [n, 4] with x2 >= x1 and y2 >= y1, and for labels that the vocabulary lacks.
    """
    if isinstance(image, (str, os.PathLike)):
        image_id = os.path.basename(os.fspath(image))
    pixels = upright(image)
    height, width = pixels.shape[:2]
    corners = _corners(boxes, image_id)
    numbers = np.ones(len(corners), np.int32)
    if labels is not None:
        numbers = _numbers(labels, len(corners), image_id, vocabulary)
    annotation = Annotation(image_id, width, height, corners, numbers, NO_RELATIONS)
    side = config.data.image_size
    if not config.model.visual:
        nothing = np.zeros((0, 0, 3), np.uint8)
        return Query(annotation, nothing, *covered(width, height, side), image)
    return Query(annotation, *resize_and_pad(pixels, side), image)


def batch_of(queries: Sequence[Query], size: int, room: int, vocabulary: Vocabulary) -> Batch:
    """The network's input of at most `size` photographs with at most `room` boxes, filled up."""
    missing = size - len(queries)
    rows = [*queries, *[queries[0]] * missing]
    pixels, valid = (np.stack([getattr(q, name) for q in rows]) for name in ("pixels", "valid"))
    scales = np.array([q.scale for q in rows])
    order = np.append(np.arange(len(queries)), np.full(missing, FILLER)).astype(int)
    draw = Draw(order, np.zeros(size, int), np.zeros(size, bool))
    source = _Given([q.annotation for q in queries], vocabulary)
    return make_batch(source, pixels, valid, scales, draw, room, seed=0)


class _Given(NamedTuple):
    """The data set that `make_batch` takes its annotations from."""

    annotations: list[Annotation]
    vocabulary: Vocabulary
    truth: None = None


def _numbers(
    labels: Sequence[str], count: int, image_id: int | str, vocabulary: Vocabulary
) -> Int[np.ndarray, "n"]:
    if len(labels) != count:
        raise ValueError(f"image {image_id!r}: {len(labels)} labels for {count} boxes")
    known = {name: number for number, name in enumerate(vocabulary.objects) if number}
    for name in labels:
        if name not in known:
            near = difflib.get_close_matches(str(name), known) or list(known)[:5]
            raise ValueError(
                f"image {image_id!r}: the checkpoint has no class {name!r}; near it: "
                f"{', '.join(near)}"
            )
    return np.array([known[name] for name in labels], np.int32)


def _corners(boxes: Any, image_id: int | str) -> Float[np.ndarray, "n 4"]:
    corners = np.zeros((0, 4)) if boxes is None else np.asarray(boxes, np.float64)
    if not corners.size:
        return np.zeros((0, 4))
    if corners.ndim != 2 or corners.shape[1] != 4:
        shape = list(corners.shape)
        raise ValueError(f"image {image_id!r}: boxes of shape {shape}; they must be [n, 4]")
    wrong = ~np.isfinite(corners).all(axis=1) | (corners[:, 2:] < corners[:, :2]).any(axis=1)
    if wrong.any():
        raise ValueError(
            f"image {image_id!r}: box {corners[wrong][0].tolist()} must be finite [x1, y1, x2, y2] "
            "with x2 >= x1 and y2 >= y1"
        )
    return corners
