"""Predictions that Scene-Graph-Benchmark.pytorch and its descendants store as JSON.

With TEST.CUSTUM_EVAL they write custom_prediction.json and, beside it, custom_data_info.json.
Relations are stored there by predicate probability; here they are ranked by subject score x object
score x predicate probability, as that project ranks them for its own evaluation.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Float, Int

from linknet_jax.data import json_stream
from linknet_jax.data.collection import BACKGROUND
from linknet_jax.data.formats.lines import line_writer
from linknet_jax.data.formats.prediction_lines import prediction_record, ranked
from linknet_jax.data.formats.values import LARGEST, check_names, read_json, shown
from linknet_jax.types import Prediction, Vocabulary

INFO = "custom_data_info.json"
REMEDY = "store the predictions again"
OUTSIDE = 0.1  # of a side: a box that reaches farther out of its image is of another size of it
USUAL_REACH = (0.85, 1.02)  # of a side: in most images something is cut off at the right or below
ROUNDED = 1.001  # the largest probability
Size = tuple[int, int]  # width, height
Sides = tuple[int, int]  # shorter, longest


class _Rule(NamedTuple):
    """What a field must be: an array of `shape` from `low` to `high`; `meaning` is an entry's."""

    shape: tuple[int, ...]
    low: float
    high: float
    meaning: str
    whole: bool = False

    def holds(self, entry: Any) -> bool:
        """Whether one entry of the list, a number or a list of them, is as it must be."""
        numbers = entry if len(self.shape) > 1 else [entry]
        kinds = (int,) if self.whole else (int, float)
        return (
            isinstance(numbers, list)
            and len(numbers) == math.prod(self.shape[1:])
            and all(type(x) in kinds and self.low <= x <= self.high for x in numbers)
        )


def convert(
    predictions: epath.Path,
    sizes: Mapping[int | str, Size],
    target: epath.Path,
    resized: Sides | None = (600, 1000),
) -> tuple[int, str]:
    """Writes a line of scene-graph JSON for every image (docs/evaluation.md).

    `sizes` are (width, height) of the original images by image id, which is the name of the file
    without its ending. Boxes are in pixels of the network input: its shorter side has as many as
    `resized` says first, but the longer one at most the second (INPUT.MIN_SIZE_TEST, MAX_SIZE_TEST
    there); None: in pixels of the original image. Holds one image in memory; a `target` that ends
    in .gz is compressed.

    Returns:
      how many images, and why `resized` may be wrong, "" if nothing tells so.

    Raises:
      ValueError: for files that are missing or wrong, naming image, field, value and rule; then
        nothing is written.
    """
    _check_present(predictions, "TEST.CUSTUM_EVAL True makes that project write it")
    _check_no_pickle(predictions)
    files, vocabulary = _read_info(predictions.parent / INFO)
    keys: dict[int | str, str] = {}
    reaches: list[float] = []
    with line_writer(target) as write:
        for key, entry in json_stream.pairs(predictions, progress=True):
            place = f"{predictions}, image {shown(key)}"
            image_id = _image_id(place, key, files, sizes)
            if image_id in keys:
                known = f"is {image_id!r}, as image {keys[image_id]!r} is"
                raise ValueError(f"{place}: {known}; remove one of them")
            keys[image_id] = key
            size = sizes[image_id]
            stored = _network_input(*size, *resized) if resized else size
            boxes, prediction = _boxes_and_prediction(place, entry, vocabulary)
            _check_boxes(place, boxes, stored)
            reaches += [(boxes[:, 2:] / stored).max()] if len(boxes) else []
            boxes = boxes * np.tile(np.divide(size, stored), 2)
            write(prediction_record(image_id, boxes, prediction, vocabulary))
        if not keys:
            raise ValueError(f'{predictions} holds no images: it must be {{"0": {{...}}, ...}}')
    return len(keys), _doubt(reaches)


def _doubt(reaches: list[float]) -> str:
    """Why the stated size may be wrong; `reaches`: of a side, where an image's boxes end."""
    median = np.median(reaches or [1.0])
    if USUAL_REACH[0] <= median <= USUAL_REACH[1]:
        return ""
    return (
        f"the boxes of an image end at {median:.0%} (median) of its width or height, where about "
        "100% is usual: make sure that --resized is what the model was run with"
    )


def _check_present(path: epath.Path, remedy: str) -> None:
    if not path.exists():
        raise ValueError(f"{path} is missing; {remedy}")


def _check_no_pickle(path: epath.Path) -> None:
    """ValueError for what torch.save writes: reading it would run code of the file's choice."""
    with path.open("rb") as file:
        start = file.read(4)
    if start[:1] == b"\x80" or start == b"PK\x03\x04":
        raise ValueError(
            f"{path} is a pickle of another project's classes, which is not read, as reading one "
            "can run any code: give custom_prediction.json (TEST.CUSTUM_EVAL True), or write JSON "
            "Lines inside that project with the few lines in docs/evaluation.md"
        )


def _read_info(path: epath.Path) -> tuple[list[str], Vocabulary]:
    """The images' paths and the classes."""
    _check_present(path, "it is written beside the predictions, copy it too")
    content = read_json(path, dict)
    files = content.get("idx_to_files")
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise ValueError(f"{path}, idx_to_files: must be a list of paths, got {shown(files)}")
    names = [_names(path, content, f"ind_to_{kind}") for kind in ("classes", "predicates")]
    return files, Vocabulary(*names)


