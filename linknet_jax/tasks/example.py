"""The image on which variables are created: the same everywhere."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8
from ml_collections import ConfigDict

BOXES = 4


def example_image(config: ConfigDict) -> tuple[UInt8[Array, "1 s s 3"], Float[Array, "1 2"]]:
    """Noise, and its (height, width)."""
    side = config.data.image_size
    image = jax.random.randint(jax.random.key(0), (1, side, side, 3), 0, 256).astype(jnp.uint8)
    return image, jnp.full((1, 2), side, jnp.float32)


def example_boxes(
    config: ConfigDict,
) -> tuple[Float[Array, "1 n 4"], Bool[Array, "1 n"], Bool[Array, "1 n n"]]:
    """Boxes, their mask and their pairs, on which projections are scaled."""
    side = config.data.image_size
    corner = jnp.arange(BOXES) * side / 8
    boxes = jnp.stack([corner, corner, corner + side / 3, corner + side / 2], axis=-1)
    return boxes[None], jnp.ones((1, BOXES), bool), ~jnp.eye(BOXES, dtype=bool)[None]
