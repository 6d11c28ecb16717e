"""Assignment and sampling against loops written from METHOD's definitions."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_metrics

from linknet_jax.ops import assignment, box_coder
from linknet_jax.ops.anchors import anchor_grid, inside
from linknet_jax.ops.assignment import IGNORED, NEGATIVE, POSITIVE

SIZE = (96, 128)
GRID = anchor_grid(8, 10, stride=16, base=16, ratios=(0.5, 1.0, 2.0), scales=(1.0, 2.0, 3.0))
USABLE, ANCHORS = inside(GRID, jnp.asarray(SIZE, jnp.float32)), np.asarray(GRID)
KEY = jax.random.key(3)
THRESHOLDS = dict(positive=0.7, negative=0.3)
LIMITS = dict(limit=20, positive_limit=10)
HEAD_LIMITS = dict(background=(0.0, 0.5), limit=16, foreground_limit=4)
ROWS, MOST = 12, 70  # of padded true boxes and proposals
GARBAGE = np.array([np.nan, np.inf, -np.inf, 1e30], np.float32)


def on_host(function, **static):
    """Compiled, few static shapes for short tests; results are NumPy arrays."""
    compiled = jax.jit(function, **static)
    return lambda *inputs, **options: jax.device_get(compiled(*inputs, **options))


sample_anchors = functools.partial(assignment.sample_anchors, **THRESHOLDS)
sample_boxes = functools.partial(assignment.sample_boxes, foreground=0.5)
draw_anchors = on_host(sample_anchors, static_argnames="limit")
draw_boxes = on_host(sample_boxes, static_argnames="limit")
label_anchors = on_host(assignment.label_anchors)
encode, match = on_host(box_coder.encode), on_host(assignment.match)
uniform = jax.jit(lambda key, row: jax.random.uniform(jax.random.fold_in(key, row)))


def true_boxes(count, seed=0):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, (SIZE[1] - 16, SIZE[0] - 16), (count, 2))
    boxes = np.hstack([corner, np.minimum(corner + rng.uniform(4, 60, (count, 2)), (127, 95))])
    return boxes.astype(np.float32)


def proposals_near(boxes, count, seed=0):
    """Boxes of which about half overlap a true one well."""
    rng = np.random.default_rng(seed)
    near = boxes[rng.integers(0, len(boxes), count)] + rng.uniform(-9, 9, (count, 4))
    near[:, 2:] = np.maximum(near[:, :2], near[:, 2:])
    return near.astype(np.float32)


def padded(array, rows=ROWS, filler=GARBAGE):
    """`rows` rows, the further ones garbage, and the mask."""
    extra = rows - len(array)
    garbage = np.resize(np.asarray(filler, array.dtype), (extra, *array.shape[1:]))
    return jnp.asarray(np.concatenate([array, garbage])), jnp.arange(rows) < len(array)


def truth(boxes, labels, rows=ROWS):
    """(boxes, labels, mask), padded with garbage."""
    padded_boxes, mask = padded(boxes, rows)
    return padded_boxes, padded(np.asarray(labels, np.int32), rows, [-5, 1000])[0], mask


def slow_overlaps(a, b):
    rows = [[reference_metrics.box_iou(x, y, True) for y in b.tolist()] for x in a.tolist()]
    return np.array(rows, np.float64).reshape(len(a), len(b))


def slow_anchor_labels(anchors, usable, boxes, positive, negative):
    overlaps = slow_overlaps(anchors, boxes)
    labels = []
    for row, allowed in zip(overlaps, usable, strict=True):
        best = max(row, default=0)
        label = NEGATIVE if best < negative else POSITIVE if best >= positive else IGNORED
        labels.append(label if allowed else IGNORED)
    for column in overlaps.T:
        best = max(column[usable], default=0)
        for index in np.flatnonzero(usable):
            if best > 0 and column[index] >= best * (1 - 1e-4):
                labels[index] = POSITIVE
    return np.array(labels), overlaps.argmax(1) if len(boxes) else None


@pytest.mark.parametrize("count", [1, 2, 5, 12])
@pytest.mark.parametrize("thresholds", [(0.7, 0.3), (0.5, 0.4), (0.3, 0.3)])
def test_anchor_labels_are_the_loop(count, thresholds):
    boxes = true_boxes(count, seed=count)
    expected, nearest = slow_anchor_labels(ANCHORS, USABLE, boxes, *thresholds)
    limits = dict(zip(("positive", "negative"), thresholds, strict=True))
    labels, index = label_anchors(GRID, USABLE, *padded(boxes), **limits)
    np.testing.assert_array_equal(labels, expected)
    found = labels == POSITIVE
    np.testing.assert_array_equal(index[found], nearest[found])
    assert found.sum() >= 1 and (expected == NEGATIVE).any()


def test_anchor_labels_by_hand():
    """A perfect overlap twice, .4 and (best of its box) .8, none, and one outside the image."""
    left = np.array([0, 0, 20, 24, 40, 60], np.float32)
    anchors = jnp.asarray(np.stack([left, 0 * left, left + 9, 0 * left + 9], axis=-1))
    usable = jnp.asarray([1, 1, 1, 1, 1, 0], bool)
    boxes = np.array([[0, 0, 9, 9], [24, 0, 31, 9], [80, 0, 89, 9], [60, 0, 69, 9]], np.float32)
    labels, index = label_anchors(anchors, usable, *padded(boxes), **THRESHOLDS)
    assert labels.tolist() == [POSITIVE, POSITIVE, IGNORED, POSITIVE, NEGATIVE, IGNORED]
    assert index[:4].tolist() == [0, 0, 1, 1]
    drawn = draw_anchors(anchors, usable, *padded(boxes), KEY, **LIMITS)
    assert sorted(drawn.index[:4].tolist()) == [0, 1, 3, 4] and not drawn.index[4:].any()
    assert drawn.labels.tolist() == [1] * 3 + [0] * 17 and drawn.mask.sum() == 4


def test_the_best_anchor_is_positive_however_small_its_overlap():
    box = np.array([[3, 3, 4, 4]], np.float32)
    expected, _ = slow_anchor_labels(ANCHORS, USABLE, box, 0.7, 0.3)
    labels, _ = label_anchors(GRID, USABLE, *padded(box), **THRESHOLDS)
    np.testing.assert_array_equal(labels, expected)
    assert 0 < slow_overlaps(ANCHORS, box).max() < 0.1 and (labels == POSITIVE).any()


def test_a_true_box_that_overlaps_no_anchor_makes_nothing_positive():
    """Pitfall 19: neural-motifs makes every anchor of overlap zero positive."""
    lonely, boxes = np.array([[500, 500, 520, 520]], np.float32), true_boxes(1)
    labels, _ = label_anchors(GRID, USABLE, *padded(lonely), **THRESHOLDS)
    np.testing.assert_array_equal(labels, np.where(USABLE, NEGATIVE, IGNORED))
    expected, _ = label_anchors(GRID, USABLE, *padded(boxes), **THRESHOLDS)
    labels, _ = label_anchors(GRID, USABLE, *padded(np.vstack([boxes, lonely])), **THRESHOLDS)
    np.testing.assert_array_equal(labels, expected)
    assert (labels == POSITIVE).any()


def test_equal_anchors_tie_in_spite_of_rounding():
    grid = anchor_grid(12, 20, stride=16, base=16, ratios=(0.23232838,), scales=(2.22152954,))
    usable, anchors = inside(grid, jnp.asarray([192.0, 320])), np.asarray(grid)
    box = np.array([[39.3, 31.5, 270.7, 150.5]], np.float32)
    labels, _ = label_anchors(grid, usable, *padded(box), **THRESHOLDS)
    within = (anchors[:, :2] >= box[:, :2]).all(1) & (anchors[:, 2:] <= box[:, 2:]).all(1)
    np.testing.assert_array_equal(labels == POSITIVE, within)
    assert within.sum() == 10 * 6


@pytest.mark.parametrize("filled", [0, 3])
def test_no_true_box(filled):
    boxes, classes, mask = truth(np.zeros((0, 4), np.float32), [])
    labels, _ = label_anchors(GRID, USABLE, boxes, mask, **THRESHOLDS)
    np.testing.assert_array_equal(labels, np.where(USABLE, NEGATIVE, IGNORED))
    drawn = draw_anchors(GRID, USABLE, boxes, mask, KEY, **LIMITS)
    assert drawn.mask.all() and not drawn.labels.any() and not drawn.deltas.any()
    proposals, valid = padded(true_boxes(filled), MOST)
    heads = draw_boxes(proposals, valid, boxes, classes, mask, KEY, **HEAD_LIMITS)
    assert heads.mask.sum() == filled and not heads.labels.any() and not heads.deltas.any()
    assert np.isfinite(heads.boxes).all()


def test_no_usable_anchor():
    drawn = draw_anchors(GRID, USABLE & False, *padded(true_boxes(3)), KEY, **LIMITS)
    assert not drawn.mask.any() and not drawn.labels.any() and not drawn.deltas.any()


def slow_draw(positive, negative, noise, limit, positive_limit):
    """Rows of the lowest noise, positive ones first, and how many those are."""
    first = sorted(np.flatnonzero(positive), key=lambda i: noise[i])
    first = first[: min(positive_limit, limit)]
    second = sorted(np.flatnonzero(negative), key=lambda i: noise[i])
    return first + second[: limit - len(first)], len(first)


def noise_of(key, rows):
    return [float(uniform(key, row)) for row in range(rows)]


@pytest.mark.parametrize(("limit", "positive_limit"), [(20, 10), (20, 2), (20, 20), (20, 0)])
def test_anchor_sample_is_the_loop(limit, positive_limit):
    boxes = true_boxes(5, seed=5)
    labels, nearest = slow_anchor_labels(ANCHORS, USABLE, boxes, **THRESHOLDS)
    noise = noise_of(KEY, len(ANCHORS))
    rows, positives = slow_draw(
        labels == POSITIVE, labels == NEGATIVE, noise, limit, positive_limit
    )
    assert positives == min(positive_limit, (labels == POSITIVE).sum())
    limits = dict(limit=limit, positive_limit=positive_limit)
    drawn = draw_anchors(GRID, USABLE, *padded(boxes), KEY, **limits)
    empty = limit - len(rows)
    assert drawn.mask.tolist() == [True] * len(rows) + [False] * empty
    assert drawn.index.tolist() == rows + [0] * empty
    assert drawn.labels.tolist() == [1] * positives + [0] * (limit - positives)
    for slot, row in enumerate(rows[:positives]):
        expected = encode(ANCHORS[row], boxes[nearest[row]])
        np.testing.assert_allclose(drawn.deltas[slot], expected, atol=1e-6)
    assert not drawn.deltas[positives:].any()


def slow_boxes(proposals, boxes, labels, limit, foreground_limit):
    """(box, label, true row or None) of every filled slot."""
    rows = np.concatenate([proposals, boxes])
    overlaps = slow_overlaps(rows, boxes)
    best = overlaps.max(1)
    streams = [jax.random.fold_in(KEY, i) for i in (0, 1)]
    noise = noise_of(streams[0], len(proposals)) + noise_of(streams[1], len(boxes))
    chosen, objects = slow_draw(best >= 0.5, best < 0.5, noise, limit, foreground_limit)
    true = [overlaps[row].argmax() if slot < objects else None for slot, row in enumerate(chosen)]
    return [(rows[i], 0 if t is None else labels[t], t) for i, t in zip(chosen, true, strict=True)]


@pytest.mark.parametrize(("limit", "foreground_limit"), [(16, 4), (16, 16), (16, 0), (16, 30)])
def test_box_sample_is_the_loop(limit, foreground_limit):
    boxes, labels = true_boxes(6, seed=2), [3, 1, 4, 1, 5, 9]
    proposals = proposals_near(boxes, 60)
    expected = slow_boxes(proposals, boxes, labels, limit, foreground_limit)
    limits = HEAD_LIMITS | dict(limit=limit, foreground_limit=foreground_limit)
    drawn = draw_boxes(*padded(proposals, MOST), *truth(boxes, labels), KEY, **limits)
    filled = len(expected)
    assert drawn.mask.tolist() == [True] * filled + [False] * (limit - filled)
    assert not drawn.labels[filled:].any() and not drawn.deltas[filled:].any()
    assert drawn.boxes.shape == (limit, 4) and np.isfinite(drawn.boxes).all()
    assert (drawn.labels > 0).sum() >= min(foreground_limit, 9)
    for slot, (box, label, true) in enumerate(expected):
        np.testing.assert_array_equal(drawn.boxes[slot], box)
        assert drawn.labels[slot] == label
        target = np.zeros(4) if true is None else encode(box, boxes[true])
        np.testing.assert_allclose(drawn.deltas[slot], target, atol=1e-6)


def test_background_has_a_lower_threshold_too():
    boxes = np.array([[0, 0, 9, 9]], np.float32)
    proposals = [[0, 0, 9, 5], [0, 0, 9, 3], [0, 0, 9, 2], [0, 0, 9, 0], [50, 50, 60, 60]]
    proposals = padded(np.array(proposals, np.float32), MOST)
    limits = HEAD_LIMITS | dict(background=(0.3, 0.4))
    drawn = draw_boxes(*proposals, *truth(boxes, [7]), KEY, **limits)
    rows = zip(drawn.boxes[drawn.mask].tolist(), drawn.labels[drawn.mask].tolist(), strict=True)
    assert sorted((y2, label) for (_, _, _, y2), label in rows) == [(2, 0), (5, 7), (9, 7)]


def test_foreground_comes_first_where_the_thresholds_overlap():
    boxes = np.array([[0, 0, 9, 9]], np.float32)
    proposals = padded(np.array([[0, 0, 9, 5], [50, 50, 60, 60]], np.float32), MOST)
    limits = HEAD_LIMITS | dict(background=(0.0, 2.0))
    drawn = draw_boxes(*proposals, *truth(boxes, [7]), KEY, **limits)
    assert drawn.mask.sum() == 3 and drawn.labels.tolist() == [7, 7] + [0] * 14


def test_true_boxes_are_proposals_with_no_offset():
    nothing = padded(np.zeros((0, 4), np.float32), MOST)
    drawn = draw_boxes(*nothing, *truth(true_boxes(3, seed=9), [2, 5, 8]), KEY, **HEAD_LIMITS)
    assert drawn.mask.sum() == 3 and sorted(drawn.labels[:3].tolist()) == [2, 5, 8]
    assert not drawn.deltas.any()


def test_labels_of_proposals():
    boxes = np.array([[0, 0, 9, 9], [0, 0, 9, 9], [20, 0, 29, 9]], np.float32)
    proposals = np.array([[0, 0, 9, 9], [0, 0, 9, 4], [0, 0, 9, 3.9], [20, 0, 29, 8]], np.float32)
    true, classes, mask = truth(boxes, [3, 4, 5])
    matched = match(*padded(proposals, 6), true, mask)
    np.testing.assert_allclose(matched.overlap, [1, 0.5, 0.49, 0.9, 0, 0], rtol=1e-6)
    assert matched.index[:4].tolist() == [0, 0, 0, 2]
    assert assignment.label_boxes(matched, classes, 0.5).tolist() == [3, 3, 0, 5, 0, 0]


def test_padding_does_not_change_the_draw():
    boxes, labels = true_boxes(4, seed=4), [1, 2, 3, 4]
    proposals, different = proposals_near(boxes, 50), set()
    anchors, kept = padded(ANCHORS, len(ANCHORS) + 31)
    usable = kept & jnp.pad(USABLE, (0, 31), constant_values=True)
    limits = dict(limit=20, positive_limit=3)
    for seed in range(5):
        key = jax.random.key(seed)
        results = [
            (
                draw_anchors(*grid, *padded(boxes, rows), key, **limits),
                draw_boxes(*padded(proposals, m), *truth(boxes, labels, rows), key, **HEAD_LIMITS),
            )
            for grid, rows, m in (((GRID, USABLE), ROWS, MOST), ((anchors, usable), 15, 58))
        ]
        jax.tree.map(np.testing.assert_array_equal, *results)
        different.add((*results[0][0].index.tolist(), *results[0][1].boxes.ravel().tolist()))
    assert len(different) == 5


def test_draws_are_uniform_without_replacement():
    """Frequencies within five standard deviations of the binomial's."""
    boxes, rounds = padded(true_boxes(5, seed=5)), 1000
    labels, _ = label_anchors(GRID, USABLE, *boxes, **THRESHOLDS)
    draw = functools.partial(sample_anchors, GRID, USABLE, *boxes, limit=40, positive_limit=3)
    index = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(KEY, rounds)).index)
    assert all(len(set(row)) == 40 for row in index.tolist())
    frequency = np.bincount(index.ravel(), minlength=len(labels)) / rounds
    assert not frequency[labels == IGNORED].any() and (labels == POSITIVE).sum() > 3
    for label, number in ((POSITIVE, 3), (NEGATIVE, 37)):
        expected = number / (labels == label).sum()
        tolerance = 5 * (expected * (1 - expected) / rounds) ** 0.5
        np.testing.assert_allclose(frequency[labels == label], expected, atol=tolerance)


