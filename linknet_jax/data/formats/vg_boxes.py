"""How VG-SGG.h5 stores a box: centre and size, whole numbers in a square of 512 or 1024."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def decode(boxes: np.ndarray) -> Float[np.ndarray, "n 4"]:
    """Stored (cx, cy, w, h) to xyxy; whole numbers are truncated as peers do (docs/data.md)."""
    boxes = np.asarray(boxes).reshape(-1, 4)
    low = boxes[:, :2] - boxes[:, 2:] / 2
    if np.issubdtype(boxes.dtype, np.integer):
        low = np.trunc(low) + 0.0  # 0 for -0
    return np.concatenate([low, low + boxes[:, 2:]], axis=1).astype(np.float64)


def encode(
    boxes: Float[np.ndarray, "n 4"], sides: Int[np.ndarray, "n"], frame: int
) -> Int[np.ndarray, "n 4"]:
    """xyxy pixels of images with these longer sides to what `decode` gives back where it can."""
    scaled = np.nan_to_num(boxes) * (frame / sides)[:, None]
    low = np.clip(np.floor(scaled[:, :2] + 1e-6), 0, frame - 1)
    size = np.ceil(scaled[:, 2:] - scaled[:, :2] - 1e-6)
    size = np.clip(size, 1, frame - low)
    half = np.where(low > 0, np.ceil(size / 2), np.floor(size / 2))
    return np.concatenate([low + half, size], axis=1).astype(np.int32)
