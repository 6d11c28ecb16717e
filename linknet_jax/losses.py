"""Masked losses as sums; the caller divides once by the global count."""

from __future__ import annotations

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int


def cross_entropy(
    logits: Float[Array, "*b c"], labels: Int[Array, "*b"], mask: Bool[Array, "*b"]
) -> Float[Array, ""]:
    """Sum of softmax cross-entropies over the valid entries (eqs. 8 and 16), float32."""
    labels = jnp.where(mask, labels, 0)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
    return jnp.where(mask, losses, 0).sum()


def multi_label(
    logits: Float[Array, "b c"], present: Bool[Array, "b c"], mask: Bool[Array, "b"]
) -> Float[Array, ""]:
    """Sum of sigmoid cross-entropies with both terms over classes and valid images (A5)."""
    losses = optax.sigmoid_binary_cross_entropy(logits, present.astype(jnp.float32))
    return jnp.where(mask[:, None], losses, 0).sum()


def smooth_l1(
    found: Float[Array, "*b 4"], true: Float[Array, "*b 4"], mask: Bool[Array, "*b"]
) -> Float[Array, ""]:
    """Sum of Huber losses (delta 1) over the valid rows (METHOD.md 3.2)."""
    return jnp.where(mask[..., None], optax.huber_loss(found, true), 0).sum()


def present_classes(
    labels: Int[Array, "b n"], box_mask: Bool[Array, "b n"], num_objects: int
) -> Bool[Array, "b c"]:
    """Which of the classes 1 .. C_obj - 1 an image's valid boxes have: M of eq. 9."""
    classes = jnp.arange(1, num_objects)
    return ((labels[..., None] == classes) & box_mask[..., None]).any(axis=1)
