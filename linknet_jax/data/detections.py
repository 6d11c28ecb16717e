"""A detector's boxes from a file: scene-graph JSON Lines of which the objects alone are read."""

from __future__ import annotations

import array
import dataclasses
import difflib
import functools
from collections.abc import Iterable, Sequence

import numpy as np
from etils import epath
from jaxtyping import Float, Int

from linknet_jax.data.collection import BACKGROUND, starts
from linknet_jax.data.formats.graph_lines import detection_problem
from linknet_jax.data.formats.prediction_lines import boxes_of, checked_lines
from linknet_jax.data.formats.values import shown
from linknet_jax.data.from_first import from_first
from linknet_jax.types import Annotation

Found = tuple[Float[np.ndarray, "n 4"], Int[np.ndarray, "n"], Float[np.ndarray, "n"]]


@dataclasses.dataclass(frozen=True, eq=False)
class DetectionTable:
    """The boxes of all images of a file as ragged arrays: 40 bytes a box.

    Attributes:
      file: where they come from.
      limit: the most boxes that an image has here.
      rows: position of each image, by id.
      start: int64 [k + 1], where the boxes of an image begin.
      boxes: float64 [n, 4], pixels of the original image; of each image the best score first.
      labels, scores: int32 [n] and float32 [n].
    """

    file: str
    limit: int
    rows: dict[int | str, int]
    start: Int[np.ndarray, "k+1"]
    boxes: Float[np.ndarray, "n 4"]
    labels: Int[np.ndarray, "n"]
    scores: Float[np.ndarray, "n"]

    def __getitem__(self, image_id: int | str) -> Found:
        """(boxes, labels, scores) of an image, the best score first; none for an unknown one."""
        row = self.rows.get(image_id)
        found = slice(0) if row is None else slice(self.start[row], self.start[row + 1])
        return self.boxes[found], self.labels[found], self.scores[found]

    def check_split(self, annotations: Sequence[Annotation]) -> None:
        """ValueError where no image of a split has a line: then the ids are other ones."""
        if not annotations or any(a.image_id in self.rows for a in annotations):
            return
        raise ValueError(
            f"data.detections={self.file!r}: none of the split's {len(annotations)} images has a "
            f"line; the data set's ids are as {shown(annotations[0].image_id)}, the file's as "
            f"{shown(next(iter(self.rows)))}: write those of the data set, numbers as numbers"
        )


def load_detections(file: str, limit: int, classes: tuple[str, ...]) -> DetectionTable:
    """The `limit` best boxes of every image, ties in the file's order; read once for all splits.

    `file` may be compressed (.gz); `classes` begin with the background. ValueError for a file that
    is missing and for the first line that is wrong.
    """
    path = epath.Path(file)
    if not path.exists() or path.is_dir():
        raise ValueError(f"data.detections={file!r} is no file; set --config.data.detections=FILE")

    def load() -> DetectionTable:
        stat = path.stat()
        return _load(file, limit, classes, (stat.mtime, stat.length))

    return from_first(load)


@functools.lru_cache(maxsize=1)
def _load(file: str, limit: int, classes: tuple[str, ...], stamp: tuple) -> DetectionTable:
    del stamp  # another one is another key
    index = {name: k for k, name in enumerate(classes) if name != BACKGROUND}
    rows: dict[int | str, int] = {}
    counts, *values = (array.array(code) for code in "qdif")  # lists would hold twice as much
    for _, record in checked_lines(epath.Path(file), _problem, (index,)):
        found = _best(record["objects"], index, limit)
        rows[record["image_id"]] = len(rows)
        counts.append(len(found[0]))
        for whole, part in zip(values, found, strict=True):
            whole.frombytes(part.tobytes())
    boxes, labels, scores = map(np.asarray, values)
    return DetectionTable(file, limit, rows, starts(counts), boxes.reshape(-1, 4), labels, scores)


def _best(objects: list[dict], index: dict[str, int], limit: int) -> Found:
    scores = np.array([o["score"] for o in objects], np.float64)
    order = np.argsort(-scores, kind="stable")[:limit]
    labels = np.array([index[o["label"]] for o in objects], np.int32)
    return boxes_of(objects)[order], labels[order], scores[order].astype(np.float32)


def _problem(record: object, index: dict[str, int]) -> str:
    if problem := detection_problem(record):
        return problem
    for number, entry in enumerate(record["objects"]):
        if not 0 <= entry["score"] <= 1:
            rule = "must be a probability from 0 to 1"
            return f"object {number}, score {shown(entry['score'])} {rule}"
        if entry["label"] not in index:
            return f"object {number}, label {_unknown(entry['label'], index)}"
    return ""


def _unknown(label: str, names: Iterable[str]) -> str:
    # No more letters than any class has: the time of comparing grows with their square.
    near = difflib.get_close_matches(label[: max(map(len, names), default=0)], names, cutoff=0.4)
    return (
        f"{shown(label)} is no class of the data set; nearest: {', '.join(near) or 'none'}; write "
        "its names, or leave the box out"
    )
