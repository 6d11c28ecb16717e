"""Which annotated relations the ranked predictions of an image find, and how early."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from linknet_jax.ops.boxes import iou

NO_MATCH = int(np.iinfo(np.int64).max)  # the rank of a relation that no prediction finds
IOU_THRESHOLD = 0.5


def object_overlaps(
    boxes: Float[np.ndarray, "g 4"],
    labels: Int[np.ndarray, "g"],
    predicted_boxes: Float[np.ndarray, "n 4"],
    predicted_labels: Int[np.ndarray, "n"],
    inclusive: bool,
) -> Float[np.ndarray, "g n"]:
    """IoU (float64) of annotated and predicted objects of one class; 0 where the classes differ."""
    shared = iou(np.asarray(boxes, np.float64), np.asarray(predicted_boxes, np.float64), inclusive)
    return np.where(labels[:, None] == predicted_labels[None, :], shared, 0.0)


class Match(NamedTuple):
    """How an image's relations (rows) and ranked predictions (columns) agree.

    Attributes:
      predicates: of the predictions, best first.
      overlaps: float64, the smaller of the subjects' and the objects' IoU, 0 where classes differ.
      near: whether both objects of the pair agree.
      hits: whether the predicate agrees too.
    """

    predicates: Int[np.ndarray, "m"]
    overlaps: Float[np.ndarray, "r m"]
    near: Bool[np.ndarray, "r m"]
    hits: Bool[np.ndarray, "r m"]


def match(
    relations: Int[np.ndarray, "r 3"],
    overlaps: Float[np.ndarray, "g n"],
    pairs: Int[np.ndarray, "m 2"],
    predicates: Int[np.ndarray, "m"],
) -> Match:
    """Compares every relation with every prediction, given the overlaps of their objects."""
    subject, object_, predicate = relations.T[..., None]
    shared = np.minimum(overlaps[subject, pairs[:, 0]], overlaps[object_, pairs[:, 1]])
    near = shared >= IOU_THRESHOLD
    return Match(predicates, shared, near, near & (predicate == predicates))


def first_ranks(hits: Bool[np.ndarray, "r m"]) -> Int[np.ndarray, "r"]:
    """Column of the first prediction that finds each relation, else NO_MATCH.

    One prediction may find several relations, duplicates among them (Motifs and its heirs).
    """
    if not hits.shape[1]:
        return np.full(len(hits), NO_MATCH)
    return np.where(hits.any(axis=1), hits.argmax(axis=1), NO_MATCH)


def assigned_ranks(matched: Match) -> Int[np.ndarray, "r"]:
    """As `first_ranks`, but each prediction finds one relation and each is found once.

    In the order of rank a prediction takes the free relation that it overlaps most, of equals the
    first (the official evaluation of Lu et al. 2016).
    """
    hits = matched.hits
    if not (hits.sum(axis=0) > 1).any():
        return first_ranks(hits)
    ranks = np.full(len(hits), NO_MATCH)
    for column in np.flatnonzero(hits.any(axis=0)):
        free = hits[:, column] & (ranks == NO_MATCH)
        if free.any():
            ranks[np.argmax(np.where(free, matched.overlaps[:, column], -1.0))] = column
    return ranks
