"""The whole numbers in which Xu et al. 2017 store a box, which every reader of VG150 sees."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from linknet_jax.data.formats.vg_boxes import decode

FRAME = 1024


def stored_pixels(
    boxes: Int[np.ndarray, "n 4"], sides: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "n 4"]:
    """What reading the official file gives for raw boxes: xyxy in pixels of the original.

    `boxes` are x, y, width, height with 1 for the first pixel, `sides` the longer sides of their
    images; the result may reach beyond the shorter side (docs/data.md).
    """
    return decode(encode_raw(boxes, sides)) * (sides / FRAME)[:, None]


def encode_raw(
    boxes: Int[np.ndarray, "n 4"], sides: Int[np.ndarray, "n"]
) -> Int[np.ndarray, "n 4"]:
    """Centre, width and height in the square of FRAME pixels, to which boxes are clamped."""
    scale = (FRAME / sides)[:, None]
    low = np.clip(np.floor(scale * (boxes[:, :2] - 1)), 0, FRAME - 2)
    size = np.minimum(np.ceil(scale * boxes[:, 2:]), FRAME - low)
    return np.concatenate([low + size // 2, size], axis=1).astype(np.int32)
