"""NMS against a slow greedy loop, onnxruntime and TensorFlow, on random and adversarial sets.

Coordinates are quarters of a pixel, so that areas are exact in float32 and every library compares
the same IoU with the threshold.
"""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from linknet_jax.ops.nms import class_nms, nms

SETS = 40  # of each kind and size; a multiple of the devices
SIZES = [(2, 1), (23, 40), (128, 10), (300, 60)]  # (n, limit)
THRESHOLDS = (0.3, 0.5, 0.7)


def greedy(boxes, scores, mask, threshold, limit, inclusive=False):
    """The definition, one box at a time."""
    one = np.float32(inclusive)
    order = [i for i in np.argsort(-scores, kind="stable") if mask[i]]
    kept = []
    while order and len(kept) < limit:
        best, order = order[0], np.array(order[1:], int)
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[order, :2])
        high = np.minimum(boxes[best, 2:], boxes[order, 2:])
        shared = np.maximum(high - low + one, 0).prod(1)
        sizes = boxes[:, 2:] - boxes[:, :2] + one
        total = sizes[best].prod() + sizes[order].prod(1) - shared
        ious = np.where(total > 0, shared / np.where(total > 0, total, 1), np.float32(0))
        order = list(order[ious <= np.float32(threshold)])
    return kept


def random(rng, n, side=300, longest=150):
    corners = rng.uniform(0, side, (n, 2))
    return np.concatenate([corners, corners + rng.uniform(1, longest, (n, 2))], axis=1)


