"""The drawn rectangles against their area fractions."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import reference

from linknet_jax.ops.spatial_mask import draw_pair


def make(count=6, seed=0):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 100, (2, count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 60, (2, count, 2))], axis=-1)
    return boxes.astype(np.float32)


def raster(box, frame, cells, fine):
    """Share of fine x fine points of every cell that lie in the box."""
    steps = (np.arange(cells * fine) + 0.5) / (cells * fine)
    inside = []
    for axis in (1, 0):
        points = frame[axis] + steps * (frame[axis + 2] - frame[axis])
        inside.append((points >= box[axis]) & (points < box[axis + 2]))
    grid = inside[0][:, None] & inside[1][None, :]
    return grid.reshape(cells, fine, cells, fine).mean((1, 3))


def test_area_fractions_are_those_of_a_fine_raster():
    subjects, objects = make()
    drawn = np.asarray(draw_pair(jnp.asarray(subjects), jnp.asarray(objects), cells=9))
    for s, o, masks in zip(subjects, objects, drawn, strict=True):
        frame = reference.union_box(s, o)
        for channel, box in enumerate((s, o)):
            expected = raster(box, frame, 9, 40) - 0.5
            np.testing.assert_allclose(masks[..., channel], expected, atol=0.03)


@pytest.mark.parametrize("cells", [27, 4])
def test_is_the_loop(cells):
    subjects, objects = make(3, seed=1)
    subjects[0, 2] = subjects[0, 0]
    objects[1] = subjects[1] = [5, 6, 5, 6]
    drawn = np.asarray(draw_pair(jnp.asarray(subjects), jnp.asarray(objects), cells))
    for s, o, masks in zip(subjects, objects, drawn, strict=True):
        np.testing.assert_allclose(masks, reference.pair_rectangles(s, o, cells), atol=1e-4)


def test_by_hand():
    left, whole = jnp.array([[0.0, 0, 6, 4]]), jnp.array([[0.0, 0, 8, 4]])
    drawn = np.asarray(draw_pair(left, whole, cells=4))[0]
    np.testing.assert_allclose(drawn[..., 1], 0.5)
    np.testing.assert_allclose(drawn[..., 0], np.tile([0.5, 0.5, 0.5, -0.5], (4, 1)))


def test_boxes_without_width_cover_nothing_and_stay_finite():
    line, box = jnp.array([[3.0, 0, 3, 9]] * 2), jnp.array([[3.0, 0, 3, 5], [0, 0, 9, 9]])
    drawn = np.asarray(draw_pair(line, box))
    assert np.isfinite(drawn).all()
    np.testing.assert_allclose(drawn[0], -0.5)
    np.testing.assert_allclose(drawn[1, ..., 0], -0.5)
    np.testing.assert_allclose(drawn[1, ..., 1], 0.5, atol=1e-6)
