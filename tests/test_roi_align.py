"""RoIAlign against its definition, onnxruntime and finite differences."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax.sharding import AxisType, PartitionSpec

from linknet_jax.ops.roi_align import roi_align

STRIDE = 16


def make(images=3, side=(9, 12), channels=5, rois=40, seed=0, margin=40):
    """Random maps, boxes (reversed, outside and empty ones among them), unordered image ids."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(images, *side, channels)).astype(np.float32)
    limit = STRIDE * np.array([side[1], side[0]])
    boxes = rng.uniform(-margin, limit + margin, (rois, 2, 2))
    boxes[2:] = np.sort(boxes[2:], axis=1)
    boxes = boxes.reshape(rois, 4).astype(np.float32)
    boxes[3] = [20.5, 30.25, 20.5, 30.25]
    boxes[4] = [-900, -900, -800, -800]
    boxes[5] = [10, 10, 5000, 5000]
    return features, boxes, rng.integers(0, images, rois).astype(np.int32)


def align(features, boxes, image_ids, **options):
    return np.asarray(roi_align(features, boxes, image_ids, stride=STRIDE, **options))


@pytest.mark.parametrize(("size", "ratio", "block"), [(7, 2, 16), (7, 2, 64), (3, 1, 1), (2, 3, 7)])
def test_aligned_is_the_definition(size, ratio, block):
    arguments = make()
    expected = reference.roi_align_aligned(*arguments, STRIDE, size, ratio)
    pooled = align(*arguments, size=size, sampling_ratio=ratio, block=block)
    np.testing.assert_allclose(pooled, expected, atol=1e-5)


def test_the_paper_size_is_within_float32_rounding():
    features, boxes, _ = make(1, (37, 37), 512, 120)
    image_ids = np.zeros(120, np.int32)
    expected = reference.roi_align_aligned(features, boxes, image_ids, STRIDE)
    np.testing.assert_allclose(align(features, boxes, image_ids), expected, atol=2e-5)


@pytest.mark.parametrize("images", [1, 3])
def test_onnxruntime_agrees(images):
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    from benchmarks.roi_align import onnx_roi_align

    features, boxes, image_ids = make(images, (37, 37), 64, 200)
    rival = onnx_roi_align(STRIDE)
    expected = rival(features.transpose(0, 3, 1, 2).copy(), boxes, image_ids.astype(np.int64))
    np.testing.assert_allclose(
        align(features, boxes, image_ids), expected.transpose(0, 2, 3, 1), atol=5e-5
    )


def test_outside_is_zero_and_the_border_is_clamped():
    features = np.ones((1, 4, 4, 1), np.float32)
    boxes = np.array([[80, 0, 96, 16], [-48, 0, -32, 16], [56, 0, 64, 8]], np.float32)
    pooled = align(features, boxes, np.zeros(3, np.int32), size=1)
    np.testing.assert_array_equal(pooled.ravel(), [0, 0, 1])


def test_an_empty_box_reads_one_point():
    features, boxes, image_ids = make()
    point = reference.bilinear(features[image_ids[3]], 30.25 / STRIDE - 0.5, 20.5 / STRIDE - 0.5)
    pooled = align(features, boxes, image_ids)[3]
    np.testing.assert_allclose(pooled, np.broadcast_to(point, pooled.shape), atol=1e-5)


def test_motifs_by_hand():
    features = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    boxes = np.array([[0, 0, 48, 48], [16, 8, 48, 40], [32, 16, 64, 16]], np.float32)
    pooled = align(features, boxes, np.zeros(3, np.int32), size=3, method="motifs")[..., 0]
    np.testing.assert_allclose(pooled[0], [[0, 1.5, 3], [6, 7.5, 9], [12, 13.5, 15]])
    np.testing.assert_allclose(pooled[1], [[3, 4, 5], [7, 8, 9], [11, 12, 13]])
    np.testing.assert_allclose(pooled[2], [[6, 7, 0]] * 3)


def test_motifs_is_the_definition():
    arguments = make()
    expected = reference.roi_align_motifs(*arguments, STRIDE)
    np.testing.assert_allclose(align(*arguments, method="motifs"), expected, atol=1e-5)


def test_a_box_that_ends_on_the_last_row_is_inside_for_motifs():
    rng = np.random.default_rng(0)
    boxes = np.full((500, 4), 576, np.float32)
    boxes[:, :2] = rng.uniform(-1500, -500, (500, 2))
    features = np.ones((1, 37, 37, 1), np.float32)
    pooled = align(features, boxes, np.zeros(500, np.int32), method="motifs")
    np.testing.assert_array_equal(pooled[:, -1, -1], 1)


@pytest.mark.parametrize("method", ["aligned", "motifs"])
@pytest.mark.parametrize("order", ["grouped", "shuffled"])
def test_several_images_equal_one_at_a_time(method, order):
    features, boxes, image_ids = make(rois=50)
    if order == "grouped":
        image_ids = np.sort(image_ids)
    together = align(features, boxes, image_ids, method=method)
    for image in range(3):
        rows = image_ids == image
        alone = align(
            features[image : image + 1], boxes[rows], np.zeros(rows.sum(), int), method=method
        )
        np.testing.assert_allclose(together[rows], alone, atol=1e-5)


@functools.partial(jax.jit, static_argnames=("method", "block"))
def gradients(features, boxes, image_ids, cotangent, method="aligned", block=16):
    pool = functools.partial(roi_align, stride=STRIDE, method=method, block=block, size=3)
    _, pull = jax.vjp(lambda f, b: pool(f, b, image_ids), features, boxes)
    return pull(cotangent)