def test_vmap_is_single_and_compiles_once():
    traces = []

    @jax.jit
    def batched(proposals, valid, boxes, labels, mask, keys):
        traces.append(1)
        draw = functools.partial(sample_anchors, GRID, USABLE, **LIMITS)
        heads = jax.vmap(functools.partial(sample_boxes, **HEAD_LIMITS))
        return jax.vmap(draw)(boxes, mask, keys), heads(proposals, valid, boxes, labels, mask, keys)

    for seed in (0, 1):
        images = [true_boxes(count, seed=seed * 3 + count) for count in (12, 2, 1)]
        near = [padded(proposals_near(x, 30 - seed, seed), MOST) for x in images]
        true = [truth(x, np.arange(1, len(x) + 1)) for x in images]
        true[2] = (*true[2][:2], true[2][2] & False)
        rows = [(*near[i], *true[i], jax.random.fold_in(KEY, i)) for i in range(3)]
        together = jax.device_get(batched(*(jnp.stack(x) for x in zip(*rows, strict=True))))
        for i, (proposals, valid, boxes, labels, mask, key) in enumerate(rows):
            alone = (
                draw_anchors(GRID, USABLE, boxes, mask, key, **LIMITS),
                draw_boxes(proposals, valid, boxes, labels, mask, key, **HEAD_LIMITS),
            )
            own = jax.tree.map(lambda x, i=i: x[i], together)
            close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
            jax.tree.map(close, alone, own)
    assert len(traces) == 1


def test_no_gradient_and_no_nan_through_degenerate_proposals():
    boxes = true_boxes(3)
    proposals = np.concatenate([boxes, [[5, 5, 4, 4], [9, 9, 2, 2]]]).astype(np.float32)

    def total(proposals):
        true = truth(boxes, [1, 2, 3])
        drawn = sample_boxes(proposals, jnp.ones(5, bool), *true, KEY, **HEAD_LIMITS)
        return drawn.deltas.sum() + drawn.boxes.sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(jnp.asarray(proposals))
    assert np.isfinite(value) and not gradient.any()
