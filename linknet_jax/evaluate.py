"""The evaluation loop: every image once, each process scores its own, sums are merged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec
from ml_collections import ConfigDict

from linknet_jax import data, parallel, validation
from linknet_jax.baselines import Training, create_metrics, evaluated_splits
from linknet_jax.checkpoints import Checkpoints, vocabulary_of
from linknet_jax.metrics.baselines import ceiling_prediction
from linknet_jax.metrics.scene_graph import SceneGraphMetrics
from linknet_jax.metrics.table import predicate_table, results_table
from linknet_jax.state import create_state, eval_params
from linknet_jax.tasks import EVALUATED, TASKS, SceneGraphClassification
from linknet_jax.types import Batch, Prediction, image_of
from linknet_jax.visualize import draw_graph, stack

MODEL = "model"
Predict = Callable[[dict, Batch], Prediction]


def compile_predict(task: SceneGraphClassification, mesh: Mesh) -> Predict:
    """One prediction step; each device handles its own images, nothing is communicated."""
    split, same = PartitionSpec(parallel.AXIS), PartitionSpec()
    local = jax.shard_map(
        task.predict, mesh=mesh, in_specs=(same, split), out_specs=split, check_vma=False
    )
    shardings = (parallel.replicated(mesh), parallel.split_images(mesh))
    return jax.jit(local, in_shardings=shardings, out_shardings=shardings[1])


def predictions(
    predict: Predict, variables: dict, dataset: data.Dataset, batch_size: int, mesh: Mesh
) -> Iterator[tuple[int, Prediction]]:
    """(position in the split, prediction) of this process's images, as NumPy arrays."""
    share = (jax.process_index(), jax.process_count())
    for batch in dataset.evaluation_batches(batch_size, *share):
        indices = np.where(batch.example_mask, batch.image_index, -1)
        result = parallel.local_rows(predict(variables, parallel.to_devices(batch, mesh)))
        for row, index in enumerate(indices):
            if index >= 0:
                yield int(index), image_of(result, row)


def evaluate_split(
    predict: Predict,
    task: SceneGraphClassification,
    variables: dict,
    dataset: data.Dataset,
    split: str,
    mesh: Mesh,
    training: Training | None = None,
) -> dict[str, dict]:
    """Metrics of the model; with `training` also of the baselines on its labels and scores."""
    unseen = training.unseen(split) if training else None
    baselines = training.tables if training else {}
    scores = {
        name: create_metrics(task.config, task.name, dataset, split, unseen)
        for name in (MODEL, *baselines)
    }
    size = task.config.eval.batch_size
    for index, prediction in predictions(predict, variables, dataset, size, mesh):
        truth = dataset.annotations[index]
        scores[MODEL].update(truth, truth.boxes, prediction)
        n = len(truth.boxes)
        scored = (prediction.labels[:n], prediction.label_scores[:n])
        for name in baselines:
            scores[name].update(truth, truth.boxes, training.predict(name, truth, *scored))
    return {name: _merged(x).compute(dataset.vocabulary) for name, x in scores.items()}


def ceiling(config: ConfigDict, name: str, dataset: data.Dataset, split: str) -> dict:
    """Metrics of a predictor that knows every true class and every true relation."""
    metrics = create_metrics(config, name, dataset, split)
    for annotation, truth in zip(dataset.annotations, dataset.truth, strict=True):
        metrics.update(annotation, annotation.boxes, ceiling_prediction(truth, annotation.labels))
    return metrics.compute(dataset.vocabulary)


def _merged(metrics: SceneGraphMetrics) -> SceneGraphMetrics:
    """Sums of all processes; as raw bits, because JAX would round float64."""
    if jax.process_count() == 1:
        return metrics
    bits = multihost_utils.process_allgather(metrics.state().view(np.uint32))
    return metrics.from_state(np.asarray(bits).view(np.float64).sum(axis=0))


