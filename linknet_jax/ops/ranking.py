"""From class and predicate probabilities to ranked triplets, for one image."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from linknet_jax.types import FREE_PREDICTIONS, Prediction


def rank_triplets(
    labels: Int[Array, "n"],
    label_scores: Float[Array, "n"],
    predicate_logits: Float[Array, "n n p"],
    pair_mask: Bool[Array, "n n"],
    free: int = FREE_PREDICTIONS,
) -> Prediction:
    """Ranks triplets by predicate probability x subject score x object score.

    The background predicate (index 0) takes part in the softmax, never in the ranking. Ties fall to
    the pair that comes first in row-major order, then to the lower predicate.
    """
    n, classes = labels.size, predicate_logits.shape[-1] - 1
    pair_scores = label_scores[:, None] * label_scores[None, :]
    probabilities = jax.nn.softmax(predicate_logits.astype(jnp.float32))[..., 1:]
    scores = jnp.where(pair_mask[..., None], probabilities * pair_scores[..., None], -jnp.inf)
    scores = jax.lax.optimization_barrier(scores)  # both rankings see the same bits
    best = scores.reshape(n * n, classes)
    order = jnp.argsort(-best.max(-1), stable=True)
    free_scores, flat = jax.lax.top_k(scores.ravel(), min(free, scores.size))
    count = pair_mask.sum()
    return Prediction(
        labels=labels,
        label_scores=label_scores,
        pairs=_subject_object(order, n),
        predicates=1 + jnp.argmax(best, axis=-1)[order],
        scores=best.max(-1)[order],
        count=count,
        free_pairs=_subject_object(flat // classes, n),
        free_predicates=1 + flat % classes,
        free_scores=free_scores,
        free_count=jnp.minimum(flat.size, count * classes),
    )


def no_triplets(
    labels: Int[Array, "n"],
    label_scores: Float[Array, "n"],
    boxes: Float[Array, "n 4"],
    mask: Bool[Array, "n"],
) -> Prediction:
    """Objects without relations."""
    pairs, none = jnp.zeros((0, 2), int), jnp.zeros(0, int)
    scores, count = jnp.zeros(0), jnp.zeros((), int)
    ranked = (pairs, none, scores, count)
    return Prediction(labels, label_scores, *ranked, *ranked, boxes=boxes, box_count=mask.sum())


def _subject_object(flat: Int[Array, "m"], n: int) -> Int[Array, "m 2"]:
    return jnp.stack([flat // n, flat % n], axis=-1)
