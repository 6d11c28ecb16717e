"""COCO's average precision of objects: a slow loop from the definition, merging, a hand case."""

from __future__ import annotations

import numpy as np
import pytest

from linknet_jax.metrics.detection import DetectionMetrics
from linknet_jax.types import Annotation, Prediction

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)


def prediction(labels, scores) -> Prediction:
    """Of objects alone."""
    none = np.zeros((0, 2), np.int32)
    empty = (none, none[:, 0], none[:, 0].astype(np.float32), np.int32(0))
    return Prediction(np.asarray(labels), np.asarray(scores, np.float32), *empty, *empty)


def annotated(image_id, boxes, labels) -> Annotation:
    boxes, none = np.asarray(boxes, float).reshape(-1, 4), np.zeros((0, 3), np.int32)
    return Annotation(image_id, 500, 500, boxes, np.asarray(labels, np.int32), none)


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return width * height / (sum(areas) - width * height)


def matched(truth, detections, threshold):
    """(score, whether right) of one image and class: the 100 best take their best free box."""
    free, result = list(truth), []
    for score, box in sorted(detections, key=lambda x: -x[0])[:100]:
        found = [k for k, other in enumerate(free) if iou(box, other) >= threshold]
        result.append((score, bool(found)))
        if found:  # of equals COCO takes the last
            del free[max(found, key=lambda k: (iou(box, free[k]), k))]
    return result


def average_precision(images, label, threshold):
    """Mean over 101 recalls of the best precision at that recall or a higher one."""
    number, ranked = 0, []
    for annotation, boxes, p in images:
        truth = [b for b, k in zip(annotation.boxes.tolist(), annotation.labels, strict=True)
                 if k == label]  # fmt: skip
        found = zip(p.label_scores.tolist(), boxes.tolist(), p.labels, strict=False)
        number += len(truth)
        ranked += matched(truth, [(s, b) for s, b, k in found if k == label], threshold)
    points, right = [], 0
    for k, (_, correct) in enumerate(sorted(ranked, key=lambda x: -x[0]), 1):
        right += correct
        points.append((right / number, right / k))
    return np.mean([max((p for r, p in points if r >= recall), default=0) for recall in RECALLS])


def slow(images):
    """The images in the order of their ids."""
    images = sorted(images, key=lambda x: (isinstance(x[0].image_id, str), x[0].image_id))
    labels = sorted({k for annotation, *_ in images for k in annotation.labels.tolist()})
    if not labels:
        return {"mAP@50": None, "AP": None}
    table = [[average_precision(images, k, t) for t in THRESHOLDS] for k in labels]
    return {"mAP@50": np.mean([row[0] for row in table]), "AP": np.mean(table)}


def evaluate(images) -> DetectionMetrics:
    metrics = DetectionMetrics()
    for image in images:
        metrics.update(*image)
    return metrics


def random_images(rng, count, most=6, classes=4):
    """Detections are near copies of the truth; few different scores; class 0 and empty boxes."""
    images = []
    for number in range(count):
        n = int(rng.integers(0, most))
        low = rng.integers(0, 100, (n, 2)).astype(float)
        boxes = np.concatenate([low, low + rng.integers(0, 60, (n, 2))], axis=1)
        labels = rng.integers(1, classes, n)
        copies = rng.integers(0, max(n, 1), rng.integers(0, 2 * most) if n else 0)
        found = boxes[copies] + rng.integers(-6, 7, (len(copies), 4)) * rng.choice([0, 1])
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2])
        guessed = np.where(rng.random(len(copies)) < 0.8, labels[copies], rng.integers(0, classes))
        scores = rng.integers(1, rng.choice([3, 99]), len(copies)) / 99
        image_id = number if rng.random() < 0.5 else f"{number}"
        p = prediction(guessed, np.append(scores, [0.5, 7]))  # padding, which does not count
        images.append((annotated(image_id, boxes, labels), found, p))
    return images


@pytest.mark.parametrize("seed", range(25))
def test_slow_loop(seed):
    rng = np.random.default_rng(seed)
    images = random_images(rng, int(rng.integers(1, 14)))
    assert evaluate(images).compute() == pytest.approx(slow(images), abs=1e-12)


def test_a_hundred_detections_of_an_image_and_class():
    rng = np.random.default_rng(0)
    truth = annotated(1, [[0, 0, 9, 9], [20, 20, 40, 40], [50, 0, 60, 9]], [1, 2, 1])
    boxes = np.array([[100, 100, 110, 110]] * 130 + [[20, 20, 40, 40], [0, 0, 9, 9]], float)
    labels = np.array([1] * 130 + [2, 1])
    for scores in (np.linspace(1, 0.1, 132), np.linspace(0.1, 1, 132), rng.random(132)):
        images = [(truth, boxes, prediction(labels, scores))]
        assert evaluate(images).compute() == pytest.approx(slow(images), abs=1e-12)