def _names(path: epath.Path, content: dict, key: str) -> tuple[str, ...]:
    names = content.get(key)
    if not isinstance(names, list) or len(names) < 2 or names[0] != BACKGROUND:
        rule = f"must be a list of names, the first {BACKGROUND!r}"
        raise ValueError(f"{path}, {key}: {rule}, got {shown(names)}; {REMEDY}")
    wrong: list[str] = []
    listed = check_names(names[1:], wrong.append)
    if wrong:
        raise ValueError(f"{path}, {key}, after the background: {wrong[0]}")
    return listed


def _image_id(place: str, key: str, files: list[str], sizes: Mapping[int | str, Any]) -> int | str:
    if not (key.isascii() and key.isdecimal() and int(key) < len(files)):
        raise ValueError(f"{place}: must be one of the {len(files)} positions in {INFO}, from 0")
    file = files[int(key)]
    stem = pathlib.PureWindowsPath(file).stem  # splits at / as well
    if stem.isascii() and stem.isdecimal() and int(stem) in sizes:
        return int(stem)
    if stem not in sizes:
        raise ValueError(
            f"{place}: its file {file!r} has no line of ground truth with image_id {stem!r}, the "
            "name without its ending; add the line or rename the file in idx_to_files"
        )
    return stem


def _network_input(width: int, height: int, short: int, long: int) -> Size:
    """(width, height) of the network input: the rounding of maskrcnn-benchmark's Resize."""
    low, high = sorted((width, height))
    if high / low * short > long:
        short = round(long * low / high)
    other = high if low == short else int(short * high / low)
    return (short, other) if width < height else (other, short)


def _boxes_and_prediction(
    place: str, entry: Any, vocabulary: Vocabulary
) -> tuple[Float[np.ndarray, "n 4"], Prediction]:
    """Boxes as stored and the rankings: float32 scores, ties by pair and predicate."""
    if not isinstance(entry, dict):
        raise ValueError(f"{place}: must be an object, got {shown(entry)}; {REMEDY}")
    boxes, labels, scores, pairs, probabilities = _arrays(place, entry, vocabulary)
    pairs, rows = _unique_pairs(place, pairs)
    apart = pairs[:, 0] != pairs[:, 1]
    kept = (
        apart if apart.any() else ~apart
    )  # [0, 0] alone stands for "no pair", and is scored there
    pairs, foreground = pairs[kept], probabilities[rows[kept], 1:]
    count, kinds = foreground.shape
    predicates = np.tile(np.arange(1, kinds + 1), count)
    triplets = np.column_stack([np.repeat(pairs, kinds, axis=0), predicates])
    products = (scores[pairs].prod(axis=1)[:, None] * foreground).reshape(-1)
    return boxes, ranked(labels, scores, triplets, products.astype(np.float32))


def _arrays(place: str, entry: dict, vocabulary: Vocabulary) -> list[np.ndarray]:
    """bbox [n, 4], bbox_labels [n], bbox_scores [n], rel_pairs [m, 2], rel_all_scores [m, p]."""
    for field in ("bbox", "rel_pairs"):
        if not isinstance(entry.get(field), list):
            raise ValueError(f"{place}, {field}: must be a list, got {shown(entry.get(field))}")
    n, m = len(entry["bbox"]), len(entry["rel_pairs"])
    c, p = vocabulary.sizes
    rules = {
        "bbox": _Rule((n, 4), -LARGEST, LARGEST, "4 numbers [x1, y1, x2, y2]"),
        "bbox_labels": _Rule((n,), 1, c - 1, f"a class from 1 to {c - 1}", whole=True),
        "bbox_scores": _Rule((n,), 0, ROUNDED, "a probability"),
        "rel_pairs": _Rule((m, 2), 0, n - 1, f"two of the {n} boxes, from 0", whole=True),
        "rel_all_scores": _Rule((m, p), 0, ROUNDED, f"{p} probabilities"),
    }
    return [_array(f"{place}, {key}", entry.get(key), rule) for key, rule in rules.items()]


def _array(place: str, value: Any, rule: _Rule) -> np.ndarray:
    count = rule.shape[0]
    if not isinstance(value, list) or len(value) != count:
        found = f"{len(value)} entries" if isinstance(value, list) else shown(value)
        raise ValueError(f"{place}: must be a list of {count} entries, got {found}; {REMEDY}")
    for i, entry in enumerate(value):
        if not rule.holds(entry):
            raise ValueError(f"{place}[{i}]: must be {rule.meaning}, got {shown(entry)}; {REMEDY}")
    return np.array(value, np.int64 if rule.whole else np.float64).reshape(rule.shape)


def _check_boxes(place: str, boxes: Float[np.ndarray, "n 4"], stored: Size) -> None:
    low, high = boxes[:, :2], boxes[:, 2:]
    margin = OUTSIDE * np.array(stored)
    cases = {
        f"must have x2 >= x1 and y2 >= y1; {REMEDY}": high < low,
        f"lies outside {stored[0]} x {stored[1]} pixels, which the image has by --resized; it must "
        "say what the model was run with": (low < -margin) | (high > stored + margin),
    }
    for rule, wrong in cases.items():
        for i in np.flatnonzero(wrong.any(axis=1))[:1]:
            raise ValueError(f"{place}, bbox[{i}]: {boxes[i].tolist()} {rule}")


def _unique_pairs(
    place: str, pairs: Int[np.ndarray, "m 2"]
) -> tuple[Int[np.ndarray, "m 2"], Int[np.ndarray, "m"]]:
    """The pairs in the order (subject, object), and where each is; ValueError for one twice."""
    found, rows, counts = np.unique(pairs, axis=0, return_index=True, return_counts=True)
    for pair in found[counts > 1][:1].tolist():
        rule = "stands twice; a pair has one row of scores, remove the other"
        raise ValueError(f"{place}, rel_pairs: {pair} {rule}")
    return found, rows
