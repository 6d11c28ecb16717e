"""Heads run over packed rows: every valid box or pair of all images, side by side, in chunks."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from linknet_jax.models.layers import fold
from linknet_jax.ops.packing import pack, packed_map, unpack


def over_boxes(
    head: nn.Module,
    features: tuple[Float[Array, "b h w c"], ...],
    boxes: Float[Array, "b n 4"],
    mask: Bool[Array, "b n"],
    keys: Key[Array, "b"] | None,
    chunk: int,
) -> Float[Array, "b n f"]:
    """A bound ObjectHead on every valid box, zeros elsewhere; keys, one an image, or None."""
    b, n = mask.shape
    order, count = pack(mask.reshape(-1))
    rows = {"boxes": boxes.reshape(-1, 4)[order], "images": order // n}
    if keys is not None:
        rows["keys"] = jax.vmap(jax.random.fold_in)(fold(keys, 0)[order // n], order % n)
    packed = over_rows(head, {"features": features}, rows, count, chunk)
    return unpack(packed, mask.reshape(-1)).reshape(b, n, -1)


def over_rows(
    head: nn.Module, operands: dict, rows: dict, count: Int[Array, ""], chunk: int
) -> Float[Array, "m *d"]:
    """Runs a bound head over packed rows, its parameters among the differentiated operands."""
    first = jax.tree.map(lambda x: x[:chunk], rows)
    if head.is_initializing():
        row = head(operands, first)
        return jnp.zeros((len(rows["images"]), *row.shape[1:]))
    if head.is_mutable_collection("batch_stats"):
        head(operands, first)  # updates the running statistics; the rest is dead code to XLA
    pure, variables = head.unbind()

    def apply(inputs, chunk_rows):
        variables, operands = inputs
        return pure.apply(variables, operands, chunk_rows, mutable=["batch_stats"])[0]

    return packed_map(apply, chunk, (variables, operands), rows, count)
