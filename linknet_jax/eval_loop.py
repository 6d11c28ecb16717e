"""The evaluation loop: every image once, each process scores its own, sums are merged."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Float

from linknet_jax import data, parallel
from linknet_jax.baselines import Training, create_metrics
from linknet_jax.metrics.detection import DetectionMetrics, boxes_of
from linknet_jax.metrics.scene_graph import SceneGraphMetrics
from linknet_jax.tasks import Task
from linknet_jax.types import Batch, Prediction, image_of

MODEL = "model"
Predict = Callable[[dict, Batch], Prediction]
Recalls = dict[int, float]  # R@K of one image by K
Observe = Callable[[int, Float[np.ndarray, "n 4"], Prediction, Recalls | None], None]


def compile_predict(task: Task, mesh: Mesh) -> Predict:
    """One prediction step; each device handles its own images, nothing is communicated."""
    return parallel.over_images(task.predict, mesh)


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
    task: Task,
    variables: dict,
    dataset: data.Dataset,
    split: str,
    mesh: Mesh,
    training: Training | None = None,
    observe: Observe | None = None,
) -> dict[str, SceneGraphMetrics]:
    """Sums of the model; with `training` also of the baselines on its labels and scores.

    `observe` is called for each of this process's images with its position in the split, the boxes
    of its prediction in pixels of the original, the prediction and its own R@K.
    """
    unseen = training.unseen(split) if training else None
    baselines = training.tables if training else {}
    scores = {
        name: create_metrics(task.config, task.name, dataset, split, unseen)
        for name in (MODEL, *baselines)
    }
    config = task.config
    for index, prediction in predictions(predict, variables, dataset, config.eval.batch_size, mesh):
        truth = dataset.annotations[index]
        boxes = boxes_of(prediction, truth, config.data.image_size)
        recalls = scores[MODEL].update(truth, boxes, prediction)
        if observe:
            observe(index, boxes, prediction, recalls)
        n = len(boxes)
        scored = (boxes, prediction.labels[:n], prediction.label_scores[:n])
        for name in baselines:
            scores[name].update(truth, boxes, training.predict(name, truth, *scored))
    return {name: _merged(x) for name, x in scores.items()}


def evaluate_objects(
    predict: Predict, task: Task, variables: dict, dataset: data.Dataset, mesh: Mesh
) -> dict[str, float | None]:
    """mAP@50, AP and class-agnostic AP@50 of what was detected on a split."""
    metrics, config = DetectionMetrics(), task.config
    for index, prediction in predictions(predict, variables, dataset, config.eval.batch_size, mesh):
        truth = dataset.annotations[index]
        metrics.update(truth, boxes_of(prediction, truth, config.data.image_size), prediction)
    return object_scores(metrics)


def object_scores(metrics: DetectionMetrics) -> dict[str, float | None]:
    """mAP@50, AP and class-agnostic AP@50 of the images of all processes; each calls it."""
    whole = _gathered(metrics)
    return whole.compute() | {"AP@50": whole.agnostic()}


def _gathered(metrics: DetectionMetrics) -> DetectionMetrics:
    """The images of all processes; as raw bytes, which every process pads to the longest."""
    if jax.process_count() == 1:
        return metrics
    mine = np.frombuffer(pickle.dumps(metrics), np.uint8)
    lengths = multihost_utils.process_allgather(np.array([len(mine)]))
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: len(mine)] = mine
    parts = np.asarray(multihost_utils.process_allgather(padded))
    return functools.reduce(DetectionMetrics.merge, (pickle.loads(x.tobytes()) for x in parts))


def _merged(metrics: SceneGraphMetrics) -> SceneGraphMetrics:
    """Sums of all processes; as raw bits, because JAX would cut int64."""
    if jax.process_count() == 1:
        return metrics
    bits = multihost_utils.process_allgather(metrics.state().view(np.uint32))
    return metrics.from_state(np.asarray(bits).view(np.int64).sum(axis=0))
