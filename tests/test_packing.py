"""Packed work against the same work without packing."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from linknet_jax.ops.packing import chunk_lengths, pack, packed_map, unpack

N, D = 10, 3


def mask_of(count, n=N, seed=0):
    return jnp.asarray(np.random.default_rng(seed).permutation(n) < count)


def function(operands, rows):
    """A row's value depends on its integer, its items and two operands; singular at x = 0."""
    looked_up = operands["table"][rows["index"]] * operands["scale"][rows["index"]][:, None]
    return jnp.tanh(jnp.log(jnp.abs(rows["x"])) @ operands["w"]) * looked_up


def operands_of(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(rng.normal(size=(D, 4)), jnp.float32),
        "table": jnp.asarray(rng.normal(size=(5, 4)), jnp.float32),
        "scale": jnp.arange(1, 6),
    }


def items_of(mask, garbage=0.0):
    rng = np.random.default_rng(7)
    x, index = rng.normal(size=(len(mask), D)) + 2, rng.integers(0, 5, len(mask))
    x[~np.asarray(mask)] = garbage
    return {"x": jnp.asarray(x, jnp.float32), "index": jnp.asarray(index)}


def packed(operands, items, mask, chunk):
    order, count = pack(mask)
    rows = jax.tree.map(lambda x: x[order], items)
    return unpack(packed_map(function, chunk, operands, rows, count), mask)


def plain(operands, items, mask):
    """Row by row, the valid ones only."""
    rows = []
    for i, valid in enumerate(np.asarray(mask)):
        row = jax.tree.map(lambda x: x[i : i + 1], items)  # noqa: B023
        rows.append(function(operands, row)[0] if valid else jnp.zeros(4))
    return jnp.stack(rows)


def moving(operands):
    return {k: operands[k] for k in ("w", "table")}


def gradients(value, operands):
    """Of a weighted sum of the values, for the float operands."""
    weights = jnp.asarray(np.random.default_rng(5).normal(size=(N, 4)), jnp.float32)
    return jax.grad(lambda m: (value({**operands, **m}) * weights).sum())(moving(operands))


@functools.partial(jax.jit, static_argnames="chunk")
def packed_and_gradients(operands, items, mask, chunk):
    def value(operands):
        return packed(operands, items, mask, chunk)

    return value(operands), gradients(value, operands)


def close(a, b, tolerance=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, tolerance, tolerance), a, b)


@pytest.mark.parametrize("mask", [[1, 0, 1, 1, 0], [0, 0, 0], [1, 1], [0, 1]])
def test_pack_and_unpack(mask):
    mask = jnp.asarray(mask, bool)
    order, count = pack(mask)
    positions = np.flatnonzero(mask)
    assert count == len(positions)
    np.testing.assert_array_equal(order[:count], positions)
    np.testing.assert_array_equal(order[count:], positions[0] if len(positions) else 0)
    values = np.random.default_rng(0).normal(size=(len(mask), 2, 3))
    expected = np.zeros_like(values)
    expected[positions] = values[: len(positions)]
    values[len(positions) :] = np.nan
    np.testing.assert_array_equal(unpack(jnp.asarray(values), mask), np.float32(expected))


@pytest.mark.parametrize("chunk", [1, 4, N, 64])
@pytest.mark.parametrize("count", [0, 1, 7, 8, N])
def test_values_and_gradients_are_those_of_the_rows(count, chunk):
    mask, operands = mask_of(count), operands_of()
    items = items_of(mask)
    values, slopes = packed_and_gradients(operands, items, mask, chunk)
    close(values, plain(operands, items, mask))
    close(slopes, gradients(lambda o: plain(o, items, mask), operands))


@pytest.mark.parametrize("garbage", [np.nan, np.inf, 0.0])
@pytest.mark.parametrize("count", [0, 3, 7])
def test_garbage_in_padded_rows_changes_nothing(count, garbage):
    """The function is singular at 0, so that zeros are garbage as well."""
    mask, operands = mask_of(count), operands_of()
    clean = packed_and_gradients(operands, items_of(mask, 1.5), mask, 4)
    dirty = packed_and_gradients(operands, items_of(mask, garbage), mask, 4)
    jax.tree.map(np.testing.assert_array_equal, dirty, clean)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(dirty))


