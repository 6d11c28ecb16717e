"""The promises of the synthetic scenes, on the default test split and a part of training."""

import dataclasses

import numpy as np
import pytest
from reference import frequency_ranking, mean_recall_of_rankings

from linknet_jax.config import get_default
from linknet_jax.data import statistics
from linknet_jax.data.synthetic import drawing, scenes, world
from linknet_jax.data.synthetic.source import Synthetic
from linknet_jax.data.synthetic.world import Thing

OBJECTS, PREDICATES = world.VOCABULARY.objects, world.VOCABULARY.predicates
SIZES = {"train": 1500, "val": 100, "test": 500}


@pytest.fixture(scope="module")
def splits() -> dict[str, Synthetic]:
    config = get_default("sgcls").data
    for split, number in SIZES.items():
        config[f"{split}_images"] = number
    return {split: Synthetic(config, split) for split in SIZES}


def _everything(splits):
    for split, source in splits.items():
        for annotation, truth in zip(source.annotations, source.truth, strict=True):
            yield split, annotation, truth


def _types(annotation, truth) -> set[tuple[str, str, str]]:
    labels = [OBJECTS[x] for x in annotation.labels]
    return {(labels[s], PREDICATES[p], labels[o]) for s, o, p in truth}


def test_a_scene_depends_on_seed_split_and_index_only(splits):
    first, again = scenes.scene(0, "test", 7), scenes.scene(0, "test", 7)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.image, splits["test"].example(7)[0])
    for found in (again.annotation, splits["test"].annotations[7]):
        assert found.image_id == first.annotation.image_id == "test-000007"
        for name in ("boxes", "labels", "relations"):
            np.testing.assert_array_equal(getattr(found, name), getattr(first.annotation, name))
    np.testing.assert_array_equal(first.truth, splits["test"].truth[7])
    others = [(1, "test", 7), (0, "val", 7), (0, "train", 7), (0, "test", 8)]
    assert all((scenes.scene(*key).image != first.image).mean() > 0.3 for key in others)


def test_examples_are_network_input(splits):
    image, valid, scale = splits["val"].example(3)
    assert image.shape == (128, 128, 3) and image.dtype == np.uint8 and scale == 1.0
    assert valid.dtype == np.float32 and valid.tolist() == [128, 128]
    assert splits["val"].example(3)[0] is image  # drawn once


def test_annotations_are_well_formed(splits):
    for split, annotation, truth in _everything(splits):
        boxes, labels = annotation.boxes, annotation.labels
        assert boxes.dtype == np.float64 and labels.dtype == truth.dtype == np.int32
        assert 3 <= len(boxes) == len(labels) <= 10
        assert labels.min() >= 1 and labels.max() < len(OBJECTS)
        assert (boxes[:, 2:] - boxes[:, :2] >= 18).all()
        assert (boxes[:, 0] >= 0).all() and (boxes[:, 1] >= 44).all() and boxes.max() <= 128
        assert (annotation.width, annotation.height) == (128, 128)
        assert annotation.image_id.startswith(split)
        assert 1 <= len(annotation.relations) <= len(truth) < 20
        assert {*map(tuple, annotation.relations)} <= {*map(tuple, truth)}
        pairs = {(s, o) for s, o, _ in truth}
        assert len(pairs) == len(truth) and all(s != o for s, o in pairs)


def test_there_is_enough_to_learn_and_a_long_tail(splits):
    labels = np.concatenate([x.labels for x in splits["train"].annotations])
    truth = np.concatenate(splits["train"].truth)
    for used, names, least in ((labels, OBJECTS, 12), (truth[:, 2], PREDICATES, 10)):
        share = np.sort(np.bincount(used, minlength=len(names))[1:]) / len(used)
        assert len(share) >= least and share[0] > 0.001 and share[-1] > 4 * share[0]
    assert 5 <= len(truth) / SIZES["train"] <= 12
    written = sum(len(x.relations) for x in splits["train"].annotations)
    assert 0.65 < written / len(truth) < 0.9


