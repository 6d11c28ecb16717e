"""Detections of the box head's outputs against a loop over METHOD.md 3.3."""

from __future__ import annotations

import functools
import math

import jax
import numpy as np
import pytest
from reference_metrics import box_iou
from tiny import on_host

from linknet_jax.ops import detections as ops

SIZE = np.float32([80, 100])  # height, width
LARGEST = math.log(1000 / 16)
CLASSES = 6
ROWS = 40
DEFAULTS = dict(score=0.01, threshold=0.3, per_class=300, limit=60, largest=LARGEST)


@functools.cache
def compiled(per_class, limit):
    def one(arguments, score, threshold, largest):
        options = dict(score=score, threshold=threshold, largest=largest)
        return ops.detections(*arguments, SIZE, per_class=per_class, limit=limit, **options)

    return on_host(one)


def detections(proposals, mask, logits, deltas, **options):
    """Few shapes for short tests: rows of garbage and classes of no probability fill them up."""
    options, (n, classes) = DEFAULTS | options, logits.shape
    rows, more = max(ROWS - n, 0), CLASSES - classes
    arguments = (
        np.pad(proposals, [(0, rows), (0, 0)], constant_values=np.nan),
        np.pad(mask, (0, rows)),
        np.pad(
            np.pad(logits, [(0, 0), (0, more)], constant_values=-1e4),
            [(0, rows), (0, 0)],
            constant_values=np.inf,
        ),
        np.pad(deltas, [(0, rows), (0, more), (0, 0)], constant_values=7),
    )
    run = compiled(options.pop("per_class"), options.pop("limit"))
    found = run(arguments, *(options[name] for name in ("score", "threshold", "largest")))
    return found.replace(class_boxes=found.class_boxes[:, :classes])


def outputs(count, seed, classes=CLASSES, spread=2.0):
    """Proposals in whole pixels, in a crowd, and what a head might say of them."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 60, (count, 2))
    proposals = np.concatenate([low, low + rng.integers(4, 40, (count, 2))], axis=1)
    proposals = np.minimum(proposals, [99, 79, 99, 79]).astype(np.float32)
    logits = (spread * rng.normal(size=(count, classes))).astype(np.float32)
    deltas = (0.3 * rng.normal(size=(count, classes, 4))).astype(np.float32)
    return proposals, np.ones(count, bool), logits, deltas


def placed(box, delta, largest):
    """The box moved by (dx, dy, dw, dh), cut to the first and last pixel; inclusive sizes."""
    sides, corners = [], []
    for axis in (0, 1):
        size = box[axis + 2] - box[axis] + 1
        centre = box[axis] + size / 2 + size * delta[axis]
        size = size * math.exp(min(delta[axis + 2], largest))
        last = SIZE[1 - axis] - 1
        corners.append(min(max(centre - size / 2, 0), last))
        sides.append(min(max(centre + size / 2 - 1, 0), last))
    return corners + sides


def slow(proposals, mask, logits, deltas, score, threshold, per_class, limit, largest):
    """[(row, class, probability)] and every proposal's boxes."""
    shifted = np.exp(np.float64(logits) - np.float64(logits).max(1, keepdims=True))
    probabilities = shifted / shifted.sum(1, keepdims=True)
    n, classes = logits.shape
    boxes = [
        [placed(proposals[i], deltas[i, c] * (c > 0), largest) for c in range(classes)]
        for i in range(n)
    ]
    best = {}
    for c in range(1, classes):
        kept = []
        for i in np.argsort(-probabilities[:, c], kind="stable").tolist():
            free = all(box_iou(boxes[i][c], boxes[k][c], True) <= threshold for k in kept)
            if mask[i] and probabilities[i, c] > score and free and len(kept) < per_class:
                kept.append(i)
                if probabilities[i, c] > best.get(i, (0, 0))[1]:
                    best[i] = c, probabilities[i, c]
    ranked = sorted(best, key=lambda i: -best[i][1])[:limit]
    return [(i, *best[i]) for i in ranked], np.array(boxes).reshape(n, classes, 4)


