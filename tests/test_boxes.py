"""Box arithmetic against loops and hand values."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import reference_metrics

from linknet_jax.ops import boxes as box_ops

LIBRARIES = pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])


def make(count, seed=0):
    """Whole-pixel boxes of sides 0 .. 9, near each other."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 12, (count, 2))
    return np.hstack([corner, corner + rng.integers(0, 10, (count, 2))]).astype(np.float32)


@LIBRARIES
def test_size(xp):
    boxes = xp.asarray([[1.0, 2, 4, 8], [3, 3, 3, 3]])
    np.testing.assert_array_equal(box_ops.size(boxes), [[3, 6], [0, 0]])
    np.testing.assert_array_equal(box_ops.size(boxes, inclusive=True), [[4, 7], [1, 1]])


@LIBRARIES
@pytest.mark.parametrize("inclusive", [False, True])
def test_iou_is_the_loop(xp, inclusive):
    a, b = make(30), make(20, seed=1)
    expected = [[reference_metrics.box_iou(x, y, inclusive) for y in b] for x in a]
    result = box_ops.iou(xp.asarray(a), xp.asarray(b), inclusive)
    assert isinstance(result, np.ndarray if xp is np else jax.Array)
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    assert 0 < np.mean(np.array(expected) == 0) < 1


def test_iou_by_hand():
    a = np.array([[0.0, 0, 10, 10], [0, 0, 9, 9], [5, 5, 5, 5]])
    b = np.array([[5.0, 0, 15, 10], [10, 0, 20, 10], [5, 5, 5, 5]])
    np.testing.assert_allclose(box_ops.iou(a, b), [[1 / 3, 0, 0], [4 * 9 / 145, 0, 0], [0, 0, 0]])
    inclusive = box_ops.iou(a, b, inclusive=True)
    np.testing.assert_allclose(inclusive[0], [6 * 11 / 176, 11 / 231, 1 / 121])
    np.testing.assert_allclose(inclusive[2], [1 / 121, 0, 1])


@LIBRARIES
def test_union_is_the_loop(xp):
    a, b = make(30), make(30, seed=1)
    expected = [reference.union_box(x, y) for x, y in zip(a, b, strict=True)]
    np.testing.assert_array_equal(box_ops.union(xp.asarray(a), xp.asarray(b)), expected)
    np.testing.assert_array_equal(box_ops.union(xp.asarray(b), xp.asarray(a)), expected)


@LIBRARIES
def test_relative_layout_by_hand(xp):
    subject = xp.asarray([0.0, 0, 9, 9])
    same_size, wider = xp.asarray([10.0, 0, 19, 9]), xp.asarray([0.0, 20, 19, 29])
    np.testing.assert_allclose(box_ops.relative_layout(subject, same_size), [1, 0, 0, 0], atol=1e-7)
    np.testing.assert_allclose(
        box_ops.relative_layout(subject, wider), [0.5, 2, np.log(2), 0], rtol=1e-6
    )
    np.testing.assert_allclose(
        box_ops.relative_layout(subject, wider, corner=True), [0, 2, np.log(2), 0], rtol=1e-6
    )


@LIBRARIES
@pytest.mark.parametrize("corner", [False, True])
def test_relative_layout_is_the_loop(xp, corner):
    boxes = make(12)
    boxes[3] = boxes[4]
    expected = [[reference.relative_layout(s, o, corner) for o in boxes] for s in boxes]
    boxes = xp.asarray(boxes)
    result = box_ops.relative_layout(boxes[:, None], boxes[None, :], corner)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


@LIBRARIES
def test_overlaps_is_the_loop(xp):
    boxes = np.vstack([make(25), [[50, 50, 60, 60], [60, 60, 61, 61], [61.5, 62, 62, 62]]])
    expected = [
        [i != j and reference_metrics.box_iou(a, b, True) > 0 for j, b in enumerate(boxes)]
        for i, a in enumerate(boxes)
    ]
    np.testing.assert_array_equal(box_ops.overlaps(xp.asarray(boxes)), expected)
    assert expected[25][26] and not expected[25][27]


def test_numpy_keeps_float64():
    boxes = make(3).astype(np.float64)
    assert box_ops.iou(boxes, boxes).dtype == np.float64
    assert box_ops.relative_layout(boxes, boxes).dtype == np.float64


def test_degenerate_boxes_stay_finite():
    point = np.array([[3.0, 4, 3, 4]])
    assert box_ops.iou(point, point) == 0 and box_ops.iou(point, point, inclusive=True) == 1
    assert np.isfinite(box_ops.relative_layout(point, np.array([[0.0, 0, 9, 9]]))).all()
    empty = np.zeros((0, 4))
    assert box_ops.iou(empty, point).shape == (0, 1) and box_ops.overlaps(empty).shape == (0, 0)
    gradient = jax.grad(lambda x: box_ops.iou(x, x).sum())(jnp.asarray(point))
    assert np.isfinite(gradient).all()
