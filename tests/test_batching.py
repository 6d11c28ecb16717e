"""Padding, masks, the draw among several predicates, and the limit on objects."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from linknet_jax.data.batching import BENIGN_BOX, FILLER, Draw, check_max_objects, make_batch
from linknet_jax.data.mirror import mirror
from linknet_jax.types import Annotation, Vocabulary


def annotation(name, count, relations):
    corners = np.random.default_rng(count).uniform(0, 40, (count, 2))
    return Annotation(
        image_id=name,
        width=100,
        height=80,
        boxes=np.concatenate([corners, corners + 20], 1),
        labels=np.arange(1, count + 1, dtype=np.int32),
        relations=np.array(relations, np.int32).reshape(-1, 3),
    )


ANNOTATIONS = [
    annotation("a.jpg", 2, [(0, 1, 3), (1, 0, 4)]),
    annotation("b.jpg", 4, [(0, 1, 5), (0, 1, 6), (0, 1, 6), (2, 2, 7), (3, 0, 8)]),
    annotation("c.jpg", 0, []),
]


class Source:
    """Annotations of classes that have a side."""

    vocabulary = Vocabulary(
        ("", "left", "right", "c", "d"), ("", "p1", "p2", "left of", "right of", *"56789")
    )
    annotations = ANNOTATIONS
    truth = None


def batch(
    indices, epochs=None, max_objects=5, seed=0, scale=0.5, flips=None, sizes=None, clip=False
):
    b = len(indices)
    epochs = np.zeros(b, int) if epochs is None else np.array(epochs)
    flips = np.zeros(b, bool) if flips is None else np.array(flips)
    return make_batch(
        Source,
        np.full((b, 8, 8, 3), 9, np.uint8),
        np.tile(np.float32(sizes or (80 * scale, 100 * scale)), (b, 1)),
        np.full(b, scale),
        Draw(np.array(indices), epochs, flips, clip),
        max_objects,
        seed,
    )


def test_padding():
    result = batch([1, 0, FILLER, 2])
    np.testing.assert_array_equal(result.box_mask.sum(1), [4, 2, 0, 0])
    np.testing.assert_array_equal(result.boxes[0, :4], np.float32(ANNOTATIONS[1].boxes * 0.5))
    assert (result.boxes[~result.box_mask] == BENIGN_BOX).all()
    np.testing.assert_array_equal(result.labels[1], [1, 2, 0, 0, 0])
    np.testing.assert_array_equal(result.example_mask, [True, True, False, True])
    np.testing.assert_array_equal(result.image_index, [1, 0, -1, 2])
    expected = np.zeros((5, 5))
    expected[0, 1], expected[1, 0] = 3, 4
    np.testing.assert_array_equal(result.predicates[1], expected)
    assert not result.predicates[2:].any() and not result.predicates[0, 2, 2]
    types = [x.dtype for x in (result.images, result.boxes, result.labels, result.predicates)]
    assert types == [np.uint8, np.float32, np.int32, np.int32]


def test_mirrored_images():
    plain, result = batch([0, 1]), batch([0, 1, FILLER], flips=[True, False, True])
    wanted = mirror(ANNOTATIONS[0], Source.vocabulary)
    np.testing.assert_array_equal(result.boxes[0, :2], np.float32(wanted.boxes * 0.5))
    np.testing.assert_array_equal(result.boxes[0, :2, 0], 50 - plain.boxes[0, :2, 2])
    assert result.labels[0].tolist() == [2, 1, 0, 0, 0]
    assert (result.predicates[0, 0, 1], result.predicates[0, 1, 0]) == (4, 3)
    np.testing.assert_array_equal(result.boxes[1], plain.boxes[1])
    # The same predicate is drawn, flipped or not.
    flipped = batch([1] * 50, np.arange(50), flips=np.ones(50, bool))
    np.testing.assert_array_equal(flipped.predicates, batch([1] * 50, np.arange(50)).predicates)
    assert not result.example_mask[2] and not result.box_mask[2].any()


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("sizes", [(40, 50), (39.2, 50), (50, 30), (10, 50)])
def test_boxes_are_mirrored_and_cut_within_the_photograph(monkeypatch, sizes, clip):
    """Annotated are 100 x 80 pixels, of which 1 is rounding; else the photograph's shape counts."""
    boxes = np.array([(-5, 10, 50, 60), (40, 15, 99, 79), (95, 90, 99, 99), (-9, 1, 0, 5.0)])
    found = dataclasses.replace(ANNOTATIONS[1], boxes=boxes)
    monkeypatch.setattr(Source, "annotations", [found])
    result = batch([0, 0], sizes=sizes, flips=[False, True], clip=clip).boxes[:, :4]
    height, width = (40, 50) if sizes[0] == 39.2 else sizes
    for row, flip in zip(result, (False, True), strict=True):
        for box, (x1, y1, x2, y2) in zip(row, boxes * 0.5, strict=True):
            expected = [width - x2, y1, width - x1, y2] if flip else [x1, y1, x2, y2]
            limits = (width, height) * 2
            cut = [min(max(v, 0), n) for v, n in zip(expected, limits, strict=True)]
            if clip and cut[0] < cut[2] and cut[1] < cut[3]:
                expected = cut
            np.testing.assert_allclose(box, expected, atol=1e-5)


def test_one_of_several_predicates_is_drawn_uniformly_among_annotations():
    drawn = np.concatenate(
        [batch([1] * 300, np.arange(300) + 300 * seed, seed=seed).predicates[:, 0, 1]
         for seed in range(4)]
    )  # fmt: skip
    counts = np.bincount(drawn, minlength=7)
    assert counts.sum() == counts[5] + counts[6] == 1200
    assert abs(counts[5] / 1200 - 1 / 3) < 0.06


def test_draw_depends_on_seed_epoch_and_image_alone():
    together = batch([0, 1, 1, 1], [0, 3, 4, 9])
    alone = batch([1], [4])
    np.testing.assert_array_equal(together.predicates[2], alone.predicates[0])
    draws = {batch([1], [e], seed=s).predicates[0, 0, 1] for e in range(6) for s in range(2)}
    assert draws == {5, 6}


def test_too_many_objects():
    match = r"image 'b.jpg' has 4 objects, but data.max_objects is 3 .*--config.data.max_objects=4"
    with pytest.raises(ValueError, match=match):
        check_max_objects(ANNOTATIONS, 3)
    with pytest.raises(ValueError, match=match):
        batch([1], max_objects=3)
    check_max_objects(ANNOTATIONS, 4)
    check_max_objects([], 4)
