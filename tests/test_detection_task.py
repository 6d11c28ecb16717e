"""The detector's losses and detections, and how detected objects of a split are scored."""

from __future__ import annotations

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import tiny
from flax.traverse_util import flatten_dict
from reference_metrics import box_iou

from linknet_jax import losses, parallel, train_step
from linknet_jax import state as states
from linknet_jax.eval_loop import evaluate_objects
from linknet_jax.metrics.detection import boxes_of
from linknet_jax.ops.ranking import no_triplets
from linknet_jax.types import Annotation

IMAGES, N = 16, 5
SGD = {"train__optimizer": "sgd", "train__schedule": "constant", "train__warmup": 0,
       "train__lr": 0.01, "train__clip": 0.0, "train__weight_decay": 0.0}  # fmt: skip
FILLED = np.arange(IMAGES) % 4 != 1  # the others only fill up the batch


@functools.cache
def variables():
    return tiny.calm(tiny.variables("detector"))


@functools.cache
def batch():
    """Boxes near anchors, so that proposals find some of them."""
    scenes = [tiny.scene(1 + seed % 5, seed) for seed in range(IMAGES)]
    for seed, scene in enumerate(scenes):
        rng = np.random.default_rng(seed)
        corner = rng.integers(0, 3, scene["boxes"][:, :2].shape) * 8 - 0.5
        near = np.concatenate([corner, corner + rng.choice([10, 16])], axis=1)
        scene["boxes"] = np.float32(np.clip(near + rng.normal(size=near.shape) / 2, 0, tiny.SIDE))
    return tiny.make_batch(scenes, N).replace(example_mask=FILLED)


@functools.cache
def sampled_function():
    """(variables, batch, keys) to (outputs, anchors, boxes, sums of the losses)."""
    task = tiny.create_task("detector")

    def run(variables, batch, keys):
        found = task.model.apply(
            variables, batch.images, batch.image_sizes, batch.boxes, batch.box_mask,
            batch.labels, keys, method="sampled",
        )  # fmt: skip

        def classify(model):
            maps = model.features(batch.images)
            return model._anchors(maps, batch.image_sizes), model._classify(
                maps, found.boxes.boxes, found.boxes.mask, None
            )

        anchors, boxes = task.model.apply(variables, method=classify)
        return found, anchors, boxes, task.losses(variables, batch, keys)[0]

    return tiny.on_host(run)


@functools.cache
def sampled():
    return sampled_function()(variables(), batch(), tiny.keys_of(batch()))


def smooth(found, true):
    return sum(0.5 * d**2 if abs(d) < 1 else abs(d) - 0.5 for d in np.float64(found - true))


def test_losses_are_the_loops_over_the_samples():
    found, _, _, sums = sampled()
    expected, counted = dict.fromkeys(sums, 0.0), dict.fromkeys(sums, 0)
    parts = {
        "anchor": (found.anchors, found.anchor_logits, found.anchor_deltas, "box"),
        "box": (found.boxes, found.box_logits, found.box_deltas, "delta"),
    }
    for prefix, (drawn, logits, deltas, kind) in parts.items():
        for i, k in np.argwhere(drawn.mask & FILLED[:, None]):
            label = drawn.labels[i, k]
            probability = reference.softmax(np.float64(logits[i, k]))[label]
            expected[f"{prefix}_class"] -= np.log(probability)
            counted[f"{prefix}_class"] += 1
            if label > 0:
                expected[f"{prefix}_{kind}"] += smooth(deltas[i, k], drawn.deltas[i, k])
                counted[f"{prefix}_{kind}"] += 1
    assert min(counted.values()) > 10 and counted["anchor_box"] < counted["anchor_class"]
    for name in expected:
        np.testing.assert_allclose(sums[name], expected[name], rtol=1e-4, err_msg=name)


def test_samples_are_compared_with_the_boxes_they_overlap():
    """The class of the best true box from IoU 0.5; deltas of that class; logits of that anchor."""
    found, (logits, deltas, anchors, _), (_, class_deltas), _ = sampled()
    objects = 0
    for i, k in np.argwhere(found.boxes.mask):
        box, drawn = found.boxes.boxes[i, k], found.boxes
        count = batch().box_mask[i].sum()
        overlaps = [box_iou(box, b, True) for b in batch().boxes[i, :count]]
        best = int(np.argmax(overlaps))
        if abs(overlaps[best] - 0.5) > 1e-4:
            label = batch().labels[i, best] if overlaps[best] > 0.5 else 0
            assert drawn.labels[i, k] == label
        own = class_deltas[i, k, drawn.labels[i, k]]
        np.testing.assert_allclose(found.box_deltas[i, k], own, rtol=1e-5, atol=1e-6)
        objects += label > 0
    assert objects > 20
    for i, k in np.argwhere(found.anchors.mask):
        row = found.anchors.index[i, k]
        np.testing.assert_allclose(found.anchor_logits[i, k], logits[i, row], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.anchor_deltas[i, k], deltas[i, row], rtol=1e-5, atol=1e-6)
        boxes = batch().boxes[i, : batch().box_mask[i].sum()]
        best = max(box_iou(anchors[row], b, True) for b in boxes)
        assert best > 0 if found.anchors.labels[i, k] else best < 0.3 + 1e-6


