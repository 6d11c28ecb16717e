"""Masked sums of losses against loops."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from linknet_jax import losses


def make(shape=(3, 4), classes=5, seed=0):
    """Logits, labels and a mask; garbage labels where it is False."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(*shape, classes)).astype(np.float32) * 3
    labels, mask = rng.integers(0, classes, shape), rng.random(shape) < 0.6
    labels[~mask] = rng.integers(-9, 99, (~mask).sum())
    return logits, labels, mask


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 3)])
def test_cross_entropy_is_the_loop(shape):
    logits, labels, mask = make(shape)
    result = losses.cross_entropy(jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(mask))
    np.testing.assert_allclose(result, reference.softmax_loss(logits, labels, mask), rtol=1e-5)


def test_nothing_valid_costs_nothing():
    logits, labels, mask = make()
    assert losses.cross_entropy(logits, labels, np.zeros_like(mask)) == 0
    assert losses.multi_label(logits[0], logits[0] > 0, np.zeros(4, bool)) == 0


def test_masked_entries_have_no_gradient():
    logits, labels, mask = make()
    slopes = np.asarray(jax.grad(losses.cross_entropy)(jnp.asarray(logits), labels, mask))
    expected = reference.softmax(logits) - np.eye(5)[np.where(mask, labels, 0)]
    np.testing.assert_allclose(slopes, np.where(mask[..., None], expected, 0), atol=1e-5)


def test_cross_entropy_is_float32():
    logits, labels, mask = make()
    half = losses.cross_entropy(jnp.asarray(logits, jnp.bfloat16), labels, mask)
    assert half.dtype == jnp.float32


def test_multi_label_is_the_loop_with_both_terms():
    logits = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32) * 4
    present, mask = np.random.default_rng(1).random((4, 6)) < 0.4, np.array([1, 0, 1, 1], bool)
    expected = sum(reference.sigmoid_loss(logits[i], present[i]) for i in np.flatnonzero(mask))
    np.testing.assert_allclose(losses.multi_label(logits, present, mask), expected, rtol=1e-5)
    zeros = losses.multi_label(np.zeros((4, 6), np.float32), present, mask)
    np.testing.assert_allclose(zeros, 3 * 6 * np.log(2), rtol=1e-6)


def test_present_classes_are_those_of_the_valid_boxes():
    rng = np.random.default_rng(0)
    labels, mask = rng.integers(-1, 12, (20, 5)), rng.random((20, 5)) < 0.5
    result = np.asarray(losses.present_classes(jnp.asarray(labels), jnp.asarray(mask), 8))
    for i in range(20):
        for c in range(1, 8):
            valid = [labels[i, j] for j in range(5) if mask[i, j]]
            assert result[i, c - 1] == (c in valid)
    assert result.shape == (20, 7)
