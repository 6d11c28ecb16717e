"""The training step on any number of devices, and the loop around it."""

import dataclasses
import functools
import json
import os
import re
import signal
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from linknet_jax import parallel, train, train_step
from linknet_jax import state as states
from linknet_jax.checkpoints import Checkpoints
from linknet_jax.config import get_default
from linknet_jax.eval_loop import compile_predict
from linknet_jax.metrics.scene_graph import SceneGraphMetrics
from linknet_jax.types import Annotation, Vocabulary, image_of

SGD = {"train__optimizer": "sgd", "train__schedule": "constant", "train__warmup": 0,
       "train__lr": 0.004, "train__momentum": 0.9, "train__ema": 0.5}  # fmt: skip
CASES = [(1, 1, 5), (8, 1, 7), (1, 4, 5), (8, 4, 7)]  # devices, accumulation, padded objects
VOCABULARY = Vocabulary(("", "a", "b", "c", "d"), ("", "on", "in", "at"))


def make_mesh(devices, fsdp=1):
    return parallel.create_mesh(fsdp, jax.devices()[:devices])


def start(task, mesh, **overrides):
    """A state of the tiny model; copies, because a step donates its buffers."""
    variables = jax.tree.map(np.array, tiny.variables(**overrides))
    params = variables.pop("params")
    trained = states.split_params(params, task.config)[0]
    state = states.TrainState(
        step=np.int32(0),
        params=params,
        constants=variables,
        opt_state=states.create_optimizer(task.config.train).init(trained),
        ema=jax.tree.map(np.array, trained) if task.config.train.ema else {},
        control=states.Control.create(),
        bad_step=np.int32(-1),
    )
    return jax.device_put(jax.tree.map(np.array, state), parallel.replicated(mesh))


@functools.lru_cache
def scenes():
    return [tiny.scene(3 + seed % 3, seed) for seed in range(32)]


@functools.lru_cache
def three_steps(devices, accumulation, n, fsdp=1):
    """(values of every step, final state, HLO) on 32 images padded to n objects with garbage."""
    task = tiny.create_task(train__accumulation=accumulation, **SGD)
    mesh = make_mesh(devices, fsdp)
    batch = parallel.to_devices(tiny.make_batch(scenes(), n, garbage=n), mesh)
    state = start(task, mesh)
    state = jax.device_put(state, parallel.shardings(parallel.placed(state, mesh)))
    step = train_step.compile_train_step(task, mesh).lower(state, batch).compile()
    values = []
    for _ in range(3):
        state, found = step(state, batch)
        values.append({name: float(x) for name, x in found.items()})
    return values, jax.device_get(state), step.as_text()


def test_devices_that_share_parameters_compute_the_same(monkeypatch):
    expected, state, _ = three_steps(*CASES[1])
    monkeypatch.setattr(parallel, "SHARDED_FROM", 2**6)
    mesh = make_mesh(8, 4)
    shared = parallel.placed(state, mesh).params
    values, other, hlo = three_steps(*CASES[1], fsdp=4)
    for a, b in zip(expected, values, strict=True):
        assert b == pytest.approx(a, rel=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 2e-4, 2e-6), state, other)
    specs = [x.sharding.spec for x in jax.tree.leaves(shared)]
    split = [spec for spec in specs if "fsdp" in spec]
    assert 5 < len(split) < len(specs)
    assert hlo.count("reduce-scatter(") + hlo.count("reduce-scatter-start(") >= 1