def test_weights_and_divisors():
    task = tiny.create_task("detector")
    assert task.weights() == {
        "anchor_class": 1, "anchor_box": 4, "box_class": 1, "box_delta": 8,
    }  # fmt: skip
    counts = {name: float(x) for name, x in task.counts(batch()).items()}
    images = 12
    assert counts == {
        "anchor_class": images * 12, "anchor_box": images * 12,
        "box_class": images * 10, "box_delta": images * 10,
    }  # fmt: skip


@functools.cache
def trained(devices, accumulation):
    """(values of two steps, parameters after the first and the second)."""
    task = tiny.create_task("detector", train__accumulation=accumulation, **SGD)
    mesh = parallel.create_mesh(devices=jax.devices()[:devices])
    shared = jax.tree.map(np.array, variables())
    state = states.TrainState(
        step=np.int32(0), params=shared.pop("params"), constants=shared, opt_state=(), ema={},
        control=states.Control.create(), bad_step=np.int32(-1),
    )  # fmt: skip
    flat = states.split_params(state.params, task.config)[0]
    state = state.replace(opt_state=states.create_optimizer(task.config.train).init(flat))
    state = jax.device_put(jax.tree.map(np.array, state), parallel.replicated(mesh))
    on_devices = parallel.to_devices(batch(), mesh)
    step = train_step.compile_train_step(task, mesh).lower(state, on_devices)
    step, values, params = step.compile(compiler_options=tiny.FAST), [], []
    for _ in range(2):
        state, found = step(state, on_devices)
        values.append({name: float(x) for name, x in found.items()})
        params.append(jax.device_get(state.params))
    return values, params


def test_devices_and_accumulation_change_nothing():
    (values, params), (others, other) = trained(1, 1), trained(8, 2)
    for a, b in zip(values, others, strict=True):
        assert b == pytest.approx(a, rel=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), params, other)
    assert values[1]["loss"] < values[0]["loss"]


def test_a_step_minimises_the_weighted_means():
    """The keys of a step are those of its images, so that the samples are other ones here."""
    values = trained(1, 1)[0][0]
    names = ("anchor_class", "anchor_box", "box_class", "box_delta")
    assert values["loss"] == pytest.approx(sum(values[name] for name in names), rel=1e-5)
    key = jax.random.fold_in(jax.random.key(0), 0)  # of the seed and the step
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch().image_index)
    sums = sampled_function()(variables(), batch(), keys)[-1]
    for name, weight, samples in zip(names, (1, 4, 1, 8), (12, 12, 10, 10), strict=True):
        assert values[name] == pytest.approx(weight * sums[name] / (12 * samples), rel=1e-4)


def test_every_parameter_of_the_detector_learns():
    before, after = (flatten_dict(x) for x in (variables()["params"], trained(1, 1)[1][0]))
    assert {path[:2] for path in before if path[0] != "trunk"} == {
        ("rpn", "conv"), ("rpn", "scores"), ("rpn", "deltas"), ("object_head", "box_features"),
        ("object_head", "box_head"), ("object_head", "box_deltas"),
    }  # fmt: skip
    for path, x in before.items():
        assert np.isfinite(after[path]).all() and (after[path] != x).any(), path


@functools.cache
def predictions():
    """A batch to its detections and its prediction."""
    task = tiny.create_task("detector")
    both = tiny.on_host(lambda *x: (task.detect(*x), task.predict(*x)))
    return functools.partial(both, variables())


def test_detections_depend_on_the_picture_alone():
    found = predictions()(batch())
    others = tiny.make_batch([tiny.scene(3, seed + 50) for seed in range(IMAGES)], N, garbage=9)
    pictures = {"images": batch().images, "image_sizes": batch().image_sizes}
    tiny.close(predictions()(others.replace(**pictures)), found)
    order = np.random.default_rng(0).permutation(IMAGES)
    moved = {name: x[order] for name, x in pictures.items()}
    tiny.close(predictions()(others.replace(**moved)), jax.tree.map(lambda x: x[order], found))
    half = {name: np.where(np.arange(IMAGES).reshape(-1, *[1] * (x.ndim - 1)) < 5, x,
                           getattr(others, name)) for name, x in pictures.items()}  # fmt: skip
    mixed = predictions()(others.replace(**half))
    tiny.close(*(jax.tree.map(lambda x: x[:5], x) for x in (mixed, found)))


