"""What a line of scene-graph JSON must be, annotated or predicted."""

from __future__ import annotations

from typing import Any

import numpy as np

from linknet_jax.data.collection import BACKGROUND
from linknet_jax.data.formats.values import (
    box_problem,
    id_problem,
    integer_problem,
    shown,
    size_problem,
)

LARGEST_SCORE = 3.4028235e38  # of float32, which predictions hold


class Names:
    """Index of each class name, in the order of appearance unless the list is fixed.

    Attributes:
      index: of every name so far, the background first.
      source: the file that fixes the list; "" where none does.
    """

    def __init__(self, listed: tuple[str, ...] | None = None, source: str = ""):
        self.index = {name: k for k, name in enumerate(listed or (BACKGROUND,))}
        self.source = source if listed else ""

    def problem(self, name: Any) -> str:
        """Why this cannot be the name of a class, "" if it can."""
        if not isinstance(name, str) or not name or name == BACKGROUND:
            return f"{shown(name)} must be the name of a class"
        if name not in self.index and self.source:
            return f"{shown(name)} is not in {self.source}"
        return ""

    def __getitem__(self, name: str) -> int:
        return self.index.setdefault(name, len(self.index))

    def sorted(self) -> tuple[tuple[str, ...], np.ndarray]:
        """The final list, and the final index of every index given out."""
        if self.source:
            return tuple(self.index), np.arange(len(self.index), dtype=np.int32)
        names = (BACKGROUND, *sorted(name for name in self.index if name != BACKGROUND))
        final = {name: k for k, name in enumerate(names)}
        return names, np.array([final[name] for name in self.index], np.int32)


def annotation_problem(record: Any, objects: Names, predicates: Names) -> str:
    """Why a line of ground truth cannot be used, "" if it can."""
    if problem := _head_problem(record, "image_id, width, height, objects, relations"):
        return problem
    if problem := size_problem(record.get("width"), record.get("height")):
        return problem
    if not isinstance(record.get("file_name", ""), str):
        return f"file_name {shown(record['file_name'])} must be a string"
    return _graph_problem(record, objects, predicates, scored=False)


def prediction_problem(record: Any, objects: Names, predicates: Names) -> str:
    """Why a line of predictions cannot be used, "" if it can."""
    problem = _head_problem(record, "image_id, objects, relations")
    return problem or _graph_problem(record, objects, predicates, scored=True)


def detection_problem(record: Any) -> str:
    """Why a line of a detector's boxes cannot be used, "" if it can; only its objects count."""
    problem = _head_problem(record, "image_id, objects") or _list_problem(record, "objects")
    return problem or _objects_problem(record["objects"], Names(), scored=True)


def place(number: int, record: Any) -> str:
    """Where a finding is: the line, and the image where the line names one."""
    image = f", image {shown(record.get('image_id'))}" if isinstance(record, dict) else ""
    return f"line {number}{image}"


def _head_problem(record: Any, form: str) -> str:
    if not isinstance(record, dict):
        return f"must be an object with {form}; got {shown(record)}"
    return id_problem(record.get("image_id"))


def _graph_problem(record: dict, objects: Names, predicates: Names, scored: bool) -> str:
    problem = _list_problem(record, "objects") or _list_problem(record, "relations")
    if problem := problem or _objects_problem(record["objects"], objects, scored):
        return problem
    for number, entry in enumerate(record["relations"]):
        if problem := _relation_problem(entry, len(record["objects"]), predicates, scored):
            return f"relation {number}, {problem}"
    return ""


def _list_problem(record: dict, key: str) -> str:
    value = record.get(key)
    return "" if isinstance(value, list) else f"{key} must be a list, got {shown(value)}"


def _objects_problem(entries: list, names: Names, scored: bool) -> str:
    for number, entry in enumerate(entries):
        if problem := _object_problem(entry, names, scored):
            return f"object {number}, {problem}"
    return ""


def _object_problem(entry: Any, names: Names, scored: bool) -> str:
    if not isinstance(entry, dict):
        return f"{shown(entry)} must be an object with box and label"
    if problem := box_problem(entry.get("box"), "[x1, y1, x2, y2]"):
        return f"box {problem}"
    if problem := names.problem(entry.get("label")):
        return f"label {problem}"
    return _score_problem(entry) if scored else ""


def _relation_problem(entry: Any, count: int, names: Names, scored: bool) -> str:
    if not isinstance(entry, dict):
        return f"{shown(entry)} must be an object with subject, predicate and object"
    for role in ("subject", "object"):
        value = entry.get(role)
        if integer_problem(value) or not 0 <= value < count:
            return f"{role} {shown(value)} must be one of the line's {count} objects, from 0"
    if problem := names.problem(entry.get("predicate")):
        return f"predicate {problem}"
    return _score_problem(entry) if scored else ""


def _score_problem(entry: dict) -> str:
    value = entry.get("score")
    known = type(value) in (int, float) and abs(value) <= LARGEST_SCORE  # NaN is not
    return "" if known else f"score {shown(value)} must be a finite number (float32)"