def test_garbage_in_other_images_and_boxes_changes_nothing():
    features, boxes, image_ids = make()
    cotangent = np.random.default_rng(1).normal(size=(40, 3, 3, 5)).astype(np.float32)
    kept = image_ids != 1
    dirty_features, dirty_boxes = features.copy(), boxes.copy()
    dirty_features[1], dirty_boxes[~kept] = np.nan, 1e30
    dirty_boxes[np.flatnonzero(~kept)[0]] = np.nan
    clean, dirty = align(features, boxes, image_ids), align(dirty_features, dirty_boxes, image_ids)
    np.testing.assert_array_equal(clean[kept], dirty[kept])
    clean = gradients(features, boxes, image_ids, cotangent)
    dirty = gradients(dirty_features, dirty_boxes, image_ids, cotangent)
    np.testing.assert_array_equal(clean[0][::2], dirty[0][::2])
    np.testing.assert_array_equal(clean[1][kept], dirty[1][kept])


def test_a_box_that_is_not_finite_gives_zeros_and_no_gradient():
    features, boxes, image_ids = make()
    boxes[7], boxes[8] = np.nan, [0, 0, np.inf, 10]
    assert not align(features, boxes, image_ids)[7:9].any()
    cotangent = np.ones((40, 3, 3, 5), np.float32)
    without = cotangent.copy()
    without[7:9] = 0
    np.testing.assert_array_equal(
        gradients(features, boxes, image_ids, cotangent)[0],
        gradients(features, boxes, image_ids, without)[0],
    )


@pytest.mark.parametrize("method", ["aligned", "motifs"])
@pytest.mark.parametrize("block", [3, 16])
def test_gradients_are_finite_differences(method, block):
    """Central differences in float64, which are exact for the piecewise bilinear function."""
    features, boxes, image_ids = make(2, (5, 6), 2, 12, margin=-12)
    boxes[3:6] = boxes[6:9] + 1.5
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        features, boxes = features.astype(np.float64), boxes.astype(np.float64)
        cotangent = rng.normal(size=(12, 3, 3, 2))
        found = gradients(features, boxes, image_ids, cotangent, method, block)
        options = {"size": 3, "method": method, "block": block}
        value = lambda f, b: np.vdot(align(f, b, image_ids, **options), cotangent)  # noqa: E731
        for argument, step in ((0, 1e-3), (1, 1e-6)):
            inputs = [features, boxes]
            for index in rng.integers(0, inputs[argument].shape, (40, inputs[argument].ndim)):
                shift = np.zeros_like(inputs[argument])
                shift[tuple(index)] = step
                ends = [
                    value(*(x + sign * shift if i == argument else x for i, x in enumerate(inputs)))
                    for sign in (1, -1)
                ]
                expected = (ends[0] - ends[1]) / (2 * step)
                np.testing.assert_allclose(found[argument][tuple(index)], expected, atol=1e-7)


def test_bfloat16_features_keep_float32_coordinates():
    features, boxes, image_ids = make(3, (37, 37), 16, 64)
    rounded = jnp.asarray(features, jnp.bfloat16)
    expected = align(rounded.astype(np.float32), boxes, image_ids)
    pooled = roi_align(rounded, boxes, image_ids, stride=STRIDE)
    assert pooled.dtype == jnp.bfloat16
    np.testing.assert_allclose(pooled.astype(np.float32), expected, atol=2e-2)


def test_bfloat16_gradient_sums_many_rois_in_float32():
    features, boxes = jnp.ones((1, 4, 4, 1), jnp.bfloat16), np.full((2000, 4), 24, np.float32)
    pool = functools.partial(roi_align, stride=STRIDE, size=1, block=4)
    gradient = jax.grad(lambda f: pool(f, boxes, np.zeros(2000, np.int32)).sum())(features)
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(gradient[0, 1, 1, 0].astype(np.float32), 2000, rtol=0.01)


def test_temporary_memory_does_not_grow_with_the_rois():
    def temporary(rois):
        arguments = make(2, (37, 37), 512, rois)
        compiled = roi_align.lower(*arguments, stride=STRIDE).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(2048) <= min(32e6, temporary(256) + 1e6)


def test_it_runs_in_a_while_loop_and_sharded_over_images():
    features, boxes, image_ids = make(4, rois=32)
    image_ids = np.repeat(np.arange(4, dtype=np.int32), 8)
    expected = align(features, boxes, image_ids, size=3)
    cotangent = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)

    def chunks(f, b, i):
        def body(state):
            start, out = state
            take = lambda x: jax.lax.dynamic_slice_in_dim(x, start, 8)  # noqa: E731
            pooled = roi_align(f, take(b), take(i), stride=STRIDE, size=3)
            return start + 8, jax.lax.dynamic_update_slice_in_dim(out, pooled, start, 0)

        return jax.lax.while_loop(lambda s: s[0] < 32, body, (0, jnp.zeros(expected.shape)))[1]

    np.testing.assert_allclose(jax.jit(chunks)(features, boxes, image_ids), expected, atol=1e-5)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    local = lambda f, b, i, g: (  # noqa: E731
        roi_align(f, b, i % 2, stride=STRIDE, size=3),
        *gradients(f, b, i % 2, g),
    )
    split = PartitionSpec("data")
    sharded = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=split, out_specs=split))
    pooled, *found = sharded(features, boxes, image_ids, cotangent)
    np.testing.assert_allclose(pooled, expected, atol=1e-5)
    for a, b in zip(found, gradients(features, boxes, image_ids, cotangent), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_no_rois_and_wrong_arguments():
    features, boxes, image_ids = make()
    assert align(features, boxes[:0], image_ids[:0]).shape == (0, 7, 7, 5)
    with pytest.raises(ValueError, match="'bilinear': use one of"):
        align(features, boxes, image_ids, method="bilinear")
    with pytest.raises(ValueError, match="block is 0"):
        align(features, boxes, image_ids, block=0)
