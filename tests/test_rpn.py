"""Region proposals: order of outputs and anchors by hand, proposals against a greedy loop."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference_metrics import box_iou
from tiny import on_host

from linknet_jax.models import rpn
from linknet_jax.models.detector import LARGEST
from linknet_jax.ops.anchors import anchor_grid, anchor_sizes

RATIOS, SCALES, KINDS = (0.5, 1.0), (1.0, 2.0, 3.0), 6


def coded_maps(shapes):
    """Two images; channels: 1 + image, row / 8, column / 8 and the map's number, all below 6."""
    return tuple(
        jnp.stack([
            jnp.stack([jnp.full(shape, 1.0 + image), *(np.indices(shape) / 8), jnp.full(shape, k)],
                      axis=-1)
            for image in range(2)
        ]).astype(jnp.float32)
        for k, shape in enumerate(shapes)
    )  # fmt: skip


def copying(size):
    """A 1x1 kernel and bias: output c says 1e4 image + 8e2 row + 80 column + 1e5 map + c / 100."""
    kernel = np.tile(np.float32([1e4, 800, 80, 1e5])[:, None], (1, size))
    return {"kernel": kernel[None, None], "bias": np.arange(size, dtype=np.float32) / 100}


def test_outputs_and_anchors_are_in_the_same_order():
    shapes, strides = [(3, 5), (2, 4)], (8, 16)
    centre = np.zeros((3, 3, 4, 4), np.float32)
    centre[1, 1] = np.eye(4)
    params = {"conv": {"kernel": centre, "bias": np.zeros(4, np.float32)},
              "scores": copying(2 * KINDS), "deltas": copying(4 * KINDS)}  # fmt: skip
    run = on_host(rpn.RegionProposals(width=4, anchors=KINDS).apply)
    logits, deltas = run({"params": params}, coded_maps(shapes))
    anchors, _ = rpn.anchors_of(shapes, strides, RATIOS, SCALES, jnp.float32([100, 100]))
    assert logits.shape == (2, len(anchors), 2) and deltas.shape == (2, len(anchors), 4)
    row = 0
    for k, (shape, stride) in enumerate(zip(shapes, strides, strict=True)):
        sizes = anchor_sizes(stride, RATIOS, SCALES)
        for y, x, kind in np.ndindex(*shape, KINDS):
            middle = stride * np.array([x, y]) + (stride - 1) / 2
            corners = [*(middle - (sizes[kind] - 1) / 2), *(middle + (sizes[kind] - 1) / 2)]
            np.testing.assert_allclose(anchors[row], corners, rtol=1e-5, atol=1e-4)
            code = 1e5 * k + 100 * y + 10 * x + 1e4 * np.array([[1], [2]])
            for found, size in ((logits, 2), (deltas, 4)):
                expected = code + (size * kind + np.arange(size)) / 100
                np.testing.assert_allclose(found[:, row], expected, rtol=0, atol=0.004 + k * 0.016)
            row += 1
    assert row == len(anchors)


def test_hidden_values_end_at_zero_and_six():
    params = {
        "conv": {"kernel": np.zeros((3, 3, 2, 2)), "bias": np.zeros(2)},
        "scores": {"kernel": np.eye(2)[None, None], "bias": np.zeros(2)},
        "deltas": {"kernel": np.zeros((1, 1, 2, 4)), "bias": np.zeros(4)},
    }
    params["conv"]["kernel"][1, 1] = np.eye(2)
    maps = (jnp.float32([[[[-3, 9], [4, 6]]]]),)
    found = rpn.RegionProposals(width=2, anchors=1).apply({"params": params}, maps)
    assert found[0].tolist() == [[[0, 6], [4, 6]]]


def test_a_pyramid_proposes_on_one_more_map():
    maps = tuple(jnp.arange(2 * n * m).reshape(2, n, m, 1) for n, m in ((8, 10), (4, 5), (3, 3)))
    found, strides = rpn.proposal_maps(maps, (4, 8, 16))
    assert strides == (4, 8, 16, 32) and [x.shape[1:3] for x in found][-1] == (2, 2)
    np.testing.assert_array_equal(found[-1], maps[-1][:, [0, 2]][:, :, [0, 2]])
    assert rpn.proposal_maps(maps[:1], (4,)) == (maps[:1], (4,))


