"""Which pairs of a detector's boxes train relations, on one image (METHOD.md 3.5)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from linknet_jax.ops import boxes as box_ops
from linknet_jax.ops.assignment import label_boxes, match, overlaps
from linknet_jax.ops.pairs import all_pairs, lowest, pair_noise


def relate(
    boxes: Float[Array, "n 4"],
    mask: Bool[Array, "n"],
    true_boxes: Float[Array, "g 4"],
    true_labels: Int[Array, "g"],
    true_mask: Bool[Array, "g"],
    predicates: Int[Array, "g g"],
    key: Key[Array, ""],
    *,
    foreground: float,
    limit: int,
    related_limit: int,
    touching: bool,
) -> tuple[Int[Array, "n"], Int[Array, "n n"], Bool[Array, "n n"]]:
    """Class of every box (0: background), predicate of every drawn pair, and which pairs those are.

    A box fits a true one of its class from an IoU of `foreground`. For each annotated relation one
    of the pairs that fit its two ends is drawn, with a probability proportional to the product of
    both IoUs, for at most `related_limit` relations. The rest of `limit` is drawn among the pairs
    of labelled boxes that fit no relation; of boxes that overlap, where only those are scored.
    """
    iou = overlaps(boxes, mask, true_boxes, true_mask)
    labels = label_boxes(match(boxes, mask, true_boxes, true_mask), true_labels, foreground)
    fits = (iou >= foreground) & (labels[:, None] == true_labels) & (labels[:, None] > 0)
    annotated = all_pairs(true_mask) & (predicates > 0)
    keys = jax.random.split(key, 3)
    i, j, possible = _draw_ends(jnp.where(fits, iou, 0), annotated, keys[0])
    chosen = lowest(pair_noise(len(true_mask), keys[1]), possible, related_limit)
    drawn = jnp.where(chosen, predicates, 0)
    related = jnp.zeros((mask.size, mask.size), int).at[i, j].max(drawn)
    fit = fits.astype(jnp.float32)
    taken = fit @ annotated.astype(jnp.float32) @ fit.T > 0
    free = _apart(boxes, mask & (labels > 0), touching) & ~taken
    others = lowest(pair_noise(mask.size, keys[2]), free, limit - (related > 0).sum())
    return labels, related, (related > 0) | others


def _draw_ends(
    weights: Float[Array, "n g"], annotated: Bool[Array, "g g"], key: Key[Array, ""]
) -> tuple[Int[Array, "g g"], Int[Array, "g g"], Bool[Array, "g g"]]:
    """Boxes (i, j), i != j, for each relation (s, o), and for which relations there are any."""
    total = weights.sum(axis=0)
    rest = total - weights  # of the object's boxes, all but i
    rest = jnp.where(rest > 1e-6 * total, rest, 0)  # what rounding leaves of a single box
    keys = jax.random.split(key)
    subject = weights.T[:, None] * rest.T[None]  # [s, o, i]
    i = _draw(subject, pair_noise(annotated.shape[0], keys[0]))
    others = jnp.arange(weights.shape[0]) != i[..., None]
    j = _draw(jnp.where(others, weights.T[None], 0), pair_noise(annotated.shape[0], keys[1]))
    return i, j, annotated & (subject.sum(axis=-1) > 0)


def _draw(weights: Float[Array, "g g n"], noise: Float[Array, "g g"]) -> Int[Array, "g g"]:
    """Index with a probability proportional to its weight, from a uniform number."""
    reached = jnp.cumsum(weights, axis=-1)
    below = reached <= noise[..., None] * reached[..., -1:]
    return jnp.minimum(below.sum(axis=-1), jnp.argmax(reached, axis=-1))


def _apart(boxes, mask, touching: bool) -> Bool[Array, "n n"]:
    """Ordered pairs of different boxes in different places, of those that overlap if `touching`."""
    boxes = jnp.where(mask[:, None], boxes, jnp.asarray(box_ops.BENIGN_BOX))
    iou = box_ops.iou(boxes, boxes, inclusive=True)
    return all_pairs(mask) & (iou < 1) & ((iou > 0) | (not touching))