def duplicates(rng, n):
    return random(rng, max(n // 8, 1))[rng.integers(0, max(n // 8, 1), n)]


def nested(rng, n):
    halves = rng.uniform(1, 200, (n, 1))
    return np.concatenate([250 - halves, 250 + halves], axis=1).repeat(2, axis=1)


def disjoint(rng, n):
    x = 20.0 * np.arange(n)
    return np.stack([x, 0 * x, x + 19, 0 * x + 9], axis=1)


def empty(rng, n):
    boxes = random(rng, n)
    return np.where(rng.random((n, 1)) < 0.5, boxes[:, [0, 1, 0, 3]], boxes)


def chain(rng, n):
    """Each box would suppress the next, none the one after: up to n decisions in a row."""
    x = 40.0 * np.arange(n)
    return np.stack([x, 0 * x, x + 100, 0 * x + 100], axis=1)


def onnxruntime():
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    from benchmarks.nms import onnx_nms

    run = onnx_nms()
    return lambda boxes, scores, *rest: run(boxes, scores[None], *rest)[:, 1]


def tensorflow():
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    return lambda *arguments: tf.image.non_max_suppression(*arguments).numpy()


LIBRARIES = {"onnxruntime": onnxruntime, "tensorflow": tensorflow}
KINDS = {
    "random": random,
    "clustered": functools.partial(random, side=60),
    "lattice": lambda rng, n: random(rng, n, 8, 6).round(),  # IoUs of exactly the threshold
    "all overlap": functools.partial(random, side=4, longest=300),
    "identical": lambda rng, n: random(rng, 1).repeat(n, axis=0),
    "duplicates": duplicates,
    "nested": nested,
    "disjoint": disjoint,
    "empty": empty,
    "chain": chain,
}


def scores_of(rng, n, style):
    """All different, in order, few values, negative ones, or all equal."""
    return {
        "different": rng.permutation(n) / n,
        "sorted": -np.arange(n) / n,
        "ties": rng.integers(0, 4, n),
        "negative": rng.normal(size=n),
        "equal": np.zeros(n),
    }[style]


@functools.cache
def sets(kind, n, seed=0):
    """SETS box sets [s, n, 4], their scores and a full mask."""
    rng = np.random.default_rng([seed, n, *kind.encode()])
    boxes = np.stack([KINDS[kind](rng, n) for _ in range(SETS)])
    styles = ["different", "sorted", "ties", "negative", "equal"]
    scores = np.stack([scores_of(rng, n, styles[i % len(styles)]) for i in range(SETS)])
    boxes = (4 * boxes).round() / 4
    return boxes.astype(np.float32), scores.astype(np.float32), np.ones((SETS, n), bool)


@functools.partial(jax.jit, static_argnums=(4, 5, 6))
def batched(boxes, scores, mask, threshold, limit, inclusive=False, tile=64):
    one = functools.partial(nms, limit=limit, inclusive=inclusive, tile=tile)
    return jax.vmap(one, (0, 0, 0, None))(boxes, scores, mask, threshold)


def select(*arguments):
    """The valid indices of each set."""
    indices, valid = map(np.asarray, batched(*arguments))
    for row in valid:
        assert not np.diff(row.astype(int)).clip(0).any(), "valid ones come first"
    assert not indices[~valid].any()
    return [list(i[v]) for i, v in zip(indices, valid, strict=True)]


def same(found, expected):
    assert len(found) == len(expected)
    for number, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a == list(b), f"set {number}"


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_definition(kind):
    for threshold, (n, limit) in zip((*THRESHOLDS, 0.4), [*SIZES[1:], SIZES[-1]], strict=True):
        data, inclusive = sets(kind, n), threshold == 0.4
        expected = [greedy(*x, threshold, limit, inclusive) for x in zip(*data, strict=True)]
        same(select(*data, threshold, limit, inclusive), expected)


@pytest.mark.parametrize("rival", ["onnxruntime", "tensorflow"])
@pytest.mark.parametrize("kind", KINDS)
def test_libraries_keep_the_same(kind, rival):
    keep = LIBRARIES[rival]()
    for threshold, (n, limit) in itertools.product(THRESHOLDS, SIZES):
        boxes, scores, mask = sets(kind, n, seed=1)
        pairs = zip(boxes, scores, strict=True)
        expected = [keep(*pair, limit, threshold) for pair in pairs]
        same(select(boxes, scores, mask, threshold, limit), expected)


@pytest.mark.parametrize(("n", "limit"), [(6000, 1000), (1025, 2000)])
@pytest.mark.parametrize("kind", ["random", "clustered", "chain"])
def test_many_boxes(kind, n, limit):
    rng = np.random.default_rng(n)
    boxes = ((4 * KINDS[kind](rng, n)).round() / 4).astype(np.float32)
    scores = scores_of(rng, n, "sorted" if kind == "chain" else "ties").astype(np.float32)
    mask = rng.random(n) < (1 if kind == "chain" else 0.9)
    indices, valid = nms(boxes, scores, mask, 0.4, limit, False)
    expected = greedy(boxes, scores, mask, 0.4, limit)
    assert list(np.asarray(indices)[np.asarray(valid)]) == expected


def test_a_tile_that_divides_nothing():
    data = sets("clustered", 130)
    expected = [greedy(*x, 0.5, 50) for x in zip(*data, strict=True)]
    same(select(*data, 0.5, 50, False, 48), expected)


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 1e30, 0])
def test_padding_may_hold_anything(garbage):
    boxes, scores = (x.copy() for x in sets("clustered", 128)[:2])
    mask = np.random.default_rng(0).random(scores.shape) < 0.6
    mask[0], mask[1] = False, True
    expected = [greedy(*x, 0.5, 10) for x in zip(boxes, scores, mask, strict=True)]
    boxes[~mask], scores[~mask] = garbage, garbage
    found = select(boxes, scores, mask, 0.5, 10)
    same(found, expected)
    assert found[0] == [] and len(found[1]) > 0


def test_padding_at_the_end_changes_nothing():
    data = sets("clustered", 170)
    expected = [greedy(*x, 0.5, 60) for x in zip(*data, strict=True)]
    padded = [np.pad(x, [(0, 0), (0, 130)] + [(0, 0)] * (x.ndim - 2)) for x in data]
    same(select(*padded, 0.5, 60), expected)


def test_valid_scores_may_be_infinite_and_zero_is_zero():
    boxes = disjoint(None, 5).astype(np.float32)
    scores = np.array([-np.inf, -0.0, np.inf, 0.0, 1], np.float32)
    indices, valid = nms(boxes, scores, np.array([1, 1, 1, 1, 0], bool), 0.5, 5)
    assert indices.tolist() == [2, 1, 3, 0, 0] and valid.tolist() == [True] * 4 + [False]


