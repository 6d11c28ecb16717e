"""Training steps of SGDet: frozen detector, and detector and relations together."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
import tiny
from flax.traverse_util import flatten_dict

from linknet_jax import parallel, train_step
from linknet_jax import state as states

IMAGES, D = 8, 6
SGD = {"train__optimizer": "sgd", "train__schedule": "constant", "train__warmup": 0,
       "train__lr": 0.01, "train__clip": 0.0, "model__num_rem": 1}  # fmt: skip
END_TO_END = {"train__end_to_end": True, "train__weight_decay": 0.0}
FROZEN = {"train__weight_decay": 0.1}
DETECTOR = {("rpn",), ("object_head", "box_features"), ("object_head", "box_head"),
            ("object_head", "box_deltas")}  # fmt: skip
RELATIONS = {"object_stack", "edge_stack", "edge_head", "fc3", "projection", "context", "K0", "K1"}
UNUSED = ("U", "bias")  # shifts whole rows of a softmax


@functools.cache
def variables():
    return tiny.calm(tiny.variables("sgdet", model__num_rem=1))


@functools.cache
def batch():
    """Annotated are found boxes, a little moved, so that proposals fit them."""
    scenes = [tiny.scene(3, seed) for seed in range(IMAGES)]
    task = tiny.create_task("sgdet", **SGD)
    found = tiny.on_host(task.find)(variables(), tiny.make_batch(scenes, 4))
    for seed, scene in enumerate(scenes):
        noise = np.random.default_rng(seed).uniform(-0.5, 0.5, (3, 4))
        scene["boxes"] = np.float32(found.boxes[seed, [0, 1, 2]] + noise)
    return tiny.make_batch(scenes, 4)


@functools.cache
def trained(devices, accumulation, end_to_end):
    """(values of two steps, parameters after each)."""
    task = tiny.create_task(
        "sgdet", train__accumulation=accumulation, **SGD, **(END_TO_END if end_to_end else FROZEN)
    )
    mesh = parallel.create_mesh(devices=jax.devices()[:devices])
    constants = dict(variables())
    params = constants.pop("params")
    flat = states.split_params(params, task.config)[0]
    state = states.TrainState(
        step=np.int32(0), params=params, constants=constants, ema={},
        opt_state=states.create_optimizer(task.config.train).init(flat),
        control=states.Control.create(), bad_step=np.int32(-1),
    )  # fmt: skip
    state = jax.device_put(jax.tree.map(np.array, state), parallel.replicated(mesh))
    on_devices = parallel.to_devices(batch(), mesh)
    step = train_step.compile_train_step(task, mesh).lower(state, on_devices)
    step, values, after = step.compile(compiler_options=tiny.FAST), [], []
    for _ in range(2):
        state, found = step(state, on_devices)
        values.append({name: float(x) for name, x in found.items()})
        after.append(flatten_dict(jax.device_get(state.params)))
    return values, after


@pytest.mark.parametrize(("devices", "accumulation", "end_to_end"), [(4, 2, True), (8, 1, False)])
def test_devices_and_accumulation_change_nothing(devices, accumulation, end_to_end):
    values, after = trained(1, 1, end_to_end)
    others, other = trained(devices, accumulation, end_to_end)
    for a, b in zip(values, others, strict=True):
        assert b == pytest.approx(a, rel=1e-4)
    for path, x in after[1].items():
        np.testing.assert_allclose(other[1][path], x, rtol=1e-3, atol=1e-5, err_msg=str(path))


def test_end_to_end_every_parameter_learns():
    values, after = trained(1, 1, True)
    before = flatten_dict(variables()["params"])
    assert {path[0] for path in before} == RELATIONS | {"trunk", "rpn", "object_head"}
    for path, x in before.items():
        moved = (after[0][path] != x).any() or path[2:] == UNUSED
        assert np.isfinite(after[0][path]).all() and moved, path
    terms = {"object", "relation", "context", "anchor_class", "anchor_box", "box_class",
             "box_delta"}  # fmt: skip
    assert values[0].keys() == terms | {"loss", "grad_norm", "lr"}
    assert values[0]["loss"] == pytest.approx(sum(values[0][name] for name in terms), rel=1e-5)
    assert all(0 < values[0][name] < np.inf for name in terms | {"grad_norm"})
    assert values[1]["loss"] < values[0]["loss"]


def test_a_frozen_detector_stays_and_everything_else_learns():
    values, after = trained(1, 1, False)
    for path, x in flatten_dict(variables()["params"]).items():
        if path[0] == "trunk" or {path[:1], path[:2]} & DETECTOR:
            np.testing.assert_array_equal(after[1][path], x, err_msg=str(path))
        else:
            assert np.isfinite(after[1][path]).all() and (after[1][path] != x).any(), path
    assert values[0].keys() == {"object", "relation", "context", "loss", "grad_norm", "lr"}


def test_end_to_end_the_trunk_learns_from_the_relations():
    """The maps that found the boxes are not those that are trained on."""
    for overrides, learns in ((END_TO_END, True), (FROZEN, False)):
        task = tiny.create_task("sgdet", **SGD, **overrides)
        assert task.config.model.freeze_trunk and task.model.config["freeze_trunk"] != learns
        found = jax.eval_shape(task.find, variables(), batch())
        assert (found.features is None) == learns
