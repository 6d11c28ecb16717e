"""Subject and object rectangles drawn into the frame of their union (A18)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from linknet_jax.ops import boxes as box_ops


def draw_pair(
    subject: Float[Array, "m 4"], object_: Float[Array, "m 4"], cells: int = 27
) -> Float[Array, "m cells cells 2"]:
    """Share of every cell of the union box that each box covers, minus 0.5; channel 0 = subject."""
    frame = box_ops.union(subject, object_)
    masks = [_cover(box, frame, cells) for box in (subject, object_)]
    return jnp.stack(masks, axis=-1) - 0.5


def _cover(box: Float[Array, "m 4"], frame: Float[Array, "m 4"], cells: int) -> Array:
    scale = cells / jnp.maximum(box_ops.size(frame), 1e-3)
    low = ((box[:, :2] - frame[:, :2]) * scale)[:, None]
    high = ((box[:, 2:] - frame[:, :2]) * scale)[:, None]
    start = jnp.arange(cells, dtype=jnp.float32)[None, :, None]
    length = jnp.clip(jnp.minimum(high, start + 1) - jnp.maximum(low, start), 0, 1)
    return length[:, :, None, 1] * length[:, None, :, 0]
