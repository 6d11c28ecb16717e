"""The records of one COCO file, collected into columns of numbers as they stream by."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping

import numpy as np
from etils import epath
from jaxtyping import Int

from linknet_jax.data.collection import AnnotationTable, Finding, starts
from linknet_jax.data.formats.values import (
    box_problem,
    error,
    id_problem,
    integer_problem,
    shown,
    size_problem,
    stored_name,
)

EXACT = "bbox_xyxy"  # of `coco.write`: the corners, where x + width would round


class Columns:
    """About 90 bytes an annotation, whatever else its record holds.

    An image one of whose records is wrong is left out of the table; the reason is a finding.
    """

    def __init__(self, path: epath.Path, labels: Mapping[int, int], predicates: Mapping[int, int]):
        """`labels` and `predicates` map the file's class ids to the vocabulary's indices."""
        self.findings: list[Finding] = []
        self._path, self._labels, self._predicates = path, labels, predicates
        self._rows: dict[int | str, int] = {}
        self._ids: list[int | str] = []
        self._names: list[str] = []
        self._sizes = array("i")
        self._bad: set[int] = set()
        self._boxes, self._box_labels = array("d"), array("i")
        self._box_rows, self._box_ids = array("q"), array("q")
        self._ends, self._relation_labels = array("q"), array("i")
        self._relation_rows, self._relation_numbers = array("q"), array("q")

    def add_image(self, number: int, record: dict) -> None:
        """An element of `images`: id, width, height, file_name."""
        image_id, name = record.get("id"), record.get("file_name", "")
        size = (record.get("width"), record.get("height"))
        problem = id_problem(image_id) or size_problem(*size)
        if not problem and not isinstance(name, str):
            problem = f"file_name {shown(name)} must be a string"
        if problem:
            self.findings.append(
                error(self._path, f"images[{number}], id {shown(image_id)}", problem)
            )
            size, name = (1, 1), ""
        if id_problem(image_id):
            return
        row = len(self._ids)
        self._rows.setdefault(image_id, row)
        self._bad |= {row} if problem else set()
        self._ids.append(image_id)
        self._names.append(stored_name(image_id, name))
        self._sizes.extend(size)

    def add_box(self, number: int, record: dict) -> None:
        """An element of `annotations`: id, image_id, category_id, bbox [x, y, width, height]."""
        image_id, own, label = (record.get(k) for k in ("image_id", "id", "category_id"))
        bbox = record.get("bbox")
        row = self._row(image_id)
        problem = self._image_problem(image_id)
        if not problem and (wrong := integer_problem(own)):
            problem = f"id {wrong}"
        problem = problem or _class_problem("category_id", label, self._labels, "categories")
        if not problem and (wrong := box_problem(bbox, "[x, y, width, height]")):
            problem = f"bbox {wrong}"
        if problem:
            self._reject(row, f"annotations[{number}], id {shown(own)}", image_id, problem)
            return
        self._boxes.extend(_corners(bbox, record.get(EXACT)))
        self._box_labels.append(self._labels[label])
        self._box_rows.append(row)
        self._box_ids.append(own)

    def add_relation(self, number: int, record: dict) -> None:
        """An element of `rel_annotations`: image_id, subject_id, object_id, predicate_id."""
        image_id, label = record.get("image_id"), record.get("predicate_id")
        ends = (record.get("subject_id"), record.get("object_id"))
        row = self._row(image_id)
        problem = self._image_problem(image_id)
        problem = problem or _class_problem(
            "predicate_id", label, self._predicates, "rel_categories"
        )
        for role, end in zip(("subject_id", "object_id"), ends, strict=True):
            if not problem and (wrong := integer_problem(end)):
                problem = f"{role} {wrong}"
        if problem:
            self._reject(row, f"rel_annotations[{number}]", image_id, problem)
            return
        self._ends.extend(ends)
        self._relation_labels.append(self._predicates[label])
        self._relation_rows.append(row)
        self._relation_numbers.append(number)

    def table(self) -> AnnotationTable:
        """What was collected, in the order of `images`, without the images that are wrong."""
        rows, ids = np.array(self._box_rows, np.int64), np.array(self._box_ids, np.int64)
        order = np.argsort(rows, kind="stable")
        rows, ids = rows[order], ids[order]
        box_start = starts(np.bincount(rows, minlength=len(self._ids)))
        relation_rows = np.array(self._relation_rows, np.int64)
        ends = self._positions(rows, ids, relation_rows) - box_start[relation_rows][:, None]
        relations = np.column_stack([ends, np.array(self._relation_labels, np.int32)])
        kept = np.argsort(relation_rows, kind="stable")
        good = np.ones(len(self._ids), bool)
        good[list(self._bad)] = False
        return AnnotationTable(
            image_ids=self._ids,
            file_names=self._names,
            sizes=np.array(self._sizes, np.int32).reshape(-1, 2),
            boxes=np.array(self._boxes).reshape(-1, 4)[order],
            labels=np.array(self._box_labels, np.int32)[order],
            box_start=box_start,
            relations=relations[kept].astype(np.int32),
            relation_start=starts(np.bincount(relation_rows, minlength=len(self._ids))),
            rows=np.flatnonzero(good),
        )

    def _positions(
        self, rows: Int[np.ndarray, "n"], ids: Int[np.ndarray, "n"], relation_rows: np.ndarray
    ) -> Int[np.ndarray, "r 2"]:
        """Where the subjects and objects stand among the boxes; what does not exist is a finding.

        An id need be unique within its image only.
        """
        distinct, ranks = np.unique(ids, return_inverse=True)
        order = np.argsort(keys := rows * max(1, len(distinct)) + ranks, kind="stable")
        keys = keys[order]
        self._report_repeated(rows, ids, order[1:][keys[1:] == keys[:-1]])
        ends = np.array(self._ends, np.int64).reshape(-1, 2)
        if not len(keys):
            self._report_dangling(relation_rows, ends, np.ones(ends.shape, bool))
            return np.zeros_like(ends)
        ranks = np.searchsorted(distinct, ends).clip(max=len(distinct) - 1)
        wanted = relation_rows[:, None] * len(distinct) + ranks
        at = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
        self._report_dangling(relation_rows, ends, (distinct[ranks] != ends) | (keys[at] != wanted))
        return order[at]

    def _report_repeated(self, rows: np.ndarray, ids: np.ndarray, repeated: np.ndarray) -> None:
        for k in repeated:
            image_id = self._ids[rows[k]]
            text = "stands twice in this image; every annotation needs its own"
            self._reject(int(rows[k]), f"annotations, id {ids[k]}", image_id, text)

    def _report_dangling(self, rows: np.ndarray, ends: np.ndarray, dangling: np.ndarray) -> None:
        bad = set(self._bad)  # whose annotations may be missing because they are wrong themselves
        for k, side in zip(*np.nonzero(dangling), strict=True):
            if (row := int(rows[k])) not in bad:
                text = f"{('subject_id', 'object_id')[side]} {ends[k, side]} is no annotation there"
                where = f"rel_annotations[{self._relation_numbers[k]}]"
                self._reject(row, where, self._ids[row], text)

    def _row(self, image_id: object) -> int | None:
        return None if id_problem(image_id) else self._rows.get(image_id)

    def _image_problem(self, image_id: object) -> str:
        known = self._row(image_id) is not None
        return "" if known else f"image_id {shown(image_id)} is none of `images`"

    def _reject(self, row: int | None, where: str, image_id: object, problem: str) -> None:
        """The annotation is not used, and so is not its image."""
        self._bad |= set() if row is None else {row}
        place = where if row is None else f"image {shown(image_id)}, {where}"
        self.findings.append(error(self._path, place, problem))


def _class_problem(field: str, value: object, known: Mapping[int, int], section: str) -> str:
    if type(value) is int and value in known:
        return ""
    return f"{field} {shown(value)} is none of the ids in `{section}`"


def _corners(bbox: list[float], exact: object) -> list[float]:
    """xyxy; `exact` only refines the rounding, so that an edited bbox is never overruled."""
    x, y, width, height = map(float, bbox)
    corners = [x, y, x + width, y + height]
    refines = isinstance(exact, list) and not box_problem(exact, "")
    if refines and all(map(_close, exact, corners)):
        return exact
    return corners


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
