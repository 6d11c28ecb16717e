"""Greedy non-maximum suppression with static shapes, tile by tile in order of score.

A tile is compared with the boxes kept so far, then with itself, in rounds until nothing changes.
That is the greedy answer: a box depends on better ones only, so each round settles one at least,
in practice nearly all. The whole IoU matrix never exists.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from linknet_jax.ops.boxes import iou

CLASS_TILE = 64  # a class has few boxes, and all classes are computed at once
Hits = Callable[[Float[Array, "a 4"], Float[Array, "b 4"]], Bool[Array, "a b"]]


@functools.partial(jax.jit, static_argnames=("limit", "inclusive", "tile"))
def nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, " n"],
    mask: Bool[Array, " n"],
    threshold: float | Float[Array, ""],
    limit: int,
    inclusive: bool = True,
    *,
    tile: int = 128,
) -> tuple[Int[Array, " {limit}"], Bool[Array, " {limit}"]]:
    """Indices of the kept boxes of one image, best first, and which of them are valid (else 0).

    A box falls to a kept one of higher score (of lower index at equal scores) if their IoU is
    above `threshold` (METHOD.md 3.2, Motifs' nms_kernel.cu); `inclusive` counts both end pixels.
    The best `limit` are returned. Where `mask` is False, boxes and scores may hold anything.
    Carries no gradient; indexing with the result does.

    Raises:
      ValueError: a limit or tile below 1.
    """
    for name, count in {"limit": limit, "tile": tile}.items():
        if count < 1:
            raise ValueError(f"nms {name} is {count}: it must be at least 1")
    if not len(scores):
        return jnp.zeros(limit, int), jnp.zeros(limit, bool)
    boxes, scores = lax.stop_gradient((boxes, scores))
    boxes = boxes.astype(jnp.promote_types(boxes.dtype, jnp.float32))
    tile = min(tile, len(scores))
    order = jnp.pad(jnp.lexsort((-scores, ~mask)), (0, -len(scores) % tile))
    ranks, count = _keep(
        boxes[order], mask.sum(), limit, tile, lambda a, b: iou(a, b, inclusive) > threshold
    )
    valid = jnp.arange(limit) < count
    return jnp.where(valid, order[ranks], 0), valid


def class_nms(
    boxes: Float[Array, "n c 4"],
    scores: Float[Array, "n c"],
    mask: Bool[Array, "n c"],
    threshold: float | Float[Array, ""],
    limit: int,
    inclusive: bool = True,
) -> Bool[Array, "n c"]:
    """Which boxes of one image survive `nms` among the boxes of their own class.

    At most `limit` of each class do (METHOD.md 3.3). The mask says which scores count: real boxes,
    foreground classes, above the score threshold; few are cheaper than many.

    Raises:
      ValueError: a limit below 1.
    """
    n, classes = scores.shape
    one = functools.partial(nms, limit=limit, inclusive=inclusive, tile=CLASS_TILE)
    along = (1, 1, 1, None)
    indices, valid = jax.vmap(one, along)(boxes, scores, mask, threshold)
    rows = jnp.where(valid, indices, n)
    survivors = jnp.zeros((n, classes), bool)
    return survivors.at[rows, jnp.arange(classes)[:, None]].set(True, mode="drop")


def _keep(boxes, total, limit: int, tile: int, hits: Hits):
    """Ranks of the kept ones among the first `total` boxes, which are sorted, and their number."""

    def step(state):
        start, count, ranks, kept = state
        own = lax.dynamic_slice_in_dim(boxes, start, tile)
        free = _clear(own, start + jnp.arange(tile) < total, kept, count, hits)
        free = _settle(hits(own, own), free)
        front = jnp.argsort(~free, stable=True)
        # What follows the kept ones is overwritten by the next tile.
        ranks = lax.dynamic_update_slice_in_dim(ranks, start + front, count, 0)
        kept = lax.dynamic_update_slice_in_dim(kept, own[front], count, 0)
        return start + tile, count + free.sum(), ranks, kept

    room = limit + tile
    empty = (0, 0, jnp.zeros(room, int), jnp.zeros((room, 4), boxes.dtype))
    _, count, ranks, _ = lax.while_loop(lambda s: (s[0] < total) & (s[1] < limit), step, empty)
    return ranks[:limit], count


def _clear(own, free, kept, count, hits: Hits):
    """`free` without the boxes of a tile that fall to the first `count` of `kept`."""
    tile = len(own)

    def step(i, free):
        better = lax.dynamic_slice_in_dim(kept, i * tile, tile)
        real = i * tile + jnp.arange(tile) < count
        return free & ~(hits(better, own) & real[:, None]).any(0)

    return lax.fori_loop(0, -(-count // tile), step, free)


def _settle(hits: Bool[Array, "t t"], free: Bool[Array, " t"]) -> Bool[Array, " t"]:
    """The boxes of a tile that greedy suppression keeps: the fixed point of a round."""
    better = jnp.triu(hits, 1)

    def step(state):
        keep = state[1]
        return keep, free & ~(better & keep[:, None]).any(0)

    return lax.while_loop(lambda s: (s[0] != s[1]).any(), step, (~free, free))[1]