def test_equality_with_the_threshold_is_no_suppression():
    half = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], np.float32)
    for threshold, count in ((0.5, 2), (0.4999, 1)):
        assert nms(half, np.ones(2), np.ones(2, bool), threshold, 2, False)[1].sum() == count
    inclusive = half - np.array([0, 0, 1, 1], np.float32)
    for threshold, count in ((0.5, 2), (0.4999, 1)):
        assert nms(inclusive, np.ones(2), np.ones(2, bool), threshold, 2)[1].sum() == count


def test_none_and_one():
    for n, kept in ((0, [False] * 3), (1, [True, False, False])):
        arguments = np.zeros((n, 4), np.float32), np.zeros(n, np.float32), np.ones(n, bool)
        indices, valid = nms(*arguments, 0.5, 3)
        assert indices.tolist() == [0, 0, 0] and valid.tolist() == kept
        classes = class_nms(
            arguments[0][:, None], arguments[1][:, None], arguments[2][:, None], 0.5, 3
        )
        assert classes.tolist() == [[True]] * n


def test_single_images_and_devices_equal_the_batch():
    data = sets("clustered", 300)
    together = batched(*data, 0.5, 60)
    for i in range(5):
        for a, b in zip(nms(*[x[i] for x in data], 0.5, 60, False), together, strict=True):
            np.testing.assert_array_equal(a, b[i])
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split = PartitionSpec("data")
    local = lambda *x: batched(*x, 0.5, 60)  # noqa: E731
    sharded = jax.jit(
        jax.shard_map(local, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)
    )
    assert "all-reduce" not in sharded.lower(*data).compile().as_text()
    for a, b in zip(sharded(*data), together, strict=True):
        np.testing.assert_array_equal(a, b)


def test_new_values_compile_nothing():
    before = None
    for threshold, kind in zip(THRESHOLDS, ("random", "chain", "identical"), strict=True):
        nms(*[x[0] for x in sets(kind, 300)], threshold, 60, False)
        before = before or nms._cache_size()
    assert nms._cache_size() == before


def test_memory_is_that_of_a_tile():
    boxes, scores = jnp.zeros((6000, 4)), jnp.zeros(6000)
    compiled = nms.lower(boxes, scores, scores == 0, 0.7, 1000).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2e6  # the IoU matrix has 144 MB


def test_gradients_pass_by():
    boxes, scores, mask = (x[0] for x in sets("random", 23))

    def total(boxes):
        indices, valid = nms(boxes, scores, mask, 0.5, 40)
        return (boxes[indices] * valid[:, None]).sum()

    gradient = np.asarray(jax.grad(total)(jnp.asarray(boxes)))
    kept = greedy(boxes, scores, mask, 0.5, 40, True)
    np.testing.assert_array_equal(gradient, np.isin(np.arange(23), kept)[:, None].repeat(4, 1))


@pytest.mark.parametrize("limit", [4, 300])
def test_classes_by_the_definition(limit):
    rng = np.random.default_rng(limit)
    boxes = (random(rng, 200)[:, None] + rng.normal(0, 5, (200, 7, 4))).round().astype(np.float32)
    boxes[..., 2:] = np.maximum(boxes[..., 2:], boxes[..., :2])
    scores = rng.integers(0, 50, (200, 7)).astype(np.float32)
    mask = scores > 20
    mask[:, 2], mask[:, 3], mask[:, 4] = False, True, np.arange(200) == 150
    boxes[~mask], scores[~mask] = np.nan, np.inf
    images = [jnp.stack([x, x[::-1]]) for x in (boxes, scores, mask)]
    survivors = np.asarray(jax.jit(jax.vmap(lambda *x: class_nms(*x, 0.3, limit)))(*images))
    for image, found in zip(zip(*map(np.asarray, images), strict=True), survivors, strict=True):
        for c in range(7):
            expected = greedy(*(x[:, c] for x in image), 0.3, limit, True)
            assert sorted(expected) == list(np.flatnonzero(found[:, c]))
    assert survivors.any((0, 1)).tolist() == [True, True, False, True, True, True, True]


def test_wrong_arguments():
    arguments = np.zeros((2, 4), np.float32), np.zeros(2, np.float32), np.ones(2, bool)
    with pytest.raises(ValueError, match="nms limit is 0"):
        nms(*arguments, 0.5, 0)
    with pytest.raises(ValueError, match="nms tile is 0"):
        nms(*arguments, 0.5, 1, tile=0)
