"""Training pairs of a detector's boxes against loops over METHOD.md 3.5, and their frequencies."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference_metrics import box_iou
from tiny import on_host

from linknet_jax.ops import proposal_pairs

N, G, DRAWS = 9, 5, 4000
GARBAGE = np.float32([np.nan, np.inf, -np.inf, 1e30])


@functools.cache
def compiled(touching):
    def one(scene, key, limit, related_limit):
        limits = dict(limit=limit, related_limit=related_limit, touching=touching)
        return proposal_pairs.relate(*scene, key, foreground=0.5, **limits)

    return on_host(jax.vmap(one, (None, 0, None, None)))


def relate(scene, keys=8, limit=64, related_limit=16, touching=True, rows=(N, G)):
    """(labels, predicates, mask) of every key; the scene is padded to `rows`, the result cut."""
    n, keys = len(scene[0]), jax.vmap(jax.random.key)(np.arange(keys))
    labels, *pairs = compiled(touching)(padded(scene, *rows), keys, limit, related_limit)
    assert not labels[:, n:].any()
    for x in pairs:
        assert not x[:, n:].any() and not x[:, :, n:].any()
    return labels[:, :n], *(x[:, :n, :n] for x in pairs)


def padded(scene, rows, true_rows):
    """More rows of garbage, among them boxes that would fit, with a class and relations."""
    boxes, mask, true_boxes, labels, true_mask, predicates = scene
    n, g = len(boxes), len(labels)
    rng = np.random.default_rng(rows + true_rows)
    more_boxes, more_true = (rng.choice(GARBAGE, (k, 4)) for k in (rows, true_rows))
    more_boxes[n:][::2], more_true[g:][::2] = [0, 0, 9, 9], [0, 0, 9, 9]
    more_labels = rng.integers(1, 3, true_rows) + 99 * (rng.random(true_rows) < 0.3)
    more_predicates = rng.integers(-5, 99, (true_rows, true_rows))
    more_boxes[:n], more_true[:g], more_labels[:g] = boxes, true_boxes, labels
    more_predicates[:g, :g] = predicates
    masks = np.pad(mask, (0, rows - n)), np.pad(true_mask, (0, true_rows - g))
    return (more_boxes, masks[0], more_true, np.int32(more_labels), masks[1],
            np.int32(more_predicates))  # fmt: skip


def scene_of(boxes, true_boxes, true_labels, relations):
    """Arguments of `relate` without padding; relations are (subject, object, predicate)."""
    boxes, true_boxes = (np.float32(x).reshape(-1, 4) for x in (boxes, true_boxes))
    predicates = np.zeros((len(true_boxes),) * 2, np.int32)
    for s, o, predicate in relations:
        predicates[s, o] = predicate
    full = np.ones(len(boxes), bool), np.ones(len(true_boxes), bool)
    return boxes, full[0], true_boxes, np.int32(true_labels), full[1], predicates


def random_scene(seed, side=24, n=N, g=G):
    """True boxes of two classes that overlap, proposals near them, some of them copies."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, side, (g, 2))
    true_boxes = np.concatenate([low, low + rng.integers(6, 16, (g, 2))], axis=1)
    boxes = true_boxes[rng.integers(0, g, n)] + rng.integers(-2, 3, (n, 4))
    boxes[n - 2 :] = boxes[: len(boxes[n - 2 :])]
    predicates = rng.integers(1, 6, (g, g)) * (rng.random((g, g)) < 0.4)
    relations = [(s, o, p) for (s, o), p in np.ndenumerate(predicates) if s != o]
    return scene_of(boxes, true_boxes, rng.integers(1, 3, g), relations)


def masked(scene, seed):
    """Some boxes and true boxes are padding and hold garbage, their relations too."""
    rng = np.random.default_rng(seed)
    boxes, _, true_boxes, labels, _, predicates = (x.copy() for x in scene)
    mask, true_mask = rng.random(len(boxes)) < 0.7, rng.random(len(labels)) < 0.7
    boxes[~mask], true_boxes[~true_mask] = rng.choice(GARBAGE, 4), rng.choice(GARBAGE, 4)
    labels[~true_mask] = rng.integers(-9, 99, (~true_mask).sum())
    predicates[~true_mask] = rng.integers(-9, 99, predicates[~true_mask].shape)
    predicates[:, ~true_mask] = rng.integers(-9, 99, predicates[:, ~true_mask].shape)
    np.fill_diagonal(predicates, 7)
    return boxes, mask, true_boxes, labels, true_mask, predicates