def test_look_alikes_follow_what_else_is_in_the_image(splits):
    seen = set()
    for _, annotation, _ in _everything(splits):
        names = {OBJECTS[x] for x in annotation.labels}
        assert not {"dog", "wolf"} <= names and not {"ball", "orange"} <= names
        assert ("dog" in names) <= bool(names & world.PEOPLE)
        assert ("wolf" in names) <= (not names & world.PEOPLE)
        assert ("orange" in names) <= ("table" in names)
        assert ("ball" in names) <= ("table" not in names)
        assert not {"bird", "bat"} <= names
        seen |= names
    assert seen == set(OBJECTS[1:])


def test_context_decides_enough_objects(splits):
    labels = np.concatenate([x.labels for x in splits["train"].annotations])
    names = np.array(OBJECTS)[labels]
    assert 0.2 < np.isin(names, ["dog", "wolf", "ball", "orange"]).mean() < 0.35
    assert 0.1 < np.isin(names, ["bird", "bat"]).mean() < 0.2
    for one, other in (("dog", "wolf"), ("ball", "orange"), ("bird", "bat")):
        assert 0.5 < (names == one).sum() / (names == other).sum() < 2


@pytest.mark.parametrize("index", range(5))
def test_day_and_night_differ_far_from_every_box_only(index):
    layout = scenes.layout(0, "test", index)
    other = dataclasses.replace(layout, day=not layout.day)
    differs = (scenes.picture(layout, 128) != scenes.picture(other, 128)).any(axis=-1)
    rows = np.nonzero(differs.any(axis=1))[0]
    assert differs.sum() > 100 and rows.max() < 18
    flipped = world.classes(layout.things, other.day)
    changed = {
        x for pair in zip(layout.names, flipped, strict=True) for x in pair if len({*pair}) > 1
    }
    assert changed <= {"bird", "bat"}


@pytest.mark.parametrize("icon", drawing.ICONS)
def test_icons_fill_their_boxes(icon):
    box = (50, 60, 80, 86)
    drawn = scenes.Layout([Thing(icon, box)], True, [icon], [], [], [0], 0)
    empty = dataclasses.replace(drawn, things=[])
    differs = (scenes.picture(drawn, 128) != scenes.picture(empty, 128)).any(axis=-1)
    rows, columns = np.nonzero(differs)
    found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert np.abs(found - box).max() <= 1.5 and differs.sum() > 0.2 * 30 * 26


def test_which_of_two_overlapping_things_is_in_front_is_visible():
    things = [Thing("tree", (40, 60, 64, 94)), Thing("car", (52, 70, 84, 90))]
    names = ["tree", "car"]
    assert world.predicate(things, names, 1, 0) == "in front of"
    assert world.predicate(things, names, 0, 1) == "behind"
    layout = scenes.Layout(things, True, names, [], [], [0, 1], 0)
    swapped = dataclasses.replace(layout, things=things[::-1])
    differs = (scenes.picture(layout, 128) != scenes.picture(swapped, 128)).any(axis=-1)
    rows, columns = np.nonzero(differs)
    assert differs.sum() > 30
    assert rows.min() >= 70 and rows.max() < 90 and columns.min() >= 52 and columns.max() < 64


