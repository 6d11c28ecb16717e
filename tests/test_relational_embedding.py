"""Relational embedding against a loop over objects with the module's own parameters."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from linknet_jax.models.relational_embedding import (
    RelationalEmbedding,
    RelationalStack,
    row_operation,
    similarity,
)

N, D, COUNTS = 6, 16, (6, 3, 1, 0)
ROWS, KINDS = ("softmax", "sigmoid"), ("dot", "euclidean", "euclidean_root")
SCALES = ("none", "rsqrt_dim")


def inputs(width=D, garbage=np.nan):
    x = np.random.default_rng(0).normal(size=(len(COUNTS), N, width)).astype(np.float32)
    mask = np.arange(N) < np.array(COUNTS)[:, None]
    x[~mask] = garbage
    return jnp.asarray(x), jnp.asarray(mask)


def parameters(module, *arguments):
    """Random parameters of size one over the root of the width, biases too."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *arguments)
    rng = np.random.default_rng(1)
    scale = {1: 0.5, 2: 0.3}
    return jax.tree.map(
        lambda s: jnp.asarray(rng.normal(size=s.shape) * scale[len(s.shape)], jnp.float32), shapes
    )


def check(outputs, matrices, x, params, loop):
    """Every image's valid block is the loop's; the padding of R is zeros in every valid row."""
    for i, count in enumerate(COUNTS):
        y, expected = loop(np.asarray(x[i, :count], np.float64), params)
        np.testing.assert_allclose(outputs[i, :count], y, rtol=1e-4, atol=1e-4)
        for r, wanted in zip(matrices, expected, strict=True):
            np.testing.assert_allclose(r[i, :count, :count], wanted, rtol=1e-4, atol=1e-5)
            assert not np.any(r[i, :, count:])


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
@pytest.mark.parametrize(("row_op", "kind", "scale"), list(itertools.product(ROWS, KINDS, SCALES)))
def test_module_is_the_loop(row_op, kind, scale, reduction):
    module, (x, mask) = RelationalEmbedding(reduction, row_op, kind, scale), inputs()
    variables = parameters(module, x, mask)
    assert variables["params"]["W"]["kernel"].shape == (D, D // reduction)
    y, r = module.apply(variables, x, mask)
    loop = functools.partial(
        reference.relational_embedding, row_op=row_op, similarity=kind, scale=scale != "none"
    )
    check(y, [r], x, variables["params"], lambda *a: (lambda y, r: (y, [r]))(*loop(*a)))
    assert not np.any(y[~np.asarray(mask)])


@pytest.mark.parametrize("use_rem", [True, False])
@pytest.mark.parametrize("num_rem", [1, 2, 3, 4])
def test_stack_is_the_loop(num_rem, use_rem):
    module, (x, mask) = RelationalStack(8, num_rem, use_rem), inputs()
    variables = parameters(module, x, mask)
    y, matrices = module.apply(variables, x, mask)
    assert len(matrices) == (num_rem if use_rem else 0)
    loop = functools.partial(reference.relational_stack, num_rem=num_rem, use_rem=use_rem)
    check(y, matrices, jnp.nan_to_num(x), variables["params"], loop)


def test_stack_parameters_follow_the_paper():
    """REM(d), fc d to hidden, REM(hidden): no fc behind the last of several modules."""
    names = {n: set(parameters(RelationalStack(8, n), *inputs())["params"]) for n in (1, 2, 3)}
    assert names[1] == {"rem1", "fc1"} and names[2] == {"rem1", "fc1", "rem2"}
    assert names[3] == {"rem1", "fc1", "rem2", "fc2", "rem3"}


@pytest.mark.parametrize(("row_op", "kind"), list(itertools.product(ROWS, KINDS)))
def test_padding_changes_neither_values_nor_gradients(row_op, kind):
    module = RelationalStack(8, 2, embedding={"row_op": row_op, "similarity": kind})

    @jax.jit
    def run(variables, x, mask):
        def total(variables, x):
            y, matrices = module.apply(variables, x, mask)
            return (jnp.where(mask[..., None], y, 0) ** 2).sum(), matrices

        return jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(variables, x)

    x, mask = inputs()
    variables = parameters(module, x, mask)
    clean = run(variables, jnp.nan_to_num(x), mask)
    dirty = run(variables, x, mask)
    jax.tree.map(np.testing.assert_array_equal, dirty, clean)
    gradient = np.asarray(dirty[1][1])
    assert np.isfinite(gradient).all() and not gradient[~np.asarray(mask)].any()
    wide = run(
        variables,
        jnp.pad(x, ((0, 0), (0, 5), (0, 0)), constant_values=np.nan),
        jnp.pad(mask, ((0, 0), (0, 5))),
    )
    np.testing.assert_allclose(wide[0][0], clean[0][0], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-5), wide[1][0], clean[1][0])


def test_softmax_rows_sum_to_one_and_sigmoid_rows_do_not_know_each_other():
    mask = inputs()[1]
    scores = jnp.asarray(np.random.default_rng(0).normal(size=(4, N, N)) * 50, jnp.float32)
    rows = row_operation(scores, mask, "softmax").sum(-1)
    np.testing.assert_allclose(rows[:3], 1, rtol=1e-6)
    assert not rows[3].any()
    other = scores.at[:, :, 0].set(9)
    one, two = (row_operation(s, mask, "sigmoid") for s in (scores, other))
    np.testing.assert_array_equal(one[..., 1:], two[..., 1:])


def test_logits_are_float32_under_bfloat16():
    """In bfloat16 these two keys would tie."""
    q = jnp.full((1, 2, 256), 4, jnp.bfloat16)
    k = q.at[0, 1, 0].set(4.0625)
    scores = similarity(q, k, "dot")
    assert scores.dtype == jnp.float32
    np.testing.assert_array_equal(scores[0], [[4096, 4096.25]] * 2)
    x, mask = inputs()
    module = RelationalEmbedding(dtype=jnp.bfloat16)
    y, r = module.apply(parameters(module, x, mask), x.astype(jnp.bfloat16), mask)
    assert (y.dtype, r.dtype) == (jnp.bfloat16, jnp.float32)
    assert np.isfinite(np.asarray(y, np.float32)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_where_queries_equal_keys(kind):
    q = jnp.ones((1, 3, 4))
    slopes = jax.grad(lambda q: similarity(q, q, kind).sum())(q)
    assert np.isfinite(slopes).all()
