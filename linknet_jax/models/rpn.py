"""The region proposal network: where objects may be, on every map of the trunk (METHOD.md 3.2)."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from linknet_jax.ops import anchors as anchor_ops
from linknet_jax.ops import box_coder
from linknet_jax.ops import boxes as box_ops
from linknet_jax.ops.nms import nms

small_normal = nn.initializers.normal(0.01)


class RegionProposals(nn.Module):
    """3x3 convolution, ReLU6, and two logits and four deltas for each anchor of each cell.

    Attributes:
      width: channels of the convolution.
      anchors: how many a cell has.
    """

    width: int
    anchors: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, maps: tuple[Float[Array, "b h w c"], ...]
    ) -> tuple[Float[Array, "b a 2"], Float[Array, "b a 4"]]:
        """(background, object) logits and deltas, float32, in the order of `anchors_of`."""
        shared = {"kernel_init": small_normal, "dtype": self.dtype}
        convolution = nn.Conv(self.width, (3, 3), name="conv", **shared)
        heads = [
            nn.Conv(size * self.anchors, (1, 1), name=name, kernel_init=small_normal)
            for name, size in (("scores", 2), ("deltas", 4))
        ]
        hidden = [nn.relu6(convolution(x)).astype(jnp.float32) for x in maps]
        found = [[head(x).reshape(len(x), -1, size) for x in hidden]
                 for head, size in zip(heads, (2, 4), strict=True)]  # fmt: skip
        return tuple(jnp.concatenate(parts, axis=1) for parts in found)


def proposal_maps(
    maps: tuple[Float[Array, "b h w c"], ...], strides: tuple[int, ...]
) -> tuple[tuple[Float[Array, "b h w c"], ...], tuple[int, ...]]:
    """The maps that propose, and their strides: a pyramid has one more, half as fine as its last.

    (Lin et al., "Feature Pyramid Networks", CVPR 2017, section 4.1.)
    """
    if len(maps) == 1:
        return maps, strides
    return (*maps, maps[-1][:, ::2, ::2]), (*strides, 2 * strides[-1])


def anchors_of(
    shapes: list[tuple[int, int]],
    strides: tuple[int, ...],
    ratios: tuple[float, ...],
    scales: tuple[float, ...],
    image_size: Float[Array, "2"],
) -> tuple[Float[Array, "a 4"], Bool[Array, "a"]]:
    """The anchors of all maps of (height, width) cells, the finest map's first, and which of them
    lie in cells that the photograph of (height, width) pixels covers."""
    count = len(ratios) * len(scales)
    grids = [
        anchor_ops.anchor_grid(*shape, stride, stride, ratios, scales)
        for shape, stride in zip(shapes, strides, strict=True)
    ]
    usable = [
        anchor_ops.on_photograph(*shape, stride, count, image_size)
        for shape, stride in zip(shapes, strides, strict=True)
    ]
    return jnp.concatenate(grids), jnp.concatenate(usable)


def propose(
    logits: Float[Array, "a 2"],
    deltas: Float[Array, "a 4"],
    anchors: Float[Array, "a 4"],
    usable: Bool[Array, "a"],
    image_size: Float[Array, "2"],
    *,
    before: int,
    limit: int,
    threshold: float,
    min_size: float,
    largest: float,
) -> tuple[Float[Array, "limit 4"], Bool[Array, "limit"]]:
    """Boxes of one image that may hold an object, best first, and which of them are real.

    The `before` best anchors are moved, cut to the photograph of (height, width) pixels and
    thinned by NMS. Boxes with a side below `min_size` are no proposals. No gradient passes.
    """
    logits, deltas = jax.lax.stop_gradient((logits, deltas))
    score = jnp.where(usable, logits[:, 1] - logits[:, 0], -jnp.inf)  # the order of the softmax
    score, best = jax.lax.top_k(score, min(before, len(score)))
    boxes = box_coder.decode(anchors[best], deltas[best], largest)
    boxes = box_coder.clip(boxes, image_size)
    real = (box_ops.size(boxes, inclusive=True) >= min_size).all(axis=-1) & jnp.isfinite(score)
    kept, mask = nms(boxes, score, real, threshold, limit)
    return jnp.where(mask[:, None], boxes[kept], jnp.asarray(box_ops.BENIGN_BOX)), mask
