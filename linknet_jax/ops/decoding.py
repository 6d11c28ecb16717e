"""Object classes of overlapping boxes, chosen together (METHOD.md 1.5)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from linknet_jax.ops.boxes import iou

OVERLAP = 0.3  # from which one of two boxes of a class falls


def decode_labels(
    logits: Float[Array, "n c"],
    class_boxes: Float[Array, "n c 4"],
    mask: Bool[Array, "n"],
    overlap: float = OVERLAP,
) -> Int[Array, "n"]:
    """A foreground class for every box of one image, 0 in padding.

    The most probable (box, class) is settled first; then boxes that overlap it, as that class
    places both, by an inclusive IoU of at least `overlap` cannot have the class any more. Ties
    fall to the first box, then the lower class. A box that has lost every class takes its most
    probable one, where neural-motifs would end on the background.
    """
    probabilities = jax.nn.softmax(logits.astype(jnp.float32))[:, 1:]
    own = 1 + probabilities.argmax(axis=-1)
    near = jax.vmap(lambda x: iou(x, x, inclusive=True) >= overlap, 1, 2)(class_boxes[:, 1:])
    free = jnp.where(mask[:, None], probabilities, -1.0)

    def settle(_, state):
        free, labels = state
        row, kind = jnp.unravel_index(free.argmax(), free.shape)
        best = free[row, kind]
        chosen = jnp.where(best > 0, 1 + kind, own[row])
        labels = jnp.where(best >= 0, labels.at[row].set(chosen), labels)
        fallen = near[row, :, kind] & (free[:, kind] > 0)
        free = free.at[:, kind].set(jnp.where(fallen, 0.0, free[:, kind]))
        return free.at[row].set(-1.0), labels

    return jax.lax.fori_loop(0, mask.size, settle, (free, jnp.zeros(mask.size, int)))[1]
