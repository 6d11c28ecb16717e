"""One image's objects and relations: from JSON to arrays, or a ValueError that says what is wrong.

Visual Genome's releases spell a name `"names": ["man"]` or `"name": "man"`; both are read.
"""

from __future__ import annotations

import dataclasses
from operator import itemgetter
from typing import Any

import numpy as np
from jaxtyping import Int

from linknet_jax.data.formats.values import shown
from linknet_jax.data.raw.names import Names

LARGEST = 2**30  # pixels; int32 coordinates and their sums must not overflow
_BOX = ("x", "y", "w", "h")
_box_values = itemgetter(*_BOX)
_object_id = itemgetter("object_id")


@dataclasses.dataclass(frozen=True, eq=False)
class RawObjects:
    """The objects of one image as annotated.

    Attributes:
      ids: Visual Genome's numbers of the objects; may repeat.
      corners: xyxy, the first pixel is 1, x2 = x1 + width.
      names: of all objects, one after the other, as numbers of `Names`.
      owners: the object that each name belongs to.
    """

    ids: Int[np.ndarray, "n"]
    corners: Int[np.ndarray, "n 4"]
    names: Int[np.ndarray, "k"]
    owners: Int[np.ndarray, "k"]

    @property
    def first_names(self) -> Int[np.ndarray, "n"]:
        """The first name of each object; a number of its own, below 0, where it has none."""
        first = -1 - np.arange(len(self.ids))
        first[self.owners[::-1]] = self.names[::-1]  # the last assignment of several holds
        return first


def join(first: RawObjects, second: RawObjects) -> RawObjects:
    """The objects of both."""
    return RawObjects(
        np.concatenate([first.ids, second.ids]),
        np.concatenate([first.corners, second.corners]),
        np.concatenate([first.names, second.names]),
        np.concatenate([first.owners, second.owners + np.int32(len(first.ids))]),
    )


def select(objects: RawObjects, kept: np.ndarray) -> RawObjects:
    """The objects where the boolean mask `kept` is true."""
    names = kept[objects.owners]
    position = np.cumsum(kept, dtype=np.int32) - 1
    return RawObjects(
        objects.ids[kept],
        objects.corners[kept],
        objects.names[names],
        position[objects.owners[names]],
    )


def parse_objects(rows: Any, names: Names, place: str) -> RawObjects:
    """Objects from their JSON; `place`, the file and image, begins the message of a ValueError."""
    if not isinstance(rows, list):
        raise ValueError(f"{place}: objects must be a JSON list, got {shown(rows)}")
    try:
        ids = list(map(_object_id, rows))
        boxes = list(map(_box_values, rows))
        spelled = [row["names"] if "names" in row else [row["name"]] for row in rows]
        numbers = [[names.number(name) for name in own] for own in spelled]
    except (KeyError, TypeError, AttributeError):
        raise _explained(rows, place) from None
    kinds = {type(value) for box in boxes for value in box} | {int}
    if not kinds <= {int, float} or {*map(type, ids)} - {int} or {*map(type, spelled)} - {list}:
        raise _explained(rows, place)
    values = np.array(boxes, np.float64).reshape(-1, 4)
    if not (np.abs(values) < LARGEST).all():
        raise _explained(rows, place)
    values[:, 2:] += values[:, :2]
    return RawObjects(
        np.array(ids, np.int64),
        values.astype(np.int32),
        np.array([n for own in numbers for n in own], np.int32),
        np.repeat(np.arange(len(rows), dtype=np.int32), [len(own) for own in numbers]),
    )


def parse_relations(
    rows: Any, predicates: Names, place: str
) -> tuple[Int[np.ndarray, "r 3"], list[dict]]:
    """(subject's object id, object's object id, predicate) and the objects in order of mention."""
    if not isinstance(rows, list):
        raise ValueError(f"{place}: relationships must be a JSON list, got {shown(rows)}")
    try:
        mentioned = [row[role] for row in rows for role in ("subject", "object")]
        ids = list(map(_object_id, mentioned))
        numbers = [predicates.number(row["predicate"]) for row in rows]
    except (KeyError, TypeError, AttributeError):
        ids, mentioned, numbers = [None], [], []
    if {*map(type, ids)} - {int}:
        raise _unrelated(rows, place)
    ends = np.array(ids, np.int64).reshape(-1, 2)
    return np.column_stack([ends, np.array(numbers, np.int64)]), mentioned


def _explained(rows: Any, place: str) -> ValueError:
    """The first thing that is wrong with a list of objects."""
    for number, row in enumerate(rows):
        if problem := _problem(row):
            return ValueError(f"{place}: object {number}: {problem}; correct or remove it")
    return ValueError(f"{place}: objects {shown(rows)} cannot be read; download the file again")


def _problem(row: Any) -> str:
    if not isinstance(row, dict):
        return f"{shown(row)} must be a JSON object"
    if type(row.get("object_id")) is not int:
        return f"object_id {shown(row.get('object_id'))} must be an integer"
    for key in _BOX:
        value = row.get(key)
        if type(value) not in (int, float) or not abs(value) < LARGEST:
            return f"{key} {shown(value)} must be a number of pixels"
    names = row.get("names", [row.get("name")])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return f"names {shown(names)} must be a list of strings, or name one string"
    return ""


def _unrelated(rows: Any, place: str) -> ValueError:
    """The first thing that is wrong with a list of relations."""
    for number, row in enumerate(rows):
        row = row if isinstance(row, dict) else {}
        where = f"{place}: relation {number}"
        if not isinstance(row.get("predicate"), str):
            return ValueError(f"{where}: predicate {shown(row.get('predicate'))} must be a string")
        for role in ("subject", "object"):
            end = row.get(role)
            if not isinstance(end, dict) or type(end.get("object_id")) is not int:
                return ValueError(
                    f"{where}: {role} {shown(end)} must have an integer object_id; "
                    "correct or remove it"
                )
    return ValueError(f"{place}: relations {shown(rows)} cannot be read; download the file again")
