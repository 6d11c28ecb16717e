"""Ground truth and predictions to be scored: scene-graph JSON Lines (docs/evaluation.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float, Int

from linknet_jax.data.collection import AnnotationTable, pack
from linknet_jax.data.formats.graph_lines import (
    Names,
    annotation_problem,
    place,
    prediction_problem,
)
from linknet_jax.data.formats.jsonl import annotation_of, with_sorted_names
from linknet_jax.data.formats.lines import read_lines
from linknet_jax.data.formats.values import shown
from linknet_jax.types import FREE_PREDICTIONS, Prediction, Vocabulary


def read_truth(
    path: epath.Path, vocabulary: Vocabulary | None, source: str = ""
) -> tuple[AnnotationTable, Vocabulary]:
    """The annotated images of a file, and their classes: `vocabulary`, which `source` fixes, or
    the names that occur, sorted.

    ValueError for the first line that is wrong.
    """
    listed = (vocabulary.objects, vocabulary.predicates) if vocabulary else (None, None)
    names = tuple(Names(x, source) for x in listed)
    table = pack(
        annotation_of(x, *names) for _, x in checked_lines(path, annotation_problem, names)
    )
    return with_sorted_names(table, *names), Vocabulary(*(n.sorted()[0] for n in names))


def read_predictions(
    path: epath.Path, vocabulary: Vocabulary, source: str = ""
) -> Iterator[tuple[int, int | str, Float[np.ndarray, "n 4"], Prediction]]:
    """(line, image id, boxes in pixels of the original image, prediction) of every line.

    Names that the vocabulary lacks become class 0, which nothing annotated has; with `source`,
    which fixes the names, they are an error. ValueError for the first line that is wrong, and for
    a file without lines: it would score 0 everywhere.
    """
    listed = (vocabulary.objects, vocabulary.predicates)
    names = tuple(Names(x, source) for x in listed)
    for number, record in checked_lines(path, prediction_problem, names):
        yield number, record["image_id"], boxes_of(record["objects"]), _prediction(record, *names)


def checked_lines(
    path: epath.Path, problem_of: Callable[..., str], names: Sequence[Any]
) -> Iterator[tuple[int, dict]]:
    """(line, record) of every line of which `problem_of(record, *names)` has nothing to say.

    ValueError for the first other line, for boxes that are none, for an image id that stands twice
    and for a file without lines.
    """
    seen: dict = {}
    for number, record, problem in read_lines(path):
        problem = problem or problem_of(record, *names)
        problem = problem or _corner_problem(record["objects"]) or _repeated(seen, record, number)
        if problem:
            raise ValueError(f"{path}, {place(number, record)}: {problem}")
        yield number, record
    if not seen:
        raise ValueError(f"{path}: has no line; write one image a line")


def _repeated(seen: dict, record: dict, number: int) -> str:
    first = seen.setdefault(record["image_id"], number)
    return "" if first == number else f"the image id stands in line {first} already; keep one"


def _corner_problem(objects: list[dict]) -> str:
    boxes = boxes_of(objects)
    wrong = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    if not wrong.any():
        return ""
    number = int(np.argmax(wrong))
    rule = "must be finite numbers [x1, y1, x2, y2] with x2 >= x1 and y2 >= y1"
    return f"object {number}, box {shown(objects[number]['box'])} {rule}"


def boxes_of(objects: list[dict]) -> Float[np.ndarray, "n 4"]:
    """float64 boxes of a line's objects."""
    return np.array([o["box"] for o in objects], np.float64).reshape(-1, 4)


def _prediction(record: dict, objects: Names, predicates: Names) -> Prediction:
    entries, relations = record["objects"], record["relations"]
    kinds = predicates.index
    triplets = [(r["subject"], r["object"], kinds.get(r["predicate"], 0)) for r in relations]
    return ranked(
        np.array([objects.index.get(o["label"], 0) for o in entries], np.int32),
        np.array([o["score"] for o in entries], np.float64),
        np.array(triplets, np.int32).reshape(-1, 3),
        np.array([r["score"] for r in relations], np.float64),
    )


def ranked(
    labels: Int[np.ndarray, "n"],
    label_scores: Float[np.ndarray, "n"],
    triplets: Int[np.ndarray, "m 3"],
    scores: Float[np.ndarray, "m"],
) -> Prediction:
    """The prediction of listed (subject, object, predicate), ties in the order of the list.

    Under the graph constraint the best one of each pair is kept, without it the best 100 of all.
    """
    order = np.argsort(-scores, kind="stable")
    triplets, scores = triplets[order], scores[order].astype(np.float32)
    pairs, predicates = triplets[:, :2], triplets[:, 2]
    _, first = np.unique(pairs[:, 0] * np.int64(len(labels)) + pairs[:, 1], return_index=True)
    best, free = np.sort(first), slice(FREE_PREDICTIONS)
    return Prediction(
        labels=labels,
        label_scores=label_scores.astype(np.float32),
        pairs=pairs[best],
        predicates=predicates[best],
        scores=scores[best],
        count=np.int32(len(best)),
        free_pairs=pairs[free],
        free_predicates=predicates[free],
        free_scores=scores[free],
        free_count=np.int32(len(scores[free])),
    )


def prediction_record(
    image_id: int | str,
    boxes: Float[np.ndarray, "n 4"],
    prediction: Prediction,
    vocabulary: Vocabulary,
) -> dict:
    """A line from which `read_predictions` gives the same rankings again.

    Relations are the best predicate of every pair and the best candidates of all, in the order of
    (score, pair, predicate); `boxes` are in pixels of the original image.
    """
    n, (objects, predicates) = len(boxes), (vocabulary.objects, vocabulary.predicates)
    labels = prediction.labels[:n].tolist()
    listed = zip(boxes.tolist(), labels, _shortest(prediction.label_scores[:n]), strict=True)
    triplets, scores = _candidates(prediction)
    return {
        "image_id": image_id,
        "objects": [{"box": b, "label": objects[k], "score": x} for b, k, x in listed],
        "relations": [
            {"subject": s, "predicate": predicates[p], "object": o, "score": x}
            for (s, o, p), x in zip(triplets.tolist(), _shortest(scores), strict=True)
        ],
    }


def _candidates(p: Prediction) -> tuple[Int[np.ndarray, "m 3"], Float[np.ndarray, "m"]]:
    """Every ranked (subject, object, predicate) once, best first, ties by pair and predicate."""
    rankings = (p.ranking(), p.free_ranking())
    triplets = np.concatenate([np.column_stack(ranking) for ranking in rankings])
    counts = [len(pairs) for pairs, _ in rankings]
    scores = np.concatenate([p.scores[: counts[0]], p.free_scores[: counts[1]]])
    triplets, first = np.unique(triplets, axis=0, return_index=True)
    order = np.argsort(-scores[first], kind="stable")
    return triplets[order], scores[first][order]


def _shortest(values: Float[np.ndarray, "n"]) -> list[float]:
    """Floats whose decimals are as few as float32 needs: read again, they are the same float32."""
    return [float(text) for text in np.asarray(values, np.float32).astype(str)]
