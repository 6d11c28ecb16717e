"""Score predictions of any system, stored as scene-graph JSON Lines (docs/evaluation.md).

python -m linknet_jax.score --task sgcls --ground_truth gt.jsonl --predictions pred.jsonl.gz \\
    --output metrics.json [--vocabulary VG-SGG-dicts.json] [--zero_shot triplets.json]
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator

import numpy as np
from etils import epath
from jaxtyping import Float, Int
from tqdm import tqdm

from linknet_jax.atomic import write_json
from linknet_jax.command import exit_status
from linknet_jax.data.collection import BACKGROUND, AnnotationTable
from linknet_jax.data.formats import jsonl, vg_dicts
from linknet_jax.data.formats.prediction_lines import ranked, read_predictions, read_truth
from linknet_jax.data.formats.values import read_json, shown
from linknet_jax.data.statistics import read_triplets
from linknet_jax.metrics.detection import DetectionMetrics
from linknet_jax.metrics.scene_graph import TASKS, SceneGraphMetrics
from linknet_jax.metrics.table import predicate_table, results_table
from linknet_jax.report.page import write_report
from linknet_jax.types import Annotation, Prediction, Vocabulary

NOTHING = ranked(np.zeros(0, int), np.zeros(0), np.zeros((0, 3), int), np.zeros(0))
TOLERANCE = 2.0  # pixels by which a given box may differ, for those who resized it and back


@dataclasses.dataclass(frozen=True)
class Truth:
    """What predictions are compared with.

    Attributes:
      source: the file of the vocabulary; "" where it is the names in the ground truth.
      training: relations of each predicate in training; None where not known.
    """

    path: epath.Path
    images: AnnotationTable
    vocabulary: Vocabulary
    source: str
    training: Int[np.ndarray, "p"] | None


def read(path: epath.Path, vocabulary: epath.Path | None = None) -> Truth:
    """The ground truth of a file; ValueError for the first line that is wrong."""
    if vocabulary is None:
        return Truth(path, *read_truth(path, None), "", None)
    lists = "objects" in read_json(vocabulary, dict)  # as `data convert --format jsonl` writes it
    names = (jsonl if lists else vg_dicts).read_vocabulary(vocabulary)
    training = vg_dicts.read_training_counts(vocabulary, names)
    return Truth(path, *read_truth(path, names, str(vocabulary)), str(vocabulary), training)


def score(truth: Truth, predictions: epath.Path, metrics: SceneGraphMetrics) -> dict:
    """Adds every image to `metrics` and computes them; ValueError for a wrong line.

    A ground-truth image without a line has no predictions.
    """
    detection = DetectionMetrics() if metrics.task == "sgdet" else None
    strange = 0
    for annotation, boxes, prediction in _images(truth, predictions, metrics.task):
        metrics.update(annotation, boxes, prediction)
        if detection is not None:
            detection.update(annotation, boxes, prediction)
        strange += (prediction.labels == 0).sum() + (prediction.predicates == 0).sum()
    source = "vocabulary" if truth.source else "ground truth"
    result = metrics.compute(truth.vocabulary, truth.training, source)
    if detection is not None:
        result |= detection.compute()
    if strange:
        text = "predicted names do not occur in the ground truth and match nothing"
        print(f"note: {strange} {text}; --vocabulary tells a wrong name from a rare one")
    return result


def _images(
    truth: Truth, path: epath.Path, task: str
) -> Iterator[tuple[Annotation, Float[np.ndarray, "n 4"], Prediction]]:
    """Every ground-truth image once, with its prediction."""
    images = truth.images
    missing = {image_id: row for row, image_id in enumerate(images.image_ids)}
    with tqdm(total=len(images), desc=path.name, unit="image", smoothing=0) as bar:
        for line, image_id, boxes, prediction in read_predictions(
            path, truth.vocabulary, truth.source
        ):
            row = missing.pop(image_id, None)
            if row is None:
                raise ValueError(
                    f"{path}, line {line}: image {shown(image_id)} is not in {truth.path}; an id "
                    "is an integer in both files or a string in both"
                )
            annotation = images[row]
            problem = _given_problem(task, annotation, boxes, prediction, truth.vocabulary)
            if problem:
                raise ValueError(f"{path}, line {line}, image {shown(image_id)}: {problem}")
            bar.update()
            yield annotation, boxes, prediction
        for row in missing.values():
            bar.update()
            yield images[row], np.zeros((0, 4)), NOTHING


def _given_problem(
    task: str, truth: Annotation, boxes: np.ndarray, prediction: Prediction, names: Vocabulary
) -> str:
    """Why objects cannot be those that the task gives, "" if they can."""
    if task == "sgdet" or not len(boxes):
        return ""
    rule = f"but {task} is given the annotated objects in their order; write those, or score sgdet"
    if len(boxes) != len(truth.boxes):
        return f"{len(boxes)} objects for {len(truth.boxes)} annotated ones, {rule}"
    for k in np.flatnonzero(np.abs(boxes - truth.boxes).max(axis=1) > TOLERANCE):
        return f"object {k}, box {boxes[k].tolist()} for {truth.boxes[k].tolist()}, {rule}"
    for k in np.flatnonzero(prediction.labels != truth.labels) if task == "predcls" else ():
        known, found = (names.objects[x[k]] for x in (truth.labels, prediction.labels))
        found = "a name that nothing annotated has" if found == BACKGROUND else repr(found)
        return f"object {k}, label {found} for {known!r}, {rule}, or sgcls"
    return ""


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = _parser().parse_args(argv)
    return exit_status(lambda: _run(arguments))


def _run(a: argparse.Namespace) -> None:
    for flag, path in (("output", a.output), ("report", a.report)):
        if path and path.is_dir():
            raise ValueError(f"--{flag} {path} is a folder; name a file in it")
        if path in (a.ground_truth, a.predictions, a.vocabulary, a.zero_shot) and path:
            raise ValueError(f"--{flag} {path} is one of the files to be read; name another")
    truth = read(a.ground_truth, a.vocabulary)
    closed = bool(truth.source)
    unseen = read_triplets(a.zero_shot, truth.vocabulary, closed) if a.zero_shot else None
    metrics = SceneGraphMetrics(
        len(truth.vocabulary.predicates), a.ks, a.task, a.split,
        a.iou == "inclusive", a.frame, a.missing, unseen,
    )  # fmt: skip
    result = score(truth, a.predictions, metrics)
    results = {"split": a.split, "tasks": {a.task: result}}
    write_json(a.output, result)
    if a.report:
        diagnoses = {a.split: {a.task: metrics.diagnosis(truth.vocabulary)}}
        name = a.predictions.name
        write_report(a.report, results, diagnoses, (), name, name)
    print(results_table(results, a.predictions.name))
    print(f"\n{a.task}, recall per predicate\n{predicate_table(result)}")
    print(f"\n{_counted(result['counts'], a.missing)}")
    print("written to", " and ".join(str(x) for x in (a.output, a.report) if x))


def _counted(counts: dict, missing: str) -> str:
    """How many images the numbers are of, and what became of the others."""
    left_out = " (left out)" if missing == "skip" else " (counted as 0)"
    return (
        f"{counts['images']} images scored; without predictions: "
        f"{counts['without_predictions']}{left_out * bool(counts['without_predictions'])}; "
        f"without relations, left out: {counts['skipped_without_relations']}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m linknet_jax.score",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, file = parser.add_argument, epath.Path
    add("--task", required=True, choices=TASKS, help="what the predictions were given")
    add("--ground_truth", required=True, type=file, help="JSON Lines, .gz or plain")
    add("--predictions", required=True, type=file, help="JSON Lines, .gz or plain")
    add("--output", required=True, type=file, help="the metrics as JSON")
    text = "VG-SGG-dicts.json or vocabulary.json; without it: the names in the ground truth"
    add("--vocabulary", type=file, help=text)
    add("--zero_shot", type=file, help="JSON list of [subject, predicate, object], for zR@K")
    text = "whether a box's size counts both end pixels (default: inclusive)"
    add("--iou", choices=("inclusive", "exclusive"), default="inclusive", help=text)
    text = "pixels of IoU; 1024: the longer side has 1024, as in Motifs (default: original)"
    add("--frame", choices=("original", "1024"), default="original", help=text)
    text = "images without predictions count as zero or are left out (default: zero)"
    add("--missing", choices=("zero", "skip"), default="zero", help=text)
    add("--ks", type=_numbers, default=(20, 50, 100), help="K of R@K (default: 20,50,100)")
    add("--split", default="test", help="name of the split, for the protocol (default: test)")
    add("--report", type=file, help="also write an HTML report to this file")
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) for part in parts):
        rule = "must be whole numbers from 1, joined by commas, as 20,50,100"
        raise argparse.ArgumentTypeError(f"{text!r} {rule}")
    return tuple(int(part) for part in parts)


if __name__ == "__main__":
    sys.exit(main())
