"""Optimizer, schedules, plateau and frozen groups against loops written from their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from linknet_jax import state as states
from linknet_jax.config import get_default
from linknet_jax.tasks import SceneGraphClassification
from linknet_jax.train_step import apply_gradients


def config(**overrides):
    tree = get_default("sgcls")
    tree.update_from_flattened_dict({key.replace("__", "."): x for key, x in overrides.items()})
    return tree


def rates(at, **train):
    schedule = states.create_schedule(config(**{f"train__{k}": x for k, x in train.items()}).train)
    return [float(schedule(jnp.asarray(step))) for step in at]


def test_constant_and_plateau_rates_after_warmup():
    for schedule in ("constant", "plateau"):
        found = rates([0, 1, 3, 4, 99], schedule=schedule, lr=0.5, warmup=4)
        np.testing.assert_allclose(found, [0.125, 0.25, 0.5, 0.5, 0.5])
    assert rates([0], schedule="constant", lr=0.5, warmup=0) == [0.5]


def test_cosine_rates():
    found = rates([0, 25, 50, 100, 140], schedule="cosine", lr=2.0, steps=100, warmup=0)
    np.testing.assert_allclose(found, [2, 1 + 0.5**0.5, 1, 0, 0], atol=1e-6)


def test_step_rates():
    shape = dict(schedule="step", lr=1.0, steps=10, milestones=(0.4, 0.8), decay=0.1, warmup=0)
    found = rates([0, 3, 4, 5, 7, 8, 9], **shape)
    np.testing.assert_allclose(found, [1, 1, 0.1, 0.1, 0.1, 0.01, 0.01], rtol=1e-6)


def plateau_loop(metrics, factor, patience, threshold, cooldown):
    """ReduceLROnPlateau(mode="max", threshold_mode="abs") as torch documents it."""
    best, bad, wait, scale, scales = -np.inf, 0, 0, 1.0, []
    for metric in metrics:
        if metric > best + threshold:
            best, bad = metric, 0
        else:
            bad += 1
        if wait > 0:
            wait, bad = wait - 1, 0
        if bad > patience:
            scale, wait, bad = scale * factor, cooldown, 0
        scales.append(scale)
    return scales


def plateau_torch(metrics, factor, patience, threshold, cooldown):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "max", factor, patience, threshold, "abs", cooldown, eps=0
    )
    scales = []
    for metric in metrics:
        schedule.step(metric)
        scales.append(optimizer.param_groups[0]["lr"])
    return scales


@pytest.mark.parametrize("oracle", [plateau_loop, plateau_torch])
@pytest.mark.parametrize("patience, cooldown, threshold", [(3, 1, 1e-4), (0, 0, 0.0), (1, 2, 0.05)])
def test_plateau(oracle, patience, cooldown, threshold):
    tree = config(train__schedule="plateau", train__decay=0.5, train__patience=patience,
                  train__cooldown=cooldown, train__threshold=threshold).train  # fmt: skip
    for seed in range(20):
        metrics = np.random.default_rng(seed).uniform(0, 1, 40) * np.linspace(0.2, 1, 40)
        control, scales = states.Control.create(), []
        for metric in metrics:
            control = states.update_control(control, metric, tree)
            scales.append(float(control.lr_scale))
        assert scales == pytest.approx(oracle(metrics, 0.5, patience, threshold, cooldown))
        assert len(set(scales)) > 2


def test_idle_counts_evaluations_without_progress():
    tree = config(train__schedule="constant", train__threshold=0.01).train
    control, idle = states.Control.create(), []
    for metric in (0.1, 0.2, 0.205, 0.2, 0.3, 0.1):
        control = states.update_control(control, metric, tree)
        idle.append(int(control.idle))
    assert idle == [0, 0, 1, 2, 0, 1]
    assert float(control.best) == pytest.approx(0.3) and float(control.lr_scale) == 1


def run_optimizer(tree, params, gradients, rate=0.1):
    """Parameters after applying each gradient, by the code that training runs."""
    optimizer = states.create_optimizer(tree.train)
    flat = states.split_params(params, tree)[0]
    state = states.TrainState(
        step=0, params=params, constants={}, opt_state=optimizer.init(flat), ema=dict(flat),
        control=states.Control.create(), bad_step=-1,
    )  # fmt: skip
    for step, gradient in enumerate(gradients):
        state = apply_gradients(state.replace(step=step), gradient, {}, optimizer, rate, tree)
    return state


def tree_and_gradients():
    rng = np.random.default_rng(0)
    params = {"fc3": {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)},
              "object_features": {"fc6": {"kernel": rng.normal(size=(2, 2))}}}  # fmt: skip
    params = jax.tree.map(jnp.float32, params)
    flat = states.split_params(params, config())[0]
    draw = [{path: np.float32(rng.normal(size=x.shape) * 3) for path, x in flat.items()}
            for _ in range(4)]  # fmt: skip
    return params, flat, draw


@pytest.mark.parametrize("clip", [0.0, 2.5])
def test_sgd_is_torchs_rule_with_groups_and_clipping(clip):
    params, flat, gradients = tree_and_gradients()
    tree = config(train__optimizer="sgd", train__momentum=0.9, train__weight_decay=0.1,
                  train__clip=clip, train__fc_lr_ratio=0.25, train__ema=0.7)  # fmt: skip
    state = run_optimizer(tree, params, gradients)
    for path, x in flat.items():
        x, buffer, average = np.float64(x), 0.0, np.float64(x)
        for step, gradient in enumerate(gradients):
            norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradient.values()))
            scale = min(1, clip / norm) if clip else 1
            buffer = 0.9 * buffer + (gradient[path] * scale + 0.1 * x)  # biases decay too
            x = x - 0.1 * (0.25 if "fc6" in path else 1) * buffer
            decay = min(0.7, (1 + step) / (10 + step))
            average = decay * average + (1 - decay) * x
        found = states.split_params(state.params, tree)[0][path]
        np.testing.assert_allclose(found, x, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(state.ema[path], average, rtol=1e-5, atol=1e-6)


def test_adamw_decays_matrices_only():
    params, flat, gradients = tree_and_gradients()
    tree = config(train__optimizer="adamw", train__weight_decay=0.3, train__clip=0.0,
                  train__ema=0.5)  # fmt: skip
    state = run_optimizer(tree, params, gradients)
    for path, x in flat.items():
        x, m, v = np.float64(x), 0.0, 0.0
        for t, gradient in enumerate(gradients, 1):
            m = 0.9 * m + 0.1 * gradient[path]
            v = 0.999 * v + 0.001 * gradient[path].astype(np.float64) ** 2
            direction = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            x = x - 0.1 * (direction + (0.3 * x if x.ndim > 1 else 0))
        found = states.split_params(state.params, tree)[0][path]
        np.testing.assert_allclose(found, x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("flag, name", [("freeze_trunk", "trunk"), ("freeze_box_head", "box_head")])
def test_frozen_group_has_no_optimizer_state_and_stays(flag, name):
    params, flat, gradients = tree_and_gradients()
    params[name] = {"conv1": {"kernel": jnp.ones((2, 2))}}
    tree = config(**{f"model__{flag}": True, "train__ema": 0.9, "train__weight_decay": 0.1})
    trained, frozen = states.split_params(params, tree)
    assert trained.keys() == flat.keys() and frozen.keys() == {(name, "conv1", "kernel")}
    joined = states.join_params(trained, frozen)
    assert jax.tree.structure(joined) == jax.tree.structure(params)
    state = run_optimizer(tree, params, gradients)
    np.testing.assert_array_equal(state.params[name]["conv1"]["kernel"], np.ones((2, 2)))
    assert name not in str(jax.tree_util.tree_leaves_with_path((state.opt_state, state.ema)))
    averaged = states.eval_params(state.params, state.ema, tree)
    np.testing.assert_array_equal(averaged["fc3"]["bias"], state.ema["fc3", "bias"])
    np.testing.assert_array_equal(averaged[name]["conv1"]["kernel"], np.ones((2, 2)))
    assert states.eval_params(state.params, {}, config()) is state.params


def test_unfrozen_model_trains_everything():
    task = tiny.create_task()
    params = tiny.variables()["params"]
    trained, frozen = states.split_params(params, task.config)
    assert not frozen and len(trained) == len(jax.tree.leaves(params))
    names = {path[:2] for path in trained if states.rate_ratio(path, config(
        train__fc_lr_ratio=0.5).train) == 0.5}  # fmt: skip
    assert names == {("object_head", "object_features"), ("edge_head", "union_features")}
    task = tiny.create_task(model__freeze_trunk=True, model__freeze_box_head=True)
    trained, frozen = states.split_params(params, task.config)
    assert {path[:2] for path in frozen if path[0] != "trunk"} == {
        ("object_head", "box_features"),
        ("object_head", "box_head"),
    }
    assert {path[0] for path in frozen} == {"trunk", "object_head"}
    assert not {path[0] for path in trained} & {"trunk"}


class Stub:
    """Stands for a model that has three variables."""

    def init(self, key, images, image_sizes, boxes, box_mask, pair_mask):
        assert images.shape == (1, 128, 128, 3) and boxes.shape[:2] == box_mask.shape
        assert image_sizes.tolist() == [[128, 128]] and pair_mask.shape[1:] == 2 * boxes.shape[1:2]
        draw = jax.random.normal(key, (2, 3))
        params = {"edge_head": {"frequency_bias": jnp.zeros((2, 3))}, "fc3": {"kernel": draw}}
        return {"params": params, "constants": {"layout_mean": jnp.zeros(4)}}


class StubTask(SceneGraphClassification):
    model = Stub()


def test_created_state_takes_constants_and_tables():
    table, mean = np.arange(6.0).reshape(2, 3), np.arange(4.0)
    tree = config(train__ema=0.9)
    constants, tables = {"layout_mean": mean}, {"frequency_bias": table}
    state = states.create_state(tree, StubTask(tree, 5, 4), jax.random.key(1), constants, tables)
    np.testing.assert_array_equal(state.params["edge_head"]["frequency_bias"], table)
    np.testing.assert_array_equal(state.constants["constants"]["layout_mean"], mean)
    assert float(optax.tree.norm(state.params["fc3"])) > 0
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves((state.params, state.constants)))
    assert int(state.step) == 0 and int(state.bad_step) == -1
    flat = states.split_params(state.params, tree)[0]
    jax.tree.map(np.testing.assert_array_equal, state.ema, flat)
    other = states.create_state(config(), StubTask(config(), 5, 4), jax.random.key(1), {}, {})
    assert other.ema == {} and not other.params["edge_head"]["frequency_bias"].any()
