"""Counts over packed annotations: what `python -m linknet_jax.data stats` reports."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Int

from linknet_jax.data.collection import SPLITS, AnnotationTable, compact
from linknet_jax.data.splits import drop_apart
from linknet_jax.types import Vocabulary


@dataclasses.dataclass(frozen=True)
class Spread:
    """How a number varies over the images; zeros without an image.

    Attributes:
      p90, p99: the least number that 90 % and 99 % of the images do not exceed.
    """

    mean: float
    median: float
    p90: int
    p99: int
    max: int


@dataclasses.dataclass(frozen=True)
class Tally:
    """Counts of one split. A pair is an ordered pair of different boxes of an image.

    Attributes:
      pairs: all of them, related or not.
      related_pairs: those with at least one relation.
      related_share: of all pairs; 0 without a pair.
      pairs_with_several_predicates: different ones.
      duplicate_relations: that repeat an earlier row of their image exactly.
      self_relations: of a box with itself.
      relations_apart: of boxes that share no pixel, which `data.overlap_filter` leaves out.
    """

    images: int
    boxes: int
    relations: int
    boxes_an_image: Spread
    relations_an_image: Spread
    pairs: int
    related_pairs: int
    related_share: float
    pairs_with_several_predicates: int
    duplicate_relations: int
    self_relations: int
    relations_apart: int


@dataclasses.dataclass(frozen=True)
class Triplets:
    """(subject class, predicate, object class) of one split.

    Attributes:
      distinct: how many different ones.
      new: how many of them no earlier split has (train, val, test): zero-shot in val and test.
      new_relations, new_images: that have one of the new.
    """

    distinct: int
    new: int
    new_relations: int
    new_images: int


def tally(table: AnnotationTable) -> Tally:
    """Counts of the images that a table shows."""
    table = compact(table)
    box_counts, relation_counts = table.box_counts, table.relation_counts
    pairs = int((box_counts * (box_counts - 1)).sum())
    rows = np.column_stack([table.ends, table.relations[:, 2]])
    distinct = np.unique(rows, axis=0)
    joined = distinct[distinct[:, 0] != distinct[:, 1]]
    related, predicates = np.unique(joined[:, :2], axis=0, return_counts=True)
    return Tally(
        images=len(table),
        boxes=len(table.boxes),
        relations=len(rows),
        boxes_an_image=_spread(box_counts),
        relations_an_image=_spread(relation_counts),
        pairs=pairs,
        related_pairs=len(related),
        related_share=len(related) / max(pairs, 1),
        pairs_with_several_predicates=int((predicates > 1).sum()),
        duplicate_relations=len(rows) - len(distinct),
        self_relations=int((rows[:, 0] == rows[:, 1]).sum()),
        relations_apart=len(rows) - int(drop_apart(table).relation_counts.sum()),
    )


def class_counts(
    table: AnnotationTable, vocabulary: Vocabulary
) -> tuple[Int[np.ndarray, "c_obj"], Int[np.ndarray, "c_rel"]]:
    """(boxes of each object class, relations of each predicate); 0 at index 0."""
    table = compact(table)
    objects, predicates = vocabulary.sizes
    return (
        np.bincount(table.labels, minlength=objects),
        np.bincount(table.relations[:, 2], minlength=predicates),
    )


def triplets(tables: dict[str, AnnotationTable], vocabulary: Vocabulary) -> dict[str, Triplets]:
    """Of each split, with what no earlier one has."""
    found, seen = {}, np.zeros(0, np.int64)
    for split in (name for name in SPLITS if name in tables):
        table = compact(tables[split])
        codes = _triplet_codes(table, vocabulary)
        new = ~np.isin(codes, seen)
        found[split] = Triplets(
            distinct=len(np.unique(codes)),
            new=len(np.unique(codes[new])),
            new_relations=int(new.sum()),
            new_images=len(np.unique(table.relation_images[new])),
        )
        seen = np.union1d(seen, codes)
    return found


def _triplet_codes(table: AnnotationTable, vocabulary: Vocabulary) -> Int[np.ndarray, "r"]:
    """One number for the (subject class, predicate, object class) of each relation."""
    objects, predicates = vocabulary.sizes
    subject, object_ = table.labels[table.ends].astype(np.int64).T
    return (subject * predicates + table.relations[:, 2]) * objects + object_


def _spread(counts: Int[np.ndarray, "m"]) -> Spread:
    counts = counts if len(counts) else np.zeros(1, int)
    p90, p99 = np.quantile(counts, [0.9, 0.99], method="inverted_cdf").tolist()
    return Spread(float(counts.mean()), float(np.median(counts)), p90, p99, int(counts.max()))
