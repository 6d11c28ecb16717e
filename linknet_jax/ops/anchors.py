"""The anchors of a region proposal network, xyxy with inclusive corners, rows then columns."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


def anchor_sizes(
    base: int, ratios: Sequence[float], scales: Sequence[float]
) -> Float[np.ndarray, "k 2"]:
    """(width, height) in pixels of the anchors of one cell, one ratio (height / width) after the
    other, each with every scale; a square of side `base` gives the area. Not rounded."""
    ratio = np.repeat(np.asarray(ratios, np.float64), len(scales))
    width = base / np.sqrt(ratio) * np.tile(np.asarray(scales, np.float64), len(ratios))
    return np.stack([width, width * ratio], axis=-1)


def anchor_grid(
    height: int,
    width: int,
    stride: int,
    base: int,
    ratios: Sequence[float],
    scales: Sequence[float],
) -> Float[Array, "a 4"]:
    """Anchors of a feature map of height x width cells, float32, in the order of the head's output
    [height, width, k, 4].reshape(-1, 4).

    METHOD.md 3.2 (neural-motifs): 37 x 37 cells, stride 16, base 16, ratios (0.23232838,
    0.63365731, 1.28478321, 3.15089189), scales (2.22152954, 4.12315647, 7.21692515, 12.60263013,
    22.7102731). The first cell's anchors have their centre at (base - 1) / 2.
    """
    reach = (anchor_sizes(base, ratios, scales) - 1) / 2
    row, column = np.mgrid[:height, :width] * stride + (base - 1) / 2
    centre = np.stack([column, row], axis=-1)[:, :, None]
    corners = np.concatenate([centre - reach, centre + reach], axis=-1)
    return jnp.asarray(corners.reshape(-1, 4), jnp.float32)


def inside(anchors: Float[Array, "a 4"], image_size: Float[Array, "2"]) -> Bool[Array, "a"]:
    """Which anchors lie wholly on the photograph of (height, width) pixels: they may be trained."""
    return (anchors[:, :2] >= 0).all(axis=-1) & (anchors[:, 2:] < image_size[::-1]).all(axis=-1)


def on_photograph(
    height: int, width: int, stride: int, per_cell: int, image_size: Float[Array, "2"]
) -> Bool[Array, "a"]:
    """Which anchors may propose: those of cells that the photograph of (height, width) pixels
    covers wholly (METHOD.md section 2, 12), of one row and one column at the least."""
    rows, columns = jnp.maximum(image_size // stride, 1)
    cells = (jnp.arange(height) < rows)[:, None] & (jnp.arange(width) < columns)
    return jnp.repeat(cells.ravel(), per_cell)