@pytest.mark.parametrize("wrong, expected", [(99, 1 / 100), (100, 0)])
def test_what_ranks_behind_the_first_hundred_is_not_found(wrong, expected):
    truth = annotated(1, [[0, 0, 9, 9]], [1])
    boxes = np.array([[100, 100, 110, 110]] * wrong + [[0, 0, 9, 9]], float)
    images = [(truth, boxes, prediction([1] * len(boxes), np.linspace(1, 0.1, len(boxes))))]
    assert evaluate(images).compute() == pytest.approx({"mAP@50": expected, "AP": expected})


@pytest.mark.parametrize("seed", range(8))
def test_order_and_parts_change_no_bit(seed):
    rng = np.random.default_rng(seed)
    images = random_images(rng, 20)
    expected = evaluate(images).compute()
    for _ in range(3):
        rows = np.array_split(rng.permutation(len(images)), 3)
        a, b, c = (evaluate([images[i] for i in part]) for part in rows)
        assert a.merge(b).merge(c).compute() == c.merge(a.merge(b)).compute() == expected
        assert len(evaluate([images[i] for i in rows[0]]).compute()) == 2  # unchanged by merging
    assert 0 < expected["AP"] < expected["mAP@50"] < 1


def test_by_hand():
    """Class 1: the second object is found with an IoU of 0.72, good for five of ten thresholds.
    Class 2: a wrong detection ranks before the right one. Nothing annotated is of class 3."""
    truth = annotated("x", [[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 70, 70]], [1, 1, 2])
    boxes = np.array(
        [[0, 0, 10, 10], [20, 20, 30, 27.2], [0, 0, 5, 5], [50, 50, 70, 70], [0, 0, 9, 9]]
    )
    p = prediction([1, 1, 2, 2, 3], [0.9, 0.8, 0.7, 0.6, 1])
    result = evaluate([(truth, boxes, p)]).compute()
    first = (5 * 1 + 5 * 51 / 101) / 10  # recalls 0, 0.01 .. 0.5 at the higher thresholds
    assert result == pytest.approx({"mAP@50": (1 + 0.5) / 2, "AP": (first + 0.5) / 2}, abs=1e-12)


def test_nothing_annotated_or_nothing_detected():
    nothing = {"mAP@50": None, "AP": None}
    assert DetectionMetrics().compute() == nothing
    box, none = np.array([[0.0, 0, 9, 9]]), np.zeros((0, 4))
    assert evaluate([(annotated(1, [], []), box, prediction([1], [0.5]))]).compute() == nothing
    blank = evaluate([(annotated(1, box, [1]), none, prediction([], []))])
    assert blank.compute() == {"mAP@50": 0, "AP": 0}
    other = evaluate([(annotated(1, box, [1]), box, prediction([2], [0.5]))])
    assert other.compute() == {"mAP@50": 0, "AP": 0}
    both = [(annotated(1, box, [1]), none, prediction([], [])),
            (annotated(2, box, [1]), box, prediction([1], [0.5]))]  # fmt: skip
    assert evaluate(both).compute()["mAP@50"] == pytest.approx(51 / 101)


def test_true_boxes_reach_one():
    images = []
    for truth, *_ in random_images(np.random.default_rng(0), 30):
        boxes = truth.boxes + np.array([0, 0, 1, 1])  # none is empty
        p = prediction(truth.labels, np.ones(len(boxes)))
        images.append((annotated(truth.image_id, boxes, truth.labels), boxes, p))
    assert evaluate(images).compute() == pytest.approx({"mAP@50": 1, "AP": 1}, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_agnostic_precision_is_that_of_one_class(seed):
    images = [
        (annotated(t.image_id, t.boxes, np.ones_like(t.labels)), boxes,
         prediction(np.ones(len(boxes), int), p.label_scores))
        for t, boxes, p in random_images(np.random.default_rng(seed), 12)
    ]  # fmt: skip
    mixed = [x for x in random_images(np.random.default_rng(seed), 12)]
    expected = evaluate(images).compute()["mAP@50"]
    assert evaluate(mixed).agnostic() == pytest.approx(expected, abs=1e-12)


def test_agnostic_precision_of_nothing():
    assert DetectionMetrics().agnostic() is None
