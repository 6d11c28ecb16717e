"""Features of boxes and pairs of boxes against loops, and what moving the boxes changes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from linknet_jax.ops.pair_geometry import box_geometry, pair_geometry

CORNERS = [0, 1, 2, 3, 7, 8, 9, 10]  # of a pair's features
OVERLAP, EDGES = slice(22, 25), slice(25, 29)
DEGENERATE = [(5, 5, 5, 5), (0, 0, 600, 0), (0, 0, 1e-3, 400), (-30, -20, 700, 900), (3, 4, 9, 9)]


def random_boxes(count, seed):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 300, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(0, 300, (count, 2))], axis=1)
    return np.concatenate([boxes, DEGENERATE]).astype(np.float32)


SUBJECTS, OBJECTS = random_boxes(40, 0), random_boxes(40, 1)[::-1].copy()
SIZES = np.random.default_rng(2).uniform(200, 700, (len(SUBJECTS), 2)).astype(np.float32)


def pairs(subjects=SUBJECTS, objects=OBJECTS, sizes=SIZES):
    return np.asarray(pair_geometry(*map(jnp.asarray, (subjects, objects, sizes))))


def test_boxes_equal_a_loop():
    found = np.asarray(box_geometry(jnp.asarray(SUBJECTS), jnp.asarray(SIZES)))
    expected = [reference.box_geometry(*x) for x in zip(SUBJECTS, SIZES, strict=True)]
    assert found.shape == (len(SUBJECTS), 7)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_pairs_equal_a_loop():
    zipped = zip(SUBJECTS.astype(float), OBJECTS.astype(float), SIZES.astype(float), strict=True)
    expected = [reference.pair_geometry(*x) for x in zipped]
    assert pairs().shape == (len(SUBJECTS), 29)
    np.testing.assert_allclose(pairs(), expected, rtol=2e-5, atol=2e-5)
    assert 5 < (pairs()[:, OVERLAP] > 0).all(axis=1).sum() < len(SUBJECTS)


def test_leading_axes():
    shaped = [x[:40].reshape(2, 5, 4, -1) for x in (SUBJECTS, OBJECTS, SIZES)]
    np.testing.assert_array_equal(pairs(*shaped).reshape(40, 29), pairs()[:40])


def test_exchanging_the_boxes_exchanges_their_features():
    there, back = pairs(), pairs(OBJECTS, SUBJECTS)
    order = [*range(7, 14), *range(7), *range(18, 22), *range(14, 18), 23, 22, 24]
    np.testing.assert_array_equal(back[:, :25], there[:, order])
    np.testing.assert_array_equal(back[:, EDGES], -there[:, EDGES])
    assert (back != there).any(axis=1).all()


def test_translation_changes_the_corners_only():
    before, after = pairs(), pairs(SUBJECTS + 64, OBJECTS + 64)
    rest = np.setdiff1d(range(29), CORNERS)
    np.testing.assert_allclose(after[:, rest], before[:, rest], rtol=1e-4, atol=1e-4)
    shift = 64 / np.concatenate([SIZES[:, ::-1]] * 4, axis=1)
    np.testing.assert_allclose((after - before)[:, CORNERS], shift, rtol=1e-3, atol=1e-5)


def test_every_pixel_twice_changes_nothing_but_the_last_corner():
    """Sizes count both end pixels, so that x2 becomes 2 x2 + 1."""
    doubled = [2 * x + np.float32([0, 0, 1, 1]) for x in (SUBJECTS, OBJECTS)]
    after = pairs(*doubled, 2 * SIZES)
    rest = np.setdiff1d(range(29), [2, 3, 9, 10])
    np.testing.assert_allclose(after[:, rest], pairs()[:, rest], rtol=1e-4, atol=1e-4)
    assert np.abs(after - pairs()).max() < 0.5 / SIZES.min() + 1e-4


@pytest.mark.parametrize("shift", [0, 1e4])
def test_everything_stays_finite(shift):
    far = OBJECTS + np.float32([shift, -shift, shift, -shift])
    values = pairs(SUBJECTS, far)
    assert np.isfinite(values).all() and np.abs(values).max() < 1e5

    def total(boxes):
        return pair_geometry(boxes, jnp.asarray(far), jnp.asarray(SIZES)).sum()

    assert np.isfinite(jax.grad(total)(jnp.asarray(SUBJECTS))).all()
