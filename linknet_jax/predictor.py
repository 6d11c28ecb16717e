"""Scene graphs of photographs in three lines of Python."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from linknet_jax import parallel, queries, restore
from linknet_jax.eval_loop import compile_predict
from linknet_jax.metrics.detection import boxes_of
from linknet_jax.queries import Query
from linknet_jax.scene_graph import SceneGraph, graph_of
from linknet_jax.tasks import create_task, evaluated_tasks
from linknet_jax.types import Prediction, Vocabulary, image_of

THREADS = min(8, os.cpu_count() or 1)  # that read photographs, of which one may take a gigabyte
NEEDS = {
    "sgdet": "give photographs alone, or boxes, or boxes and labels",
    "sgcls": "give boxes; to have them found, train on --config configs/sgdet.py",
    "predcls": "give boxes and labels",
}


class Predictor:
    """Predicts on the first device of this process; any number of threads may call it.

    Compiles once for single photographs and once for batches, and again for more boxes than the
    checkpoint's data.max_objects: at twice their number, four times, and so on.

    Attributes:
      config: of the training run.
      vocabulary: class names, the background first.
      tasks: what the checkpoint can do: sgdet finds boxes, sgcls takes them, predcls their classes
        as well.
      step: training steps of the checkpoint.
      batch_size: photographs of a list that go through the network at once.
    """

    def __init__(
        self,
        config: ConfigDict,
        vocabulary: Vocabulary,
        variables: dict,
        step: int = 0,
        batch_size: int = 8,
        **thresholds: float,
    ):
        """`thresholds` (least, object_least, top) take the place of the configuration's `predict`.

        ValueError for another name.
        """
        self.config, self.vocabulary, self.step = config, vocabulary, step
        self.batch_size, self.tasks = batch_size, tasks_of(config)
        unknown = thresholds.keys() - config.predict.keys()
        if unknown:
            raise ValueError(f"{min(unknown)}: must be one of {', '.join(config.predict)}")
        self._limits = {**config.predict, **thresholds}
        self._mesh = parallel.create_mesh(devices=jax.local_devices()[:1])
        self._variables = jax.device_put(variables, parallel.replicated(self._mesh))
        self._compiled = {
            name: compile_predict(create_task(config, *vocabulary.sizes, name), self._mesh)
            for name in self.tasks
        }

    @classmethod
    def from_checkpoint(
        cls, path: str | os.PathLike, step: str = "best", **options: Any
    ) -> Predictor:
        """Of a training run's folder; `options` are those of the constructor.

        ValueError for a folder without checkpoints, an unknown step, a damaged checkpoint, and a
        detector without relations.
        """
        mesh = parallel.create_mesh(devices=jax.local_devices()[:1])
        config, vocabulary, number, variables = restore.load(epath.Path(path), step, mesh)
        if config.task == "detector":
            raise ValueError(f"{path} is a detector alone; name a run of sgdet, sgcls or predcls")
        return cls(config, vocabulary, variables, number, **options)

    def __call__(
        self,
        images: Any,
        boxes: Sequence | None = None,
        labels: Sequence | None = None,
        task: str = "",
    ) -> SceneGraph | list[SceneGraph]:
        """The graph of a photograph, or the graphs of a list of them.

        A photograph is a path, a file's bytes, a Pillow image or an array (`transforms.upright`).
        `boxes` [n, 4] are x1, y1, x2, y2 in its pixels, `labels` names of classes, one a box; for a
        list of photographs, a list of either. Without `task`, what is given decides: nothing sgdet,
        boxes sgcls, labels predcls. ImageError for an unreadable photograph; ValueError for wrong
        boxes and labels and for what the checkpoint cannot do.
        """
        single = not isinstance(images, (list, tuple))
        task = self.task(task, boxes is not None, labels is not None)
        images, boxes, labels = (
            [x] if single else x for x in (images, boxes, labels if task == "predcls" else None)
        )
        columns = [_column(x, len(images)) for x in (boxes, labels)]
        with ThreadPoolExecutor(THREADS) as pool:
            found = list(pool.map(self.read, images, *columns, range(len(images))))
        graphs = list(self.graphs(found, task))
        return graphs[0] if single else graphs

    def task(self, name: str = "", boxes: bool = False, labels: bool = False) -> str:
        """The task of that name, else the one that fits what is given; ValueError where the
        checkpoint cannot do it or needs more for it."""
        name = name or ("predcls" if labels else "sgcls" if boxes else "sgdet")
        if name not in self.tasks:
            raise ValueError(
                f"this checkpoint of {self.config.task} cannot do {name}, only "
                f"{', '.join(self.tasks)}: {NEEDS[self.tasks[0]]}"
            )
        if (name != "sgdet" and not boxes) or (name == "predcls" and not labels):
            raise ValueError(f"{name} needs more: {NEEDS[name]}")
        return name

    def read(
        self,
        image: Any,
        boxes: Any = None,
        labels: Sequence[str] | None = None,
        image_id: int | str = 0,
    ) -> Query:
        """As `queries.read`."""
        return queries.read(image, boxes, labels, image_id, self.config, self.vocabulary)

    def graphs(self, asked: Sequence[Query], task: str, size: int = 0) -> Iterator[SceneGraph]:
        """The graphs of photographs that are read, `size` at once, each time filled up to it.

        0: one for a single photograph, else `batch_size`.
        """
        size = size or (self.batch_size if len(asked) > 1 else 1)
        for first in range(0, len(asked), size):
            chunk = asked[first : first + size]
            for query, prediction in zip(chunk, self.predict(chunk, task, size), strict=True):
                yield self._graph(query, prediction)

    def predict(self, asked: Sequence[Query], task: str, size: int) -> list[Prediction]:
        """Predictions of at most `size` photographs, in one call of the network."""
        batch = queries.batch_of(asked, size, self._room(asked), self.vocabulary)
        found = self._compiled[task](self._variables, parallel.to_devices(batch, self._mesh))
        found = parallel.local_rows(found)
        return [image_of(found, row) for row in range(len(asked))]

    def _room(self, asked: Sequence[Query]) -> int:
        """Boxes an image in the batch: the checkpoint's, doubled until all fit."""
        room = self.config.data.max_objects
        while room < max(len(query.annotation.boxes) for query in asked):
            room *= 2
        return room

    def _graph(self, query: Query, prediction: Prediction) -> SceneGraph:
        annotation, limits = query.annotation, self._limits
        boxes = boxes_of(prediction, annotation, self.config.data.image_size)
        graph = graph_of(annotation, boxes, prediction, self.vocabulary, query.source)
        return graph.cut(limits["least"], limits["top"], limits["object_least"])


def tasks_of(config: ConfigDict) -> tuple[str, ...]:
    """The tasks that a checkpoint predicts; one of a file's detections has no detector."""
    tasks = evaluated_tasks(config)
    if config.data.detections:
        return ("predcls",) if config.task == "sgdet" else tasks[1:]
    return tasks


def _column(values: Sequence | None, count: int) -> Sequence:
    """One entry a photograph."""
    if values is None:
        return [None] * count
    if len(values) != count:
        raise ValueError(f"{count} photographs, but boxes or labels of {len(values)}")
    return values