def test_rows_beyond_the_last_half_chunk_are_zeros():
    items = items_of(mask_of(N))
    values = packed_map(function, 4, operands_of(), items, jnp.int32(5))
    expected = function(operands_of(), items)
    close(values[:6], expected[:6])
    np.testing.assert_array_equal(values[6:], 0)


@pytest.mark.parametrize(
    ("chunk", "lengths"),
    [(4, [4, 2]), (128, [128, 64]), (512, [512, 256, 128, 64]), (250, [250, 125])],
)
def test_chunks_halve(chunk, lengths):
    assert chunk_lengths(chunk) == lengths


@pytest.mark.parametrize("count", [0, 1, 64, 65, 129, 300, 511, 512, 513, 700])
def test_every_row_is_computed_once(count):
    items = jnp.arange(1.0, 701.0)[:, None]
    values = packed_map(lambda _, x: x, 256, (), items, jnp.int32(count))
    np.testing.assert_array_equal(values[:count], items[:count])
    np.testing.assert_array_equal(values[-(-count // 64) * 64 :], 0)


def loops(jaxpr):
    """All while loops in a jaxpr, nested ones too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "while":
            yield equation
        for parameter in jax.tree.leaves(
            equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from loops(inner)


def test_only_perturbed_operands_are_differentiated():
    mask, operands = mask_of(7), operands_of()
    items = items_of(mask)

    def total(table):
        return packed({**operands, "table": table}, items, mask, 4).sum()

    expected = jax.grad(lambda t: plain({**operands, "table": t}, items, mask).sum())
    close(jax.grad(total)(operands["table"]), expected(operands["table"]))
    shapes = [
        variable.aval.shape
        for loop in loops(jax.make_jaxpr(jax.grad(total))(operands["table"]).jaxpr)
        for variable in loop.outvars
    ]
    assert operands["table"].shape in shapes and operands["w"].shape not in shapes


def test_in_scan():
    mask, operands = mask_of(7), operands_of()
    masks = jnp.stack([mask, mask_of(0), mask_of(4, seed=1)])
    items = [items_of(m) for m in masks]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *items)

    @jax.jit
    def total(moved):
        def body(carry, part):
            return carry + packed({**operands, **moved}, *part, 4).sum(), None

        return jax.lax.scan(body, 0.0, (stacked, masks))[0]

    def expected(moved):
        parts = zip(items, masks, strict=True)
        return sum(plain({**operands, **moved}, *part).sum() for part in parts)

    close(
        jax.value_and_grad(total)(moving(operands)), jax.value_and_grad(expected)(moving(operands))
    )


def test_in_shard_map_every_device_has_its_own_count():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    operands = operands_of()
    masks = jnp.stack([mask_of(count, seed=count) for count in (0, 1, 3, 4, 5, 8, 9, 10)])
    items = [items_of(m) for m in masks]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *items)
    split, same = PartitionSpec("data"), PartitionSpec()

    def local(moved, items, mask):
        def total(moved):
            first = jax.tree.map(lambda x: x[0], (items, mask))
            return packed({**operands, **moved}, *first, 4).sum()

        return jax.lax.psum(jax.grad(total)(moved), "data")

    step = jax.jit(
        jax.shard_map(
            local, mesh=mesh, in_specs=(same, split, split), out_specs=same, check_vma=False
        )
    )

    def expected(moved):
        parts = zip(items, masks, strict=True)
        return sum(plain({**operands, **moved}, *part).sum() for part in parts)

    slopes = step(moving(operands), stacked, masks)
    close(slopes, jax.grad(expected)(moving(operands)), 1e-4)


def test_filler_of_the_last_chunk_is_masked():
    """Batch statistics would otherwise count the first row once more."""
    count_of_chunk = packed_map(
        lambda _, rows: jnp.full(rows.shape, rows.sum()), 4, (), jnp.ones(5, bool), jnp.int32(5)
    )
    np.testing.assert_array_equal(count_of_chunk, [4, 4, 4, 4, 1])


def test_gradients_of_many_chunks_are_summed_in_float32():
    def total(scale):
        return packed_map(lambda s, rows: rows * s, 2, scale, jnp.ones(2000), jnp.int32(2000)).sum()

    gradient = jax.grad(total)(jnp.bfloat16(1))
    assert gradient.dtype == jnp.bfloat16 and gradient == 2000  # bfloat16 sums stop at 256 or 512
