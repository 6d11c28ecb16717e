"""SGDet: what proposals are trained on, what is predicted of them, and boxes that a file gives."""

from __future__ import annotations

import functools
import types

import jax
import numpy as np
import pytest
import reference
import tiny
from reference_metrics import box_iou

from linknet_jax import eval_loop, parallel, validation
from linknet_jax.config import get_default
from linknet_jax.ops.decoding import decode_labels
from linknet_jax.tasks import create_task, evaluated_tasks
from linknet_jax.types import Annotation, Detections

IMAGES, N, D = 6, 5, 6
SMALL = {"model__num_rem": 1}
TOUCHING = SMALL | {"sampling__touching": True}
GIVEN = SMALL | {"data__detections": "file"}


@functools.cache
def variables():
    return tiny.calm(tiny.variables("sgdet", **SMALL))


@functools.cache
def predict_function():
    """A batch to (batch with what was found, graph of the pairs, prediction)."""
    task = tiny.create_task("sgdet", **TOUCHING)

    def run(variables, batch):
        found = task.find(variables, batch)
        graph, _ = task.forward(
            variables, found, ~np.eye(D, dtype=bool)[None] & found.box_mask[:, None]
        )
        return found, graph, task.predict(variables, batch)

    return functools.partial(tiny.on_host(run), variables())


def pictures(seeds):
    """Images with three annotated boxes that have nothing to do with what is found."""
    return tiny.make_batch([tiny.scene(3, seed) for seed in seeds], N)


@functools.cache
def fitting():
    """Annotated are three of the found boxes, a little moved, and one that nothing finds."""
    batch = pictures(range(IMAGES))
    found = predict_function()(batch)[0]
    rng, scenes = np.random.default_rng(3), []
    for i in range(IMAGES):
        scene = tiny.scene(4, i)
        scene |= {"images": batch.images[i], "image_sizes": batch.image_sizes[i]}
        near = found.boxes[i, [0, 2, 4]] + rng.uniform(-0.7, 0.7, (3, 4))
        scene["boxes"] = np.float32([*near, [29, 1, 31, 3]])
        scene["labels"] = np.int32([*rng.integers(1, tiny.OBJECTS - 1, 3), tiny.OBJECTS - 1])
        scenes.append(scene)
    return tiny.make_batch(scenes, N)


@functools.cache
def prepared():
    """(what the losses are computed from, sums of the losses, counts, graph)."""
    task = tiny.create_task("sgdet", **TOUCHING)

    def run(variables, batch, keys):
        examples = task.prepare(variables, batch, keys)
        graph, _ = task.forward(variables, *examples[:2], keys, train=True)
        sums, _ = task.losses(variables, *examples)
        examples = (*examples[:2], None, examples[3])  # keys stay on the device
        return examples, sums, task.counts(*examples), graph

    return functools.partial(tiny.on_host(run), variables())


@functools.cache
def trained_on():
    return prepared()(fitting(), tiny.keys_of(fitting()))


def fits(found, batch, i):
    """IoU of every found box of an image with every annotated one."""
    count = batch.box_mask[i].sum()
    return np.array([[box_iou(a, b, True) for b in batch.boxes[i, :count]] for a in found.boxes[i]])


def test_labels_are_those_of_the_true_box_that_a_proposal_fits():
    found, labelled = trained_on()[0][0], 0
    for i in range(IMAGES):
        overlap = fits(found, fitting(), i)
        best = overlap.argmax(1)
        expected = np.where(overlap.max(1) >= 0.5, fitting().labels[i, best], 0)
        np.testing.assert_array_equal(found.labels[i], np.where(found.box_mask[i], expected, 0))
        labelled += (expected > 0).sum()
    assert 3 * IMAGES <= labelled < D * IMAGES


def test_pairs_are_of_proposals_that_fit_the_ends_of_a_relation():
    (found, pair_mask, _, truth), related, unrelated = trained_on()[0], 0, 0
    np.testing.assert_array_equal(truth.boxes, fitting().boxes)
    assert found.predicates.shape == pair_mask.shape == (IMAGES, D, D)
    assert not pair_mask[:, np.arange(D), np.arange(D)].any()
    for i in range(IMAGES):
        good = fits(found, fitting(), i) >= 0.5
        good &= found.labels[i][:, None] == fitting().labels[i, : good.shape[1]]
        number = found.predicates[i][pair_mask[i]] > 0
        assert number.sum() <= 2 and len(number) <= 7
        for a, b in np.argwhere(pair_mask[i]):
            ends = [(s, o) for s in np.flatnonzero(good[a]) for o in np.flatnonzero(good[b])]
            known = {int(fitting().predicates[i, s, o]) for s, o in ends if s != o} - {0}
            predicate = found.predicates[i, a, b]
            assert predicate in known if predicate else not known
            if not predicate:
                assert box_iou(found.boxes[i, a], found.boxes[i, b], True) > 0
                assert found.labels[i, a] > 0 and found.labels[i, b] > 0
            related, unrelated = related + (predicate > 0), unrelated + (predicate == 0)
    assert related >= IMAGES and unrelated >= IMAGES


