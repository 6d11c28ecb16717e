"""Counts and moments against loops over pairs."""

import itertools

import numpy as np
import pytest
from reference import box_iou, layout_of_pair, pair_counts

from linknet_jax.data import statistics
from linknet_jax.types import Annotation

CLASSES, PREDICATES = 5, 4


def _annotations(number: int, spread: float) -> list[Annotation]:
    rng = np.random.default_rng(3)
    found = []
    for index in range(number):
        n = int(rng.integers(1, 7))
        corner = rng.uniform(0, spread, (n, 2)).round()
        boxes = np.concatenate([corner, corner + rng.uniform(1, 40, (n, 2)).round()], axis=1)
        rows = rng.integers(0, n, (int(rng.integers(1, 6)), 2))
        predicates = rng.integers(1, PREDICATES, (len(rows), 1))
        relations = np.concatenate([rows, predicates], axis=1)
        relations = relations[rows[:, 0] != rows[:, 1]]
        relations = np.concatenate([relations, relations[:1]]).astype(np.int32)  # a duplicate
        labels = rng.integers(1, CLASSES, n).astype(np.int32)
        found.append(Annotation(index, 200, 200, boxes, labels, relations))
    return found


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("spread", [30.0, 400.0])
def test_counts_equal_a_loop_over_pairs(overlap, spread):
    annotations = _annotations(40, spread)
    got = statistics.count(iter(annotations), CLASSES, PREDICATES, overlap)
    expected = pair_counts(annotations, CLASSES, PREDICATES, overlap)
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])


def test_boxes_that_touch_at_a_pixel_count_as_overlapping():
    boxes = np.array([[0, 0, 10, 10], [10, 0, 20, 10], [40, 40, 50, 50.0]])
    assert box_iou(boxes[0], boxes[1], True) > 0 == box_iou(boxes[0], boxes[1], False)
    annotation = Annotation(0, 60, 60, boxes, np.array([1, 2, 3]), np.zeros((0, 3), int))
    background = statistics.count([annotation], CLASSES, PREDICATES, True)[1]
    assert background[1, 2] == background[2, 1] == background.sum() / 2 == 1


def test_tables_by_hand():
    foreground, background = np.zeros((2, 2, 3)), np.zeros((2, 2))
    foreground[1, 1] = 0, 3, 1
    background[1, 1] = 5
    frequencies = statistics.log_frequencies(foreground, background)
    assert frequencies.dtype == np.float32
    np.testing.assert_allclose(frequencies[1, 1], np.log(np.array([0.6, 0.3, 0.1]) + 1e-3), 1e-6)
    np.testing.assert_allclose(frequencies[0, 0], np.log([1.001, 1e-3, 1e-3]), 1e-4)
    probabilities = statistics.predicate_probabilities(foreground, background)
    np.testing.assert_allclose(probabilities[1, 1], [0, 0.3, 0.1])
    assert foreground[1, 1, 0] == 0  # the caller's counts stay


def test_layout_moments_are_those_of_all_pairs_in_network_pixels():
    annotations = _annotations(30, 90.0)
    scales = np.random.default_rng(0).uniform(0.3, 2, len(annotations)).tolist()
    rows = [
        layout_of_pair(annotation.boxes[s] * scale, annotation.boxes[o] * scale)
        for annotation, scale in zip(annotations, scales, strict=True)
        for s in range(len(annotation.boxes))
        for o in range(len(annotation.boxes))
        if s != o
    ]
    mean, deviation = statistics.layout_moments(annotations, scales)
    np.testing.assert_allclose(mean, np.mean(rows, axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(deviation, np.std(rows, axis=0), rtol=1e-5)
    corners = [
        (o[:2] - s[:2]) / (s[2:] - s[:2] + 1)
        for annotation, scale in zip(annotations, scales, strict=True)
        for s, o in itertools.permutations(annotation.boxes * scale, 2)
    ]
    mean, deviation = statistics.layout_moments(annotations, scales, corner=True)
    np.testing.assert_allclose(mean[:2], np.mean(corners, axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(deviation[:2], np.std(corners, axis=0), rtol=1e-5)


def test_layout_moments_need_a_pair():
    lonely = [x for x in _annotations(40, 90.0) if len(x.boxes) == 1]
    assert lonely
    with pytest.raises(ValueError, match="two boxes"):
        statistics.layout_moments(lonely, [1.0] * len(lonely))