def slow(boxes, mask, true_boxes, true_labels, true_mask, predicates, touching):
    """Labels; {(s, o): {(i, j): IoU_s IoU_o}}; the pairs that may be unrelated."""
    n, g = len(mask), len(true_mask)
    rows, columns = np.flatnonzero(mask).tolist(), np.flatnonzero(true_mask).tolist()
    iou, labels = np.zeros((n, g)), np.zeros(n, int)
    for i in rows:
        for t in columns:
            iou[i, t] = box_iou(boxes[i].tolist(), true_boxes[t].tolist(), True)
        if columns and iou[i].max() >= 0.5:
            labels[i] = true_labels[iou[i].argmax()]
    candidates = {}
    for s in columns:
        for o in columns:
            if s == o or predicates[s, o] <= 0:
                continue
            ends = [[i for i in rows if iou[i, t] >= 0.5 and labels[i] == true_labels[t]]
                    for t in (s, o)]  # fmt: skip
            candidates[s, o] = {
                (i, j): iou[i, s] * iou[j, o] for i in ends[0] for j in ends[1] if i != j
            }
    related = {pair for pairs in candidates.values() for pair in pairs}
    free = set()
    for i in rows:
        for j in rows:
            if i != j and labels[i] and labels[j] and (i, j) not in related:
                overlap = box_iou(boxes[i].tolist(), boxes[j].tolist(), True)
                if overlap < 1 and (overlap > 0 or not touching):
                    free.add((i, j))
    return labels, {k: v for k, v in candidates.items() if v}, free


def pairs_of(matrix):
    return {tuple(x) for x in np.argwhere(matrix).tolist()}


def explained(drawn, candidates, predicates):
    """Whether different annotated relations account for the drawn pairs, one pair each."""
    if not drawn:
        return True
    (pair, predicate), *rest = drawn
    return any(
        explained(rest, {k: v for k, v in candidates.items() if k != relation}, predicates)
        for relation, pairs in candidates.items()
        if pair in pairs and predicates[relation] == predicate
    )


