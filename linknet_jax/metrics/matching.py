"""Which ground-truth relation the ranked predictions of an image find, and how early."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from linknet_jax.ops.boxes import iou

NO_MATCH = int(np.iinfo(np.int64).max)  # the rank of a relation that no prediction finds
IOU_THRESHOLD = 0.5


def match_objects(
    boxes: Float[np.ndarray, "g 4"],
    labels: Int[np.ndarray, "g"],
    predicted_boxes: Float[np.ndarray, "n 4"],
    predicted_labels: Int[np.ndarray, "n"],
    iou_threshold: float = IOU_THRESHOLD,
    inclusive: bool = True,
) -> Bool[np.ndarray, "g n"]:
    """Whether label and box (float64, pixels of the original image) agree."""
    near = iou(np.asarray(boxes, np.float64), np.asarray(predicted_boxes, np.float64), inclusive)
    return (near >= iou_threshold) & (labels[:, None] == predicted_labels[None, :])


def first_matches(
    matched: Bool[np.ndarray, "g n"],
    relations: Int[np.ndarray, "r 3"],
    pairs: Int[np.ndarray, "m 2"],
    predicates: Int[np.ndarray, "m"],
) -> Int[np.ndarray, "r"]:
    """Rank of the first prediction that agrees in predicate and both objects, else NO_MATCH."""
    if not len(pairs):
        return np.full(len(relations), NO_MATCH, np.int64)
    subject, object_, predicate = relations.T[..., None]
    hits = (predicate == predicates) & matched[subject, pairs[:, 0]] & matched[object_, pairs[:, 1]]
    return np.where(hits.any(axis=1), hits.argmax(axis=1), NO_MATCH)


def match(
    boxes: Float[np.ndarray, "g 4"],
    labels: Int[np.ndarray, "g"],
    relations: Int[np.ndarray, "r 3"],
    predicted_boxes: Float[np.ndarray, "n 4"],
    predicted_labels: Int[np.ndarray, "n"],
    pairs: Int[np.ndarray, "m 2"],
    predicates: Int[np.ndarray, "m"],
    iou_threshold: float = IOU_THRESHOLD,
    inclusive: bool = True,
) -> Int[np.ndarray, "r"]:
    """Rank of the first prediction that finds each relation, else NO_MATCH.

    `pairs` and `predicates` are one image's valid predictions, best first; boxes in pixels of the
    original image. One prediction may find several relations, duplicates among them.
    """
    matched = match_objects(
        boxes, labels, predicted_boxes, predicted_labels, iou_threshold, inclusive
    )
    return first_matches(matched, relations, pairs, predicates)