def check(arguments, **options):
    """The number found."""
    rows, boxes = slow(*arguments, **DEFAULTS | options)
    found = detections(*arguments, **options)
    limit, count = (DEFAULTS | options)["limit"], len(rows)
    assert found.mask.tolist() == [True] * count + [False] * (limit - count)
    assert {len(x) for x in jax.tree.leaves(found)} == {limit}
    order = [i for i, *_ in rows]
    assert found.labels.tolist() == [c for _, c, _ in rows] + [0] * (limit - count)
    np.testing.assert_allclose(found.scores[:count], [p for *_, p in rows], rtol=1e-5)
    assert not found.scores[count:].any()
    np.testing.assert_array_equal(found.boxes[:count], arguments[0][order])
    np.testing.assert_allclose(found.class_boxes[:count], boxes[order], rtol=1e-5, atol=1e-4)
    return count


@pytest.mark.parametrize(
    "options",
    [{}, {"score": 0.3}, {"threshold": 0.7}, {"per_class": 2}, {"limit": 7},
     {"largest": 0.1}],
    ids=str,
)  # fmt: skip
def test_loop(options):
    counts = []
    for seed in range(6):
        arguments = list(outputs(ROWS, seed))
        arguments[1] = np.random.default_rng(seed).random(ROWS) < (1 if seed else 0.4)
        counts.append(check(arguments, **options))
    assert min(counts) > 2


