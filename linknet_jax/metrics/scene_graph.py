"""Recalls of scene graphs as sums that merge over images and processes (docs/evaluation.md)."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from linknet_jax.metrics import counting, diagnosis, summary
from linknet_jax.metrics.matching import IOU_THRESHOLD, first_ranks, match, object_overlaps
from linknet_jax.metrics.sums import Sums
from linknet_jax.ops.boxes import in_frame
from linknet_jax.types import FREE_PREDICTIONS, Annotation, Prediction, Triplets, Vocabulary

TASKS = ("predcls", "sgcls", "sgdet")
CURVE = (1, 2, 5, 10, 20, 50, 100)


@dataclasses.dataclass(eq=False)
class SceneGraphMetrics:
    """The recalls of one task on one split; a process counts its own images.

    Attributes:
      num_predicates: classes including 0, the absent predicate.
      ks: how many of the best predictions of an image are scored.
      task: predcls | sgcls | sgdet; says which metrics apply.
      split: name of the split, for the report.
      inclusive: IoU counts both end pixels of a box.
      frame: pixels in which boxes are compared, see `ops.boxes.in_frame`.
      missing: an image without predictions counts as zero (Motifs) | is left out: skip (SGB).
      zero_shot: (subject class, predicate, object class) never seen in training; None if unknown.
    """

    num_predicates: int
    ks: tuple[int, ...] = (20, 50, 100)
    task: str = "predcls"
    split: str = "test"
    inclusive: bool = True
    frame: str = "original"
    missing: str = "zero"
    zero_shot: Triplets | None = None

    def __post_init__(self):
        self.ks = tuple(int(k) for k in self.ks)
        if not self.ks or min(self.ks) < 1:
            raise ValueError(f"ks = {self.ks} must be numbers from 1; change eval.ks")
        if self.task not in TASKS:
            raise ValueError(f"task {self.task!r} is not one of {TASKS}; change config.task")
        for name, known in (("missing", ("zero", "skip")), ("frame", ("original", "1024"))):
            if getattr(self, name) not in known:
                value = getattr(self, name)
                raise ValueError(f"{name} {value!r} is not one of {known}; change eval.{name}")
        self.zero_shot = None if self.zero_shot is None else frozenset(self.zero_shot)
        self._grid = np.array(sorted({*self.ks, *CURVE}))
        shapes = summary.shapes(self.num_predicates, len(self._grid))
        self._sums = Sums(shapes | diagnosis.shapes(self.num_predicates))

    def update(
        self,
        annotation: Annotation,
        boxes: Float[np.ndarray, "n 4"],
        prediction: Prediction,
    ) -> dict[int, float] | None:
        """Adds one image; `boxes` are the predicted ones, in pixels of the original image.

        `prediction` holds NumPy arrays; labels beyond n and rows beyond the counts are ignored.
        Returns the image's own R@K by K, None for one that is left out: every image without
        relations, and those without predictions where `missing` is skip.

        Raises:
          ValueError: in PredCls and SGCls, if boxes are given, but not one for each annotated.
        """
        related, empty = bool(len(annotation.relations)), not int(prediction.count)
        scored = related and not (empty and self.missing == "skip")
        self._sums.add("images", (scored, not related, related and empty))
        if not scored:
            return None
        self._check_boxes(annotation, boxes)
        labels = np.asarray(prediction.labels)[: len(boxes)]
        overlaps = self._overlaps(annotation, boxes, labels)
        rankings = (prediction.ranking(self._grid[-1]), prediction.free_ranking())
        best, free = (match(annotation.relations, overlaps, *x) for x in rankings)
        found = np.stack([first_ranks(x.hits) < self._grid[:, None] for x in (best, free)])
        counting.add_recalls(self._sums, annotation.relations, found)
        counting.add_pooled(self._sums, (best, free), self._grid)
        if self.zero_shot is not None:
            counting.add_zero_shot(self._sums, annotation, found, self.zero_shot)
        if self.task != "sgdet":
            counting.add_object_accuracy(self._sums, annotation, labels)
            counting.add_pair_accuracy(self._sums, annotation, overlaps, prediction, self._grid)
        diagnosis.add(self._sums, annotation.relations, best, prediction.scores)
        recalls = dict(zip(self._grid.tolist(), found[0].mean(axis=-1).tolist(), strict=True))
        return {k: recalls[k] for k in self.ks}

    def merge(self, other: SceneGraphMetrics) -> SceneGraphMetrics:
        """Of the images of both, which must count the same things.

        Raises:
          ValueError: if the settings differ.
        """
        for field in dataclasses.fields(self):
            one, two = getattr(self, field.name), getattr(other, field.name)
            if one != two:
                shown = [len(x) if isinstance(x, frozenset) else x for x in (one, two)]
                raise ValueError(
                    f"cannot merge metrics of {field.name} {shown[0]} with {shown[1]}; "
                    "create both with the same settings"
                )
        return self.from_state(self.state() + other.state())

    def state(self) -> Int[np.ndarray, "s"]:
        """All sums as one vector, see `Sums.state`."""
        return self._sums.state()

    def from_state(self, state: Int[np.ndarray, "s"]) -> SceneGraphMetrics:
        """Metrics with these settings and the given sums."""
        result = dataclasses.replace(self)
        result._sums = self._sums.from_state(state)
        return result

    def compute(
        self,
        vocabulary: Vocabulary,
        training: Int[np.ndarray, "p"] | None = None,
        source: str = "vocabulary",
    ) -> dict:
        """The flat dictionary of docs/evaluation.md: fractions, None where a metric does not apply.

        `training` counts the relations of each predicate in training, for head, body and tail;
        None takes the scored ones. `source` is where the vocabulary comes from.

        Raises:
          ValueError: if the vocabulary has another number of predicates.
        """
        self._check_vocabulary(vocabulary)
        if training is not None and len(training) != self.num_predicates:
            raise ValueError(
                f"training counts {len(training)} predicates (the absent one included), the "
                f"metrics {self.num_predicates}; count with the split's vocabulary"
            )
        sums, names = self._sums, vocabulary.predicates
        columns = dict(zip(self._grid.tolist(), range(len(self._grid)), strict=True))
        ks = {k: columns[k] for k in self.ks}
        groups = summary.groups(sums["relations"] if training is None else training)
        pair_accuracy = summary.pair_accuracy(sums, ks)
        return {
            **summary.recalls(sums, ks),
            **(pair_accuracy if self.task != "sgdet" else dict.fromkeys(pair_accuracy)),
            **summary.pooled(sums, ks),
            **summary.group_recalls(sums, ks, groups),
            "mAP@50": None,
            "AP": None,
            "object_accuracy": summary.object_accuracy(sums) if self.task == "sgcls" else None,
            "per_predicate": summary.per_predicate(sums, ks, names, groups),
            "curve": summary.curve(sums, {k: columns[k] for k in CURVE}),
            "counts": summary.counts(sums),
            "protocol": self._protocol(
                "the scored split" if training is None else "training", source
            ),
        }

    def diagnosis(self, vocabulary: Vocabulary) -> dict:
        """Confusion of predicates and calibration of scores, for the report."""
        self._check_vocabulary(vocabulary)
        return diagnosis.compute(self._sums, vocabulary.predicates)

    def _overlaps(
        self,
        annotation: Annotation,
        boxes: Float[np.ndarray, "n 4"],
        labels: Int[np.ndarray, "n"],
    ) -> Float[np.ndarray, "g n"]:
        frame = (annotation.width, annotation.height, self.frame)
        true_boxes, boxes = (
            in_frame(np.asarray(x, np.float64), *frame) for x in (annotation.boxes, boxes)
        )
        return object_overlaps(true_boxes, annotation.labels, boxes, labels, self.inclusive)

    def _check_vocabulary(self, vocabulary: Vocabulary) -> None:
        if len(vocabulary.predicates) != self.num_predicates:
            raise ValueError(
                f"the vocabulary has {len(vocabulary.predicates)} predicates (the absent one "
                f"included), the metrics count {self.num_predicates}; use the split's vocabulary"
            )

    def _check_boxes(self, annotation: Annotation, boxes: Float[np.ndarray, "n 4"]) -> None:
        if self.task != "sgdet" and len(boxes) not in (0, len(annotation.boxes)):
            raise ValueError(
                f"image {annotation.image_id}: {len(boxes)} predicted boxes, but {self.task} is "
                f"given the {len(annotation.boxes)} annotated ones; pass those, or score as sgdet"
            )

    def _protocol(self, grouped_by: str, source: str) -> dict:
        scored, unrelated, empty = self._sums["images"].tolist()
        return {
            "task": self.task,
            "split": self.split,
            "iou_threshold": IOU_THRESHOLD,
            "iou_convention": "inclusive" if self.inclusive else "exclusive",
            "frame": self.frame,
            "graph_constraint": "R, mR, zR, A, F1, pooled: best predicate of a pair; ng-: none",
            "predictions_kept": {"constrained": "all pairs", "unconstrained": FREE_PREDICTIONS},
            "missing": self.missing,
            "predicates": {"source": source, "count": self.num_predicates - 1},
            "groups": f"thirds of the predicates by relations in {grouped_by}",
            "images_scored": scored,
            "images_skipped": unrelated + (empty if self.missing == "skip" else 0),
            "zero_shot_triplets": None if self.zero_shot is None else len(self.zero_shot),
        }
