"""Ordered pairs and their sampling."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linknet_jax.ops.pairs import all_pairs, sample_pairs, unordered, upper_triangle


def mask_of(count, n):
    return jnp.arange(n) < count


@pytest.mark.parametrize("mask", [[], [0], [1], [1, 0, 1, 1], [0, 0, 0]])
def test_all_pairs_is_the_loop(mask):
    n = len(mask)
    expected = [[bool(mask[i] and mask[j] and i != j) for j in range(n)] for i in range(n)]
    result = all_pairs(jnp.asarray(mask, bool))
    np.testing.assert_array_equal(result, np.array(expected, bool).reshape(n, n))


def test_unordered_is_the_loop():
    pairs = np.random.default_rng(0).random((7, 7)) < 0.3
    np.fill_diagonal(pairs, False)
    i, j = upper_triangle(7)
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == [
        (a, b) for a in range(7) for b in range(a + 1, 7)
    ]
    result = np.asarray(unordered(jnp.asarray(pairs)))
    for a, b in np.ndindex(7, 7):
        assert result[a, b] == (a < b and (pairs[a, b] or pairs[b, a]))


SEEDS = np.arange(200)


@jax.jit
def draw(predicates, mask, seeds, limit, related_limit):
    keys = jax.vmap(jax.random.key)(seeds)
    sample = functools.partial(sample_pairs, limit=limit, related_limit=related_limit)
    return jax.vmap(sample, (None, None, 0))(predicates, all_pairs(mask), keys)


def relations(n, related, seed=0):
    rng, predicates = np.random.default_rng(seed), np.zeros((n, n), np.int32)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    for index in rng.choice(len(pairs), related, replace=False):
        predicates[pairs[index]] = rng.integers(1, 6)
    return predicates


@pytest.mark.parametrize(
    ("count", "related", "limit", "related_limit"),
    [(5, 8, 12, 3), (5, 2, 12, 3), (5, 8, 100, 64), (5, 20, 6, 6), (5, 0, 4, 2), (5, 8, 3, 0),
     (2, 1, 256, 64), (1, 0, 256, 64), (0, 0, 256, 64)],
)  # fmt: skip
def test_limits(count, related, limit, related_limit):
    n = 8
    predicates = np.random.default_rng(1).integers(-4, 9, (n, n)).astype(np.int32)
    predicates[:count, :count] = relations(count, related) if count > 1 else 0
    drawn = np.asarray(draw(predicates, mask_of(count, n), SEEDS, limit, related_limit))
    candidates = count * (count - 1)
    positives = min(related, related_limit)
    negatives = min(candidates - related, limit - positives)
    valid = np.asarray(all_pairs(mask_of(count, n)))
    assert not drawn[:, ~valid].any()
    np.testing.assert_array_equal((drawn & (predicates > 0)).sum((1, 2)), positives)
    np.testing.assert_array_equal((drawn & (predicates == 0)).sum((1, 2)), negatives)


def test_uniform_without_replacement():
    """Frequencies within five standard deviations of the binomial's."""
    n, count, rounds = 8, 5, 2000
    predicates = np.zeros((n, n), np.int32)
    predicates[:count, :count] = relations(count, 8)
    mask = mask_of(count, n)
    drawn = [draw(predicates, mask, SEEDS + part * 200, 7, 3) for part in range(rounds // 200)]
    drawn = np.concatenate(drawn)
    frequency, off_diagonal = drawn.mean(0), np.asarray(all_pairs(mask))
    for wanted, expected in ((predicates > 0, 3 / 8), ((predicates == 0) & off_diagonal, 4 / 12)):
        tolerance = 5 * (expected * (1 - expected) / rounds) ** 0.5
        np.testing.assert_allclose(frequency[wanted], expected, atol=tolerance)
    pair = np.flatnonzero((predicates > 0).ravel())[:2]
    together = drawn.reshape(rounds, -1)[:, pair].all(1).mean()
    np.testing.assert_allclose(together, 3 / 8 * 2 / 7, atol=0.04)


def test_padding_does_not_change_the_draw():
    count, predicates = 8, relations(8, 20)
    small = np.asarray(draw(predicates, mask_of(count, count), SEEDS, 7, 3))
    wide = np.random.default_rng(0).integers(-3, 9, (11, 11)).astype(np.int32)
    wide[:count, :count] = predicates
    large = np.asarray(draw(wide, mask_of(count, 11), SEEDS, 7, 3))
    np.testing.assert_array_equal(large[:, :count, :count], small)
    assert large.sum() == small.sum() and len(np.unique(small, axis=0)) > 10
