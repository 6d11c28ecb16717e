"""What every format's annotations must satisfy, checked on the packed arrays."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from linknet_jax.data.collection import AnnotationTable, Finding, compact
from linknet_jax.types import Vocabulary

TOLERANCE = 1.0  # pixels that a box may reach outside its image without mention


def inspect(
    table: AnnotationTable, vocabulary: Vocabulary, file: str, outside: str = "error"
) -> tuple[AnnotationTable, list[Finding]]:
    """The images without errors, and what was found; `file` is where they come from.

    Errors: a repeated image id, an image without area, boxes that are not finite or empty, classes
    outside the vocabulary, relations of boxes that do not exist. Warnings: boxes that reach
    outside, repeated relations, relations of a box with itself. A box entirely outside is what
    `outside` says, error or warning.
    """
    table = compact(table)
    found = {"error": list(_errors(table, vocabulary)), "warning": []}
    found[outside] += _boxes_outside(table)
    bad = np.zeros(len(table), bool)
    bad[[row for row, _ in found["error"]]] = True
    found["warning"] += [(row, message) for row, message in _warnings(table) if not bad[row]]
    findings = [
        Finding(severity, file, f"image {table.image_ids[row]!r}", message)
        for severity, rows in found.items()
        for row, message in rows
    ]
    return table.select(np.flatnonzero(~bad)), findings


def _errors(table: AnnotationTable, vocabulary: Vocabulary) -> Iterator[tuple[int, str]]:
    first: dict = {}
    for row, image_id in enumerate(table.image_ids):
        if first.setdefault(image_id, row) != row:
            yield row, "the image id stands twice; every image needs its own"
    for row in np.flatnonzero((table.sizes < 1).any(axis=1)):
        width, height = table.sizes[row]
        yield row, f"width {width} and height {height} must be at least 1"
    yield from _box_errors(table, vocabulary)
    yield from _relation_errors(table, vocabulary)


def _box_errors(table: AnnotationTable, vocabulary: Vocabulary) -> Iterator[tuple[int, str]]:
    boxes, classes = table.boxes, vocabulary.sizes[0]
    finite = np.isfinite(boxes).all(axis=1)
    empty = finite & (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)
    for wrong, rule in (
        (~finite, "must be finite numbers"),
        (empty, "is empty: x2 must be above x1 and y2 above y1"),
    ):
        for k in np.flatnonzero(wrong):
            name = f"object {_place(table, k)}, box {boxes[k].tolist()}"
            yield table.box_images[k], f"{name} {rule}"
    for k in np.flatnonzero((table.labels < 1) | (table.labels >= classes)):
        message = f"object {_place(table, k)}, class {table.labels[k]} must be 1 .. {classes - 1}"
        yield table.box_images[k], message


def _boxes_outside(table: AnnotationTable) -> Iterator[tuple[int, str]]:
    boxes, limits = table.boxes, table.sizes[table.box_images]
    for k in np.flatnonzero((boxes[:, :2] >= limits).any(axis=1) | (boxes[:, 2:] <= 0).any(axis=1)):
        yield (
            table.box_images[k],
            (
                f"object {_place(table, k)}, box {boxes[k].tolist()} lies outside the image of "
                f"{limits[k, 0]} x {limits[k, 1]} pixels"
            ),
        )


def _relation_errors(table: AnnotationTable, vocabulary: Vocabulary) -> Iterator[tuple[int, str]]:
    ends, counts = table.relations[:, :2], table.box_counts[table.relation_images]
    for k in np.flatnonzero((ends < 0).any(axis=1) | (ends >= counts[:, None]).any(axis=1)):
        yield (
            table.relation_images[k],
            (
                f"relation {_place(table, k, False)} joins objects {ends[k, 0]} and {ends[k, 1]}, "
                f"but the image has {counts[k]} (counted from 0)"
            ),
        )
    classes, predicates = vocabulary.sizes[1], table.relations[:, 2]
    for k in np.flatnonzero((predicates < 1) | (predicates >= classes)):
        yield (
            table.relation_images[k],
            (
                f"relation {_place(table, k, False)}, predicate {predicates[k]} must be "
                f"1 .. {classes - 1}"
            ),
        )


def _warnings(table: AnnotationTable) -> Iterator[tuple[int, str]]:
    boxes, limits = table.boxes, table.sizes[table.box_images]
    with np.errstate(invalid="ignore"):
        beyond = np.maximum(-boxes[:, :2], boxes[:, 2:] - limits).max(axis=1, initial=0)
    for k in np.flatnonzero(beyond > TOLERANCE):
        yield (
            table.box_images[k],
            (
                f"object {_place(table, k)} reaches {beyond[k]:.1f} pixels outside the image; "
                "training clips it"
            ),
        )
    relations = table.relations
    for k in np.flatnonzero(relations[:, 0] == relations[:, 1]):
        yield (
            table.relation_images[k],
            (
                f"relation {_place(table, k, False)} joins object {relations[k, 0]} with itself: it "
                "is evaluated, but no pair can learn it"
            ),
        )
    rows = np.column_stack([table.relation_images, relations])
    _, kept, counts = np.unique(rows, axis=0, return_index=True, return_counts=True)
    for k in np.sort(kept[counts > 1]):
        yield (
            table.relation_images[k],
            (
                f"relation {_place(table, k, False)} {relations[k].tolist()} is annotated more than "
                "once: each counts in recall"
            ),
        )


def _place(table: AnnotationTable, k: int, box: bool = True) -> int:
    """Number of a box or a relation within its image."""
    images, start = (table.box_images, table.box_start) if box else (
        table.relation_images, table.relation_start
    )  # fmt: skip
    return int(k - start[images[k]])
