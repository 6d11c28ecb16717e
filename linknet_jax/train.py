"""The training loop."""

from __future__ import annotations

import collections
from collections.abc import Iterator

import jax
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh
from jaxtyping import Array, Int, PyTree
from ml_collections import ConfigDict

from linknet_jax import data, feature_cache, parallel, start, validation
from linknet_jax import state as states
from linknet_jax.checkpoints import Checkpoints, vocabulary_of
from linknet_jax.data import statistics
from linknet_jax.data.word_vectors import load_word_vectors
from linknet_jax.eval_loop import (
    MODEL,
    Predict,
    compile_predict,
    evaluate_objects,
    evaluate_split,
)
from linknet_jax.preemption import Preemption
from linknet_jax.profile import Profile
from linknet_jax.state import TrainState
from linknet_jax.stopwatch import Stopwatch
from linknet_jax.tasks import Task, create_task
from linknet_jax.train_step import compile_train_step
from linknet_jax.types import Batch
from linknet_jax.utilisation import step_flops
from linknet_jax.writer import Writer

AHEAD = 16  # steps in flight: enough to keep the device busy, few enough for its memory
# Changing these never changes what a run computes.
FREE_TO_CHANGE = ("name", "compilation_cache", "data.dir", "data.images", "data.threads",
                  "data.prefetch", "data.cache", "eval.step", "eval.batch_size", "eval.report",
                  "eval.dump", "train.log_every", "train.fsdp",
                  "checkpoint", "start", "predict", "profile")  # fmt: skip


def train(config: ConfigDict, workdir: epath.Path) -> bool:
    """Trains `config.task`, evaluating and checkpointing as it goes; resumes from `workdir`.

    Returns False where a signal ended it before its time.
    """
    mesh = parallel.create_mesh(config.train.fsdp)
    train_data, val_data = data.build(config, "train"), data.build(config, "val")
    task = create_task(config, *train_data.vocabulary.sizes)
    val_data.check_detections()
    seen = statistics.predicate_counts(train_data.annotations, task.num_predicates)
    options, keep = config.train, config.checkpoint.keep
    size, last = options.batch_size, options.steps
    with Preemption() as signals, Checkpoints(workdir, config.eval.metric, keep) as saved:
        state = create_or_restore(config, task, train_data, mesh, saved)
        first = int(state.step)
        step_fn, predict = compile_train_step(task, mesh), compile_predict(task, mesh)
        share = (jax.process_index(), jax.process_count())
        if config.data.cache:
            variables = {"params": parallel.gathered(state.params, mesh), **state.constants}
            train_data, val_data = (
                feature_cache.cached(config, variables, dataset, split, *share)
                for split, dataset in {"train": train_data, "val": val_data}.items()
            )
        batches = train_data.train_batches(size, config.seed, first, *share)
        recent: collections.deque = collections.deque(maxlen=max(options.log_every, AHEAD))
        profile, watch = Profile(config.profile, workdir / "profile", first), Stopwatch()
        with Writer(workdir, first, last, size) as writer:
            writer.say(summary(config, state, train_data, first))
            if finished_early(state, config):
                return True
            for step, batch in watch.waiting("data", steps(first, last, batches, mesh)):
                writer.say(profile.before(step, list(recent)))
                with jax.profiler.StepTraceAnnotation("train", step_num=step):
                    state, values = step_fn(state, batch)
                recent.append((step, values))
                with watch.part("device"):
                    jax.block_until_ready(recent[max(len(recent) - AHEAD, 0)][1]["loss"])
                if step == first + 1:  # compilation says nothing of the rate
                    writer.first_step(step, step_flops(step_fn, state, batch))
                    watch.restart()
                writer.advance()
                stop = signals.after(step)
                evaluating = step % options.eval_every == 0 or step == last
                saving = evaluating or stop or step % config.checkpoint.every == 0
                if saving or step % options.log_every == 0:
                    with watch.part("device"):
                        check_finite(state, recent)
                        losses = {name: float(x) for name, x in values.items()}
                    writer.progress(step, losses, watch.shares())
                metrics = None
                if evaluating:
                    state, metrics = validate(
                        state, config, task, predict, val_data, seen, mesh, writer
                    )
                    watch.restart()
                if saving:
                    with watch.part("checkpoint"):
                        saved.save(step, items(state, config), metrics, about(config, train_data))
                if stop and step < last:
                    writer.say(profile.close())
                    writer.say(f"signal {stop}: saved after step {step}; rerun to resume")
                    return False
                if evaluating and finished_early(state, config):
                    writer.say(f"no progress in {options.early_stop} evaluations: stopped early")
                    break
            writer.say(profile.close())
    return True


def steps(
    first: int, last: int, batches: Iterator[Batch], mesh: Mesh
) -> Iterator[tuple[int, Batch]]:
    """(step, global batch) for the steps after `first`."""
    try:
        numbers = range(first + 1, last + 1)
        yield from zip(numbers, parallel.device_batches(batches, mesh), strict=False)
    finally:
        batches.close()