def test_losses_are_the_loops_over_proposals_and_their_pairs():
    (found, pair_mask, _, _), sums, counts, graph = trained_on()
    assert set(sums) == set(counts) == {"object", "relation", "context"}
    expected = {
        "object": reference.softmax_loss(graph.O4, found.labels, found.box_mask),
        "relation": reference.softmax_loss(graph.G2, found.predicates, pair_mask),
        "context": 0.0,
    }
    for i in range(IMAGES):
        true = set(fitting().labels[i, fitting().box_mask[i]].tolist())
        assert true - set(found.labels[i].tolist()) == {tiny.OBJECTS - 1}  # that nothing finds
        present = [c in true for c in range(1, tiny.OBJECTS)]
        expected["context"] += reference.sigmoid_loss(graph.context_logits[i], present)
    for name, value in expected.items():
        np.testing.assert_allclose(sums[name], value, rtol=1e-4, err_msg=name)
    assert counts["object"] == found.box_mask.sum() and counts["relation"] == pair_mask.sum()
    assert counts["context"] == IMAGES * (tiny.OBJECTS - 1)


def test_edges_see_the_true_class_of_labelled_proposals():
    found, graph = trained_on()[0][0], trained_on()[3]
    own = 1 + graph.O4[..., 1:].argmax(-1)
    expected = np.where(found.labels > 0, found.labels, own)
    np.testing.assert_array_equal(graph.labels, np.where(found.box_mask, expected, 0))
    assert (expected != own).any() and (found.labels == 0).any()


def test_images_without_detections_train_nothing():
    sizes = fitting().image_sizes.copy()
    sizes[:2] = [[2, 2], [4, 4]]  # photographs too small for a proposal, and for more than one
    batch = fitting().replace(image_sizes=sizes)
    (found, pair_mask, _, _), sums, counts, _ = prepared()(batch, tiny.keys_of(batch))
    assert found.box_mask[:2].sum(1).tolist() == [0, 1] and not pair_mask[:2].any()
    assert all(np.isfinite(x) for x in sums.values())
    assert counts["object"] == 1 + found.box_mask[2:].sum()


def test_prediction_depends_on_the_picture_alone():
    """Neither on the annotated boxes and their padding, nor on the other images of the batch."""
    batch = pictures(range(IMAGES))
    expected = predict_function()(batch)[2]
    seen = {name: getattr(batch, name) for name in ("images", "image_sizes")}
    other = tiny.make_batch([tiny.scene(s % 6, 90 + s) for s in range(IMAGES)], N, garbage=5)
    tiny.close(predict_function()(other.replace(**seen))[2], expected)
    mixed = {name: np.concatenate([x[4:], getattr(other, name)[2:]]) for name, x in seen.items()}
    found = predict_function()(other.replace(**mixed))[2]
    tiny.close(jax.tree.map(lambda x: x[:2], found), jax.tree.map(lambda x: x[4:], expected))
    assert (expected.count > 0).all()


def ranked(prediction, i):
    return {tuple(x) for x in prediction.pairs[i, : prediction.count[i]].tolist()}


def touching(boxes):
    return {
        (a, b) for a in range(len(boxes)) for b in range(len(boxes))
        if a != b and box_iou(boxes[a], boxes[b], True) > 0
    }  # fmt: skip


def test_only_pairs_of_touching_boxes_are_predicted():
    found, _, prediction = predict_function()(pictures(range(IMAGES)))
    apart = 0
    for i in range(IMAGES):
        boxes = found.boxes[i, : prediction.box_count[i]]
        assert ranked(prediction, i) == touching(boxes)
        apart += len(boxes) * (len(boxes) - 1) - prediction.count[i]
    assert apart > 0


