"""`--mode eval`: a checkpoint to results.json, report.html, pictures and predictions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh
from jaxtyping import Float
from ml_collections import ConfigDict
from PIL import Image

from linknet_jax import data, dump, parallel, pictures, restore, validation
from linknet_jax.atomic import replacing, write_json
from linknet_jax.baselines import Training, create_metrics, evaluated_splits
from linknet_jax.checkpoints import Checkpoints, vocabulary_of
from linknet_jax.data.synthetic.guesses import context_free
from linknet_jax.eval_loop import (
    MODEL,
    Predict,
    Recalls,
    compile_predict,
    evaluate_objects,
    evaluate_split,
    object_scores,
)
from linknet_jax.metrics.baselines import ceiling_prediction
from linknet_jax.metrics.detection import DetectionMetrics
from linknet_jax.metrics.table import objects_table, predicate_table, results_table
from linknet_jax.ops.ranking import no_triplets
from linknet_jax.report.page import Example, write_report
from linknet_jax.tasks import Task, create_task, evaluated_tasks
from linknet_jax.types import Prediction

Draw = Callable[[str, Sequence[int]], Iterator[Image.Image]]  # (task, positions in the split)


class Scores(NamedTuple):
    """A task on a split.

    Attributes:
      metrics: of the model and of the baselines, by name.
      diagnosis: of the model, see `SceneGraphMetrics.diagnosis`.
      seen: the recall of each of this process's images.
    """

    metrics: dict[str, dict]
    diagnosis: dict
    seen: list[pictures.Seen]


BySplit = dict[str, dict[str, Scores]]  # and task


def evaluate(config: ConfigDict, workdir: epath.Path) -> dict:
    """Scores the checkpoint `eval.step` on test and validation.

    Prints and writes results.json, report.html and, with `eval.dump`, the predictions.
    """
    mesh = parallel.create_mesh()
    with Checkpoints(workdir, config.eval.metric) as saved:
        step = saved.resolve(config.eval.step)
        vocabulary = vocabulary_of(saved.about(step))
        variables = restore.variables(config, saved, step, mesh)
    tasks = [create_task(config, *vocabulary.sizes, name) for name in evaluated_tasks(config)]
    splits = evaluated_splits(config)
    for dataset in splits.values():
        dataset.check_detections()
    validation.check_same_vocabulary(vocabulary, splits["val"].vocabulary, config.data.name)
    if config.task == "detector":
        return evaluate_detector(config, tasks[0], variables, splits, step, workdir, mesh)
    training = Training(config, splits)
    folder = workdir / "predictions" if config.eval.dump else None
    predicts = {task.name: compile_predict(task, mesh) for task in tasks}
    table: BySplit = {split: {} for split in splits}
    for task in tasks:
        for split, dataset in splits.items():
            table[split][task.name] = score_split(
                predicts[task.name], task, variables, dataset, split, mesh, training, folder
            )
    results = _results(step, table)
    first, dataset = next(iter(splits.items()))
    if dataset.truth is not None:
        results["ceiling"] = {
            t.name: ceiling(config, t.name, dataset, first, training) for t in tasks
        }
    if jax.process_index() == 0:
        _write(results, workdir)  # first: nothing that follows may cost them
    if folder is not None:
        _finish_dump(folder, table, splits, training, {**config.eval.to_dict(), "step": step})
    shown: list[Example] = []
    if jax.process_count() == 1:  # a picture needs a prediction, and that needs all processes

        def draw(name: str, indices: Sequence[int]) -> Iterator[Image.Image]:
            return pictures.draw(predicts[name], variables, dataset, config, indices)

        _draw_first(draw, tasks[0].name, dataset, workdir)
        shown = list(_extremes(draw, table[first], dataset, config.eval.ks[0]))
    if config.eval.report and jax.process_index() == 0:
        _report(results, table, shown, f"{config.name} in {workdir.name}", workdir)
    return results


def evaluate_detector(
    config: ConfigDict,
    task: Task,
    variables: dict,
    splits: dict[str, data.Dataset],
    step: int,
    workdir: epath.Path,
    mesh: Mesh,
) -> dict:
    """Prints and writes results.json: mAP@50, AP and class-agnostic AP@50 of every split."""
    predict = compile_predict(task, mesh)
    scores = {
        name: {"tasks": {task.name: evaluate_objects(predict, task, variables, x, mesh)}}
        for name, x in splits.items()
    }
    first, dataset = next(iter(splits.items()))
    results = {"step": step, "split": first, "splits": scores, **scores[first]}
    if dataset.truth is not None:
        results["ceiling"] = {task.name: _perfect_boxes(config, dataset, first)}
    if jax.process_index() == 0:
        write_json(workdir / "results.json", results)
        print(objects_table(results))
        print(f"\nwritten to {workdir / 'results.json'}")
    return results


def _perfect_boxes(config: ConfigDict, dataset: data.Dataset, split: str) -> dict:
    """Scores of the annotated boxes with the best classes that drawn things show by themselves."""
    metrics, nothing = DetectionMetrics(), np.zeros((0, 4))
    guesses = context_free(config.data, split)
    for annotation, (labels, scores) in zip(dataset.annotations, guesses, strict=True):
        prediction = no_triplets(labels, scores, nothing, np.ones(len(labels), bool))
        metrics.update(annotation, annotation.boxes, prediction)
    return metrics.compute() | {"AP@50": metrics.agnostic()}


def score_split(
    predict: Predict,
    task: Task,
    variables: dict,
    dataset: data.Dataset,
    split: str,
    mesh: Mesh,
    training: Training,
    folder: epath.Path | None = None,
) -> Scores:
    """All that is reported of a task on a split; predictions go to `folder`, if there is one."""
    seen: list[pictures.Seen] = []
    objects = DetectionMetrics()
    names, k = dataset.vocabulary, task.config.eval.ks[0]
    with contextlib.ExitStack() as stack:
        write = None
        if folder is not None:
            name = f"{task.name}_{split}"
            write = stack.enter_context(dump.prediction_writer(folder, name, names))

        def observe(
            index: int,
            boxes: Float[np.ndarray, "n 4"],
            prediction: Prediction,
            recalls: Recalls | None,
        ) -> None:
            truth = dataset.annotations[index]
            if task.name == "sgdet":
                objects.update(truth, boxes, prediction)
            if recalls is not None:
                seen.append((recalls[k], len(truth.relations), index))
            if write:
                write(truth, boxes, prediction)

        sums = evaluate_split(predict, task, variables, dataset, split, mesh, training, observe)
    counts = training.predicate_counts
    metrics = {name: x.compute(names, counts) for name, x in sums.items()}
    if task.name == "sgdet":
        found = object_scores(objects)
        metrics = {name: x | found for name, x in metrics.items()}
    return Scores(metrics, sums[MODEL].diagnosis(names), seen)


def ceiling(
    config: ConfigDict, name: str, dataset: data.Dataset, split: str, training: Training
) -> dict:
    """Metrics of a predictor that knows every true class and every true relation."""
    metrics = create_metrics(config, name, dataset, split, training.unseen(split))
    for annotation, truth in zip(dataset.annotations, dataset.truth, strict=True):
        metrics.update(annotation, annotation.boxes, ceiling_prediction(truth, annotation.labels))
    return metrics.compute(dataset.vocabulary, training.predicate_counts)


def _results(step: int, table: BySplit) -> dict:
    """The content of results.json (docs/evaluation.md): the first split on top, val below."""
    report = {
        split: {
            "tasks": {task: x.metrics[MODEL] for task, x in tasks.items()},
            "baselines": {
                name: {task: x.metrics[name] for task, x in tasks.items()}
                for name in next(iter(tasks.values())).metrics
                if name != MODEL
            },
        }
        for split, tasks in table.items()
    }
    first = next(iter(table))
    return {"step": step, "split": first, "splits": {"val": report["val"]}, **report[first]}


def _finish_dump(
    folder: epath.Path,
    table: BySplit,
    splits: dict[str, data.Dataset],
    training: Training,
    about: dict,
) -> None:
    dump.join(folder, [f"{task}_{split}" for split, tasks in table.items() for task in tasks])
    if jax.process_index() == 0:
        for split, dataset in splits.items():
            dump.write_truth(folder, split, dataset, training.unseen(split))
        dump.write_classes(folder, dataset.vocabulary, training.predicate_counts)
        write_json(folder / "about.json", about)
        print(f"predictions: {folder}; `python -m linknet_jax.score` scores them again")


def _draw_first(draw: Draw, task: str, dataset: data.Dataset, workdir: epath.Path) -> None:
    """Writes examples.png: the first images of the split with their predicted graphs."""
    count = min(pictures.SHOWN, len(dataset.annotations))
    path = workdir / "examples.png"
    with replacing(path) as partial, partial.open("wb") as file:
        pictures.stack(list(draw(task, range(count)))).save(file, format="PNG")
    print(f"pictures of predicted graphs: {path}")


def _extremes(
    draw: Draw, tasks: dict[str, Scores], dataset: data.Dataset, k: int
) -> Iterator[Example]:
    """The best and the worst images of every task."""
    for task, scores in tasks.items():
        for kind, chosen in pictures.extremes(scores.seen).items():
            drawn = draw(task, [index for *_, index in chosen])
            for (recall, relations, index), picture in zip(chosen, drawn, strict=True):
                name = dataset.annotations[index].image_id
                text = f"image {name}: R@{k} {100 * recall:.1f} %, relations: {relations}"
                yield Example(task, kind, text, picture)


def _write(results: dict, workdir: epath.Path) -> None:
    path = workdir / "results.json"
    write_json(path, results)
    print(results_table(results))
    first = next(iter(results["tasks"]))
    print(f"\n{first}, recall per predicate\n{predicate_table(results['tasks'][first])}")
    print(f"\nwritten to {path}")


def _report(
    results: dict, table: BySplit, shown: list[Example], title: str, workdir: epath.Path
) -> None:
    path = workdir / "report.html"
    diagnoses = {s: {t: x.diagnosis for t, x in tasks.items()} for s, tasks in table.items()}
    write_report(path, results, diagnoses, shown, title, "LinkNet")
    print(f"report: {path}")