def test_which_arrays_are_shared():
    mesh = make_mesh(8, 4)
    large = parallel.SHARDED_FROM
    assert parallel.split_axis((3, large), mesh) == 1
    assert parallel.split_axis((large, 4), mesh) == 0
    assert parallel.split_axis((large + 1, 4), mesh) == 1  # an axis that divides evenly
    assert parallel.split_axis((large + 1, 3), mesh) is None
    assert parallel.split_axis((large // 8, 4), mesh) is None
    assert parallel.split_axis((large, 4), make_mesh(8)) is None
    assert parallel.split_spec((3, large), mesh) == jax.sharding.PartitionSpec(None, "fsdp")


@pytest.mark.parametrize("case", CASES[1:], ids=str)
def test_devices_accumulation_and_padding_change_nothing(case):
    expected, state, _ = three_steps(*CASES[0])
    values, other, _ = three_steps(*case)
    for a, b in zip(expected, values, strict=True):
        assert a.keys() == b.keys() >= {"loss", "object", "relation", "context", "grad_norm", "lr"}
        assert b == pytest.approx(a, rel=2e-5)
    assert expected[2]["loss"] < expected[0]["loss"]
    leaves = zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True)
    for a, b in leaves:
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


def computations(hlo):
    """Instructions by the name of their computation."""
    found, name = {}, None
    for line in hlo.splitlines():
        head = re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        if head:
            name = head[1]
            found[name] = []
        elif name and line.startswith("  "):
            found[name].append(line)
    return found


def called_from(hlo_computations, names):
    """`names` and every computation that they reach."""
    reached, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            text = "\n".join(hlo_computations[name])
            waiting += [x for x in re.findall(r"%([\w.\-]+)", text) if x in hlo_computations]
    return reached


@pytest.mark.parametrize("case", [CASES[1], CASES[3]], ids=str)
def test_devices_exchange_sums_only(case):
    """No feature map travels; the gradients are joined once, outside of every loop."""
    hlo = three_steps(*case)[2]
    for collective in ("all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert collective not in hlo
    parts = computations(hlo)
    bodies = {x for x in re.findall(r"body=%?([\w.\-]+)", hlo)}
    assert bodies and bodies <= parts.keys()
    inside = called_from(parts, bodies)
    reduces = [name for name, lines in parts.items() if any(" all-reduce" in x for x in lines)]
    assert reduces and not inside & set(reduces)
    for host in ("callback", "infeed", "outfeed", " send(", " recv(", "S(5)"):  # 5: host memory
        assert host not in hlo


@pytest.fixture(scope="module")
def overfitted():
    """(task, step, values of every step, state) of 300 steps on four images."""
    task = tiny.create_task(
        train__optimizer="adamw", train__lr=0.01, train__schedule="constant", train__warmup=10,
        train__weight_decay=0.0, sampling__pairs=64, sampling__related=64,
    )  # fmt: skip
    mesh = make_mesh(1)
    batch = parallel.to_devices(tiny.make_batch(scenes()[:4], 5), mesh)
    step, state, history = train_step.compile_train_step(task, mesh), start(task, mesh), []
    for _ in range(300):
        state, values = step(state, batch)
        history.append(values)
    return task, step, jax.device_get(history), jax.device_get(state), batch


def test_overfits_one_batch(overfitted):
    _, _, history, state, _ = overfitted
    first = history[0]
    last = {name: min(losses[name] for losses in history[-20:]) for name in first}  # dropout is on
    assert first["object"] > 1 and first["relation"] > 1
    assert last["object"] < 0.05 and last["relation"] < 0.1 and last["context"] < 0.05
    assert int(state.step) == 300


def annotations(images):
    for image in images:
        s, o = np.nonzero(image["predicates"])
        rows = np.stack([s, o, image["predicates"][s, o]], axis=-1)
        yield Annotation(0, tiny.SIDE, tiny.SIDE, image["boxes"], image["labels"], rows)


def test_metrics_do_not_depend_on_devices(overfitted):
    """Eight images, four of which the parameters were trained on."""
    task, _, _, state, _ = overfitted
    results, images = [], scenes()[:8]
    for devices in (1, 8):
        mesh = make_mesh(devices)
        batch = parallel.to_devices(tiny.make_batch(images, 5), mesh)
        variables = {"params": state.params, **state.constants}
        found = jax.device_get(compile_predict(task, mesh)(variables, batch))
        metrics = SceneGraphMetrics(len(VOCABULARY.predicates), (1, 3, 20), "sgcls", "val", True)
        for row, truth in enumerate(annotations(images)):
            metrics.update(truth, truth.boxes, image_of(found, row))
        results.append(metrics.compute(VOCABULARY))
    one, eight = ({k: x for k, x in r.items() if isinstance(x, float)} for r in results)
    assert one == pytest.approx(eight, rel=1e-6) and 0.3 < one["R@20"] < 1


def sums(metrics):
    """What `evaluate_split` returns where the metrics are these."""
    return {"model": types.SimpleNamespace(compute=lambda vocabulary, training: metrics)}


class Silent:
    def __getattr__(self, name):
        return lambda *arguments: None


def test_no_step_compiles_again(overfitted, monkeypatch):
    """Neither later steps, nor the state that an evaluation or a checkpoint returns."""
    task, step, _, state, batch = overfitted
    mesh, val = make_mesh(1), types.SimpleNamespace(vocabulary=None)
    monkeypatch.setattr(train, "evaluate_split", lambda *_: sums({"R@20": 0.25, "n": 3}))
    state = jax.device_put(state, parallel.replicated(mesh))
    state, metrics = train.validate(state, task.config, task, None, val, None, mesh, Silent())
    assert metrics == {"R@20": 0.25} and float(state.control.best) == 0.25
    step(state, batch)
    assert step._cache_size() == 1


def test_nothing_moves_after_a_step_that_is_not_finite(overfitted):
    task, step, _, state, batch = overfitted
    assert not task.config.train.ema
    place = parallel.replicated(make_mesh(1))
    poisoned = jax.tree.map(lambda x: x * np.nan, state.constants)
    before = dataclasses.replace(state, constants=poisoned)
    bad, values = step(jax.device_put(before, place), batch)
    assert not np.isfinite(values["loss"]) and int(bad.bad_step) == 301 == int(bad.step)
    later, _ = step(bad.replace(constants=jax.device_put(state.constants, place)), batch)
    assert int(later.bad_step) == 301 and int(later.step) == 302
    for name in ("params", "opt_state"):
        pairs = zip(*(jax.tree.leaves(getattr(s, name)) for s in (state, later)), strict=True)
        for a, b in pairs:
            np.testing.assert_array_equal(a, b)


STEPS = 10


@pytest.fixture
def loop(monkeypatch):
    """train.train with an arithmetic stand-in for the model; settings that tests may change."""
    config = get_default("sgcls")
    config.update_from_flattened_dict({
        "data.train_images": 24, "data.val_images": 8, "data.image_size": 32,
        "train.batch_size": 8, "train.steps": STEPS, "train.eval_every": 4, "train.log_every": 5,
        "checkpoint.every": 3, "checkpoint.keep": 9, "train.schedule": "plateau",
        "train.patience": 0, "train.decay": 0.5, "train.cooldown": 0,
    })  # fmt: skip
    seen = {"saved": [], "steps": [], "metrics": [0.5, 0.4, 0.6], "at": {}, "config": config}

    def create_state(config, task, key, constants, tables, given):
        control = jax.tree.map(jnp.asarray, states.Control.create())
        params = {"w": jnp.zeros(())}
        zero, minus = jnp.zeros((), jnp.int32), jnp.full((), -1, jnp.int32)
        return states.TrainState(zero, params, {"constants": {}}, (), {}, control, minus)

    def step(state, batch):
        number = int(state.step) + 1
        seen["steps"].append(number)
        bad = seen["at"].get(number, lambda: None)() == "nan" or state.bad_step >= 0
        order = jnp.sum(batch.image_index * jnp.arange(1, 9)) * number * state.control.lr_scale
        params = state.params if bad else {"w": state.params["w"] + order}
        mark = jnp.int32(number) if bad and state.bad_step < 0 else state.bad_step
        state = state.replace(step=state.step + 1, params=params, bad_step=mark)
        return state, {"loss": jnp.nan if bad else 1.0, "grad_norm": 2.5}

    def save(self, step, items, metrics, about):
        seen["saved"].append((step, metrics))
        original(self, step, items, metrics, about)

    original = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", save)
    monkeypatch.setattr(states, "create_state", create_state)
    monkeypatch.setattr(train, "compile_train_step", lambda *_: step)
    monkeypatch.setattr(train, "compile_predict", lambda *_: None)

    def evaluate_split(predict, task, variables, *_):
        return sums({"R@20": seen["metrics"][len(seen["steps"]) // 4 % 3], "images": 8})

    monkeypatch.setattr(train, "evaluate_split", evaluate_split)
    monkeypatch.setattr(train, "step_flops", lambda *_: 1e9)
    return seen


def restored(workdir, step):
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    count = jax.ShapeDtypeStruct((), jnp.int32)
    control = states.Control(scalar, scalar, count, count, count)
    steering = {"step": count, "bad_step": count, "control": control, "opt_state": ()}
    items = {"params": {"w": scalar}, "train": steering}
    with Checkpoints(workdir) as saved:
        return saved.restore(step, parallel.placed(items, make_mesh(1)))


def test_when_the_loop_saves_and_evaluates(loop, tmp_path):
    assert train.train(loop["config"], tmp_path) is True
    assert loop["steps"] == list(range(1, STEPS + 1))
    assert [step for step, _ in loop["saved"]] == [3, 4, 6, 8, 9, 10]
    assert [step for step, metrics in loop["saved"] if metrics] == [4, 8, 10]
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines if x["group"] == "val"] == [4, 8, 10]
    assert {x["step"] for x in lines if x["group"] == "train"} == {3, 4, 5, 6, 8, 9, 10}
    assert train.train(loop["config"], tmp_path) is True  # finished: nothing is trained again
    assert len(loop["steps"]) == STEPS


def test_nothing_is_read_from_the_device_between_two_log_points(loop, tmp_path, monkeypatch):
    """A CPU's transfer guard does not see such reads: they are counted where JAX makes them."""
    reads, now, kind = [], [0], type(jnp.zeros(()))
    fetch = kind._value

    def counted(array):
        reads.append(now[0])
        return fetch.fget(array)

    @jax.jit
    def step(state, batch):
        number = state.step + 1
        return state.replace(step=number), {"loss": number / 2, "grad_norm": number / 3}

    def train_step(state, batch):
        now[0] += 1
        return step(state, {"images": batch.images})

    monkeypatch.setattr(train, "compile_train_step", lambda *_: train_step)
    monkeypatch.setattr(kind, "_value", property(counted))
    config = loop["config"]
    config.train.update({"steps": 40, "log_every": 20, "eval_every": 40})
    config.checkpoint.every = 40
    config.data.train_images = 24
    assert train.train(config, tmp_path)
    assert {20, 40} <= set(reads) <= {0, 20, 40}
    before = len(reads)
    float(jnp.ones(()))
    assert len(reads) > before  # the count sees a read


def test_signal_saves_and_the_rerun_ends_where_the_undisturbed_run_does(loop, tmp_path):
    train.train(loop["config"], tmp_path / "a")
    loop["steps"].clear()
    before = signal.getsignal(signal.SIGTERM)
    for number in (2, 5, 8):
        loop["at"] = {number: lambda: os.kill(os.getpid(), signal.SIGTERM)}
        assert train.train(loop["config"], tmp_path / "b") is False
        assert loop["saved"][-1][0] == number
        assert signal.getsignal(signal.SIGTERM) is before
    loop["at"] = {}
    assert train.train(loop["config"], tmp_path / "b") is True
    assert loop["steps"] == list(range(1, STEPS + 1))
    a, b = (restored(tmp_path / name, STEPS) for name in "ab")
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert float(a["params"]["w"]) > 0


def test_control_is_saved(loop, tmp_path):
    """The plateau schedule decayed once, after 0.4: a resumed run knows."""
    loop["metrics"] = [0, 0.5, 0.4]
    loop["config"].train.steps = 8
    train.train(loop["config"], tmp_path)
    assert float(restored(tmp_path, 4)["train"]["control"].lr_scale) == 1
    control = restored(tmp_path, 8)["train"]["control"]
    assert (float(control.lr_scale), float(control.best)) == (0.5, 0.5)
    assert (int(control.idle), int(control.stale)) == (1, 0)


def test_loss_that_is_not_finite_stops_the_run(loop, tmp_path):
    loop["at"] = {7: lambda: "nan"}
    with pytest.raises(FloatingPointError, match=r"step 7 .*loss nan, grad_norm 2.5.*train.lr"):
        train.train(loop["config"], tmp_path)
    assert loop["steps"][-1] == 8  # the next report or checkpoint finds it
    assert loop["saved"][-1][0] == 6 and np.isfinite(restored(tmp_path, 6)["params"]["w"])


def test_early_stop_and_its_rerun(loop, tmp_path):
    loop["metrics"], loop["config"].train.early_stop = [0.5, 0.5, 0.5], 2
    loop["config"].train.steps, loop["config"].train.eval_every = 40, 4
    for _ in range(2):
        assert train.train(loop["config"], tmp_path) is True
        assert loop["steps"] == list(range(1, 13))


def test_rerun_with_other_settings_is_refused_unless_steps_grow(loop, tmp_path):
    train.train(loop["config"], tmp_path)
    changed = loop["config"].copy_and_resolve_references()
    changed.train.lr, changed.data.seed, changed.train.steps = 0.5, 4, 3
    changed.data.threads, changed.train.log_every = 1, 2  # these never change what is computed
    with pytest.raises(ValueError, match="another --workdir, or set back") as error:
        train.train(changed, tmp_path)
    lines = str(error.value).splitlines()[1:]
    assert [line.split("=")[0].strip() for line in lines] == [
        "--config.data.seed", "--config.train.lr", "--config.train.steps",
    ]  # fmt: skip
    assert len(loop["steps"]) == STEPS
    grown = loop["config"].copy_and_resolve_references()
    grown.train.steps = 12
    assert train.train(grown, tmp_path) is True
    assert loop["steps"] == list(range(1, 13))
