"""The best context-free classes of synthetic scenes, counted again from what is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from linknet_jax.config import get_default
from linknet_jax.data.synthetic import scenes, world
from linknet_jax.data.synthetic.guesses import context_free

OBJECTS = world.VOCABULARY.objects
TRAIN, TEST = 150, 40


@pytest.fixture(scope="module")
def config():
    tree = get_default("sgcls").data
    tree.train_images, tree.test_images, tree.val_images = TRAIN, TEST, 3
    return tree


def drawn(split, index):
    """(icon, row of its annotation) of every thing, joined by their boxes; and the annotation."""
    layout = scenes.layout(0, split, index)
    annotation, _ = scenes.describe(layout, "", world.SIDE)
    rows = {tuple(box): row for row, box in enumerate(annotation.boxes.tolist())}
    assert len(rows) == len(annotation.labels) == len(layout.things)
    return [(thing.icon, rows[tuple(map(float, thing.box))]) for thing in layout.things], annotation


@pytest.fixture(scope="module")
def table():
    """How often each class is behind each icon in training."""
    counts = {}
    for index in range(TRAIN):
        things, annotation = drawn("train", index)
        for icon, row in things:
            counts.setdefault(icon, np.zeros(len(OBJECTS), int))[annotation.labels[row]] += 1
    return counts


def test_guesses_are_the_brute_force_ones(config, table):
    found = context_free(config, "test")
    assert len(found) == TEST and len(context_free(config, "val")) == 3
    for index, (labels, scores) in enumerate(found):
        things, annotation = drawn("test", index)
        assert labels.shape == scores.shape == annotation.labels.shape
        for icon, row in things:
            counts = table[icon]
            assert counts[labels[row]] == counts.max() and labels[row] > 0
            assert scores[row] == pytest.approx(counts.max() / counts.sum())


def test_only_icons_that_classes_share_leave_doubt(config):
    """Where the guess is certain it is right; some of the others are wrong."""
    doubtful, wrong = set(), 0
    for index, (labels, scores) in enumerate(context_free(config, "test")):
        true = drawn("test", index)[1].labels
        assert ((0 < scores) & (scores <= 1)).all()
        np.testing.assert_array_equal(labels[scores == 1], true[scores == 1])
        doubtful |= {OBJECTS[x] for x in true[scores < 1]}
        wrong += (labels != true).sum()
    assert doubtful == {"dog", "wolf", "ball", "orange", "bird", "bat"} and wrong > 10


def test_guesses_depend_on_the_training_images(config):
    few = config.copy_and_resolve_references()
    few.train_images = 2
    before, after = (context_free(x, "test") for x in (config, few))
    assert any((a[1] != b[1]).any() for a, b in zip(before, after, strict=True))


def test_an_icon_that_training_lacks_has_no_guess(config):
    few = config.copy_and_resolve_references()
    few.train_images = 1
    seen = {icon for icon, _ in drawn("train", 0)[0]}
    unseen = 0
    for index, (labels, scores) in enumerate(context_free(few, "test")):
        for icon, row in drawn("test", index)[0]:
            assert (labels[row] > 0) == (scores[row] > 0) == (icon in seen)
            unseen += icon not in seen
    assert unseen > 10
