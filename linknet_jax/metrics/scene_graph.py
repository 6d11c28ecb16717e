"""Recalls of scene graphs as sums that merge over images and processes (docs/evaluation.md)."""

from __future__ import annotations

import dataclasses
from collections.abc import Set

import numpy as np
from jaxtyping import Bool, Float, Int

from linknet_jax.metrics import summary
from linknet_jax.metrics.matching import IOU_THRESHOLD, first_matches, match_objects
from linknet_jax.ops.boxes import in_frame
from linknet_jax.types import FREE_PREDICTIONS, Annotation, Prediction, Vocabulary

TASKS = ("predcls", "sgcls", "sgdet")


@dataclasses.dataclass(eq=False)
class SceneGraphMetrics:
    """The recalls of one task on one split; a process counts its own images.

    Attributes:
      num_predicates: classes including 0, the absent predicate.
      ks: how many of the best predictions of an image are scored, at most FREE_PREDICTIONS.
      task: predcls | sgcls | sgdet; says which metrics apply.
      split: name of the split, for the report.
      inclusive: IoU counts both end pixels of a box.
      frame: pixels in which boxes are compared, see `ops.boxes.in_frame`.
      zero_shot: (subject class, predicate, object class) never seen in training; None if unknown.
    """

    num_predicates: int
    ks: tuple[int, ...] = (20, 50, 100)
    task: str = "predcls"
    split: str = "test"
    inclusive: bool = True
    frame: str = "original"
    zero_shot: Set[tuple[int, int, int]] | None = None

    def __post_init__(self):
        self.ks = tuple(int(k) for k in self.ks)
        if not self.ks or min(self.ks) < 1 or max(self.ks) > FREE_PREDICTIONS:
            raise ValueError(
                f"ks = {self.ks} must lie in 1 .. {FREE_PREDICTIONS}, the number of predictions "
                "kept without the graph constraint; change eval.ks"
            )
        if self.task not in TASKS:
            raise ValueError(f"task {self.task!r} is not one of {TASKS}; change config.task")
        shapes = summary.shapes(self.num_predicates, len(self.ks))
        ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes.values()])
        self._vector = np.zeros(ends[-1])
        parts = np.split(self._vector, ends[:-1])
        self._sums = {
            name: part.reshape(shape)
            for (name, shape), part in zip(shapes.items(), parts, strict=True)
        }

    def update(
        self,
        annotation: Annotation,
        boxes: Float[np.ndarray, "n 4"],
        prediction: Prediction,
    ) -> None:
        """Adds one image; `boxes` are the predicted ones, in pixels of the original image.

        `prediction` holds NumPy arrays; labels beyond n and rows beyond the counts are ignored.
        An image without relations is skipped, one without predictions scores 0.

        Raises:
          ValueError: in PredCls and SGCls, if boxes are given but not the annotated ones.
        """
        if not len(annotation.relations):
            self._sums["images"][1] += 1
            return
        self._check_boxes(annotation, boxes)
        labels = np.asarray(prediction.labels)[: len(boxes)]
        frame = (annotation.width, annotation.height, self.frame)
        true_boxes, boxes = in_frame(annotation.boxes, *frame), in_frame(np.asarray(boxes), *frame)
        matched = match_objects(
            true_boxes, annotation.labels, boxes, labels, IOU_THRESHOLD, self.inclusive
        )
        best = _valid(prediction.pairs, prediction.predicates, prediction.count)
        free = _valid(prediction.free_pairs, prediction.free_predicates, prediction.free_count)
        self._sums["images"] += (1, 0, not len(best[0]))
        relations = annotation.relations
        found = np.stack([self._found(matched, relations, *ranking) for ranking in (best, free)])
        self._add_recalls(annotation, found)
        if self.task != "sgdet":
            self._add_given_boxes(annotation, matched, labels, *best)

    def merge(self, other: SceneGraphMetrics) -> SceneGraphMetrics:
        """Of the images of both, which must count the same things.

        Raises:
          ValueError: if the settings differ.
        """
        if self._settings() != other._settings():
            raise ValueError(
                f"cannot merge metrics of {self._settings()} with {other._settings()}; "
                "create both with the same settings"
            )
        return self.from_state(self._vector + other._vector)

    def state(self) -> Float[np.ndarray, "s"]:
        """All sums as one float64 vector; adding the vectors of processes merges them.

        Gather its bytes, `state().view(np.uint32)`: JAX would round the sums to float32.
        """
        return self._vector.copy()

    def from_state(self, state: Float[np.ndarray, "s"]) -> SceneGraphMetrics:
        """Metrics with these settings and the given sums."""
        result = dataclasses.replace(self)
        result._vector[:] = state
        return result

    def compute(self, vocabulary: Vocabulary) -> dict:
        """The flat dictionary of docs/evaluation.md: fractions, None where a metric does not apply.

        Raises:
          ValueError: if the vocabulary has another number of predicates.
        """
        if len(vocabulary.predicates) != self.num_predicates:
            raise ValueError(
                f"the vocabulary has {len(vocabulary.predicates)} predicates (the absent one "
                f"included), the metrics count {self.num_predicates}; use the split's vocabulary"
            )
        sums, ks = self._sums, self.ks
        pair_accuracy = summary.pair_accuracy(sums, ks)
        return {
            **summary.recalls(sums, ks),
            **(pair_accuracy if self.task != "sgdet" else dict.fromkeys(pair_accuracy)),
            "mAP@50": None,
            "object_accuracy": summary.object_accuracy(sums) if self.task == "sgcls" else None,
            "per_predicate": summary.per_predicate(sums, ks, vocabulary.predicates),
            "counts": summary.counts(sums),
            "protocol": self._protocol(),
        }

    def _settings(self) -> tuple:
        unseen = None if self.zero_shot is None else frozenset(self.zero_shot)
        settings = (self.num_predicates, self.ks, self.task, self.split, self.inclusive)
        return (*settings, self.frame, unseen)

    def _check_boxes(self, annotation, boxes) -> None:
        if self.task != "sgdet" and len(boxes) not in (0, len(annotation.boxes)):
            raise ValueError(
                f"image {annotation.image_id}: {len(boxes)} predicted boxes, but {self.task} is "
                f"given the {len(annotation.boxes)} annotated ones; pass those, or score as sgdet"
            )

    def _found(self, matched, relations, pairs, predicates) -> Bool[np.ndarray, "k r"]:
        best = slice(max(self.ks))
        ranks = first_matches(matched, relations, pairs[best], predicates[best])
        return ranks < np.array(self.ks)[:, None]

    def _add_recalls(self, annotation: Annotation, found: Bool[np.ndarray, "2 k r"]) -> None:
        subject, object_, predicate = annotation.relations.T
        self._sums["recall"] += found.mean(axis=-1)
        one_hot = np.eye(self.num_predicates)[predicate]
        number = one_hot.sum(axis=0)
        self._sums["relations"] += number
        self._sums["predicate_images"] += number > 0
        self._sums["predicate_recall"] += found @ (one_hot / np.maximum(number, 1))
        if self.zero_shot is None:
            return
        triplets = np.stack([annotation.labels[subject], predicate, annotation.labels[object_]], 1)
        unseen = np.array([tuple(row) in self.zero_shot for row in triplets.tolist()])
        if unseen.any():
            self._sums["zero_shot"] += found[..., unseen].mean(axis=-1)
            self._sums["zero_shot_images"] += 1

    def _add_given_boxes(self, annotation, matched, labels, pairs, predicates) -> None:
        """What is only defined where box i of the prediction is box i of the annotation."""
        n, relations = len(annotation.boxes), annotation.relations
        correct = (labels == annotation.labels).sum() if len(labels) else 0
        self._sums["objects"] += (correct, n)
        related = np.zeros((n, n), bool)
        related[relations[:, 0], relations[:, 1]] = True
        rows = np.flatnonzero(related[pairs[:, 0], pairs[:, 1]])
        found = self._found(matched, relations, pairs[rows], predicates[rows])
        self._sums["pair_hits"] += found.sum(axis=-1)

    def _protocol(self) -> dict:
        return {
            "task": self.task,
            "split": self.split,
            "iou_threshold": IOU_THRESHOLD,
            "iou_convention": "inclusive" if self.inclusive else "exclusive",
            "frame": self.frame,
            "graph_constraint": "R, mR, zR, A, F1: best predicate of a pair; ng-: none",
            "predictions_kept": {"constrained": "all pairs", "unconstrained": FREE_PREDICTIONS},
            "missing": "zero",
            "images_scored": int(self._sums["images"][0]),
            "images_skipped": int(self._sums["images"][1]),
            "zero_shot_triplets": None if self.zero_shot is None else len(self.zero_shot),
        }


def _valid(pairs, predicates, count) -> tuple[Int[np.ndarray, "m 2"], Int[np.ndarray, "m"]]:
    return np.asarray(pairs)[: int(count)], np.asarray(predicates)[: int(count)]
