"""Predictors without parameters: the ranking in NumPy, FREQ, and the annotation's ceiling."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from linknet_jax.types import FREE_PREDICTIONS, Prediction


def rank(
    labels: Int[np.ndarray, "n"],
    label_scores: Float[np.ndarray, "n"],
    probabilities: Float[np.ndarray, "n n p"],
    pair_mask: Bool[np.ndarray, "n n"],
) -> Prediction:
    """Triplets by o_s * o_o * probability in float32, ties in pair-major order.

    The definition of what the device computes, unpadded. Predicate 0 (absent) is never predicted.
    """
    pairs = np.argwhere(pair_mask)
    scores = _triplet_scores(label_scores, probabilities, pairs)
    best = scores.argmax(axis=1)
    order = _best_first(scores[np.arange(len(pairs)), best], len(pairs))
    free = _best_first(scores.ravel(), FREE_PREDICTIONS)
    free_rows, free_columns = np.divmod(free, scores.shape[1])
    return Prediction(
        labels=np.asarray(labels, np.int32),
        label_scores=np.asarray(label_scores, np.float32),
        pairs=pairs[order].astype(np.int32),
        predicates=(best[order] + 1).astype(np.int32),
        scores=scores[order, best[order]],
        count=np.int32(len(order)),
        free_pairs=pairs[free_rows].astype(np.int32),
        free_predicates=(free_columns + 1).astype(np.int32),
        free_scores=scores.ravel()[free],
        free_count=np.int32(len(free)),
    )


def _triplet_scores(label_scores, probabilities, pairs) -> Float[np.ndarray, "m q"]:
    o = np.asarray(label_scores, np.float32)
    subject, object_ = pairs.T
    predicates = np.asarray(probabilities, np.float32)[subject, object_, 1:]
    return (o[subject] * o[object_])[:, None] * predicates


def _best_first(scores: Float[np.ndarray, "m"], limit: int) -> Int[np.ndarray, "k"]:
    """Indices of the `limit` highest scores, ties by index; sorts only what can be among them."""
    kept = np.arange(len(scores))
    if len(scores) > limit:
        kept = np.flatnonzero(scores >= np.partition(scores, -limit)[-limit])
    return kept[np.argsort(-scores[kept], kind="stable")][:limit]


def frequency_prediction(
    probabilities: Float[np.ndarray, "c c p"],
    labels: Int[np.ndarray, "n"],
    label_scores: Float[np.ndarray, "n"],
    pair_mask: Bool[np.ndarray, "n n"] | None = None,
) -> Prediction:
    """FREQ (Zellers et al. 2018): ranks by how often two classes carry the predicate in training.

    `pair_mask` says which ordered pairs may be predicted (FREQ+OVERLAP: `ops.boxes.overlaps`);
    None is all. Pairs of score 0 are dropped; without the graph constraint every predicate of the
    pairs that remain is a candidate, as for the model.
    """
    labels, n = np.asarray(labels, np.int32), len(labels)
    table = np.asarray(probabilities, np.float32)[labels[:, None], labels[None, :]]
    allowed = ~np.eye(n, dtype=bool) if pair_mask is None else np.asarray(pair_mask, bool)
    known = table[..., 1:].max(axis=-1, initial=0) > 0
    likely = np.asarray(label_scores) > 0
    return rank(labels, label_scores, table, allowed & known & likely[:, None] & likely[None, :])


def ceiling_prediction(truth: Int[np.ndarray, "t 3"], labels: Int[np.ndarray, "n"]) -> Prediction:
    """A predictor that knows every true relation but not which ones were annotated.

    All scores are 1, in the order of pairs; of a pair with several relations the graph constraint
    keeps the lowest predicate. `truth` rows are (subject, object, predicate).
    """
    free = np.unique(np.asarray(truth, np.int32).reshape(-1, 3), axis=0)
    _, first = np.unique(free[:, :2], axis=0, return_index=True)
    best, free = free[first], free[:FREE_PREDICTIONS]
    return Prediction(
        labels=np.asarray(labels, np.int32),
        label_scores=np.ones(len(labels), np.float32),
        pairs=best[:, :2],
        predicates=best[:, 2],
        scores=np.ones(len(best), np.float32),
        count=np.int32(len(best)),
        free_pairs=free[:, :2],
        free_predicates=free[:, 2],
        free_scores=np.ones(len(free), np.float32),
        free_count=np.int32(len(free)),
    )
