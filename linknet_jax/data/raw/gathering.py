"""Both large files to compact arrays: boxes merged, names and predicates as numbers.

Each file is read once. Labels follow from how often a name occurs among all merged boxes, so they
are chosen afterwards, from what is gathered here; nothing depends on the order of the files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Int

from linknet_jax.data.raw.entries import entries
from linknet_jax.data.raw.merging import NESTED, OVERLAPPING, SAME, merge
from linknet_jax.data.raw.names import Names
from linknet_jax.data.raw.parsing import (
    RawObjects,
    join,
    parse_objects,
    parse_relations,
    select,
)
from linknet_jax.data.raw.report import Report

OBJECTS, RELATIONS = "objects.json", "relationships.json"
TINY = 0.002  # of the image's area


@dataclasses.dataclass(frozen=True, eq=False)
class Gathered:
    """One image: its merged boxes and what refers to them.

    Attributes:
      boxes: x, y, width, height; the first pixel is 1.
      ids: object ids in the order of their boxes; may repeat, and then the last holds.
      id_boxes: the box of each id.
      names, name_boxes: the names of the boxes, each once a box.
      relations: subject's object id, object's object id, predicate.
    """

    boxes: Int[np.ndarray, "m 4"]
    ids: Int[np.ndarray, "n"]
    id_boxes: Int[np.ndarray, "n"]
    names: Int[np.ndarray, "k"]
    name_boxes: Int[np.ndarray, "k"]
    relations: Int[np.ndarray, "r 3"]


@dataclasses.dataclass(eq=False)
class Gatherer:
    """Reads the files of a folder into `images`, by image id.

    Attributes:
      sizes: (width, height) of the images to keep, by id.
      removed: images that are passed over without mention.
      names, predicates: number the spellings.
      missing: per file, the ids of `sizes` that it lacks.
      unknown: per file, the ids of images without a size.
    """

    folder: epath.Path
    sizes: Mapping[int, tuple[int, int]]
    removed: frozenset[int]
    names: Names
    predicates: Names
    report: Report
    images: dict[int, Gathered] = dataclasses.field(default_factory=dict)
    missing: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    unknown: dict[str, list[int]] = dataclasses.field(default_factory=dict)

    def run(self) -> None:
        """Raises ValueError that names the file, the image and the entry that is wrong."""
        objects = dict(self._objects())
        self.missing[OBJECTS] = [i for i in self.sizes if i not in objects]
        nothing = parse_objects([], self.names, "")
        for image_id, rows in self._rows(RELATIONS, "relationships"):
            place = f"{self.folder / RELATIONS}, image {image_id}"
            self._finish(image_id, objects.pop(image_id, nothing), rows, place)
        self.missing[RELATIONS] = [i for i in self.sizes if i not in self.images]
        for image_id in self.missing[RELATIONS]:
            self._finish(image_id, objects.pop(image_id, nothing), [], "")

    def _objects(self) -> Iterator[tuple[int, RawObjects]]:
        for image_id, rows in self._rows(OBJECTS, "objects"):
            place = f"{self.folder / OBJECTS}, image {image_id}"
            yield image_id, parse_objects(rows, self.names, place)

    def _rows(self, file: str, key: str) -> Iterator[tuple[int, Any]]:
        """(image id, what the entry has as its list) of the images to keep."""
        self.unknown[file] = []
        for image_id, entry in entries(self.folder / file):
            if image_id in self.sizes:
                if key not in entry:
                    raise ValueError(f"{self.folder / file}, image {image_id}: no {key!r}; add []")
                yield image_id, entry[key]
            elif image_id not in self.removed:
                self.unknown[file].append(image_id)

    def _finish(self, image_id: int, objects: RawObjects, rows: Any, place: str) -> None:
        relations, mentioned = parse_relations(rows, self.predicates, place)
        known = set(objects.ids.tolist())
        new = [end for end in mentioned if end["object_id"] not in known]
        self.report.boxes_read += len(objects.ids)
        self.report.boxes_added += len(new)
        self.report.relations_read += len(relations)
        if new:
            objects = join(objects, parse_objects(new, self.names, f"{place}, in relations"))
        objects = self._without_tiny(objects, self.sizes[image_id])
        self.images[image_id] = self._merged(objects, relations)

    def _without_tiny(self, objects: RawObjects, size: tuple[int, int]) -> RawObjects:
        lengths = np.maximum(objects.corners[:, 2:] - objects.corners[:, :2], 0)
        large = lengths.astype(np.int64).prod(axis=1) > float(size[0] * size[1]) * TINY
        self.report.boxes_tiny += int((~large).sum())
        return objects if large.all() else select(objects, large)

    def _merged(self, objects: RawObjects, relations: Int[np.ndarray, "r 3"]) -> Gathered:
        merged = merge(objects.corners, objects.first_names)
        for kind, name in ((SAME, "same"), (NESTED, "nested"), (OVERLAPPING, "overlapping")):
            count = getattr(self.report, f"boxes_merged_{name}") + int((merged.kinds == kind).sum())
            setattr(self.report, f"boxes_merged_{name}", count)
        order = np.argsort(merged.group, kind="stable")
        group = merged.group.astype(np.int32)
        spelled = max(len(self.names.spelled), 1)
        pairs = np.unique(merged.group[objects.owners] * spelled + objects.names)
        return Gathered(
            boxes=merged.boxes,
            ids=objects.ids[order],
            id_boxes=group[order],
            names=(pairs % spelled).astype(np.int32),
            name_boxes=(pairs // spelled).astype(np.int32),
            relations=relations,
        )
