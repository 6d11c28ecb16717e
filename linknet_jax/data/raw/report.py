"""What became of every image, box and relation of raw Visual Genome, and which images are left."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable

from linknet_jax.data.collection import AnnotationTable

VAL_IMAGES = 5000


@dataclasses.dataclass
class Report:
    """Counts of a conversion, in its order; of each kind, what is kept is what was read and added
    less everything between.

    Attributes:
      images_removed: the four that Xu et al. leave out.
      images_without_objects, images_without_relationships: kept although that file lacks them.
      images_unknown: entries of either file whose image is not in image_data.json; left out.
      object_aliases, predicate_aliases: names that the lists explain; 0 without a list.
      boxes_added: mentioned in relations only, each mention counted.
      boxes_tiny: at most 0.2 % of their image.
      boxes_merged_same, boxes_merged_nested, boxes_merged_overlapping: part of another box now.
      relations_without_box: subject or object is tiny or outside the vocabulary.
      relations_self: subject and object are one box after merging.
      split_images: images with relations in train, val (the first 5000 of training) and test.
      fingerprints: SHA-256 of their image ids, in order, one a line.
    """

    images_read: int = 0
    images_removed: int = 0
    images_kept: int = 0
    images_without_objects: int = 0
    images_without_relationships: int = 0
    images_unknown: int = 0
    object_aliases: int = 0
    predicate_aliases: int = 0
    boxes_read: int = 0
    boxes_added: int = 0
    boxes_tiny: int = 0
    boxes_merged_same: int = 0
    boxes_merged_nested: int = 0
    boxes_merged_overlapping: int = 0
    boxes_outside_vocabulary: int = 0
    boxes_kept: int = 0
    relations_read: int = 0
    relations_without_box: int = 0
    relations_outside_vocabulary: int = 0
    relations_self: int = 0
    relations_kept: int = 0
    split_images: dict[str, int] = dataclasses.field(default_factory=dict)
    fingerprints: dict[str, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        values = dataclasses.asdict(self)
        rows = [(k.replace("_", " "), f"{v:,}") for k, v in values.items() if type(v) is int]
        rows += [(f"{name} images", f"{n:,}") for name, n in self.split_images.items()]
        lines = [f"{title:<32}{count:>12}" for title, count in rows]
        prints = [f"{name:<6}sha256 {value}" for name, value in self.fingerprints.items()]
        return "\n".join(lines + prints)

    def to_json(self) -> str:
        """All counts by name."""
        return json.dumps(dataclasses.asdict(self), indent=2)


def describe_splits(report: Report, train: AnnotationTable, test: AnnotationTable) -> None:
    """Fills in the images that relation training, validation and test see (docs/data.md)."""
    related = _related(train)
    parts = {"train": related[VAL_IMAGES:], "val": related[:VAL_IMAGES], "test": _related(test)}
    report.split_images = {name: len(ids) for name, ids in parts.items()}
    report.fingerprints = {name: fingerprint(ids) for name, ids in parts.items()}


def fingerprint(image_ids: Iterable[int | str]) -> str:
    """SHA-256 of the ids in decimal, each followed by a line feed."""
    return hashlib.sha256("".join(f"{i}\n" for i in image_ids).encode()).hexdigest()


def _related(table: AnnotationTable) -> list[int | str]:
    return [table.image_ids[row] for row in table.rows[table.relation_counts > 0]]