def apart(count):
    """200 boxes that do not touch, class 1 + k % 5 the most probable by far."""
    k = np.arange(count)
    left, top = 5.0 * (k % 20), 8.0 * (k // 20)
    proposals = np.stack([left, top, left + 3, top + 6], axis=1).astype(np.float32)
    logits = np.zeros((count, CLASSES), np.float32)
    logits[k, 1 + k % 5] = 4 + np.linspace(0, 2, count)
    return proposals, np.ones(count, bool), logits, np.zeros((count, CLASSES, 4), np.float32)


@pytest.mark.parametrize("limit", [64, 230])
def test_many_detections(limit):
    arguments = apart(200)
    assert check(arguments, limit=limit) == min(limit, 200)
    found = detections(*arguments, limit=limit)
    assert found.boxes[0].tolist() == arguments[0][199].tolist(), "best first"


def test_none_and_one():
    proposals, mask, logits, deltas = apart(10)
    for number in (0, 1):
        assert check((proposals, np.arange(10) < number, logits, deltas)) == number
    background = logits.copy()
    background[:, 0] = 30
    found = detections(proposals, mask, background, deltas)
    for x in (found.mask, found.labels, found.scores):
        assert not x.any()
    assert check((proposals, mask, background, deltas)) == 0


def probabilities(rows):
    """Logits; the background has the rest."""
    foreground = np.float32(rows)
    full = np.concatenate([1 - foreground.sum(1, keepdims=True), foreground], axis=1)
    return np.log(np.maximum(full, 1e-30)).astype(np.float32)


def simple(boxes, rows, deltas=None):
    boxes, logits = np.float32(boxes), probabilities(rows)
    still = np.zeros((*logits.shape, 4), np.float32)
    return boxes, np.ones(len(boxes), bool), logits, still if deltas is None else deltas


def test_a_score_must_lie_above_the_limit():
    """Halves and quarters are exact."""
    logits = np.float32([[0, -200, 0], [0, 0, 0]])
    logits[1] = [np.log(2), 0, -200]
    boxes = np.float32([[0, 0, 9, 9], [30, 0, 39, 9]])
    arguments = boxes, np.ones(2, bool), logits, np.zeros((2, 3, 4), np.float32)
    for score, labels in ((0.49, [2]), (0.5, []), (0.2, [2, 1])):
        found = detections(*arguments, score=score)
        assert found.labels.tolist() == labels + [0] * (60 - len(labels))


def test_a_proposal_keeps_the_best_class_that_survives():
    """The second is a better 1 than 2, but as 1 it falls to the first."""
    boxes = [[0, 0, 9, 9], [0, 0, 9, 8], [50, 50, 59, 59]]
    rows = [[0.8, 0.05], [0.5, 0.3], [0.2, 0.4]]
    found = detections(*simple(boxes, rows))
    assert found.labels.tolist() == [1, 2, 2] + [0] * 57 and found.mask.sum() == 3
    np.testing.assert_allclose(found.scores[:3], [0.8, 0.4, 0.3], rtol=1e-5)
    assert found.boxes[:3].tolist() == np.float32(boxes)[[0, 2, 1]].tolist()


def test_the_background_takes_no_part():
    """As background both lie in one place, as 1 they do not; the background is most probable."""
    found = detections(*simple([[0, 0, 9, 9], [20, 0, 29, 9]], [[0.1, 0], [0.2, 0]]))
    assert found.labels[:3].tolist() == [1, 1, 0]
    np.testing.assert_allclose(found.scores[:2], [0.2, 0.1], rtol=1e-5)


@pytest.mark.parametrize("label", [1, 2])
def test_suppression_compares_the_boxes_that_the_class_makes(label):
    """Class 1 moves the second box onto the first, class 2 the copy of the first away."""
    deltas = np.zeros((2, 3, 4), np.float32)
    deltas[1, 1, 0], deltas[1, 2, 0] = -2, 3
    second = [20, 0, 29, 9] if label == 1 else [0, 0, 9, 9]
    rows = np.full((2, 2), 1e-6)
    rows[:, label - 1] = 0.9, 0.8
    found = detections(*simple([[0, 0, 9, 9], second], rows, deltas))
    assert found.mask[:3].tolist() == [True, label == 2, False]
    assert found.boxes[0].tolist() == [0, 0, 9, 9]
    if label == 2:
        assert found.boxes[1].tolist() == second, "features are read where it was proposed"
        np.testing.assert_allclose(found.class_boxes[1, 2], [30, 0, 39, 9], atol=1e-4)


def test_an_overlap_of_exactly_the_threshold_survives():
    """Inclusive: 3 of 10 pixels is 0.3."""
    for last, count in ((2, 2), (3, 1)):
        arguments = simple([[0, 0, 9, 0], [0, 0, last, 0]], [[0.9], [0.8]])
        assert detections(*arguments).mask.sum() == count


def test_equal_scores_keep_their_order():
    proposals, mask, logits, deltas = apart(12)
    logits[:] = logits[0]
    found = detections(proposals, mask, logits, deltas)
    np.testing.assert_array_equal(found.boxes[:12], proposals)


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 1e30])
def test_padding_may_hold_anything(garbage):
    proposals, _, logits, deltas = outputs(ROWS, 3)
    mask = np.random.default_rng(0).random(ROWS) < 0.5
    clean = check((proposals, mask, logits, deltas))
    for x in (proposals, logits, deltas):
        x[~mask] = garbage
    dirty = detections(proposals, mask, logits, deltas)
    short = detections(proposals[mask], mask[mask], logits[mask], deltas[mask])
    for a, b in zip(jax.tree.leaves(dirty), jax.tree.leaves(short), strict=True):
        np.testing.assert_array_equal(a[:clean], b[:clean])
    for found in (dirty, short):
        assert found.mask.sum() == clean and not found.scores[clean:].any()


def test_every_box_of_an_untrained_head_is_finite_and_on_the_photograph():
    proposals, mask, logits, deltas = outputs(ROWS, 5)
    found = detections(proposals, mask, logits, 1e4 * deltas)
    assert np.isfinite(found.class_boxes).all()
    assert (found.class_boxes >= 0).all() and (found.class_boxes <= [99, 79, 99, 79]).all()
