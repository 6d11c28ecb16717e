"""Counts over a training split: the frequency table, the FREQ baseline, the layout moments."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import numpy as np
from etils import epath
from jaxtyping import Float, Int

from linknet_jax.ops import boxes as box_ops
from linknet_jax.types import Annotation, Triplets, Vocabulary


def count(
    annotations: Iterable[Annotation],
    num_objects: int,
    num_predicates: int,
    overlap: bool,
    frame: str = "original",
) -> tuple[Float[np.ndarray, "c c p"], Float[np.ndarray, "c c"]]:
    """(foreground, background) counts by (subject class, object class[, predicate]).

    Foreground counts every relation, duplicates too. Background counts the ordered pairs of
    boxes, related or not; with `overlap` only those that share a pixel (inclusive convention) of
    `frame` (see `ops.boxes.in_frame`), or all pairs of an image that has none such.
    """
    foreground = np.zeros((num_objects, num_objects, num_predicates))
    background = np.zeros((num_objects, num_objects))
    for annotation in annotations:
        labels, (s, o, p) = annotation.labels, annotation.relations.T
        np.add.at(foreground, (labels[s], labels[o], p), 1)
        boxes = box_ops.in_frame(annotation.boxes, annotation.width, annotation.height, frame)
        s, o = np.nonzero(_candidates(boxes, overlap))
        np.add.at(background, (labels[s], labels[o]), 1)
    return foreground, background


def _candidates(boxes: np.ndarray, overlap: bool) -> np.ndarray:
    touching = box_ops.overlaps(boxes) if overlap else np.zeros((len(boxes),) * 2, bool)
    return touching if touching.any() else ~np.eye(len(boxes), dtype=bool)


def predicate_counts(
    annotations: Iterable[Annotation], num_predicates: int
) -> Int[np.ndarray, "p"]:
    """Relations of each predicate, duplicates too."""
    counts = np.zeros(num_predicates, np.int64)
    for annotation in annotations:
        np.add.at(counts, annotation.relations[:, 2], 1)
    return counts


def triplets(annotations: Iterable[Annotation]) -> set[tuple[int, int, int]]:
    """Every (subject class, predicate, object class) that is annotated."""
    found: set[tuple[int, int, int]] = set()
    for annotation in annotations:
        labels, (s, o, p) = annotation.labels, annotation.relations.T
        found.update(zip(labels[s].tolist(), p.tolist(), labels[o].tolist(), strict=True))
    return found


def read_triplets(path: str | epath.Path, vocabulary: Vocabulary, closed: bool = True) -> Triplets:
    """(subject class, predicate, object class) of a JSON list of such names.

    Where the vocabulary is not `closed`, names that it lacks stay names, which nothing annotated
    equals. ValueError for a file that is none, for unknown names where it is closed, and for a list
    of which no triplet has known names.
    """
    objects, predicates = ({n: k for k, n in enumerate(x)} for x in
                           (vocabulary.objects, vocabulary.predicates))  # fmt: skip
    index = (objects, predicates, objects)
    triplets = set()
    for row in _rows(path):
        unknown = [n for n, where in zip(row, index, strict=True) if n not in where]
        if unknown and closed:
            raise ValueError(
                f"{path}: {unknown[0]!r} of {row} is not in the vocabulary; a triplet is "
                "[subject, predicate, object]; mend the file or name another"
            )
        triplets.add(tuple(where.get(n, n) for n, where in zip(row, index, strict=True)))
    if triplets and not any(all(type(x) is int for x in row) for row in triplets):
        raise ValueError(
            f"{path}: none of its {len(triplets)} triplets has names that occur in the ground "
            "truth; a triplet is [subject, predicate, object]; name another file"
        )
    return triplets


def _rows(path: str | epath.Path) -> list[list[str]]:
    form = "must be a JSON list of [subject, predicate, object], each a name"
    try:
        rows = json.loads(epath.Path(path).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {form}: {error}; mend the file or name another") from error
    if not isinstance(rows, list):
        raise ValueError(f"{path}: {form}, got {rows!r:.60}; mend the file or name another")
    for row in rows:
        if not (isinstance(row, list) and len(row) == 3 and all(type(x) is str for x in row)):
            raise ValueError(f"{path}: {form}, got {row!r:.60}; mend the file or name another")
    return rows


def log_frequencies(
    foreground: Float[np.ndarray, "c c p"], background: Float[np.ndarray, "c c"]
) -> Float[np.ndarray, "c c p"]:
    """float32 log(p(predicate | classes) + 1e-3), where the frequency bias starts (A17)."""
    return np.log(_probabilities(foreground, background) + 1e-3).astype(np.float32)


def predicate_probabilities(
    foreground: Float[np.ndarray, "c c p"], background: Float[np.ndarray, "c c"]
) -> Float[np.ndarray, "c c p"]:
    """What FREQ predicts: 0 in slot 0, although background takes its share."""
    probabilities = _probabilities(foreground, background)
    probabilities[..., 0] = 0
    return probabilities


def _probabilities(foreground: np.ndarray, background: np.ndarray) -> np.ndarray:
    counts = foreground.copy()
    counts[..., 0] = background + 1
    return counts / counts.sum(axis=-1, keepdims=True)


def layout_moments(
    annotations: Sequence[Annotation], scales: Sequence[float], corner: bool = False
) -> tuple[Float[np.ndarray, "4"], Float[np.ndarray, "4"]]:
    """float32 (mean, standard deviation) of b_{o|s} over all ordered pairs of a split (A11).

    `scales` are network pixels per original pixel, one an image; `corner` as in relative_layout.
    ValueError without any pair.
    """
    number, total, squares = 0, np.zeros(4), np.zeros(4)
    for annotation, scale in zip(annotations, scales, strict=True):
        s, o = np.nonzero(~np.eye(len(annotation.boxes), dtype=bool))
        boxes = np.asarray(annotation.boxes, np.float64) * scale
        layout = box_ops.relative_layout(boxes[s], boxes[o], corner)
        number += len(layout)
        total += layout.sum(axis=0)
        squares += np.square(layout).sum(axis=0)
    if number == 0:
        raise ValueError(
            f"no image among {len(annotations)} has two boxes, but the mean layout is taken over "
            "pairs of boxes: check the annotations of the training split"
        )
    mean = total / number
    deviation = np.sqrt(np.maximum(squares / number - mean**2, 0))
    return mean.astype(np.float32), np.maximum(deviation, 1e-6).astype(np.float32)
