"""Ordered pairs (subject, object) as boolean matrices [n, n], row = subject."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key


def all_pairs(box_mask: Bool[Array, "n"]) -> Bool[Array, "n n"]:
    """Every ordered pair of two different valid boxes."""
    return box_mask[:, None] & box_mask[None, :] & ~jnp.eye(box_mask.size, dtype=bool)


def unordered(pair_mask: Bool[Array, "n n"]) -> Bool[Array, "n n"]:
    """Upper triangle of the pairs wanted in either direction: union(i, j) = union(j, i)."""
    return jnp.triu(pair_mask | pair_mask.T, k=1)


def upper_triangle(n: int) -> tuple[Int[Array, "u"], Int[Array, "u"]]:
    """Row-major indices (i, j), i < j, of all n (n - 1) / 2 unordered pairs."""
    return jnp.triu_indices(n, k=1)


def sample_pairs(
    predicates: Int[Array, "n n"],
    pair_mask: Bool[Array, "n n"],
    key: Key[Array, ""],
    limit: int,
    related_limit: int,
) -> Bool[Array, "n n"]:
    """Training pairs of one image: related ones up to their limit, the rest of `limit` unrelated.

    Uniform without replacement; a related pair that was not drawn never serves as an unrelated one
    (A27). The draw depends on the key and the pair, not on the padding.
    """
    noise = pair_noise(predicates.shape[0], key)
    related, unrelated = pair_mask & (predicates > 0), pair_mask & (predicates == 0)
    positives = lowest(noise, related, related_limit)
    return positives | lowest(noise, unrelated, limit - positives.sum())


def pair_noise(n: int, key: Key[Array, ""]) -> Float[Array, "n n"]:
    """Uniform numbers that depend on the key and the pair, not on n."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(n))
    keys = jax.vmap(lambda k: jax.vmap(jax.random.fold_in, (None, 0))(k, jnp.arange(n)))(keys)
    return jax.vmap(jax.vmap(jax.random.uniform))(keys)


def lowest(
    noise: Float[Array, "n n"], mask: Bool[Array, "n n"], count: int | Int[Array, ""]
) -> Bool[Array, "n n"]:
    """The `count` pairs of the mask with the lowest noise."""
    order = jnp.argsort(jnp.where(mask, noise, 2.0).ravel())
    rank = jnp.zeros(noise.size, jnp.int32).at[order].set(jnp.arange(noise.size))
    return mask & (rank.reshape(noise.shape) < count)
