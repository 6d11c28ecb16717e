"""How boxes lie in their image and to each other, as features where there are no pixels."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from linknet_jax.ops import boxes as box_ops


def box_geometry(
    boxes: Float[Array, "*m 4"], image_sizes: Float[Array, "*m 2"]
) -> Float[Array, "*m 7"]:
    """Corners as parts of the image, log width and height likewise, log aspect ratio.

    `image_sizes` are (height, width), in the pixels of the boxes.
    """
    extent = image_sizes[..., ::-1]
    size = box_ops.size(boxes, inclusive=True)
    log_size = jnp.log(size / extent)
    aspect = jnp.log(size[..., :1] / size[..., 1:])
    return jnp.concatenate([boxes / jnp.tile(extent, 2), log_size, aspect], axis=-1)


def pair_geometry(
    subject: Float[Array, "*m 4"],
    object_: Float[Array, "*m 4"],
    image_sizes: Float[Array, "*m 2"],
) -> Float[Array, "*m 29"]:
    """Both boxes' geometry, layout either way (eq. 17; shifts by arcsinh), overlap, edges.

    The overlap is the shared area as a part of each box and of both; the edges are the differences
    of the four corners in units of the union's size.
    """
    parts = [box_geometry(subject, image_sizes), box_geometry(object_, image_sizes)]
    for a, b in ((subject, object_), (object_, subject)):
        layout = box_ops.relative_layout(a, b)
        parts.append(jnp.concatenate([jnp.arcsinh(layout[..., :2]), layout[..., 2:]], axis=-1))
    parts.append(_overlap(subject, object_))
    around = box_ops.size(box_ops.union(subject, object_), inclusive=True)
    parts.append((object_ - subject) / jnp.tile(around, 2))
    return jnp.concatenate(parts, axis=-1)


def _overlap(a: Float[Array, "*m 4"], b: Float[Array, "*m 4"]) -> Float[Array, "*m 3"]:
    shared = box_ops.intersection(a, b, inclusive=True)
    areas = [jnp.prod(box_ops.size(x, inclusive=True), axis=-1) for x in (a, b)]
    return jnp.stack([shared / areas[0], shared / areas[1], shared / (sum(areas) - shared)], -1)
