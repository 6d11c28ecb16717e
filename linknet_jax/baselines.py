"""FREQ and FREQ+OVERLAP (Zellers et al. 2018), beside a model or alone, and zero-shot triplets."""

from __future__ import annotations

import jax
import numpy as np
from etils import epath
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from linknet_jax import data
from linknet_jax.atomic import write_json
from linknet_jax.data import statistics
from linknet_jax.metrics.baselines import frequency_prediction
from linknet_jax.metrics.scene_graph import SceneGraphMetrics
from linknet_jax.metrics.table import results_table
from linknet_jax.ops import boxes as box_ops
from linknet_jax.types import Annotation, Prediction, Triplets


class Training:
    """What an evaluation knows of the training split.

    Attributes:
      tables: float64 [C_obj, C_obj, C_rel] predicate probabilities of class pairs, by baseline.
      predicate_counts: int64 [C_rel], relations of each predicate.
    """

    def __init__(self, config: ConfigDict, splits: dict[str, data.Dataset]):
        """`splits` are those to be evaluated; ValueError as `data.build` and `read_triplets`."""
        train = data.build(config, "train")
        self._frame, sizes = config.eval.frame, train.vocabulary.sizes
        counts = {
            name: statistics.count(train.annotations, *sizes, overlap, self._frame)
            for name, overlap in (("FREQ", False), ("FREQ+OVERLAP", True))
        }
        self.tables = {name: statistics.predicate_probabilities(*x) for name, x in counts.items()}
        self.predicate_counts = statistics.predicate_counts(train.annotations, sizes[1])
        seen = statistics.triplets(train.annotations)
        held_out = {name: statistics.triplets(x.annotations) for name, x in splits.items()}
        self._unseen = {
            name: found - seen - (held_out["val"] if name == "test" else set())
            for name, found in held_out.items()
        }
        if config.eval.zero_shot:
            listed = statistics.read_triplets(config.eval.zero_shot, train.vocabulary)
            self._unseen = dict.fromkeys(splits, listed)

    def unseen(self, split: str) -> Triplets:
        """The triplets that zR@K counts: listed, or those of the split that no earlier one has."""
        return self._unseen[split]

    def predict(
        self,
        name: str,
        annotation: Annotation,
        boxes: Float[np.ndarray, "n 4"],
        labels: Int[np.ndarray, "n"],
        label_scores: Float[np.ndarray, "n"],
    ) -> Prediction:
        """The baseline's graph of an image whose objects have these boxes, labels and scores."""
        mask = None
        if name == "FREQ+OVERLAP":
            size = annotation.width, annotation.height
            mask = box_ops.overlaps(box_ops.in_frame(boxes, *size, self._frame))
        return frequency_prediction(self.tables[name], labels, label_scores, mask)


def evaluated_splits(config: ConfigDict) -> dict[str, data.Dataset]:
    """test, where the data set has one, and val."""
    known = data.available_splits(config)
    return {name: data.build(config, name) for name in ("test", "val") if name in known}


def create_metrics(
    config: ConfigDict, task: str, dataset: data.Dataset, split: str, unseen: Triplets | None = None
) -> SceneGraphMetrics:
    """Empty sums with the settings of `config.eval`."""
    options = config.eval
    return SceneGraphMetrics(
        len(dataset.vocabulary.predicates), tuple(options.ks), task, split,
        options.iou == "inclusive", options.frame, options.missing, unseen,
    )  # fmt: skip


def evaluate_baselines(config: ConfigDict, workdir: epath.Path) -> dict:
    """PredCls of the baselines alone, no model; prints and writes WORKDIR/baselines.json."""
    splits = evaluated_splits(config)
    training = Training(config, splits)
    results = {
        split: {name: {"predcls": _predcls(config, training, name, dataset, split)}
                for name in training.tables}
        for split, dataset in splits.items()
    }  # fmt: skip
    for split, scores in results.items():
        named = {
            "split": split,
            "tasks": scores["FREQ"],
            "baselines": dict(list(scores.items())[1:]),
        }
        print(results_table(named, "FREQ"), end="\n\n")
    if jax.process_index() == 0:
        write_json(workdir / "baselines.json", results)
    return results


def _predcls(
    config: ConfigDict, training: Training, name: str, dataset: data.Dataset, split: str
) -> dict:
    metrics = create_metrics(config, "predcls", dataset, split, training.unseen(split))
    for annotation in dataset.annotations:
        boxes, labels = annotation.boxes, annotation.labels
        ones = np.ones(len(labels), np.float32)
        prediction = training.predict(name, annotation, boxes, labels, ones)
        metrics.update(annotation, annotation.boxes, prediction)
    return metrics.compute(dataset.vocabulary, training.predicate_counts)
