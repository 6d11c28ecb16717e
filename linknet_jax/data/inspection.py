"""What every format's annotations must satisfy, checked on the packed arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Bool

from linknet_jax.data.collection import AnnotationTable, Finding, compact
from linknet_jax.types import Vocabulary

Found = Iterator[tuple[int, str]]  # (stored image, what is wrong with it)
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


def _errors(table: AnnotationTable, vocabulary: Vocabulary) -> Found:
    first: dict = {}
    for row, image_id in enumerate(table.image_ids):
        if first.setdefault(image_id, row) != row:
            yield row, "the image id stands twice; every image needs its own"
    for row in np.flatnonzero((table.sizes < 1).any(axis=1)):
        width, height = table.sizes[row]
        yield row, f"width {width} and height {height} must be at least 1"
    yield from _box_errors(table, vocabulary)
    yield from _relation_errors(table, vocabulary)


def _box_errors(table: AnnotationTable, vocabulary: Vocabulary) -> Found:
    boxes, labels, classes = table.boxes, table.labels, vocabulary.sizes[0]
    finite = np.isfinite(boxes).all(axis=1)
    empty = finite & (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)
    rule = "must be finite numbers"
    yield from _objects(table, ~finite, lambda k: f"box {boxes[k].tolist()} {rule}")
    remedy = "is empty: x2 must be above x1 and y2 above y1"
    yield from _objects(table, empty, lambda k: f"box {boxes[k].tolist()} {remedy}")
    known = (labels >= 1) & (labels < classes)
    yield from _objects(table, ~known, lambda k: f"class {labels[k]} must be 1 .. {classes - 1}")


def _boxes_outside(table: AnnotationTable) -> Found:
    boxes, limits = table.boxes, table.sizes[table.box_images]
    outside = (boxes[:, :2] >= limits).any(axis=1) | (boxes[:, 2:] <= 0).any(axis=1)
    area = "lies outside the image of {} x {} pixels"
    return _objects(
        table, outside, lambda k: f"box {boxes[k].tolist()} {area.format(*limits[k].tolist())}"
    )


def _relation_errors(table: AnnotationTable, vocabulary: Vocabulary) -> Found:
    ends, counts = table.relations[:, :2], table.box_counts[table.relation_images]
    dangling = (ends < 0).any(axis=1) | (ends >= counts[:, None]).any(axis=1)
    rule = "but the image has {} (counted from 0)"
    yield from _relations(
        table, dangling, lambda k: f"joins objects {ends[k].tolist()}, {rule.format(counts[k])}"
    )
    classes, predicates = vocabulary.sizes[1], table.relations[:, 2]
    unknown = (predicates < 1) | (predicates >= classes)
    yield from _relations(
        table, unknown, lambda k: f"has predicate {predicates[k]}, which must be 1 .. {classes - 1}"
    )


def _warnings(table: AnnotationTable) -> Found:
    boxes, limits, relations = table.boxes, table.sizes[table.box_images], table.relations
    with np.errstate(invalid="ignore"):
        beyond = np.maximum(-boxes[:, :2], boxes[:, 2:] - limits).max(axis=1, initial=0)
    effect = "pixels outside the image; training clips it"
    yield from _objects(
        table, beyond > TOLERANCE, lambda k: f"box reaches {beyond[k]:.1f} {effect}"
    )
    effect = "with itself: it is evaluated, but no pair can learn it"
    yield from _relations(
        table,
        relations[:, 0] == relations[:, 1],
        lambda k: f"joins object {relations[k, 0]} {effect}",
    )
    effect = "is annotated more than once: each counts in recall"
    yield from _relations(table, _repeated(table), lambda k: f"{relations[k].tolist()} {effect}")


def _repeated(table: AnnotationTable) -> Bool[np.ndarray, "r"]:
    """The first of relations that are the same in all of subject, object and predicate."""
    rows = np.column_stack([table.relation_images, table.relations])
    _, first, counts = np.unique(rows, axis=0, return_index=True, return_counts=True)
    repeated = np.zeros(len(rows), bool)
    repeated[first[counts > 1]] = True
    return repeated


def _objects(table: AnnotationTable, wrong: np.ndarray, text: Callable[[int], str]) -> Found:
    for k in np.flatnonzero(wrong):
        image = table.box_images[k]
        yield image, f"object {k - table.box_start[image]}, {text(k)}"


def _relations(table: AnnotationTable, wrong: np.ndarray, text: Callable[[int], str]) -> Found:
    for k in np.flatnonzero(wrong):
        image = table.relation_images[k]
        yield image, f"relation {k - table.relation_start[image]} {text(k)}"