def create_or_restore(
    config: ConfigDict,
    task: Task,
    dataset: data.Dataset,
    mesh: Mesh,
    saved: Checkpoints,
) -> TrainState:
    """The latest checkpoint of this very run, or a fresh state."""
    same = parallel.replicated(mesh)

    def create(key: Array, constants: dict, tables: dict, given: dict) -> TrainState:
        return states.create_state(config, task, key, constants, tables, given)

    if saved.latest is None:
        key = jax.jit(lambda: jax.random.key(config.seed), out_shardings=same)()
        wanted = jax.eval_shape(lambda: task.init(jax.random.key(0)))
        given = start.load(config, wanted, same, dataset.vocabulary)
        operands = (key, *measured(config, dataset), given)
        shapes = parallel.placed(jax.eval_shape(create, *operands), mesh)
        return jax.jit(create, out_shardings=parallel.shardings(shapes))(*operands)
    run = saved.about(saved.latest)
    validation.check_same_run(run["config"], config, FREE_TO_CHANGE)
    validation.check_same_vocabulary(vocabulary_of(run), dataset.vocabulary, config.data.name)
    shapes = parallel.placed(jax.eval_shape(create, jax.random.key(0), {}, {}, {}), mesh)
    stored = saved.restore(saved.latest, items(shapes, config))
    return TrainState(
        params=stored["params"],
        constants=stored.get("constants", {}),
        ema=stored.get("ema", {}),
        **stored["train"],
    )


def measured(config: ConfigDict, dataset: data.Dataset) -> tuple[dict, dict]:
    """(constants, parameter tables) that come from the training split (A11, A17, A24)."""
    annotations = dataset.annotations
    scales = [config.data.image_size / max(a.width, a.height) for a in annotations]
    corner = config.model.layout_box == "corner"
    mean, std = statistics.layout_moments(annotations, scales, corner)
    sizes = dataset.vocabulary.sizes
    tables = {}
    if config.model.frequency_bias:
        counts = statistics.count(annotations, *sizes, overlap=True)
        tables["frequency_bias"] = statistics.log_frequencies(*counts)
    if config.model.word_vectors:
        path, dim = config.model.word_vectors, config.model.embed_dim
        vectors = load_word_vectors(path, sizes[0], dim)
        tables |= {"K0": vectors, "K1": vectors}
    return {"layout_mean": mean, "layout_std": std}, tables


def items(state: TrainState, config: ConfigDict) -> dict[str, PyTree]:
    """A state as separately restorable items: evaluation needs no optimizer."""
    steering = ("step", "opt_state", "control", "bad_step")
    result = {"params": state.params}
    if state.constants:  # Orbax refuses an empty item
        result["constants"] = state.constants
    result["train"] = {name: getattr(state, name) for name in steering}
    return result | ({"ema": state.ema} if config.train.ema else {})


def about(config: ConfigDict, dataset: data.Dataset) -> dict:
    """What a checkpoint says of itself."""
    names = dataset.vocabulary
    vocabulary = {"objects": list(names.objects), "predicates": list(names.predicates)}
    return {"config": config.to_dict(), "vocabulary": vocabulary}


def validate(
    state: TrainState,
    config: ConfigDict,
    task: Task,
    predict: Predict,
    dataset: data.Dataset,
    training: Int[np.ndarray, "p"],
    mesh: Mesh,
    writer: Writer,
) -> tuple[TrainState, dict]:
    """Scores the validation split and lets the plateau and early-stop rules see the result.

    `training` counts the relations of each predicate in training.
    """
    params = states.eval_params(state.params, state.ema, config)
    variables = {"params": parallel.gathered(params, mesh), **state.constants}
    if task.name == "detector":
        scores = evaluate_objects(predict, task, variables, dataset, mesh)
    else:
        sums = evaluate_split(predict, task, variables, dataset, "val", mesh)[MODEL]
        scores = sums.compute(dataset.vocabulary, training)
    metrics = {name: x for name, x in scores.items() if isinstance(x, float)}
    if config.eval.metric not in metrics:
        raise ValueError(
            f"no image of the validation split has relations; check {config.data.name}"
        )
    metric = metrics[config.eval.metric]
    writer.say(f"  validation {task.name} {config.eval.metric} {100 * metric:.2f} %")
    writer.scalars(int(state.step), metrics, "val")
    writer.restart_clock(int(state.step))
    control = states.update_control(jax.device_get(state.control), metric, config.train)
    same = parallel.replicated(mesh)
    control = jax.tree.map(
        lambda x: jax.make_array_from_callback((), same, lambda _: np.asarray(x)), control
    )
    return state.replace(control=control), metrics


def finished_early(state: TrainState, config: ConfigDict) -> bool:
    """Whether `train.early_stop` evaluations in a row brought no progress."""
    return bool(config.train.early_stop) and int(state.control.idle) >= config.train.early_stop


def check_finite(state: TrainState, recent: collections.deque) -> None:
    """FloatingPointError at the first non-finite step; the parameters are still those before it."""
    bad = int(state.bad_step)
    if bad < 0:
        return
    values = next((v for step, v in recent if step == bad), {})
    report = ", ".join(f"{name} {float(value):.4g}" for name, value in values.items())
    raise FloatingPointError(
        f"step {bad} is not finite: {report}. The last checkpoint is intact; lower train.lr, "
        "raise train.warmup or set train.clip, then train in another --workdir"
    )


def summary(config: ConfigDict, state: TrainState, dataset: data.Dataset, first: int) -> str:
    """What is about to run, in one line."""
    million = sum(x.size for x in flatten_dict(state.params).values()) / 1e6
    start = f"resumes after step {first}" if first else "starts"
    return (
        f"{config.task} on {config.data.name}: {len(dataset.annotations)} images, "
        f"{million:.1f} M parameters, {jax.device_count()} {jax.default_backend()} devices; {start}"
    )