def restore(config: ConfigDict, saved: Checkpoints, step: int, mesh: Mesh) -> dict:
    """Variables for evaluation, on whatever devices there are."""
    task = TASKS[config.task](config, *vocabulary_of(saved.about(step)).sizes)
    shapes = jax.eval_shape(lambda: create_state(config, task, jax.random.key(0), {}, {}))
    items = {"params": shapes.params, "constants": shapes.constants}
    if config.train.ema:
        items["ema"] = shapes.ema
    stored = saved.restore(step, items, parallel.replicated(mesh))
    params = eval_params(stored["params"], stored.get("ema", {}), config)
    return {"params": params, **stored["constants"]}


def evaluate(config: ConfigDict, workdir: epath.Path) -> dict:
    """Scores the checkpoint `eval.step` on test and validation; writes and prints results.json."""
    mesh = parallel.create_mesh()
    with Checkpoints(workdir, config.eval.metric) as saved:
        step = saved.resolve(config.eval.step)
        vocabulary = vocabulary_of(saved.about(step))
        variables = restore(config, saved, step, mesh)
    tasks = [TASKS[name](config, *vocabulary.sizes) for name in EVALUATED[config.task]]
    splits = evaluated_splits(config)
    validation.check_same_vocabulary(vocabulary, splits["val"].vocabulary, config.data.name)
    training = Training(config, splits)
    report: dict = {
        split: {"tasks": {}, "baselines": {name: {} for name in training.tables}}
        for split in splits
    }
    predicts = [compile_predict(task, mesh) for task in tasks]
    for task, predict in zip(tasks, predicts, strict=True):
        for split, dataset in splits.items():
            scores = evaluate_split(predict, task, variables, dataset, split, mesh, training)
            report[split]["tasks"][task.name] = scores.pop(MODEL)
            for name, metrics in scores.items():
                report[split]["baselines"][name][task.name] = metrics
    first = next(iter(splits))
    results = {"step": step, "split": first, "splits": {"val": report["val"]}, **report[first]}
    if splits[first].truth is not None:
        results["ceiling"] = {t.name: ceiling(config, t.name, splits[first], first) for t in tasks}
    if jax.process_index() == 0:
        _write(results, workdir)
    if jax.process_count() == 1:
        draw_examples(predicts[0], variables, splits[first], config, workdir)
    return results


def draw_examples(
    predict: Predict,
    variables: dict,
    dataset: data.Dataset,
    config: ConfigDict,
    workdir: epath.Path,
    count: int = 4,
) -> None:
    """Writes examples.png: the first images of the split with their predicted graphs."""
    batches = dataset.evaluation_batches(config.eval.batch_size)
    batch = next(batches)
    batches.close()
    result = parallel.local_rows(predict(variables, batch))
    pictures = []
    for row, index in enumerate(batch.image_index[:count]):
        annotation = dataset.annotations[int(index)]
        known = annotation.relations if dataset.truth is None else dataset.truth[int(index)]
        n, known = len(annotation.boxes), {tuple(map(int, relation)) for relation in known}
        height, width = batch.image_sizes[row].astype(int)
        view, boxes = batch.images[row, :height, :width], batch.boxes[row, :n]
        if not config.model.visual:
            view = np.full((height, width, 3), 235, np.uint8)
        pictures.append(draw_graph(view, boxes, image_of(result, row), dataset.vocabulary, known))
    path = epath.Path(workdir) / "examples.png"
    with path.open("wb") as file:
        stack(pictures).save(file, format="PNG")
    print(f"pictures of predicted graphs: {path}")


def _write(results: dict, workdir: epath.Path) -> None:
    path = epath.Path(workdir) / "results.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1, allow_nan=False))
    partial.replace(path)
    print(results_table(results))
    first = next(iter(results["tasks"]))
    print(f"\n{first}, recall per predicate\n{predicate_table(results['tasks'][first])}")
    print(f"\nwritten to {path}")
