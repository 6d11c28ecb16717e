"""A small data set to be scored: annotations, predictions, and the files of both."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
from etils import epath

from linknet_jax import score
from linknet_jax.data.formats.jsonl import record_of
from linknet_jax.data.formats.lines import line_writer
from linknet_jax.data.formats.prediction_lines import prediction_record, ranked
from linknet_jax.data.formats.vg_dicts import training_dicts
from linknet_jax.metrics.baselines import rank
from linknet_jax.types import Annotation, Prediction, Vocabulary

# Nothing annotated is a zebra or "under" something; the order is not the sorted one.
NAMES = Vocabulary(
    ("__background__", "man", "zebra", "horse", "hat"),
    ("__background__", "riding", "under", "on", "has"),
)
ANNOTATED = [[1, 3, 4], [1, 3, 4]]  # classes and predicates that occur
TRAINING = np.array([0, 3, 9, 40, 9])
UNSEEN = {(1, 1, 3), (3, 3, 3), (4, 4, 1), (3, 1, 4), (2, 1, 4)}


@dataclasses.dataclass(frozen=True)
class Image:
    """Truth and what was predicted; `listed` says whether the file has a line for it."""

    annotation: Annotation
    boxes: np.ndarray
    prediction: Prediction
    listed: bool = True


def annotation(rng, image_id) -> Annotation:
    """Of 0 to 8 boxes, 10 relations at most, none now and then."""
    n = int(rng.choice([0, 1, 2, 3, 8], p=[0.1, 0.1, 0.1, 0.3, 0.4]))
    low = rng.random((n, 2)) * 300
    r = int(rng.integers(0, 10)) if n > 1 and rng.random() < 0.9 else 0
    relations = np.column_stack([rng.integers(0, max(n, 1), (r, 2)), rng.choice(ANNOTATED[1], r)])
    return Annotation(
        image_id, 640, 480,
        np.concatenate([low, low + 10 + rng.random((n, 2)) * 150], axis=1),
        rng.choice(ANNOTATED[0], n).astype(np.int32),
        relations.astype(np.int32).reshape(-1, 3),
    )  # fmt: skip


def predicted(rng, truth: Annotation, task: str) -> Image:
    """Scores of few levels, so that there are ties; all classes occur."""
    boxes, labels = truth.boxes, truth.labels
    if task != "predcls":
        labels = np.where(rng.random(len(labels)) < 0.8, labels, rng.integers(1, 5, len(labels)))
    if task == "sgdet":
        copies = rng.permutation(np.repeat(np.arange(len(labels)), 2))
        boxes, labels = boxes[copies] + rng.normal(0, 6, (len(copies), 4)), labels[copies]
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
    n = len(labels)
    values = rng.integers(0, 4, (n, n, len(NAMES.predicates))) / 4
    pairs = (rng.random((n, n)) < rng.choice([0, 0.9], p=[0.1, 0.9])) & ~np.eye(n, dtype=bool)
    prediction = rank(labels, rng.integers(1, 5, n) / 4, values, pairs)
    return Image(truth, boxes, prediction, rng.random() < 0.85)


def images(task: str, count: int = 30, seed: int = 0) -> list[Image]:
    """Ids are integers and strings."""
    rng = np.random.default_rng(seed)
    truths = [annotation(rng, f"b{k}" if k % 3 else count - k) for k in range(count)]
    return [predicted(rng, truth, task) for truth in truths]


def without_lines(image: Image) -> Image:
    """As scored where its line is missing."""
    none = ranked(np.zeros(0, int), np.zeros(0), np.zeros((0, 3), int), np.zeros(0))
    return dataclasses.replace(image, boxes=np.zeros((0, 4)), prediction=none)


def store(folder, content, ending=".jsonl") -> dict[str, epath.Path]:
    """Files of a list of images, by option of the command."""
    folder = epath.Path(folder)
    paths = {name: folder / f"{name}{ending}" for name in ("ground_truth", "predictions")}
    with line_writer(paths["ground_truth"]) as write:
        for x in content:
            write(record_of(x.annotation, NAMES))
    with line_writer(paths["predictions"]) as write:
        for x in content:
            if x.listed:
                write(prediction_record(x.annotation.image_id, x.boxes, x.prediction, NAMES))
    paths |= {"vocabulary": folder / "dicts.json", "zero_shot": folder / "unseen.json"}
    paths["vocabulary"].write_text(json.dumps(training_dicts(NAMES, TRAINING)))
    names = [[NAMES.objects[s], NAMES.predicates[p], NAMES.objects[o]] for s, p, o in UNSEEN]
    paths["zero_shot"].write_text(json.dumps(names))
    return paths


def command(task: str, output, **options) -> int:
    """Exit status of `linknet_jax.score`; options of value None are left out."""
    flags = [f"--{key}={value}" for key, value in options.items() if value is not None]
    return score.main([f"--task={task}", f"--output={output}", *flags])
