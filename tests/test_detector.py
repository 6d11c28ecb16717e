"""The detector: batches, padding, samples, gradients, and the maps of a pyramid."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import OBJECTS, on_host

from linknet_jax.config import get_default
from linknet_jax.models import rpn
from linknet_jax.models.detector import Detector
from linknet_jax.ops.anchors import anchor_sizes

RATIOS, SCALES = (0.5, 1.0), (1.0, 2.0, 3.0)
KINDS, SIDE, LIMIT = 6, 48, 9
SIZES = {"fc_dim": 10, "roi_size": 2, "roi_chunk": 16, "dropout": 0.0}
RPN = {
    "ratios": RATIOS, "scales": SCALES, "width": 12, "before": 60, "proposals": 20,
    "train_before": 70, "train_proposals": 25, "sampled": 24, "sampled_positive": 12,
}  # fmt: skip


def create(trunk="small", **overrides):
    """Sizes that compile in seconds."""
    config = get_default("detector")
    config.model.update(SIZES | {"trunk": trunk})
    config.rpn.update(RPN)
    config.detector.update({"sampled": 14, "sampled_foreground": 6})
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in overrides.items()})
    sections = {name: config[name].to_dict() for name in ("model", "rpn", "detector")}
    return Detector(nn.FrozenDict(sections), OBJECTS, LIMIT)


DETECTOR = create()
detect = on_host(DETECTOR.apply)
features_of = on_host(functools.partial(DETECTOR.apply, method="features"))


def weighted(parameters, weights, *arguments):
    found = DETECTOR.apply(parameters, *arguments, method="sampled")
    names = ("anchor_logits", "anchor_deltas", "box_logits", "box_deltas")
    return weights @ jnp.stack([(getattr(found, name) ** 2).sum() for name in names]), found


differentiated = on_host(jax.grad(weighted, has_aux=True))


def sampled(parameters, *arguments):
    return differentiated(parameters, np.ones(4, np.float32), *arguments)[1]


def draw(shapes, seed=0):
    """Random parameters, all of which matter."""
    rng = np.random.default_rng(seed)

    def one(path, shape):
        spread = 0.1 if path[-1].key == "bias" else np.prod(shape.shape[:-1]) ** -0.5
        spread *= 0.2 if path[-2].key in ("deltas", "box_deltas") else 1.5
        return (spread * rng.normal(size=shape.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(one, shapes)


@functools.cache
def variables():
    arguments = np.zeros((1, SIDE, SIDE, 3), np.uint8), np.full((1, 2), SIDE, np.float32)
    return draw(jax.eval_shape(DETECTOR.init, jax.random.key(0), *arguments))


def images(count=3):
    """Noise in blocks; (height, width) of the photographs differ."""
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 256, (count, 6, 6, 3)).astype(np.uint8)
    sizes = [[SIDE, SIDE], [SIDE, 30], [25, SIDE]]
    return blocks.repeat(8, axis=1).repeat(8, axis=2), np.float32(sizes)[:count]


def truth(garbage=0):
    """(boxes, mask, labels) of three images: four, two and no boxes; garbage in the padding."""
    rng, counts = np.random.default_rng(5), (4, 2, 0)
    low = rng.integers(0, 12, (3, 4, 2))
    boxes = np.concatenate([low, low + rng.integers(7, 14, low.shape)], axis=-1).astype(np.float32)
    labels = rng.integers(1, OBJECTS, (3, 4)).astype(np.int32)
    mask = np.arange(4) < np.array(counts)[:, None]
    other = np.random.default_rng(garbage)
    boxes[~mask] = other.choice(np.float32([np.nan, np.inf, -1e30, 20]), boxes[~mask].shape)
    labels[~mask] = other.integers(-4, 99, labels[~mask].shape)
    boxes[1, 2], boxes[2, 1] = np.float32([[2, 2, 26, 20], [8, 3, 24, 19]]) + 4 * garbage
    return boxes, mask, labels


def keys(count=3):
    return jax.vmap(jax.random.key)(np.arange(count))


def same(found, expected, rows=slice(None)):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b[rows], rtol=1e-5, atol=1e-5)


def test_neighbours_in_the_batch_change_nothing():
    pictures, sizes = images()
    together = detect(variables(), pictures, sizes)
    assert (together.mask.sum(axis=1) > 1).all()
    same(detect(variables(), pictures[::-1], sizes[::-1]), together, slice(None, None, -1))
    others, full = np.zeros_like(pictures), np.full_like(sizes, SIDE)
    others[1], full[1] = pictures[1], sizes[1]
    found = jax.tree.map(lambda x: x[1:2], detect(variables(), others, full))
    same(found, together, slice(1, 2))


def test_given_features_of_an_image_alone_replace_it():
    pictures, sizes = images()
    maps, together = features_of(variables(), pictures), detect(variables(), pictures, sizes)
    for i in range(3):
        rows = slice(i, i + 1)
        same(detect(variables(), None, sizes[rows], [x[rows] for x in maps]), together, rows)


def test_nothing_is_proposed_outside_a_photograph():
    pictures, sizes = images()
    found, last = detect(variables(), pictures, sizes), (sizes[:, [1, 0, 1, 0]] - 1)[:, None]
    assert (found.boxes[found.mask] >= 0).all() and (found.class_boxes >= 0).all()
    assert ((found.boxes <= last) | ~found.mask[..., None]).all()
    assert ((found.class_boxes <= last[:, None]) | ~found.mask[..., None, None]).all()
    assert (found.labels[found.mask] > 0).all() and found.class_boxes.shape[2] == OBJECTS


def test_samples_do_not_depend_on_garbage_or_on_the_batch():
    pictures, sizes = images()
    together = sampled(variables(), pictures, sizes, *truth(), keys())
    assert jax.tree.all(jax.tree.map(lambda x: np.isfinite(x).all(), together))
    for garbage in (1, 2):
        same(sampled(variables(), pictures, sizes, *truth(garbage), keys()), together)
    backwards = [x[::-1] for x in (pictures, sizes, *truth(3), keys())]
    same(sampled(variables(), *backwards), together, slice(None, None, -1))


def test_samples_without_objects_are_background():
    found = sampled(variables(), *images(), *truth(), keys())
    assert (found.boxes.labels[:2] > 0).any(1).all() and (found.anchors.labels[:2] > 0).any(1).all()
    for x in (found.boxes, found.anchors):
        assert not x.labels[2].any() and x.mask[2].any()


def test_outputs_are_those_of_the_samples():
    pictures, sizes = images()
    found = sampled(variables(), pictures, sizes, *truth(), keys())
    head = rpn.RegionProposals(RPN["width"], KINDS)
    outputs = head.apply(
        {"params": variables()["params"]["rpn"]}, features_of(variables(), pictures)
    )
    for own, everything in zip((found.anchor_logits, found.anchor_deltas), outputs, strict=True):
        for i in range(3):
            rows = np.asarray(everything)[i, found.anchors.index[i]]
            np.testing.assert_allclose(own[i], rows, rtol=1e-4, atol=1e-5)


def test_deltas_of_a_sampled_box_are_those_of_its_class():
    changed = jax.tree.map(lambda x: x, variables())
    head = changed["params"]["object_head"]["box_deltas"]
    head["kernel"], head["bias"] = 0 * head["kernel"], np.arange(4 * OBJECTS, dtype=np.float32)
    found = sampled(changed, *images(), *truth(), keys())
    expected = 4 * found.boxes.labels[..., None] + np.arange(4)
    np.testing.assert_array_equal(found.box_deltas[found.boxes.mask], expected[found.boxes.mask])


def test_gradients_are_finite_and_reach_every_parameter():
    arguments = *images(), *truth(), keys()
    gradients, _ = differentiated(variables(), np.float32([1, 1, 1, 1]), *arguments)
    for path, x in jax.tree.leaves_with_path(gradients):
        assert np.isfinite(x).all() and x.any(), jax.tree_util.keystr(path)
    of_boxes, _ = differentiated(variables(), np.float32([0, 0, 1, 1]), *arguments)
    assert not any(x.any() for x in jax.tree.leaves(of_boxes["params"]["rpn"])), "boxes are fixed"


PYRAMID = create(
    "resnet50_fpn", model__roi_size=1, rpn__proposals=3, rpn__before=20, detector__nms=1.0
)
PYRAMID_SIDE, FIRING = 128, 2  # the anchor that fires


@pytest.mark.parametrize("level", range(5))
def test_a_pyramid_proposes_where_one_of_its_maps_says(level):
    """P6 repeats every second cell of P5, whose own anchor comes first."""
    maps, stride, coarsest = pyramid_maps(), 4 * 2**level, level == 4
    y, x = (1, 0) if coarsest else (1, 2)
    cell = np.array([y, x]) * (2 if coarsest else 1)
    maps[min(level, 3)][0, cell[0], cell[1], 0] = 5
    variables, run = pyramid()
    found = run(variables, None, np.full((1, 2), PYRAMID_SIDE, np.float32), maps)
    middle = stride * np.array([x, y]) + (stride - 1) / 2
    reach = (anchor_sizes(stride, RATIOS, SCALES)[FIRING] - 1) / 2
    corners = np.concatenate([middle - reach, middle + reach]).clip(0, PYRAMID_SIDE - 1)
    np.testing.assert_allclose(found.boxes[0, int(coarsest)], corners, atol=1e-3)


def pyramid_maps():
    return tuple(np.zeros((1, PYRAMID_SIDE // s, PYRAMID_SIDE // s, 256), np.float32)
                 for s in (4, 8, 16, 32))  # fmt: skip


@functools.cache
def pyramid():
    """The convolution copies channel 0 of a cell; one anchor's object logit is the copy."""
    sizes = np.full((1, 2), PYRAMID_SIDE, np.float32)
    shapes = jax.eval_shape(PYRAMID.init, jax.random.key(0), None, sizes, pyramid_maps())
    variables = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)
    params = variables["params"]
    params["rpn"]["conv"]["kernel"][1, 1, 0, 0] = 1
    params["rpn"]["scores"]["kernel"][0, 0, 0, 2 * FIRING + 1] = 1
    params["object_head"]["box_head"]["bias"][1] = 3
    return variables, on_host(PYRAMID.apply)
