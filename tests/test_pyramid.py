"""Pooling from a pyramid against a call of roi_align per level."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from linknet_jax.ops.pyramid import level_of, pyramid_align
from linknet_jax.ops.roi_align import roi_align

STRIDES, IMAGE = (4, 8, 16, 32), (270, 410)  # pixels; no map's side is half of the one before


def make(images=3, rois=60, channels=3, seed=0):
    """Random maps, and boxes of all sizes, half of them over the border, in no order."""
    rng = np.random.default_rng(seed)
    features = tuple(
        rng.normal(size=(images, *(-(-side // s) for side in IMAGE), channels)).astype(np.float32)
        for s in STRIDES
    )
    sides = np.exp(rng.uniform(np.log(8), np.log(1500), (rois, 2)))
    centres = rng.uniform(0, IMAGE[::-1], (rois, 2))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
    boxes[::2] = np.clip(boxes[::2], 0, [*IMAGE[::-1]] * 2)
    return features, boxes.astype(np.float32), rng.integers(0, images, rois).astype(np.int32)


def level(box):
    """By the definition, in float64."""
    area = float(box[2] - box[0]) * float(box[3] - box[1])
    return min(max(math.floor(4 + math.log2(math.sqrt(area) / 224)), 2), 5) - 2


def level_by_level(levels, features, boxes, image_ids, **options):
    """Every level's boxes by themselves, from the map of that level."""
    rows = [np.flatnonzero(np.array(levels) == k) for k in range(4)]
    assert all(map(len, rows))
    pooled = [
        roi_align(features[k], boxes[own], image_ids[own], stride=STRIDES[k], **options)
        for k, own in enumerate(rows)
    ]
    return jnp.concatenate(pooled)[np.argsort(np.concatenate(rows))]


align = jax.jit(
    functools.partial(pyramid_align, strides=STRIDES), static_argnames=("size", "method")
)


@pytest.mark.parametrize(("method", "size"), [("aligned", 7), ("motifs", 3)])
@pytest.mark.parametrize("order", ["grouped", "shuffled"])
def test_every_box_is_pooled_from_its_own_level(method, size, order):
    features, boxes, image_ids = make()
    if order == "grouped":
        image_ids = np.sort(image_ids)
    levels = [level(box) for box in boxes]
    expected = level_by_level(levels, features, boxes, image_ids, method=method, size=size)
    pooled = align(features, boxes, image_ids, method=method, size=size)
    assert pooled.shape == (60, size, size, 3) and np.abs(expected).max() > 1
    np.testing.assert_allclose(pooled, expected, atol=1e-4)


def test_boundaries_of_the_levels():
    below, above = (np.float32(1 - 1e-5), np.float32(1 + 1e-5))
    sides = np.array([112 * below, 112, 112 * above, 224 * below, 224, 448 * below, 448, 2000, 1])
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], axis=1).astype(np.float32)
    expected = [0, 1, 1, 1, 2, 2, 3, 3, 0]
    np.testing.assert_array_equal(level_of(boxes, STRIDES), expected)
    np.testing.assert_array_equal(level_of(boxes * [1, 1, 4, 0.25], STRIDES), expected)
    np.testing.assert_array_equal(level_of(boxes, (8, 16)), np.clip(expected, 1, 2) - 1)


def test_a_single_map_goes_to_roi_align():
    features, boxes, image_ids = make()
    for method in ("aligned", "motifs"):
        expected = roi_align(features[2], boxes, image_ids, stride=16, size=5, method=method)
        arguments = features[2:3], boxes, image_ids
        found = pyramid_align(*arguments, strides=(16,), size=5, method=method)
        np.testing.assert_array_equal(found, expected)


def test_gradients_are_those_of_the_levels():
    features, boxes, image_ids = make(2, 24)
    weights = np.random.default_rng(1).normal(size=(24, 3, 3, 3)).astype(np.float32)

    def pulled(form):
        def total(features, boxes):
            pooled = form(features, boxes, image_ids, size=3)
            return jnp.sum(weights * pooled)

        return jax.grad(total, argnums=(0, 1))

    reference = functools.partial(level_by_level, [level(box) for box in boxes])
    both = [pulled(form)(features, boxes) for form in (align, reference)]
    for a, b in zip(*map(jax.tree.leaves, both), strict=True):
        assert np.abs(b).max() > 0.01
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_odd_boxes_change_no_other():
    """Empty, reversed, not finite, and far outside: no NaN, in values or in gradients."""
    features, boxes, image_ids = make()
    odd = boxes.copy()
    odd[:6] = [
        [9, 9, 9, 9], [60, 50, 20, 10], [np.nan] * 4, [0, 0, np.inf, 9], [-1e30, 0, 1e30, 1e30],
        [4000, 4000, 4500, 4500],
    ]  # fmt: skip
    clean, dirty = (np.asarray(align(features, b, image_ids)) for b in (boxes, odd))
    np.testing.assert_allclose(clean[6:], dirty[6:], atol=1e-5)
    assert not dirty[[2, 3, 5]].any()

    kept = np.isfinite(odd).all(axis=1)

    def total(features, boxes):
        return jnp.sum(align(features, boxes, image_ids)[kept] ** 2)

    found = jax.tree.leaves(jax.grad(total, argnums=(0, 1))(features, odd))
    assert all(np.isfinite(x).all() for x in found)


def test_it_runs_sharded_over_images():
    features, boxes, image_ids = make(2, 40)
    image_ids = np.repeat(np.arange(2, dtype=np.int32), 20)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    split = PartitionSpec("data")
    local = lambda f, b, i: align(f, b, i % 1)  # noqa: E731
    sharded = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=split, out_specs=split))
    expected = align(features, boxes, image_ids)
    np.testing.assert_allclose(sharded(features, boxes, image_ids), expected, atol=1e-5)


def test_half_precision_and_no_boxes():
    features, boxes, image_ids = make()
    half = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), features)
    pooled = align(half, boxes, image_ids)
    assert pooled.dtype == jnp.bfloat16
    expected = align(features, boxes, image_ids)
    np.testing.assert_allclose(pooled.astype(np.float32), expected, atol=5e-2)
    assert align(features, boxes[:0], image_ids[:0]).shape == (0, 7, 7, 3)


@pytest.mark.parametrize("strides", [(4, 8, 16), (4, 8, 16, 64), (32, 16, 8, 4)])
def test_strides_that_do_not_fit_are_refused(strides):
    with pytest.raises(ValueError, match="4 maps and strides"):
        pyramid_align(*make(), strides=strides)
