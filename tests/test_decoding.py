"""Classes of overlapping boxes against the loop of METHOD.md 1.5.

Boxes are whole pixels and tied probabilities powers of two: both sides compare the same floats.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import on_host

from linknet_jax.ops.decoding import decode_labels

N, C, SETS = 7, 5, 60
GARBAGE = np.float32([np.nan, np.inf, -np.inf, 1e30])
decode = on_host(decode_labels)
decode_sets = on_host(jax.vmap(decode_labels))
softmax = on_host(lambda x: jax.nn.softmax(x, axis=-1))


def inclusive_iou(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + 1, 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + 1, 0)
    areas = [(x[2] - x[0] + 1) * (x[3] - x[1] + 1) for x in (a, b)]
    return np.float32(width * height) / np.float32(sum(areas) - width * height)


def slow(logits, class_boxes, mask, overlap=0.3):
    """The most probable (box, class) first, over and over."""
    original, labels = softmax(logits), np.zeros(len(mask), int)
    free, waiting = original.copy(), [i for i in range(len(mask)) if mask[i]]
    while waiting:
        _, i, c = max((free[i, c], -i, -c) for i in waiting for c in range(1, free.shape[1]))
        i, c = -i, -c
        if free[i, c] == 0:  # the guard
            c = 1 + original[i, 1:].argmax()
        labels[i] = c
        waiting.remove(i)
        for j in waiting:
            if inclusive_iou(class_boxes[i, c], class_boxes[j, c]) >= np.float32(overlap):
                free[j, c] = 0
    return labels


def random_boxes(rng, side):
    low = rng.integers(0, side, (N, C, 2))
    return np.concatenate([low, low + rng.integers(0, 12, low.shape)], axis=-1).astype(np.float32)


def tied(rng):
    """One, two or four classes of equal probability, the others exactly 0."""
    logits = np.full((N, C), -1e4, np.float32)
    for row in logits:
        row[rng.permutation(C)[: rng.choice([1, 2, 4])]] = 0
    return logits


def copied(rng):
    return np.repeat(rng.normal(size=(1, C)), N, axis=0).astype(np.float32)


LOGITS = {
    "random": lambda rng: rng.normal(size=(N, C)).astype(np.float32),
    "sharp": lambda rng: (30 * rng.normal(size=(N, C))).astype(np.float32),
    "tied": tied,
    "copied": copied,
}
SIDES = {"apart": 200, "crowded": 12, "one place": 1}


@pytest.mark.parametrize("side", SIDES.values(), ids=SIDES)
@pytest.mark.parametrize("kind", LOGITS)
def test_loop(kind, side):
    rng = np.random.default_rng(side)
    logits = np.stack([LOGITS[kind](rng) for _ in range(SETS)])
    boxes = np.stack([random_boxes(rng, side) for _ in range(SETS)])
    mask = rng.random((SETS, N)) < 0.8
    mask[0], mask[1] = True, False
    expected = [slow(*x) for x in zip(logits, boxes, mask, strict=True)]
    np.testing.assert_array_equal(decode_sets(logits, boxes, mask), expected)


def test_the_loop_meets_what_it_is_to_test():
    """Random sets change labels, and some boxes lose every class."""
    rng = np.random.default_rng(1)
    changed = lost = 0
    for _ in range(SETS):
        logits, boxes, full = LOGITS["tied"](rng), random_boxes(rng, 1), np.ones(N, bool)
        labels, own = slow(logits, boxes, full), 1 + logits[:, 1:].argmax(1)
        changed += (labels != own).any()
        lost += max(np.bincount(labels)) > 1
    assert changed > SETS / 2 and lost > SETS / 2


def case(rows, boxes):
    """Probabilities of the foreground (the rest is background) and one place for all classes."""
    foreground = np.float32(rows)
    full = np.concatenate([1 - foreground.sum(1, keepdims=True), foreground], axis=1)
    logits = np.log(np.maximum(full, 1e-30))
    places = np.repeat(np.float32(boxes)[:, None], full.shape[1], axis=1)
    return logits, places, np.ones(len(rows), bool)


def test_the_weaker_of_two_in_one_place_takes_its_next_class():
    same = [[0, 0, 9, 9]] * 2
    assert decode(*case([[0.5, 0.2, 0.1], [0.6, 0.1, 0.2]], same)).tolist() == [2, 1]


def test_background_never_wins_and_never_falls():
    assert decode(*case([[0.01, 0.02], [0.03, 0.01]], [[0, 0, 9, 9]] * 2)).tolist() == [2, 1]


def test_ties_fall_to_the_first_box_then_to_the_lower_class():
    same = [[0, 0, 9, 9]] * 3
    assert decode(*case([[0.25, 0.25, 0.25]] * 3, same)).tolist() == [1, 2, 3]


def test_a_box_that_lost_every_class_takes_its_most_probable():
    rows = [[0.9, 0.0], [0.0, 0.9], [0.1, 0.3], [0.3, 0.1]]
    assert decode(*case(rows, [[0, 0, 9, 9]] * 4)).tolist() == [1, 2, 2, 1]


@pytest.mark.parametrize("last, expected", [(2, [1, 2]), (1, [1, 1])])
def test_an_overlap_of_exactly_the_threshold_counts(last, expected):
    """Inclusive: 3 of 10 pixels is 0.3, 2 of 10 is not."""
    boxes = [[0, 0, 9, 0], [0, 0, last, 0]]
    assert decode(*case([[0.9, 0.05], [0.8, 0.05]], boxes)).tolist() == expected


def test_the_overlap_can_be_chosen():
    boxes, rows = [[0, 0, 9, 0], [0, 0, 4, 0]], [[0.9, 0.05], [0.8, 0.05]]
    for overlap, second in ((0.5, 2), (0.51, 1)):
        chosen = on_host(functools.partial(decode_labels, overlap=overlap))
        assert chosen(*case(rows, boxes)).tolist() == [1, second]


def test_boxes_overlap_as_the_class_in_question_places_them():
    """Class 1 puts both in one place, class 2 does not, nor does the proposal (class 0)."""
    places = np.zeros((2, 3, 4), np.float32)
    places[:, 1] = [0, 0, 9, 9]
    places[:, [0, 2]] = np.float32([[[0, 0, 9, 9]], [[50, 0, 59, 9]]])
    full = np.ones(2, bool)
    for column, expected in ((1, [1, 2]), (2, [2, 2])):
        rows = np.full((2, 2), 0.05)
        rows[:, column - 1] = 0.9, 0.8
        assert decode(case(rows, places[:, 0])[0], places, full).tolist() == expected


def test_one_box_and_none():
    for probabilities, label in (([0.2, 0.3], 2), ([0.0, 0.0], 1)):
        logits, boxes, mask = case([probabilities], [[3, 3, 3, 3]])
        assert decode(logits, boxes, mask).tolist() == [label]
        assert decode(logits, boxes, ~mask).tolist() == [0]


def test_garbage_in_padding_changes_nothing():
    rng = np.random.default_rng(3)
    for seed in range(8):
        logits, boxes, mask = LOGITS["random"](rng), random_boxes(rng, 12), rng.random(N) < 0.6
        clean = decode(logits, boxes, mask)
        dirty = [x.copy() for x in (logits, boxes)]
        for x in dirty:
            x[~mask] = np.random.default_rng(seed).choice(GARBAGE, x[~mask].shape)
        np.testing.assert_array_equal(decode(*dirty, mask), clean)
        short = slow(logits[mask], boxes[mask], mask[mask])
        np.testing.assert_array_equal(clean[mask], short)
        assert not clean[~mask].any() and (clean[mask] > 0).all()


def test_half_precision_logits_are_decoded_in_float32():
    logits, boxes, mask = case([[0.5, 0.2], [0.6, 0.2]], [[0, 0, 9, 9]] * 2)
    assert decode(jnp.asarray(logits, jnp.bfloat16), boxes, mask).tolist() == [2, 1]
