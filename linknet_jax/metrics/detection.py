"""COCO's average precision of the predicted objects, by faster-coco-eval, a class at a time."""

from __future__ import annotations

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from jaxtyping import Float

from linknet_jax.types import Annotation, Prediction

MOST = 100  # detections of an image and class that count

Objects = Float[np.ndarray, "n 6"]  # class, x1, y1, x2, y2, score
Rows = Float[np.ndarray, "d 7"]  # number of the image, and an object of it


class DetectionMetrics:
    """The objects of a split, annotated and detected; images count with or without relations.

    Of equal scores the image with the lower id comes first, so that no order of arrival matters.
    """

    def __init__(self):
        self._images: list[tuple[int | str, Objects, Objects]] = []  # id, annotated, detected

    def update(
        self, annotation: Annotation, boxes: Float[np.ndarray, "n 4"], prediction: Prediction
    ) -> None:
        """Adds an image, whose id no other has; boxes in pixels of the original."""
        n, ones = len(boxes), np.ones(len(annotation.boxes))
        labels, scores = (np.asarray(x)[:n] for x in (prediction.labels, prediction.label_scores))
        annotated = np.column_stack([annotation.labels, annotation.boxes, ones])
        detected = np.column_stack([labels, boxes, scores])
        self._images.append((annotation.image_id, annotated, detected))

    def merge(self, other: DetectionMetrics) -> DetectionMetrics:
        """Of the images of both."""
        result = DetectionMetrics()
        result._images = self._images + other._images
        return result

    def compute(self) -> dict[str, float | None]:
        """AP (mean over IoU 0.50 .. 0.95) and mAP@50: means over the annotated classes."""
        truth, detected = self._both()
        classes = np.unique(truth[:, 1])
        if not len(classes):
            return {"mAP@50": None, "AP": None}
        curves = [_precision(*(x[x[:, 1] == c] for x in (truth, detected))) for c in classes]
        return {
            "mAP@50": float(np.mean([x[0] for x in curves])),
            "AP": float(np.mean(curves)),
        }

    def agnostic(self) -> float | None:
        """Average precision at IoU 0.50 of all boxes as one class."""
        truth, detected = self._both()
        return float(_precision(truth, detected)[0]) if len(truth) else None

    def _both(self) -> list[Rows]:
        """Everything annotated and everything detected, image by image."""
        images = sorted(self._images, key=lambda x: (isinstance(x[0], str), x[0]))
        return [_rows([x[side] for x in images]) for side in (1, 2)]


def boxes_of(prediction: Prediction, annotation: Annotation, side: int) -> Float[np.ndarray, "n 4"]:
    """The boxes of a prediction in pixels of the original image, of which the network saw a
    picture that fits a square of `side` pixels; the annotated ones where boxes were given."""
    if prediction.boxes is None:
        return annotation.boxes
    found = np.asarray(prediction.boxes, np.float64)[: int(prediction.box_count)]
    return found * (max(annotation.width, annotation.height) / side)


def _rows(parts: list[Objects]) -> Rows:
    numbers = np.repeat(np.arange(len(parts)), [len(x) for x in parts])
    return np.column_stack([numbers, np.concatenate([np.zeros((0, 6)), *parts])])


def _precision(truth: Rows, detected: Rows) -> Float[np.ndarray, "10"]:
    """Average precision of one class at IoU 0.50, 0.55 .. 0.95."""
    if not len(detected):
        return np.zeros(10)
    images = np.union1d(truth[:, 0], detected[:, 0]).astype(int).tolist()
    sets = [_coco(rows, images) for rows in (truth, detected)]
    run = COCOeval_faster(*sets, "bbox", print_function=lambda *_: None)
    run.params.areaRng, run.params.areaRngLbl = [[0, 1e20]], ["all"]
    run.params.maxDets = [MOST]
    run.evaluate()
    run.accumulate()
    return run.eval["precision"][:, :, 0, 0, 0].mean(axis=1)


def _coco(rows: Rows, images: list[int]) -> COCO:
    dataset = {"images": [{"id": image} for image in images], "categories": [{"id": 1}]}
    return COCO(dataset | {"annotations": _entries(rows)})


def _entries(rows: Rows) -> list[dict]:
    sizes = rows[:, 4:6] - rows[:, 2:4]
    boxes = np.concatenate([rows[:, 2:4], sizes], axis=1).tolist()
    columns = zip(rows[:, 0].astype(int).tolist(), boxes, sizes.prod(1).tolist(),
                  rows[:, 6].tolist(), strict=True)  # fmt: skip
    keys = ("id", "image_id", "bbox", "area", "score")
    same = {"category_id": 1, "iscrowd": 0}
    return [dict(zip(keys, (k, *row), strict=True)) | same for k, row in enumerate(columns, 1)]
