"""The device's ranking against the definition in NumPy and a brute-force sort."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from linknet_jax.metrics.baselines import rank
from linknet_jax.ops.ranking import rank_triplets

N, PREDICATES = 7, 5
ranked = jax.jit(rank_triplets, static_argnames="free")


@functools.lru_cache
def make(count, ties, seed=0):
    """Logits of a count-object image among N, NaN wherever the pair is not valid."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(N, N, PREDICATES)).astype(np.float32)
    if ties:
        logits = np.tile(np.float32([0.0, 1, 1, 0, 1]), (N, N, 1))
        logits[:, 2] = [0, 0, 2, 0, 2]
    valid = rng.permutation(N) < count
    mask = valid[:, None] & valid[None, :] & ~np.eye(N, dtype=bool)
    logits[~mask] = np.nan
    scores = (rng.integers(1, 3, N) / 2 if ties else rng.random(N)).astype(np.float32)
    scores[~valid] = np.nan
    return rng.integers(1, 9, N), scores, logits, mask


def triplets(pairs, predicates, count):
    rows = zip(pairs[:count].tolist(), predicates[:count].tolist(), strict=True)
    return [(s, o, p) for (s, o), p in rows]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 4, N])
def test_equals_the_definition(count, ties):
    labels, scores, logits, mask = make(count, ties)
    result = ranked(labels, scores, logits, mask)
    probabilities = np.asarray(jax.nn.softmax(jnp.asarray(logits)))
    expected = rank(labels, scores, probabilities, mask)
    m, k = int(expected.count), int(expected.free_count)
    assert (int(result.count), int(result.free_count)) == (m, k)
    for name, rows in (
        ("pairs", m), ("predicates", m), ("scores", m),
        ("free_pairs", k), ("free_predicates", k), ("free_scores", k),
    ):  # fmt: skip
        np.testing.assert_array_equal(getattr(result, name)[:rows], getattr(expected, name))
    best, free = reference.ranked_triplets(scores, probabilities, mask)
    assert triplets(result.pairs, result.predicates, m) == best
    assert triplets(result.free_pairs, result.free_predicates, k) == free
    np.testing.assert_array_equal(result.labels, labels)
    np.testing.assert_array_equal(result.label_scores, scores)


def test_background_takes_part_in_the_softmax_only():
    logits = np.zeros((2, 2, 3), np.float32)
    logits[0, 1], logits[1, 0] = [9, 1, 0], [0, 0, 0]
    result = ranked(np.ones(2, int), np.ones(2, np.float32), logits, ~np.eye(2, dtype=bool))
    assert result.pairs.tolist()[:2] == [[1, 0], [0, 1]] and (result.predicates[:2] > 0).all()
    np.testing.assert_allclose(result.scores[0], 1 / 3, rtol=1e-6)


def test_few_free_candidates_are_all_kept_and_many_are_cut():
    labels, scores, logits, mask = make(4, False)
    assert ranked(labels, scores, logits, mask).free_count == 12 * (PREDICATES - 1)
    cut = ranked(labels, scores, logits, mask, free=10)
    assert cut.free_count == 10 and cut.free_scores.shape == (10,)
    assert (np.diff(cut.free_scores) <= 0).all()


def test_bfloat16_logits_are_ranked_in_float32():
    labels, scores, logits, mask = make(4, False)
    half = jnp.asarray(logits, jnp.bfloat16)
    result = ranked(labels, scores, half, mask)
    assert result.scores.dtype == jnp.float32
    expected = rank(labels, scores, np.asarray(jax.nn.softmax(half.astype(jnp.float32))), mask)
    np.testing.assert_array_equal(result.pairs[:12], expected.pairs)
