"""Box arithmetic, xyxy in pixels. Every function takes its array library from its arguments."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

BENIGN_BOX = (0.0, 0.0, 15.0, 15.0)  # what padding is replaced by: every formula stays finite
Boxes = Float[jax.Array | np.ndarray, "*n 4"]


def _library(x) -> types.ModuleType:
    return jnp if isinstance(x, jax.Array) else np


def size(boxes: Boxes, inclusive: bool = False) -> Float[jax.Array | np.ndarray, "*n 2"]:
    """(width, height); `inclusive` counts both end pixels, one more than half-open boxes have."""
    return boxes[..., 2:] - boxes[..., :2] + int(inclusive)


def in_frame(boxes: Boxes, width: int, height: int, frame: str) -> Boxes:
    """Boxes of an image where they are compared: `original` pixels, or scaled so that the longer
    side has `frame` pixels (1024 is Motifs'); rounded, so that whole numbers are whole again."""
    if frame == "original":
        return boxes
    return _library(boxes).round(boxes * (float(frame) / max(width, height)), 6)


def clip(boxes: Boxes, extent: Float[jax.Array | np.ndarray, "*n 2"]) -> Boxes:
    """Boxes cut to their images of (width, height), except where nothing would be left."""
    xp = _library(boxes)
    cut = xp.clip(boxes, 0, xp.concatenate([extent, extent], axis=-1))
    return xp.where((size(cut) > 0).all(axis=-1, keepdims=True), cut, boxes)


def union(a: Boxes, b: Boxes) -> Boxes:
    """The smallest box around both; symmetric."""
    xp = _library(a)
    low, high = xp.minimum(a[..., :2], b[..., :2]), xp.maximum(a[..., 2:], b[..., 2:])
    return xp.concatenate([low, high], axis=-1)


def intersection(
    a: Boxes, b: Boxes, inclusive: bool = False
) -> Float[jax.Array | np.ndarray, "*n"]:
    """Area that both boxes cover; `a` and `b` are broadcast."""
    xp = _library(a)

    def side(low: int, high: int):  # a column at a time: XLA vectorises it, [n, m, 2] it does not
        end, start = xp.minimum(a[..., high], b[..., high]), xp.maximum(a[..., low], b[..., low])
        return xp.maximum(end - start + int(inclusive), 0)

    return side(0, 2) * side(1, 3)


def iou(
    a: Float[jax.Array | np.ndarray, "n 4"],
    b: Float[jax.Array | np.ndarray, "m 4"],
    inclusive: bool = False,
) -> Float[jax.Array | np.ndarray, "n m"]:
    """Intersection over union of every pair; 0 where both boxes are empty."""
    xp = _library(a)
    shared = intersection(a[:, None], b[None], inclusive)
    areas = [intersection(x, x, inclusive) for x in (a, b)]
    total = areas[0][:, None] + areas[1][None, :] - shared
    return xp.where(total > 0, shared / xp.where(total > 0, total, 1), 0)


def relative_layout(subject: Boxes, object_: Boxes, corner: bool = False) -> Boxes:
    """b_{o|s} of eq. 17 with inclusive sizes; `corner` takes x1, y1 for x, y (A10)."""
    xp = _library(subject)
    subject_size, object_size = size(subject, True), size(object_, True)
    half = 0.0 if corner else 0.5
    shift = (object_[..., :2] + half * object_size) - (subject[..., :2] + half * subject_size)
    return xp.concatenate([shift / subject_size, xp.log(object_size / subject_size)], axis=-1)


def overlaps(boxes: Float[jax.Array | np.ndarray, "n 4"]) -> Bool[jax.Array | np.ndarray, "n n"]:
    """Which ordered pairs of different boxes share at least a pixel (inclusive convention)."""
    xp = _library(boxes)
    return (iou(boxes, boxes, inclusive=True) > 0) & ~xp.eye(boxes.shape[0], dtype=bool)