@pytest.mark.parametrize(
    ("subject", "object_", "expected", "inverse"),
    [
        (("man", (0, 50, 18, 80)), ("car", (24, 55, 55, 75)), "left of", "right of"),
        (("man", (0, 50, 18, 80)), ("car", (32, 55, 63, 75)), None, None),
        (("hat", (0, 50, 20, 68)), ("car", (3, 72, 34, 92)), "above", "under"),
        (("hat", (0, 50, 20, 68)), ("car", (24, 72, 55, 92)), "near", "near"),
        (("man", (6, 48, 24, 78)), ("horse", (0, 68, 30, 93)), "riding", None),
        (("man", (40, 48, 58, 78)), ("horse", (0, 48, 30, 73)), None, None),
        (("woman", (0, 64, 18, 94)), ("hat", (0, 52, 20, 70)), "wearing", None),
        (("child", (0, 60, 18, 82)), ("kite", (14, 55, 32, 79)), "holding", None),
        (("orange", (8, 50, 26, 68)), ("table", (0, 64, 30, 84)), "on", None),
        (("tree", (8, 50, 26, 68)), ("table", (0, 64, 30, 84)), "behind", "in front of"),
        (("man", (0, 50, 18, 80)), ("dog", (24, 55, 50, 73)), "walking", "right of"),
        (("man", (0, 50, 18, 80)), ("wolf", (24, 55, 50, 73)), "left of", "right of"),
        (("dog", (0, 50, 26, 68)), ("ball", (30, 50, 48, 68)), "chasing", "right of"),
        (("dog", (0, 50, 26, 68)), ("orange", (30, 50, 48, 68)), "left of", "right of"),
        (("dog", (0, 50, 26, 68)), ("bird", (100, 100, 122, 118)), "watching", None),
        (("dog", (0, 50, 26, 68)), ("bat", (100, 100, 122, 118)), None, None),
    ],
)
def test_predicates_by_hand(subject, object_, expected, inverse):
    names = [subject[0], object_[0]]
    things = [Thing(*subject), Thing(*object_)]
    assert world.predicate(things, names, 0, 1) == expected
    assert world.predicate(things, names, 1, 0) == inverse


def test_no_two_things_lie_where_a_rule_turns_on_a_pixel(splits):
    for _, annotation, _ in _everything(splits):
        for i, a in enumerate(annotation.boxes):
            for b in annotation.boxes[:i]:
                assert min(world.shared(a, b)) > 0 or not world.ambiguous(a, b)


def test_held_out_triplets_occur_in_test_only(splits):
    found = {split: set() for split in splits}
    held_out = total = 0
    for split, annotation, truth in _everything(splits):
        found[split] |= _types(annotation, truth) & world.ZERO_SHOT
        if split == "test":
            labels = [OBJECTS[x] for x in annotation.labels]
            rows = [(labels[s], PREDICATES[p], labels[o]) for s, o, p in annotation.relations]
            held_out += sum(row in world.ZERO_SHOT for row in rows)
            total += len(rows)
    assert found == {"train": set(), "val": set(), "test": set(world.ZERO_SHOT)}
    assert 0.02 < held_out / total < 0.08


def test_a_prior_solves_half_and_the_truth_nearly_all(splits):
    train, test = splits["train"].annotations, splits["test"].annotations
    counts = statistics.count(train, len(OBJECTS), len(PREDICATES), False)
    probabilities = statistics.predicate_probabilities(*counts)
    prior = [frequency_ranking(x.labels, probabilities) for x in test]
    known = [[tuple(map(int, row)) for row in truth] for truth in splits["test"].truth]
    ceiling = mean_recall_of_rankings(known, test, 20)
    assert ceiling >= 0.93
    assert 0.2 < mean_recall_of_rankings(prior, test, 20) <= 0.55 * ceiling


@pytest.mark.parametrize("size", [64, 256])
def test_other_sizes_are_scaled_pictures_of_the_same_scene(size):
    plain, scaled = scenes.scene(0, "val", 2), scenes.scene(0, "val", 2, size)
    assert scaled.image.shape == (size, size, 3)
    np.testing.assert_allclose(scaled.annotation.boxes, plain.annotation.boxes * size / 128)
    np.testing.assert_array_equal(scaled.annotation.relations, plain.annotation.relations)
    step = max(1, size // 128), max(1, 128 // size)
    small, large = scaled.image[:: step[0], :: step[0]], plain.image[:: step[1], :: step[1]]
    assert np.abs(small.astype(int) - large).mean() < 15


def test_errors(monkeypatch):
    with pytest.raises(ValueError, match=r"'trian'.*train, val, test"):
        Synthetic(get_default("sgcls").data, "trian")
    monkeypatch.setattr(scenes, "MOST_RELATIONS", 0)
    monkeypatch.setattr(scenes, "ATTEMPTS", 3)
    with pytest.raises(ValueError, match=r"data\.seed 5"):
        scenes.layout(5, "train", 0)