@pytest.mark.parametrize("touching", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_loop(seed, touching):
    scene = random_scene(seed, side=24 if seed % 2 else 70)
    scene = masked(scene, seed) if seed > 3 else scene
    labels, candidates, free = slow(*scene, touching)
    for limit, related_limit in ((64, 16), (4, 1), (3, 3)):
        found = relate(scene, 8, limit, related_limit, touching)
        for own, related, mask in zip(*found, strict=True):
            np.testing.assert_array_equal(own, labels)
            drawn = [((i, j), related[i, j]) for i, j in np.argwhere(related).tolist()]
            assert explained(drawn, candidates, scene[-1])
            assert len(drawn) <= min(related_limit, len(candidates))
            assert len(drawn) > 0 or not candidates
            others = pairs_of(mask) - pairs_of(related)
            assert others <= free and pairs_of(related) <= pairs_of(mask)
            assert len(others) == min(limit - len(drawn), len(free))


def test_random_scenes_hold_every_case():
    scenes = [random_scene(seed, 24 if seed % 2 else 70) for seed in range(12)]
    found = [slow(*x, touching) for x in scenes for touching in (True, False)]
    assert all(labels.any() for labels, *_ in found)
    assert sum(len(candidates) > 1 for _, candidates, _ in found) > 12
    assert sum(len(a[2]) < len(b[2]) for a, b in zip(found[::2], found[1::2], strict=True)) > 3


def chi_square(counts, weights):
    """Of counts by pair, all of which must have a weight."""
    assert set(counts) <= set(weights)
    expected = {k: sum(counts.values()) * w / sum(weights.values()) for k, w in weights.items()}
    assert min(expected.values()) > 5
    return sum((counts.get(k, 0) - e) ** 2 / e for k, e in expected.items())


def bound(cells):
    """Mean and five deviations of a chi-square variable."""
    return cells - 1 + 5 * np.sqrt(2 * (cells - 1))


def tally(matrices):
    counts = {}
    for matrix in matrices:
        for pair in pairs_of(matrix):
            counts[pair] = counts.get(pair, 0) + 1
    return counts


def strip(start, end):
    return [start, 0, end, 9]


ROW = [strip(0, 9), strip(0, 19), strip(1, 12), strip(2, 19), strip(0, 14), strip(5, 19)]


@pytest.mark.parametrize("kinds", [(1, 1), (1, 2)])
def test_frequencies_are_products_of_the_overlaps(kinds):
    """Also where a box fits both ends, which it cannot be at once."""
    true_boxes = [strip(0, 13), strip(3, 19)] if kinds == (1, 1) else [strip(0, 13), strip(60, 79)]
    boxes = ROW + ([] if kinds == (1, 1) else [strip(60, 71), strip(55, 79), strip(60, 79)])
    scene = scene_of(boxes, true_boxes, kinds, [(0, 1, 3)])
    weights = slow(*scene, True)[1][0, 1]
    assert len(weights) > 8 and max(weights.values()) > 2 * min(weights.values())
    if kinds == (1, 1):
        assert any((j, i) in weights for i, j in weights)
    _, related, _ = relate(scene, DRAWS)
    assert (related.astype(bool).sum((1, 2)) == 1).all() and set(np.unique(related)) == {0, 3}
    assert chi_square(tally(related), weights) < bound(len(weights))
    uniform = dict.fromkeys(weights, 1)
    assert chi_square(tally(related), uniform) > bound(len(weights)), "too few draws to tell"


def test_relations_share_a_limit_evenly_and_unfit_ones_take_no_slot():
    true_boxes = [strip(100 * k, 100 * k + 9) for k in range(4)]
    relations = [(0, 1, 1), (1, 0, 2), (1, 2, 3), (0, 3, 4), (3, 2, 5)]
    scene = scene_of(true_boxes[:3], true_boxes, [1, 2, 1, 2], relations)  # none fits box 3
    _, related, mask = relate(scene, DRAWS, limit=2, related_limit=1)
    assert (related.astype(bool).sum((1, 2)) == 1).all()
    counts = tally(related)
    assert chi_square(counts, dict.fromkeys([(0, 1), (1, 0), (1, 2)], 1)) < bound(3)
    assert (mask == related.astype(bool)).all(), "no other pair overlaps"


def test_two_relations_are_drawn_independently():
    boxes = [strip(0, 9), strip(1, 9), strip(60, 69), strip(60, 68)]
    scene = scene_of(boxes, [boxes[0], boxes[2]], [1, 2], [(0, 1, 1), (1, 0, 2)])
    _, related, _ = relate(scene, DRAWS)
    one, two = np.argmax((related == 1).reshape(DRAWS, -1), 1), (related == 2).reshape(DRAWS, -1)
    joint = {}
    for pair in zip(one.tolist(), np.argmax(two, 1).tolist(), strict=True):
        joint[pair] = joint.get(pair, 0) + 1
    weights = slow(*scene, True)[1]
    first, second = weights[0, 1], weights[1, 0]
    product = {
        (4 * i + j, 4 * k + m): first[i, j] * second[k, m] for i, j in first for k, m in second
    }
    assert len(product) == 16 and chi_square(joint, product) < bound(16)


def test_unrelated_pairs_are_drawn_uniformly():
    boxes = [strip(2 * k, 2 * k + 9) for k in range(5)]
    scene = scene_of(boxes, boxes, [1, 2, 3, 4, 5], [(0, 1, 1)])
    _, _, free = slow(*scene, True)
    _, related, mask = relate(scene, DRAWS, limit=2)
    assert (mask.sum((1, 2)) == 2).all() and (related[:, 0, 1] == 1).all()
    others = tally(mask & (related == 0))
    assert len(free) == 19 and chi_square(others, dict.fromkeys(free, 1)) < bound(19)


def test_background_and_boxes_in_one_place_make_no_unrelated_pair():
    boxes = [strip(0, 9), strip(0, 9), strip(4, 13), strip(12, 21), strip(90, 99)]
    true_boxes = [strip(0, 9), strip(4, 13), strip(90, 99)]
    labels, related, mask = (x[0] for x in relate(scene_of(boxes, true_boxes, [1, 1, 2], [])))
    assert labels.tolist() == [1, 1, 1, 0, 2] and not related.any()
    assert pairs_of(mask) == {(0, 2), (2, 0), (1, 2), (2, 1)}
    _, _, mask = relate(scene_of(boxes, true_boxes, [1, 1, 2], []), touching=False)
    assert pairs_of(mask[0]) == {(0, 2), (2, 0), (1, 2), (2, 1)} | {
        pair for i in (0, 1, 2) for pair in ((i, 4), (4, i))
    }


def test_an_overlap_of_exactly_the_threshold_fits():
    """Inclusive: 5 of 10 pixels."""
    ends = [strip(0, 9), strip(50, 59)]
    for last, labels in ((54, [1, 2]), (53, [1, 0])):
        found = relate(scene_of([ends[0], strip(50, last)], ends, [1, 2], [(0, 1, 1)]), 1)
        assert found[0][0].tolist() == labels and found[1][0, 0, 1] == (labels[1] > 0)


def test_a_box_fits_only_true_boxes_of_its_class():
    """It overlaps both well, its own a little better."""
    true_boxes = [strip(0, 9), strip(1, 10), strip(50, 59)]
    scene = scene_of([strip(0, 9), strip(50, 59)], true_boxes, [1, 2, 3], [(1, 2, 4)])
    labels, related, mask = relate(scene, touching=False)
    assert labels[0].tolist() == [1, 3] and not related.any()
    assert (mask.sum((1, 2)) == 2).all()


@pytest.mark.parametrize("related_limit", [0, 1, 7])
def test_one_box_that_fits_both_ends_is_no_pair(related_limit):
    scene = scene_of([strip(0, 9)], [strip(0, 9), strip(1, 9)], [1, 1], [(0, 1, 2), (1, 0, 3)])
    labels, related, mask = relate(scene, related_limit=related_limit)
    assert (labels == 1).all() and not related.any() and not mask.any()


def test_no_box_and_no_true_box():
    scene = list(random_scene(1))
    for position in (1, 4):
        empty = list(scene)
        empty[position] = np.zeros_like(scene[position])
        for found in relate(tuple(empty)):
            assert not found.any()


def test_relations_of_twins_may_meet_in_one_pair():
    """Two true boxes in one place: a pair that stands for both has one of the two predicates."""
    true_boxes = [strip(0, 9), strip(0, 9), strip(50, 59)]
    scene = scene_of([strip(0, 9), strip(50, 59)], true_boxes, [1, 1, 2], [(0, 2, 3), (1, 2, 5)])
    _, related, mask = relate(scene, limit=3)
    assert set(related[:, 0, 1].tolist()) <= {3, 5} and (mask.sum((1, 2)) == 1).all()


@pytest.mark.parametrize("limit, related_limit", [(64, 16), (4, 2)])
def test_padding_changes_nothing(limit, related_limit):
    for seed in range(4):
        scene = random_scene(seed)
        clean = relate(scene, 8, limit, related_limit)
        found = relate(scene, 8, limit, related_limit, rows=(N + 3, G + 2))
        assert clean[1].any()
        for a, b in zip(found, clean, strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_inverse_of_the_cumulated_weights_at_its_edges():
    """No index of weight 0, for any number of [0, 1)."""
    weights = np.float32([[0, 2, 0, 1, 1, 0], [0, 0, 0, 0, 0, 5], [1, 0, 0, 0, 0, 0]])
    noise = np.float32(
        [0, 0.25, np.nextafter(np.float32(0.5), np.float32(0)), 0.5, 0.75, 1 - 2**-24]
    )
    grid = jnp.asarray(np.broadcast_to(weights[:, None], (3, len(noise), 6)))
    found = proposal_pairs._draw(grid, jnp.asarray(np.tile(noise, (3, 1))))
    assert found.tolist() == [[1, 1, 1, 3, 4, 4], [5] * 6, [0] * 6]