def test_labels_are_decoded_together_and_place_the_boxes():
    found, graph, prediction = predict_function()(pictures(range(IMAGES)))
    given, changed = found.detections, 0
    for i in range(IMAGES):
        labels = decode_labels(graph.O4[i], given.class_boxes[i], found.box_mask[i])
        np.testing.assert_array_equal(prediction.labels[i], labels)
        n = prediction.box_count[i]
        assert n == found.box_mask[i].sum() and (prediction.labels[i, :n] > 0).all()
        rows = np.arange(n)
        np.testing.assert_array_equal(
            prediction.boxes[i, :n], given.class_boxes[i, rows, prediction.labels[i, :n]]
        )
        scores = reference.softmax(graph.O4[i])[rows, prediction.labels[i, :n]]
        np.testing.assert_allclose(prediction.label_scores[i, :n], scores, rtol=1e-4)
        changed += (given.labels[i, :n] != prediction.labels[i, :n]).sum()
    assert changed > 0


def test_images_with_no_detection_and_with_one():
    batch = pictures(range(IMAGES))
    sizes = batch.image_sizes.copy()
    sizes[:2] = [[2, 2], [4, 4]]
    prediction = predict_function()(batch.replace(image_sizes=sizes))[2]
    assert prediction.box_count[:2].tolist() == [0, 1] and (prediction.box_count[2:] > 1).all()
    assert not prediction.count[:2].any() and not prediction.free_count[:2].any()
    assert np.isfinite(prediction.boxes[1, 0]).all() and prediction.labels[1, 0] > 0


@functools.cache
def file_batch(garbage=0):
    """The annotated boxes of the images, and two to five others that a file gives."""
    rng, batch = np.random.default_rng(1), pictures(range(IMAGES))
    counts = np.array([0, 1, 2, 4, 6, 5])
    mask = np.arange(D) < counts[:, None]
    corner = rng.uniform(0, 18, (IMAGES, D, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(3, 14, corner.shape)], axis=-1)
    boxes = np.float32(np.where(mask[..., None], boxes, [0, 0, 15, 15]))
    labels = np.where(mask, rng.integers(1, tiny.OBJECTS, mask.shape), 0).astype(np.int32)
    scores = np.where(mask, -np.sort(-rng.random(mask.shape)), 0).astype(np.float32)
    batch = batch.replace(detections=Detections(boxes, mask, labels, scores))
    if garbage:
        other = tiny.make_batch([tiny.scene(4, 70 + s) for s in range(IMAGES)], N, garbage)
        batch = batch.replace(boxes=other.boxes, labels=other.labels, box_mask=other.box_mask)
    return batch


@functools.cache
def given_function(**overrides):
    return functools.partial(
        tiny.predict_function("sgdet", **GIVEN, **overrides), tiny.variables("sgdet", **GIVEN)
    )


@pytest.mark.parametrize("touches", [True, False])
def test_given_labels_scores_and_boxes_are_reported(touches):
    batch = file_batch()
    given, prediction = batch.detections, given_function(sampling__touching=touches)(batch)
    np.testing.assert_array_equal(prediction.box_count, given.mask.sum(1))
    for i, n in enumerate(given.mask.sum(1)):
        for name, expected in (("labels", given.labels), ("label_scores", given.scores),
                               ("boxes", given.boxes)):  # fmt: skip
            np.testing.assert_array_equal(getattr(prediction, name)[i, :n], expected[i, :n])
        every = {(a, b) for a in range(n) for b in range(n) if a != b}
        near = touching(given.boxes[i, :n])
        assert ranked(prediction, i) == (near if touches else every)
        for (a, b), score in zip(prediction.pairs[i], prediction.scores[i], strict=True):
            if np.isfinite(score):
                assert score <= given.scores[i, a] * given.scores[i, b]
    if touches:
        tiny.close(given_function(sampling__touching=True)(file_batch(garbage=4)), prediction)


def test_the_given_model_has_no_detector():
    names = {"/".join(path) for path in tiny_paths(tiny.variables("sgdet", **GIVEN))}
    assert not any("rpn" in x or "box_deltas" in x for x in names)
    assert names == {"/".join(path) for path in tiny_paths(tiny.variables(**SMALL))}
    assert {x for x in map("/".join, tiny_paths(variables())) if "rpn" in x or "deltas" in x}


def tiny_paths(tree, prefix=()):
    for name, value in tree.items():
        yield from (
            tiny_paths(value, (*prefix, name)) if isinstance(value, dict) else [(*prefix, name)]
        )


