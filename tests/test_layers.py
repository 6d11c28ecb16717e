"""Initial values, dropout by key, batch normalisation over the valid entries."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linknet_jax.models import layers
from linknet_jax.models.layers import Linear, MaskedBatchNorm, fold, row_dropout


def keys_of(seeds):
    return jax.vmap(jax.random.key)(jnp.asarray(seeds))


@pytest.mark.parametrize("fan_in", [25, 400])
def test_linear_starts_like_torch(fan_in):
    params = Linear(300).init(jax.random.key(1), jnp.zeros((1, fan_in)))["params"]
    for values in params.values():
        bound = fan_in**-0.5
        assert np.abs(values).max() <= bound and np.abs(values).max() > 0.97 * bound
        np.testing.assert_allclose(np.std(values), bound / 3**0.5, rtol=0.1)
        assert abs(np.mean(values)) < 0.15 * bound


def test_linear_is_affine_and_keeps_its_dtype():
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    module = Linear(4)
    variables = module.init(jax.random.key(0), x)
    params = variables["params"]
    expected = x @ np.asarray(params["kernel"]) + np.asarray(params["bias"])
    np.testing.assert_allclose(module.apply(variables, x), expected, atol=1e-5)
    half = Linear(4, dtype=jnp.bfloat16)
    assert half.apply(variables, x).dtype == jnp.bfloat16
    assert jax.eval_shape(half.init, jax.random.key(0), x)["params"]["kernel"].dtype == jnp.float32


def test_large_linear_skips_padded_rows(monkeypatch):
    monkeypatch.setattr(layers, "PACKED_FROM", 1)
    rng = np.random.default_rng(0)
    x, mask = rng.normal(size=(3, 5, 4)).astype(np.float32), rng.random((3, 5)) < 0.6
    module = Linear(6)
    variables = module.init(jax.random.key(0), x)
    garbage = np.where(mask[..., None], x, np.nan)

    def loss(variables, x, given):
        y = module.apply(variables, x, given)
        return jnp.sum(jnp.where(mask[..., None], y, 0) ** 2)

    packed, plain = (
        jax.value_and_grad(loss, argnums=(0, 1))(variables, *inputs)
        for inputs in ((garbage, mask), (x, None))
    )
    for a, b in zip(jax.tree.leaves(packed), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(module.apply(variables, garbage, mask))[~mask], 0)


def test_dropout_is_bound_to_the_rows_key():
    x = jnp.ones((6, 40))
    together = np.asarray(row_dropout(x, keys_of(range(6)), 0.3))
    order = np.array([4, 1, 5, 0])
    np.testing.assert_array_equal(row_dropout(x[:4], keys_of(order), 0.3), together[order])
    np.testing.assert_array_equal(row_dropout(x[:1], keys_of([2]), 0.3)[0], together[2])
    assert len(np.unique(together, axis=0)) == 6


def test_dropout_keeps_the_mean_and_the_dtype():
    x = jnp.full((200, 100), 2, jnp.bfloat16)
    dropped = row_dropout(x, keys_of(range(200)), 0.25)
    assert dropped.dtype == jnp.bfloat16
    values = np.asarray(dropped, np.float32)
    np.testing.assert_allclose(np.unique(values), [0, 2 / 0.75], rtol=0.01)
    np.testing.assert_allclose((values == 0).mean(), 0.25, atol=0.01)


def test_no_keys_or_no_rate_is_no_dropout():
    x = jnp.arange(6.0).reshape(2, 3)
    assert row_dropout(x, None, 0.5) is x and row_dropout(x, keys_of([0, 1]), 0) is x
    assert fold(None, 3) is None


def test_fold_gives_other_keys_to_every_use():
    keys = keys_of(range(3))
    data = [jax.random.key_data(fold(keys, use)) for use in (0, 1, 2)]
    assert len(np.unique(np.concatenate(data), axis=0)) == 9
    np.testing.assert_array_equal(jax.random.key_data(fold(keys[1:], 2)), data[2][1:])


SHAPES = [((7, 4), (7, 1)), ((3, 5, 2, 4), (3, 1, 1, 1)), ((2, 3, 3, 4), (2, 3, 3, 1))]


def normalise(x, mask, train, statistics=None):
    module = MaskedBatchNorm(train, momentum=0.9)
    variables = {
        "params": {"scale": jnp.arange(1.0, 5), "bias": jnp.arange(4.0)},
        "batch_stats": statistics or {"mean": jnp.full(4, 0.5), "var": jnp.full(4, 4.0)},
    }
    return module.apply(variables, x, mask, mutable=["batch_stats"] if train else [])


@pytest.mark.parametrize(("shape", "mask_shape"), SHAPES)
def test_batch_norm_sees_the_valid_entries_only(shape, mask_shape):
    rng = np.random.default_rng(0)
    x, mask = rng.normal(3, 2, shape).astype(np.float32), rng.random(mask_shape) < 0.6
    wide = np.broadcast_to(mask, (*shape[:-1], 1))[..., 0]
    x[~wide] = np.nan
    y, updates = normalise(jnp.asarray(x), jnp.asarray(mask), True)
    mean, var = x[wide].mean(0), x[wide].var(0)
    expected = (x[wide] - mean) / np.sqrt(var + 1e-5) * np.arange(1, 5) + np.arange(4)
    np.testing.assert_allclose(np.asarray(y)[wide], expected, atol=1e-4)
    np.testing.assert_allclose(updates["batch_stats"]["mean"], 0.45 + 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(updates["batch_stats"]["var"], 3.6 + 0.1 * var, rtol=1e-4)


def test_batch_norm_in_evaluation_uses_the_running_statistics():
    x = jnp.ones((5, 4))
    y, updates = normalise(x, jnp.ones((5, 1), bool), False)
    expected = 0.5 / np.sqrt(4 + 1e-5) * np.arange(1, 5) + np.arange(4)
    np.testing.assert_allclose(y, np.tile(expected, (5, 1)), rtol=1e-5)
    assert not updates


def test_batch_norm_without_a_valid_entry_changes_nothing():
    x, mask = jnp.ones((5, 4)), jnp.zeros((5, 1), bool)
    y, updates = normalise(x, mask, True)
    np.testing.assert_allclose(updates["batch_stats"]["mean"], 0.5, rtol=1e-6)
    np.testing.assert_allclose(updates["batch_stats"]["var"], 4, rtol=1e-6)
    assert np.isfinite(y).all()
    assert np.isfinite(jax.grad(lambda x: normalise(x, mask, True)[0].sum())(x)).all()