def test_boxes_are_those_of_the_detected_class():
    found, prediction = predictions()(batch())
    np.testing.assert_array_equal(prediction.box_count, found.mask.sum(1))
    labels = set()
    for i, k in np.argwhere(found.mask):
        assert prediction.labels[i, k] == found.labels[i, k] > 0
        assert prediction.label_scores[i, k] == found.scores[i, k]
        expected = found.class_boxes[i, k, found.labels[i, k]]
        np.testing.assert_array_equal(prediction.boxes[i, k], expected)
        assert k < prediction.box_count[i] and (expected != found.boxes[i, k]).any()
        labels.add(int(found.labels[i, k]))
    assert len(labels) > 1 and not prediction.count.any() and not prediction.free_count.any()


def test_images_with_no_detection_and_with_one():
    """Photographs of two and of four pixels: no proposal is as small as the first."""
    sizes = batch().image_sizes.copy()
    sizes[:2] = [[2, 2], [4, 4]]
    _, prediction = predictions()(batch().replace(image_sizes=sizes))
    assert prediction.box_count[0] == 0 and prediction.box_count[1] == 1
    np.testing.assert_array_less(prediction.boxes[1, 0], 4)
    assert (prediction.box_count[2:] > 1).all()


def test_smooth_l1_is_the_loop():
    rng = np.random.default_rng(0)
    found, true = (rng.normal(size=(4, 6, 4)).astype(np.float32) * 2 for _ in range(2))
    mask = rng.random((4, 6)) < 0.5
    expected = sum(smooth(found[i, k], true[i, k]) for i, k in np.argwhere(mask))
    np.testing.assert_allclose(losses.smooth_l1(found, true, mask), expected, rtol=1e-5)
    wild = np.where(mask[..., None], found, np.nan)
    slopes = jax.grad(losses.smooth_l1)(jnp.asarray(found), true, mask)
    np.testing.assert_allclose(losses.smooth_l1(wild, true, mask), expected, rtol=1e-5)
    np.testing.assert_allclose(
        slopes, np.where(mask[..., None], np.clip(found - true, -1, 1), 0), atol=1e-6
    )


def annotation(number, width, height, boxes, labels):
    return Annotation(number, width, height, np.float64(boxes), np.array(labels, np.int32),
                      np.zeros((0, 3), np.int32))  # fmt: skip


@pytest.mark.parametrize(("size", "factor"), [((64, 40), 2.0), ((30, 96), 3.0), ((16, 16), 0.5)])
def test_boxes_of_a_prediction_are_in_pixels_of_the_original(size, factor):
    truth = annotation(0, *size, [[1, 2, 3, 4]], [1])
    boxes = np.float32([[1, 2, 3, 4], [0.5, 0, 8, 9], [7, 7, 7, 7]])
    prediction = no_triplets(np.ones(3, int), np.ones(3), boxes, np.arange(3) < 2)
    found = boxes_of(prediction, truth, 32)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, factor * boxes[:2])
    given = boxes_of(prediction.replace(boxes=None), truth, 32)
    np.testing.assert_array_equal(given, [[1, 2, 3, 4]])


@pytest.mark.parametrize(("shift", "labels", "expected"), [
    (0, (1, 2), {"mAP@50": 1, "AP": 1, "AP@50": 1}),
    (0, (2, 2), {"mAP@50": 0.25, "AP": 0.25, "AP@50": 1}),
    (9, (1, 2), {"mAP@50": 0, "AP": 0, "AP@50": 0}),
])  # fmt: skip
def test_objects_of_a_split_are_scored_where_they_lie_in_the_photograph(shift, labels, expected):
    """Three images of two sizes, one object each, and a filler with a wrong one."""
    sizes, true = [(64, 40), (96, 96), (64, 64)], [1, 2, 2]
    boxes = np.float32([[2, 4, 10, 12], [4, 0, 20, 16], [8, 8, 16, 24], [0, 0, 4, 4]])
    annotations = [
        annotation(k, *size, [boxes[k] * (max(size) / tiny.SIDE)], [true[k]])
        for k, size in enumerate(sizes)
    ]
    scenes = [tiny.scene(1, seed) for seed in range(4)]
    whole = tiny.make_batch(scenes, N).replace(
        image_index=np.int32([0, 1, 2, 0]), example_mask=np.arange(4) < 3
    )
    named = np.int32([labels[0], labels[1], labels[1], 1])[:, None]

    def predict(variables, batch):
        operands = (named, np.ones((4, 1)), boxes[:, None] + shift, np.ones((4, 1), bool))
        return jax.vmap(no_triplets)(*map(jnp.asarray, operands))

    dataset = types.SimpleNamespace(
        annotations=annotations, evaluation_batches=lambda size, *share: iter([whole])
    )
    mesh = parallel.create_mesh(devices=jax.devices()[:1])
    scores = evaluate_objects(predict, tiny.create_task("detector"), {}, dataset, mesh)
    if labels == (2, 2):  # of class 2 a wrong box of the same score comes first
        assert scores["AP@50"] == 1 and 0 < scores["mAP@50"] < 0.5
    else:
        assert scores == pytest.approx(expected)
