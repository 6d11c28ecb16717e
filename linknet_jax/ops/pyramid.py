"""RoIAlign from a feature pyramid: every RoI from the level that suits its size."""

from __future__ import annotations

import functools
import itertools

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from linknet_jax.ops.roi_align import roi_align

CANONICAL_SIDE, CANONICAL_LEVEL = 224, 4  # a box of ImageNet's size is read at stride 2**4


def pyramid_align(
    features: tuple[Float[Array, "b _ _ c"], ...],
    boxes: Float[Array, "r 4"],
    image_ids: Int[Array, " r"],
    *,
    strides: tuple[int, ...],
    size: int = 7,
    method: str = "aligned",
) -> Float[Array, "r {size} {size} c"]:
    """Features of every RoI, read from one level of its own image: Lin et al. (CVPR 2017), eq. 1.

    `features` are finest first, `boxes` in pixels of the network input; `size` and `method` as
    for `roi_align`, which a single map goes to unchanged. Any order of the RoIs is correct.
    Reverse-mode derivatives only.

    Raises:
      ValueError: as many strides as maps are needed, each twice the one before; and as roi_align.
    """
    _check(len(features), strides)
    align = functools.partial(roi_align, size=size, method=method)
    if len(features) == 1:
        return align(features[0], boxes, image_ids, stride=strides[0])
    levels = level_of(boxes, strides)
    order = jnp.lexsort((image_ids, levels))
    edges = jnp.sum(levels[:, None] < jnp.arange(len(strides) + 1), axis=0)
    boxes, image_ids, pooled = boxes[order], image_ids[order], 0
    for level, (x, stride) in enumerate(zip(features, strides, strict=True)):
        # Each level works on its own rows only and leaves zeros in the others.
        pooled += align(x, boxes, image_ids, stride=stride, rows=edges[level : level + 2])
    return pooled[jnp.argsort(order)]


def level_of(boxes: Float[Array, "r 4"], strides: tuple[int, ...]) -> Int[Array, " r"]:
    """Index into `strides`: floor(4 + log2(sqrt(area) / 224)) is the level whose stride is 2**k.

    Torchvision's rule with its tolerance of 1e-6; empty boxes and those of NaN take the finest.
    """
    side = jnp.sqrt(jnp.prod(jnp.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=-1))
    level = jnp.floor(CANONICAL_LEVEL + jnp.log2(side / CANONICAL_SIDE) + 1e-6)
    finest = strides[0].bit_length() - 1
    index = jnp.clip(level - finest, 0, len(strides) - 1)
    return jnp.where(side > 0, index, 0).astype(jnp.int32)


def _check(maps: int, strides: tuple[int, ...]) -> None:
    doubling = all(fine * 2 == coarse for fine, coarse in itertools.pairwise(strides))
    if maps != len(strides) or not doubling:
        raise ValueError(
            f"pyramid_align got {maps} maps and strides {strides}: "
            "it needs a stride for every map, finest first, each twice the one before"
        )
