"""Boxes as offsets (dx, dy, dw, dh) from other boxes, with inclusive sizes; float32 throughout.

No mean or deviation normalises the offsets (METHOD.md 3.2, 3.3). NaN or inf stays in its row.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from linknet_jax.ops import boxes as box_ops


def encode(boxes: Float[Array, "*#n 4"], targets: Float[Array, "*#n 4"]) -> Float[Array, "*n 4"]:
    """Offsets that turn `boxes` into `targets`: the centres' distance in sizes of the box, and the
    logarithm of the sizes' ratio. Both need inclusive sizes above 0."""
    centre, size = _centre_size(boxes)
    target_centre, target_size = _centre_size(targets)
    scale = jnp.log(target_size) - jnp.log(size)
    return jnp.concatenate([(target_centre - centre) / size, scale], axis=-1)


def decode(
    boxes: Float[Array, "*#n 4"], deltas: Float[Array, "*#n 4"], largest: float
) -> Float[Array, "*n 4"]:
    """`boxes` moved by their offsets, the inverse of `encode`; not clipped.

    `largest` bounds dw and dh from above. METHOD.md 3.2: no bound (inf), as neural-motifs;
    log(1000 / 16), as in Detectron, keeps every box of an untrained head finite.
    """
    centre, size = _centre_size(boxes)
    deltas = deltas.astype(jnp.float32)
    centre = centre + size * deltas[..., :2]
    size = size * jnp.exp(jnp.minimum(deltas[..., 2:], largest))
    return jnp.concatenate([centre - size / 2, centre + (size - 2) / 2], axis=-1)


def decode_per_class(
    boxes: Float[Array, "n 4"], deltas: Float[Array, "n c 4"], largest: float
) -> Float[Array, "n c 4"]:
    """Every box as each class would move it; class 0, the background, leaves it where it is
    (METHOD.md 1.5)."""
    moved = decode(boxes[:, None], deltas, largest)
    return moved.at[:, 0].set(boxes.astype(jnp.float32))


def clip(boxes: Float[Array, "*n 4"], image_size: Float[Array, "2"]) -> Float[Array, "*n 4"]:
    """Boxes cut to the first and last pixel of a photograph of (height, width): inclusive corners
    in 0 .. width - 1 and 0 .. height - 1 (METHOD.md section 2, 12)."""
    return jnp.clip(boxes, 0, jnp.tile(image_size[::-1] - 1, 2))


def _centre_size(boxes: Float[Array, "*n 4"]) -> tuple[Float[Array, "*n 2"], Float[Array, "*n 2"]]:
    boxes = boxes.astype(jnp.float32)
    size = box_ops.size(boxes, inclusive=True)
    return boxes[..., :2] + size / 2, size
