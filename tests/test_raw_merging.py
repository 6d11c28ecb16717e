"""Greedy merging against slow loops, and the cases that docs/data.md names."""

from __future__ import annotations

import numpy as np
import pytest
import raw_reference as reference

from linknet_jax.data.raw.merging import NESTED, OVERLAPPING, SAME, match_kinds, merge


def merged(corners, names):
    return merge(np.array(corners, np.int32).reshape(-1, 4), np.array(names, np.int64))


@pytest.mark.parametrize("seed", range(60))
def test_equals_the_reference(seed):
    rng = np.random.default_rng(seed)
    count, span = int(rng.integers(1, 40)), int(rng.choice([6, 30, 200]))
    low = rng.integers(-2, span, (count, 2))
    corners = np.concatenate([low, low + rng.integers(1, span, (count, 2))], axis=1)
    again = rng.integers(0, count, count)
    near = rng.random(count) < 0.5
    corners[near] = corners[again][near] + rng.integers(-1, 2, (count, 4))[near] * (span > 30)
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + 2)
    names = rng.integers(0, 4, count)
    result = merged(corners, names)
    expected, kinds = reference.merge([tuple(c) for c in corners.tolist()], names.tolist())
    np.testing.assert_array_equal(result.boxes, [box for box, _ in expected])
    np.testing.assert_array_equal(result.kinds, kinds)
    for number, (_, members) in enumerate(expected):
        assert np.flatnonzero(result.group == number).tolist() == members


def test_overlap_divides_by_the_hull_and_not_by_the_union():
    """Intersection 90 x 90: over the union 0.68, over the hull 0.67 and, shifted more, 0.598."""
    base, shifted, more = (0, 0, 100, 100), (10, 10, 110, 110), (13, 13, 113, 113)
    matches = match_kinds(np.array([base, shifted, more]), np.array([7, 7, 7]))
    assert matches[0, 1] == OVERLAPPING
    iou = 87**2 / (2 * 100**2 - 87**2)
    assert iou > 0.6 > 87**2 / 113**2 and matches[0, 2] == 0


@pytest.mark.parametrize(
    ("other", "same_name", "kind"),
    [
        ((0, 0, 100, 100), False, SAME),
        ((0, 0, 100, 90), False, 0),  # 0.9 is not above 0.9
        ((0, 0, 100, 91), False, SAME),
        ((0, 0, 100, 90), True, NESTED),
        ((40, 40, 50, 50), True, NESTED),
        ((40, 40, 50, 50), False, 0),
        ((-5, 0, 90, 110), True, OVERLAPPING),
        ((-5, 0, 90, 110), False, 0),
        ((100, 0, 200, 100), True, 0),
        ((40, 0, 140, 100), True, 0),
    ],
)
def test_kinds(other, same_name, kind):
    corners, names = np.array([(0, 0, 100, 100), other]), np.array([1, 1 if same_name else 2])
    np.testing.assert_array_equal(match_kinds(corners, names), [[SAME, kind], [kind, SAME]])


def test_mean_of_the_same_and_extent_of_others():
    same = merged([(0, 0, 100, 100), (1, 2, 100, 100), (0, 0, 101, 99)], [1, 2, 3])
    np.testing.assert_array_equal(same.boxes, [[0, 0, 100, 99]])  # 1/3, 2/3, 100, 99 truncated
    mixed = merged([(0, 0, 100, 100), (1, 2, 100, 100), (50, 0, 60, 100)], [1, 2, 1])
    np.testing.assert_array_equal(mixed.boxes, [[0, 0, 100, 100]])
    np.testing.assert_array_equal(mixed.kinds, [0, SAME, NESTED])


def test_greedy_in_the_order_of_the_file():
    """A box in the middle takes both neighbours in if it comes first, and only one if last."""
    left, middle, right = (0, 0, 100, 100), (15, 0, 115, 100), (30, 0, 130, 100)
    assert len(merged([middle, left, right], [1, 1, 1]).boxes) == 1
    result = merged([left, middle, right], [1, 1, 1])
    np.testing.assert_array_equal(result.boxes, [[0, 0, 115, 100], [30, 0, 100, 100]])
    assert match_kinds(np.array([left, right]), np.array([1, 1]))[0, 1] == 0


def test_a_merged_box_takes_no_more_in():
    """The chain a-b-c: b is gone when its turn comes, so c stays although b matches it."""
    a, b, c = (0, 0, 100, 100), (0, 0, 100, 92), (0, 0, 100, 84)
    result = merged([a, b, c], [1, 2, 3])
    np.testing.assert_array_equal(result.group, [0, 0, 1])


def test_nothing_to_merge():
    assert merged([], []).boxes.shape == (0, 4)
    np.testing.assert_array_equal(merged([(3, 4, 8, 9)], [-1]).boxes, [[3, 4, 5, 5]])


def test_the_mean_of_thin_boxes_is_not_empty():
    result = merged([(7, 9, 8, 10)] * 3, [1, 2, 3])
    np.testing.assert_array_equal(result.boxes, [[7, 9, 1, 1]])
