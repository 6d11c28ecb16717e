"""Boxes that are given with photographs: scene-graph JSON Lines, matched by name."""

from __future__ import annotations

from typing import Any

from etils import epath

from linknet_jax.data.formats.prediction_lines import checked_lines
from linknet_jax.data.formats.values import box_problem, id_problem, shown


class Given:
    """The lines of a file, by image_id: the photograph's file name, or that without its suffix."""

    def __init__(self, path: epath.Path):
        """ValueError for a file that is absent or empty and for the first line that is wrong."""
        if not path.exists() or path.is_dir():
            raise ValueError(f"--boxes {path} is no file")
        self._path = path
        self._lines: dict[str, dict] = {}
        for number, record in checked_lines(path, _problem, ()):
            if str(record["image_id"]) in self._lines:
                name = shown(record["image_id"])
                raise ValueError(
                    f"{path}, line {number}: {name} is a number and a string; keep one"
                )
            self._lines[str(record["image_id"])] = record

    def boxes(self, name: str) -> list[list[float]]:
        """x1, y1, x2, y2 of each object; ValueError for a photograph without a line."""
        return [x["box"] for x in self._record(name)["objects"]]

    def labels(self, name: str) -> list[str]:
        """A name of each object; ValueError where one has none."""
        labels = [x.get("label") for x in self._record(name)["objects"]]
        if None in labels:
            raise ValueError(
                f"{self._path}, image {name!r}: object {labels.index(None)} has no label; predcls "
                "needs all"
            )
        return labels

    def check_size(self, name: str, width: int, height: int) -> None:
        """ValueError where the line was written for a photograph of another size."""
        record = self._record(name)
        stated = record.get("width", width), record.get("height", height)
        if stated != (width, height):
            raise ValueError(
                f"{self._path}, image {name!r}: the boxes are of a photograph of {stated[0]} x "
                f"{stated[1]} pixels, this one has {width} x {height}; scale them"
            )

    def _record(self, name: str) -> dict:
        record = self._lines.get(name) or self._lines.get(epath.Path(name).stem)
        if record is None:
            raise ValueError(f"{self._path}: no line for {name!r}; write one, or leave it out")
        return record


def _problem(record: Any) -> str:
    """Why a line cannot be used, "" if it can; of its objects a box is needed."""
    if not isinstance(record, dict) or not isinstance(record.get("objects"), list):
        return f"must be an object with image_id and objects, a list; got {shown(record)}"
    if problem := id_problem(record.get("image_id")):
        return problem
    for number, entry in enumerate(record["objects"]):
        if not isinstance(entry, dict):
            return f"object {number}, {shown(entry)} must be an object with box"
        if problem := box_problem(entry.get("box"), "[x1, y1, x2, y2]"):
            return f"object {number}, box {problem}"
    return ""
