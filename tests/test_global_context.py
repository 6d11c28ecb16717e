"""The pooled context and its classifier."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from linknet_jax.models.global_context import GlobalContext, average_pool

SIZES = np.float32([[5, 4], [2.25, 3.0], [0.5, 4], [0, 0]])


def features_of(side=(5, 4), channels=3):
    return np.random.default_rng(0).normal(size=(len(SIZES), *side, channels)).astype(np.float32)


def test_full_pool_is_the_mean():
    features = features_of()
    expected = [reference.average_pool(x) for x in features]
    np.testing.assert_allclose(average_pool(features, None), expected, atol=1e-6)


def test_valid_pool_is_the_mean_of_the_touched_cells():
    features = features_of()
    pooled = average_pool(features, jnp.asarray(SIZES))
    expected = [reference.average_pool(x, s) for x, s in zip(features[:3], SIZES[:3], strict=True)]
    np.testing.assert_allclose(pooled[:3], expected, atol=1e-6)
    np.testing.assert_array_equal(pooled[3], 0)


def test_pool_of_bfloat16_is_float32():
    features = jnp.full((1, 40, 40, 2), 1.0078125, jnp.bfloat16)
    pooled = average_pool(features, None)
    assert pooled.dtype == jnp.float32
    np.testing.assert_allclose(pooled, 1.0078125, rtol=1e-6)


@pytest.mark.parametrize("own_convolution", [False, True])
def test_module_is_the_definition(own_convolution):
    features = features_of((4, 4))
    module = GlobalContext(6, own_convolution)
    variables = module.init(jax.random.key(0), features, None)
    params = variables["params"]
    assert set(params) == {"classifier"} | ({"convolution"} if own_convolution else set())
    context, logits = module.apply(variables, features, jnp.asarray(SIZES))
    for i, x in enumerate(features[:3]):
        if own_convolution:
            x = np.maximum(reference.convolution(x, params["convolution"]), 0)
        expected = reference.average_pool(x, SIZES[i])
        np.testing.assert_allclose(context[i], expected, atol=1e-5)
        np.testing.assert_allclose(
            logits[i], reference.linear(expected, params["classifier"]), atol=1e-5
        )
