"""Box offsets against loops and hand values."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linknet_jax.ops.box_coder import clip, decode, decode_per_class, encode

INF = math.inf


def make(count, seed, least=0.0):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 500, (count, 2))
    return np.hstack([corner, corner + rng.uniform(least, 200, (count, 2))]).astype(np.float32)


def slow_encode(box, target):
    (x, y, w, h), (tx, ty, tw, th) = (
        (a + (c - a + 1) / 2, b + (d - b + 1) / 2, c - a + 1, d - b + 1)
        for a, b, c, d in (map(float, box), map(float, target))
    )
    return [(tx - x) / w, (ty - y) / h, math.log(tw / w), math.log(th / h)]


def slow_decode(box, delta, largest):
    x1, y1, x2, y2 = map(float, box)
    dx, dy, dw, dh = map(float, delta)
    w, h = x2 - x1 + 1, y2 - y1 + 1
    x, y = x1 + w / 2 + w * dx, y1 + h / 2 + h * dy
    w, h = w * math.exp(min(dw, largest)), h * math.exp(min(dh, largest))
    return [x - w / 2, y - h / 2, x + (w - 2) / 2, y + (h - 2) / 2]


def test_encode_by_hand():
    box = jnp.asarray([0.0, 0, 9, 9])
    targets = jnp.asarray([[0.0, 0, 9, 9], [10, 0, 19, 9], [0, 20, 19, 29], [0, 0, 0, 4]])
    expected = [[0, 0, 0, 0], [1, 0, 0, 0], [0.5, 2, math.log(2), 0],
                [-0.45, -0.25, math.log(0.1), math.log(0.5)]]  # fmt: skip
    np.testing.assert_allclose(encode(box, targets), expected, atol=1e-6)


def test_decode_by_hand():
    box = jnp.asarray([[0.0, 0, 9, 9]])
    deltas = [[[0.0, 0, 0, 0], [1, -0.5, 0, 0], [0, 0, math.log(2), math.log(0.1)]]]
    result = decode(box[:, None], jnp.asarray(deltas), INF)[0]
    np.testing.assert_allclose(
        result, [[0, 0, 9, 9], [10, -5, 19, 4], [-5, 4.5, 14, 4.5]], atol=1e-5
    )


def test_encode_is_the_loop():
    boxes, targets = make(50, 0), make(50, 1)
    expected = [slow_encode(*pair) for pair in zip(boxes, targets, strict=True)]
    np.testing.assert_allclose(
        encode(jnp.asarray(boxes), jnp.asarray(targets)), expected, atol=2e-4
    )


@pytest.mark.parametrize("largest", [INF, math.log(1000 / 16), 0.5])
def test_decode_is_the_loop(largest):
    boxes, deltas = make(50, 0), np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    deltas[0, 2:] = [5, -5]
    expected = [slow_decode(*pair, largest) for pair in zip(boxes, deltas, strict=True)]
    result = decode(jnp.asarray(boxes), jnp.asarray(deltas), largest)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("largest", [INF, 0.7])
def test_decode_inverts_encode_where_nothing_is_clamped(largest):
    boxes, targets = make(200, 2), make(200, 3)
    deltas = encode(jnp.asarray(boxes), jnp.asarray(targets))
    result = np.asarray(decode(jnp.asarray(boxes), deltas, largest))
    free = (np.asarray(deltas)[:, 2:] <= largest).all(1)
    np.testing.assert_allclose(result[free], targets[free], rtol=1e-5, atol=2e-3)
    clamped = np.abs(result[~free] - targets[~free]).max(1)
    assert free.any() and (largest == INF or (len(clamped) and (clamped > 0.1).any()))


def test_clamp_keeps_wild_offsets_finite():
    wild = jnp.asarray([[0.0, 0, 200, 1e30], [0, 0, -200, -1e30]])
    boxes = jnp.asarray(make(2, 0))
    assert not np.isfinite(decode(boxes, wild, INF)[0]).all()
    result = decode(boxes, wild, math.log(1000 / 16))
    assert np.isfinite(result).all()
    np.testing.assert_allclose(result[1, 2:], result[1, :2] - 1, atol=1e-4)


def test_decode_per_class():
    boxes, deltas = make(6, 0), np.random.default_rng(1).normal(size=(6, 5, 4)).astype(np.float32)
    result = decode_per_class(jnp.asarray(boxes), jnp.asarray(deltas), 1.0)
    np.testing.assert_array_equal(result[:, 0], boxes)
    for i, c in np.ndindex(6, 4):
        expected = slow_decode(boxes[i], deltas[i, c + 1], 1.0)
        np.testing.assert_allclose(result[i, c + 1], expected, rtol=1e-5, atol=1e-3)


def test_clip():
    boxes = jnp.asarray([[-3.0, -2, 700, 900], [5, 6, 7, 8], [650, 1, 660, 2], [-9, -9, -5, 500]])
    expected = [[0, 0, 591, 443], [5, 6, 7, 8], [591, 1, 591, 2], [0, 0, 0, 443]]
    size = jnp.asarray([444.0, 592])
    np.testing.assert_array_equal(clip(boxes, size), expected)
    np.testing.assert_array_equal(clip(boxes[:, None], size), np.array(expected)[:, None])


def test_bfloat16_offsets_are_decoded_in_float32():
    boxes = jnp.asarray(make(20, 0))
    deltas = jax.random.normal(jax.random.key(0), (20, 4)).astype(jnp.bfloat16)
    result = decode(boxes, deltas, INF)
    assert result.dtype == jnp.float32
    np.testing.assert_array_equal(result, decode(boxes, deltas.astype(jnp.float32), INF))


def test_garbage_stays_in_its_row():
    boxes, targets = make(6, 0), make(6, 1)
    deltas = np.asarray(encode(jnp.asarray(boxes), jnp.asarray(targets)))
    bad = [box.copy() for box in (boxes, targets, deltas)]
    bad[0][2], bad[1][3], bad[2][4] = np.nan, [np.inf, 0, -np.inf, 1], np.nan
    good = [0, 1, 5]
    np.testing.assert_array_equal(
        encode(jnp.asarray(bad[0]), jnp.asarray(bad[1]))[jnp.array(good)], deltas[good]
    )
    per_class = jnp.stack([jnp.asarray(bad[2])] * 3, 1)
    result = decode_per_class(jnp.asarray(bad[0]), per_class, INF)
    clean = decode_per_class(jnp.asarray(boxes), jnp.stack([jnp.asarray(deltas)] * 3, 1), INF)
    np.testing.assert_array_equal(np.asarray(result)[good], np.asarray(clean)[good])


def test_vmap_is_single_and_compiles_once():
    traces = []

    @jax.jit
    def coded(boxes, targets, size):
        traces.append(1)

        def one(boxes, targets, size):
            return clip(decode(boxes, encode(boxes, targets), 1.0), size)

        return jax.vmap(one)(boxes, targets, size)

    for seed in (0, 7):
        boxes, targets = make(12, seed).reshape(3, 4, 4), make(12, seed + 1).reshape(3, 4, 4)
        sizes = np.array([[400, 300], [300, 500], [592, 592]], np.float32)
        batched = coded(boxes, targets, sizes)
        for i in range(3):
            box, target, size = (
                jnp.asarray(boxes[i]),
                jnp.asarray(targets[i]),
                jnp.asarray(sizes[i]),
            )
            single = clip(decode(box, encode(box, target), 1.0), size)
            np.testing.assert_allclose(batched[i], single, rtol=1e-5, atol=1e-3)
    assert len(traces) == 1


def test_empty():
    nothing = jnp.zeros((0, 4))
    assert encode(nothing, nothing).shape == decode(nothing, nothing, INF).shape == (0, 4)
    assert decode_per_class(nothing, jnp.zeros((0, 7, 4)), INF).shape == (0, 7, 4)
