"""Adds one image to the sums of scene-graph recalls; `summary` turns them into metrics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from linknet_jax.metrics.matching import Match, assigned_ranks, first_ranks, match
from linknet_jax.metrics.sums import Sums
from linknet_jax.types import Annotation, Prediction, Triplets

Found = Bool[np.ndarray, "2 k r"]  # with and without the graph constraint, for every K


def add_recalls(sums: Sums, relations: Int[np.ndarray, "r 3"], found: Found) -> None:
    """The image's recall, over all its relations and over those of each predicate."""
    one_hot = np.eye(len(sums["relations"]))[relations[:, 2]]
    number = one_hot.sum(axis=0)
    sums.add("relations", number)
    sums.add("predicate_images", number > 0)
    sums.add_fractions("recall", found.mean(axis=-1))
    sums.add_fractions("predicate_recall", found @ (one_hot / np.maximum(number, 1)))


def add_pooled(sums: Sums, matches: Sequence[Match], ks: Int[np.ndarray, "k"]) -> None:
    """Hits when each prediction finds one relation and each relation is found once."""
    found = np.stack([assigned_ranks(x) < ks[:, None] for x in matches])
    sums.add("pooled_hits", found.sum(axis=-1))


def add_zero_shot(sums: Sums, annotation: Annotation, found: Found, unseen: Triplets) -> None:
    """The image's recall over its relations that training never shows, if it has any."""
    subject, object_, predicate = annotation.relations.T
    classes = np.stack([annotation.labels[subject], predicate, annotation.labels[object_]], axis=1)
    rows = [tuple(row) in unseen for row in classes.tolist()]
    if any(rows):
        sums.add_fractions("zero_shot", found[..., rows].mean(axis=-1))
        sums.add("zero_shot_images", 1)


def add_object_accuracy(sums: Sums, annotation: Annotation, labels: Int[np.ndarray, "n"]) -> None:
    """Box i of the prediction is box i of the annotation, or there are none."""
    correct = (labels == annotation.labels).sum() if len(labels) else 0
    sums.add("objects", (correct, len(annotation.labels)))


def add_pair_accuracy(
    sums: Sums,
    annotation: Annotation,
    overlaps: Float[np.ndarray, "n n"],
    prediction: Prediction,
    ks: Int[np.ndarray, "k"],
) -> None:
    """Of all predictions, those on annotated pairs are kept before the first K of them count.

    Box i of the prediction is box i of the annotation.
    """
    n, relations = len(annotation.boxes), annotation.relations
    related = np.zeros((n, n), bool)
    related[relations[:, 0], relations[:, 1]] = True
    pairs, predicates = prediction.ranking()
    kept = related[pairs[:, 0], pairs[:, 1]]
    hits = match(relations, overlaps, pairs[kept], predicates[kept]).hits
    sums.add("pair_hits", (first_ranks(hits) < ks[:, None]).sum(axis=-1))
