"""Flips: what is drawn where, whose names change, and which images are flipped."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from linknet_jax.data.mirror import counterparts, flips, mirror
from linknet_jax.data.transforms import load_image
from linknet_jax.types import Annotation, Vocabulary

VOCABULARY = Vocabulary(
    ("background", "left shoe", "right shoe", "man"),
    ("background", "on", "to the left of", "to the right of", "left_of", "right_of", "Right-hand"),
)
VOCABULARY = dataclasses.replace(VOCABULARY, predicates=(*VOCABULARY.predicates, "Left-hand"))


def annotation(width=60, height=40):
    return Annotation(
        image_id=1,
        width=width,
        height=height,
        boxes=np.array([(3, 5, 20.5, 30), (0, 0, width, height), (40, 10, 44, 39.0)]),
        labels=np.array([1, 3, 2], np.int32),
        relations=np.array([(0, 1, 2), (2, 0, 1), (1, 2, 5), (0, 2, 6)], np.int32),
    )


def test_twice_is_nothing():
    once = mirror(annotation(), VOCABULARY)
    twice = mirror(once, VOCABULARY)
    for key in ("boxes", "labels", "relations"):
        np.testing.assert_array_equal(getattr(twice, key), getattr(annotation(), key), strict=True)
    assert (once.image_id, once.width, once.height) == (1, 60, 40)


def test_boxes_and_names_change_sides():
    original = annotation()
    flipped = mirror(original, VOCABULARY)
    expected = [(39.5, 5, 57, 30), (0, 0, 60, 40), (16, 10, 20, 39)]
    np.testing.assert_array_equal(flipped.boxes, expected)
    assert flipped.labels.tolist() == [2, 3, 1]
    assert flipped.relations.tolist() == [[0, 1, 3], [2, 0, 1], [1, 2, 4], [0, 2, 7]]
    np.testing.assert_array_equal(original.boxes, annotation().boxes)  # shared with the table
    np.testing.assert_array_equal(original.relations, annotation().relations)


@pytest.mark.parametrize(("width", "height"), [(60, 40), (40, 60), (97, 31), (64, 64)])
def test_pixels_and_boxes_agree(tmp_path, width, height):
    """A rectangle drawn on a photograph is where its mirrored box says, in the network's input."""
    box = (5, 8, 21, 28)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    Image.fromarray(pixels).save(tmp_path / "x.png")
    annotated = dataclasses.replace(
        annotation(width, height),
        boxes=np.array([box], np.float64),
        labels=np.array([3], np.int32),
        relations=np.zeros((0, 3), np.int32),
    )
    size = 4 * max(width, height)
    for flip in (False, True):
        image, covered, scale = load_image(tmp_path / "x.png", size, flip)
        x1, y1, x2, y2 = (mirror(annotated, VOCABULARY) if flip else annotated).boxes[0] * scale
        bright = image[: int(covered[0]), : int(covered[1]), 0] > 127
        rows, columns = (np.flatnonzero(bright.any(axis=k)) for k in (1, 0))
        assert abs(np.array([columns[0], columns[-1] + 1]) - [x1, x2]).max() <= 1
        assert abs(np.array([rows[0], rows[-1] + 1]) - [y1, y2]).max() <= 1


def test_counterparts():
    names = ("background", "left of", "near", "right of", "bright", "rightmost")
    assert counterparts(names).tolist() == [0, 3, 2, 1, 4, 5]
    assert counterparts(names).dtype == np.int32
    names = ("LEFT OF", "RIGHT OF", "toLeftOf", "toRightOf", "COPYRIGHT", "leftOf", "rightOf")
    assert counterparts(names).tolist() == [1, 0, 3, 2, 4, 6, 5]
    names = ("leftover", "copyright", "Righteous", "LEFTOVER", "AlRight")
    with pytest.raises(ValueError, match="'AlRight'"):  # told rather than overlooked
        counterparts(names)
    assert counterparts(names[:-1]).tolist() == [0, 1, 2, 3]
    assert counterparts(VOCABULARY.predicates).tolist() == [0, 1, 3, 2, 5, 4, 7, 6]
    assert counterparts(("left right", "right left")).tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"mirror image of 'to the left_of'.*data.flip=False"):
        counterparts(("on", "to the left_of", "right_of"))


def test_flips_are_a_function_of_seed_epoch_and_image():
    indices = np.arange(4000)
    epochs = indices % 3
    drawn = flips(7, epochs, indices)
    assert drawn.dtype == bool and abs(drawn.mean() - 0.5) < 0.03
    order = np.random.default_rng(0).permutation(4000)[:500]
    np.testing.assert_array_equal(flips(7, epochs[order], indices[order]), drawn[order])
    for other in (flips(8, epochs, indices), flips(7, epochs + 1, indices)):
        assert abs((other == drawn).mean() - 0.5) < 0.03
    assert flips(7, epochs[:0], indices[:0]).shape == (0,)
