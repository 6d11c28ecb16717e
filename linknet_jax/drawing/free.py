"""A free place for a plate among others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from linknet_jax.drawing.push import Places
from linknet_jax.drawing.shapes import Box, Point

STEP, GAP = 6.0, 1.0  # pixels between tried places; between plates


def free_place(size: Point, wanted: Sequence[Point], taken: Sequence[Box], bounds: Box) -> Point:
    """The first `wanted` left upper corner, else the nearest to it, where a plate fits.

    Args:
      size: (width, height) of the plate.
      wanted: corners, the best first.
      taken: boxes that are already used.
      bounds: box to stay in; only its lower side is passed where nothing else is free.
    """
    tried = np.array(wanted, float)
    tried = np.clip(tried, bounds[:2], np.maximum(np.array(bounds[2:]) - size, bounds[:2]))
    grid = _grid(size, bounds)
    near = np.argsort(((grid - tried[0]) ** 2).sum(axis=1), kind="stable")
    boxes = np.array(taken, float).reshape(-1, 4)
    corners = np.concatenate([tried, grid[near]])
    free = ~_hits(corners, size, boxes)
    if free.any():
        return tuple(corners[free.argmax()].tolist())
    return float(bounds[0]), float(boxes[:, 3].max()) + 2 * GAP


def _grid(size: Point, bounds: Box) -> Float[np.ndarray, "g 2"]:
    x = np.arange(bounds[0], max(bounds[2] - size[0], bounds[0]) + 0.1, STEP)
    y = np.arange(bounds[1], max(bounds[3] - size[1], bounds[1]) + 0.1, STEP)
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def _hits(corners: Places, size: Point, boxes: Float[np.ndarray, "b 4"]) -> Bool[np.ndarray, "n"]:
    low, high = corners[:, None], corners[:, None] + size
    return ((low < boxes[:, 2:] + GAP) & (high > boxes[:, :2] - GAP)).all(axis=-1).any(axis=-1)
