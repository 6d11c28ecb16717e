"""Packed work: the valid rows of padded arrays, side by side, in chunks, as many as there are.

Padding costs neither time nor memory: the number of chunks is decided on the device, forwards
and backwards (at Visual Genome's sizes, padding to N = 64 would cost 21 times the exact work).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree, Shaped

Chunk = Callable[[Any, Any], Array]
SMALLEST = 64  # rows of the last chunk, where chunks are large


def pack(mask: Bool[Array, "n"]) -> tuple[Int[Array, "n"], Int[Array, ""]]:
    """Positions of the True entries in order, and their number; further rows repeat the first."""
    order, count = jnp.argsort(~mask, stable=True), mask.sum()
    return jnp.where(jnp.arange(mask.size) < count, order, order[0]), count


def unpack(values: Shaped[Array, "n *d"], mask: Bool[Array, "n"]) -> Shaped[Array, "n *d"]:
    """Puts packed rows back to the positions of the True entries, zeros elsewhere."""
    rows = values[jnp.maximum(jnp.cumsum(mask) - 1, 0)]
    return jnp.where(mask.reshape(-1, *[1] * (rows.ndim - 1)), rows, 0)


def packed_map(
    function: Chunk, chunk: int, operands: PyTree, items: PyTree, count: Int[Array, ""]
) -> Shaped[Array, "n *d"]:
    """`function(operands, rows)` over the first `count` rows of `items`, `chunk` rows at a time.

    What whole chunks leave over is done in halves, see chunk_lengths.

    Rows from `count` on are zeros, or computed from the items there where they share a chunk with
    valid ones. Differentiable in `operands`; the backward pass computes each chunk anew, so that
    memory holds one chunk's intermediates. Nothing is spent on operands that need no gradient.
    """
    size = jax.tree.leaves(items)[0].shape[0]
    chunk = 2 * -(-min(chunk, size) // 2)
    filled = jax.tree.map(lambda x: _fill(x, -size % chunk), items)
    return _packed_map(function, chunk, operands, filled, count)[:size]


def _fill(x: Array, rows: int) -> Array:
    """`rows` further rows like the first; False in a mask."""
    filler = x[:1] & False if x.dtype == bool else x[:1]
    return jnp.concatenate([x, jnp.repeat(filler, rows, axis=0)]) if rows else x


def _rows(tree: PyTree, start: Array, chunk: int) -> PyTree:
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, chunk), tree)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _packed_map(function, chunk, operands, items, count):
    size = jax.tree.leaves(items)[0].shape[0]
    row = jax.eval_shape(function, operands, jax.tree.map(lambda x: x[:chunk], items))

    def body(start, length, result):
        value = function(operands, _rows(items, start, length))
        return jax.lax.dynamic_update_slice_in_dim(result, value, start, axis=0)

    return _over_chunks(body, chunk, count, jnp.zeros((size, *row.shape[1:]), row.dtype))


def chunk_lengths(chunk: int) -> list[int]:
    """`chunk`, its half, and further halves of at least SMALLEST rows.

    Large chunks are fast, since they read fc6 and fc7 once for many rows; small ones are exact.
    """
    lengths = [chunk, chunk // 2]
    while lengths[-1] % 2 == 0 and lengths[-1] // 2 >= SMALLEST:
        lengths.append(lengths[-1] // 2)
    return lengths


def _over_chunks(body: Callable, chunk: int, count: Array, carry: PyTree) -> PyTree:
    """`body(start, length, carry)` over whole chunks, then over ever smaller ones."""
    lengths, start = chunk_lengths(chunk), jnp.zeros_like(count)
    for length in lengths:
        left = count - start
        number = -(-left // length) if length == lengths[-1] else left // length

        def step(i, carry, start=start, length=length):
            return body(start + i * length, length, carry)

        carry = jax.lax.fori_loop(0, number, step, carry)
        start = start + number * length
    return carry


def _forward(function, chunk, operands, items, count):
    leaves, structure = jax.tree.flatten(operands, is_leaf=lambda x: hasattr(x, "perturbed"))
    moving = [x.value if x.perturbed else None for x in leaves]
    fixed = [None if x.perturbed else x.value for x in leaves]
    items, count = jax.tree.map(
        lambda x: x.value, (items, count), is_leaf=lambda x: hasattr(x, "perturbed")
    )
    result = _packed_map(
        function, chunk, structure.unflatten([x.value for x in leaves]), items, count
    )
    return result, (moving, fixed, jax.tree_util.Partial(structure.unflatten), items, count)


def _backward(function, chunk, residuals, cotangent):
    moving, fixed, unflatten, items, count = residuals

    def moved(moving, rows):
        leaves = [f if m is None else m for m, f in zip(moving, fixed, strict=True)]
        return function(unflatten(leaves), rows)

    def body(start, length, sums):
        rows = _rows(items, start, length)
        pull = jax.vjp(lambda moving: moved(moving, rows), moving)[1]
        return jax.tree.map(jnp.add, sums, pull(_rows(cotangent, start, length))[0])

    if isinstance(cotangent, jax.custom_derivatives.SymbolicZero):
        return None, None, None
    # Many chunks are summed: bfloat16 would lose them.
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32)), moving
    )
    sums = _over_chunks(body, chunk, count, zeros)
    sums = jax.tree.map(lambda total, x: total.astype(x.dtype), sums, moving)
    return unflatten(sums), None, None


_packed_map.defvjp(_forward, _backward, symbolic_zeros=True)
