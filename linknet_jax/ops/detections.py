"""From the box head's outputs to the detections of one image (METHOD.md 3.3)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from linknet_jax.ops import box_coder
from linknet_jax.ops.nms import class_nms
from linknet_jax.types import Detections


def detections(
    proposals: Float[Array, "n 4"],
    mask: Bool[Array, "n"],
    logits: Float[Array, "n c"],
    deltas: Float[Array, "n c 4"],
    image_size: Float[Array, "2"],
    *,
    score: float,
    threshold: float,
    per_class: int,
    limit: int,
    largest: float,
) -> Detections:
    """The `limit` best proposals with the class that survived NMS with the highest probability.

    A class counts from a probability above `score`; NMS at `threshold` compares the boxes as the
    class moves them, of which `per_class` stay; a proposal keeps its best class alone, and its own
    place (`boxes`) beside where each class puts it (`class_boxes`).
    """
    probabilities = jax.nn.softmax(logits.astype(jnp.float32))
    moved = box_coder.decode_per_class(proposals, deltas, largest)
    moved = box_coder.clip(moved, image_size)
    # A side below one pixel would end before it begins.
    moved = jnp.concatenate([moved[..., :2], jnp.maximum(moved[..., :2], moved[..., 2:])], axis=-1)
    counts = mask[:, None] & (probabilities > score) & (jnp.arange(logits.shape[-1]) > 0)
    survives = class_nms(moved, probabilities, counts, threshold, per_class)
    scores = jnp.where(survives, probabilities, 0)
    best, rows = jax.lax.top_k(scores.max(axis=-1), min(limit, len(scores)))
    found = Detections(
        boxes=proposals[rows],
        mask=best > 0,
        labels=jnp.where(best > 0, scores.argmax(axis=-1)[rows], 0),
        scores=best,
        class_boxes=moved[rows],
    )
    return jax.tree.map(lambda x: _fill(x, limit), found)


def _fill(x: Array, rows: int) -> Array:
    return jnp.pad(x, [(0, rows - len(x))] + [(0, 0)] * (x.ndim - 1))