def test_usable_anchors_of_every_map():
    """(height, width) = (20, 34): whole cells of either stride, each with all its anchors."""
    shapes, strides = [(6, 7), (3, 4)], (8, 16)
    anchors, usable = rpn.anchors_of(shapes, strides, RATIOS, SCALES, jnp.float32([20, 34]))
    expected = []
    for (height, width), stride in zip(shapes, strides, strict=True):
        for y, x, _ in np.ndindex(height, width, KINDS):
            expected.append(stride * (y + 1) <= 20 and stride * (x + 1) <= 34)
    assert usable.tolist() == expected and len(anchors) == 6 * (42 + 12)


GRID = np.asarray(anchor_grid(5, 6, 8, 8, RATIOS, SCALES))
PROPOSE = dict(before=60, limit=15, threshold=0.6, min_size=4.0, largest=LARGEST)


@functools.cache
def compiled(**options):
    return on_host(functools.partial(rpn.propose, **PROPOSE | options))


def moved(anchor, delta, image_size, largest):
    box = []
    for axis in (0, 1):
        size = anchor[axis + 2] - anchor[axis] + 1
        centre = anchor[axis] + size / 2 + size * delta[axis]
        size = size * math.exp(min(delta[axis + 2], largest))
        ends = centre - size / 2, centre + size / 2 - 1
        box.append([min(max(end, 0), image_size[1 - axis] - 1) for end in ends])
    return [box[0][0], box[1][0], box[0][1], box[1][1]]


def slow_proposals(logits, deltas, usable, size, before, limit, threshold, min_size, largest):
    """Greedy: the best boxes of sufficient size that no better one overlaps too much."""
    odds = np.float64(logits[:, 1]) - logits[:, 0]
    order = [i for i in np.argsort(-odds, kind="stable") if usable[i]][:before]
    kept = []
    for box in [moved(GRID[i].tolist(), deltas[i].tolist(), size, largest) for i in order]:
        if min(box[2] - box[0], box[3] - box[1]) + 1 < min_size:
            continue
        if all(box_iou(box, other, True) <= threshold for other in kept):
            kept.append(box)
    return kept[:limit]


@pytest.mark.parametrize(
    "options",
    [{}, {"limit": 150}, {"before": 500, "limit": 100}, {"min_size": 17.0}, {"threshold": 0.2}],
    ids=str,
)
def test_proposals_are_the_greedy_loop(options):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        logits = rng.normal(size=(len(GRID), 2)).astype(np.float32)
        deltas = (0.4 * rng.normal(size=(len(GRID), 4))).astype(np.float32)
        deltas[:5, 2:] = 60  # bounded, else infinite
        usable = rng.random(len(GRID)) < (0.9 if seed else 0.1)
        logits[~usable] += [0, 50]
        size = [float(x) for x in rng.integers(12, 45, 2)]
        expected = slow_proposals(logits, deltas, usable, size, **PROPOSE | options)
        boxes, mask = compiled(**options)(logits, deltas, GRID, usable, np.float32(size))
        limit = (PROPOSE | options)["limit"]
        assert mask.tolist() == [True] * len(expected) + [False] * (limit - len(expected))
        assert expected or options
        np.testing.assert_allclose(boxes[mask], np.reshape(expected, (-1, 4)), rtol=1e-5, atol=1e-4)
        assert (boxes[~mask] == [0, 0, 15, 15]).all()


def test_equal_scores_keep_the_order_of_the_anchors_and_none_may_be_left():
    zeros = np.zeros((len(GRID), 4), np.float32)
    size, full = np.float32([40, 48]), np.ones(len(GRID), bool)
    expected = slow_proposals(zeros[:, :2], zeros, full, size.tolist(), **PROPOSE)
    boxes, mask = compiled()(zeros[:, :2], zeros, GRID, full, size)
    np.testing.assert_allclose(boxes[mask], expected, atol=1e-4)
    for usable, shape in ((~full, size), (full, np.float32([3, 48]))):
        assert not compiled()(zeros[:, :2], zeros, GRID, usable, shape)[1].any()


def test_no_gradient_passes_through_proposals():
    logits, deltas = np.zeros((len(GRID), 2), np.float32), np.zeros((len(GRID), 4), np.float32)
    size, full = np.float32([40, 48]), np.ones(len(GRID), bool)

    def total(logits, deltas):
        return rpn.propose(logits, deltas, jnp.asarray(GRID), full, jnp.asarray(size), **PROPOSE)[
            0
        ].sum()

    for gradient in on_host(jax.grad(total, argnums=(0, 1)))(logits, deltas):
        assert not gradient.any()