def test_the_baselines_get_the_given_objects():
    """In pixels of photographs three times as large as the network's."""
    batch, seen = file_batch(), {}
    large = [
        Annotation(i, 3 * tiny.SIDE, tiny.SIDE, np.zeros((0, 4)), np.zeros(0, np.int32),
                   np.zeros((0, 3), np.int32))
        for i in range(IMAGES)
    ]  # fmt: skip

    def predict(name, annotation, *scored):
        seen[annotation.image_id] = scored
        return eval_loop.image_of(prediction, annotation.image_id)

    prediction = given_function(sampling__touching=True)(batch)
    on_device = jax.tree.map(jax.numpy.asarray, prediction)
    dataset = types.SimpleNamespace(
        annotations=large, vocabulary=types.SimpleNamespace(predicates=("",) * tiny.PREDICATES),
        evaluation_batches=lambda *_: iter([batch.replace(image_index=np.arange(IMAGES))]),
    )  # fmt: skip
    training = types.SimpleNamespace(tables={"FREQ": None}, predict=predict, unseen=lambda _: None)
    mesh = parallel.create_mesh(devices=jax.devices()[:1])
    task = tiny.create_task("sgdet", **GIVEN)
    eval_loop.evaluate_split(lambda *_: on_device, task, {}, dataset, "val", mesh, training)
    given = batch.detections
    assert len(seen) == IMAGES
    for i, (boxes, labels, scores) in seen.items():
        n = given.mask[i].sum()
        np.testing.assert_allclose(boxes, 3 * given.boxes[i, :n], rtol=1e-6)
        np.testing.assert_array_equal(labels, given.labels[i, :n])
        np.testing.assert_array_equal(scores, given.scores[i, :n])


def test_l_of_given_detections_may_be_their_scores():
    task = tiny.create_task("sgdet", **GIVEN, model__predcls_l="gt")
    given, found = file_batch().detections, task.inputs(file_batch(), False)["label_distribution"]
    for i, k in np.argwhere(given.mask):
        expected = np.zeros(tiny.OBJECTS)
        expected[[0, given.labels[i, k]]] = 1 - given.scores[i, k], given.scores[i, k]
        np.testing.assert_allclose(found[i, k], expected, rtol=1e-6)
    assert set(task.weights()) == {"relation", "context"}


def test_given_labels_feed_the_edges_unless_a_true_box_fits():
    batch = file_batch()
    labels = np.where(np.arange(D) % 2, 1 + batch.detections.labels % 4, 0)
    fitted, given = batch.replace(labels=labels), batch.detections.labels
    train, check = (tiny.create_task("sgdet", **GIVEN).inputs(fitted, x) for x in (True, False))
    np.testing.assert_array_equal(train["labels"], np.where(labels > 0, labels, given))
    np.testing.assert_array_equal(check["labels"], given)


@pytest.mark.parametrize(("task", "file", "expected"), [
    ("sgcls", "", ("sgcls", "predcls")),
    ("sgcls", "x", ("sgdet", "sgcls", "predcls")),
    ("predcls", "", ("predcls",)),
    ("predcls", "x", ("sgdet", "predcls")),
    ("sgdet", "", ("sgdet", "sgcls", "predcls")),
    ("sgdet", "x", ("sgdet", "sgcls", "predcls")),
    ("detector", "", ("detector",)),
])  # fmt: skip
def test_evaluated_tasks(task, file, expected):
    config = get_default(task)
    config.data.detections = file
    assert evaluated_tasks(config) == expected
    kinds = [type(create_task(config, 5, 4, name)).__name__ for name in expected]
    assert ("GivenDetections" in kinds) == bool(file)
    assert ("SceneGraphDetection" in kinds) == (task == "sgdet" and not file)


@pytest.mark.parametrize(("task", "changes", "message"), [
    ("sgdet", {"model.freeze_trunk": False}, "freeze_trunk and model.freeze_box_head"),
    ("sgdet", {"model.freeze_box_head": False}, "freeze_trunk and model.freeze_box_head"),
    ("sgcls", {"train.end_to_end": True}, "train.end_to_end=True: needs"),
    ("detector", {"model.visual": False}, "model.visual=False"),
    ("detector", {"rpn.sampled_positive": 65}, "rpn.sampled_positive"),
    ("detector", {"detector.sampled_foreground": 65}, "detector.sampled_foreground"),
    ("detector", {"rpn.negative": 0.8}, "rpn.negative=0.8"),
    ("detector", {"rpn.ratios": ()}, "rpn.ratios, rpn.scales"),
    ("detector", {"eval.metric": "R@50"}, "eval.metric"),
])  # fmt: skip
def test_settings_that_contradict_each_other(task, changes, message):
    config = get_default(task)
    validation.validate(config)
    config.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=message):
        validation.validate(config)


@pytest.mark.parametrize("changes", [
    {"model.freeze_trunk": False, "model.freeze_box_head": False, "train.end_to_end": True},
    {"model.freeze_trunk": False, "data.detections": "x"},
])  # fmt: skip
def test_settings_that_fit(changes):
    config = get_default("sgdet")
    config.update_from_flattened_dict(changes)
    validation.validate(config)
