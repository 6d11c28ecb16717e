"""Predictions that Scene-Graph-Benchmark.pytorch and its descendants store as JSON.

With TEST.CUSTUM_EVAL they write custom_prediction.json and, beside it, custom_data_info.json:

python -m linknet_jax.data.foreign custom_prediction.json --ground_truth gt.jsonl \\
    --output pred.jsonl.gz [--resized 600,1000]

Relations are stored there by predicate probability; here they are ranked by subject score x object
score x predicate probability, as that project ranks them for its own evaluation.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Float, Int

from linknet_jax.command import exit_status
from linknet_jax.data import json_stream
from linknet_jax.data.collection import BACKGROUND
from linknet_jax.data.formats.lines import line_writer
from linknet_jax.data.formats.prediction_lines import read_truth
from linknet_jax.data.formats.values import LARGEST, check_names, read_json, shown
from linknet_jax.types import FREE_PREDICTIONS

INFO = "custom_data_info.json"
REMEDY = "store the predictions again"
OUTSIDE = 0.1  # of a side: a box that reaches farther out of its image is of another size of it
ROUNDED = 1.001  # the largest probability
Size = tuple[int, int]  # width, height


class _Info(NamedTuple):
    """custom_data_info.json; the names' index 0 is the background."""

    files: list[str]
    classes: tuple[str, ...]
    predicates: tuple[str, ...]


class _Rule(NamedTuple):
    """A field's list: `count` entries of `width` numbers (0: no lists) from `low` to `high`."""

    count: int
    width: int
    low: float
    high: float
    meaning: str
    whole: bool = False

    def holds(self, entry: Any) -> bool:
        """Whether one entry of the list is as it must be."""
        numbers, kinds = entry if self.width else [entry], (int,) if self.whole else (int, float)
        return (
            isinstance(numbers, list)
            and len(numbers) == max(self.width, 1)
            and all(type(x) in kinds and self.low <= x <= self.high for x in numbers)
        )


def convert(
    predictions: epath.Path,
    sizes: Mapping[int | str, Size],
    target: epath.Path,
    short: int = 600,
    long: int = 1000,
) -> int:
    """Writes a line of scene-graph JSON for every image and returns how many (docs/evaluation.md).

    `sizes` are (width, height) of the original images by image id, which is the name of the file
    without its ending. Boxes are in pixels of the network input, whose shorter side has `short`
    pixels but the longer one at most `long` (INPUT.MIN_SIZE_TEST, MAX_SIZE_TEST there); `short` =
    0: of the original image. Kept are the best predicate of every pair and the FREE_PREDICTIONS
    best of all. Holds one image in memory; a `target` that ends in .gz is compressed.

    Raises:
      ValueError: for files that are missing or wrong, naming image, field, value and rule; then
        nothing is written.
    """
    _check_no_pickle(predictions)
    info = _read_info(predictions.parent / INFO)
    keys: dict[int | str, str] = {}
    with line_writer(target) as write:
        for key, entry in json_stream.pairs(predictions, progress=True):
            place = f"{predictions}, image {shown(key)}"
            image_id = _image_id(place, key, info.files, sizes)
            if image_id in keys:
                known = f"is {image_id!r}, as image {keys[image_id]!r} is"
                raise ValueError(f"{place}: {known}; remove one of them")
            keys[image_id] = key
            size = sizes[image_id]
            stored = _resized(*size, short, long) if short else size
            write({"image_id": image_id, **_graph(place, entry, info, size, stored)})
        if not keys:
            raise ValueError(f'{predictions} holds no images: it must be {{"0": {{...}}, ...}}')
    return len(keys)


def main(argv: list[str] | None = None) -> int:
    """Converts; returns the exit status, 2 with a message for wrong inputs."""
    parser = argparse.ArgumentParser(
        prog="python -m linknet_jax.data.foreign",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, file = parser.add_argument, epath.Path
    add("predictions", type=file, help="custom_prediction.json")
    add("--ground_truth", required=True, type=file, help="JSON Lines, for the images' sizes")
    add("--output", required=True, type=file, help="JSON Lines, compressed if it ends in .gz")
    text = "sides of the network input: SHORTER,LONGEST, or none: boxes are in original pixels"
    add("--resized", type=_sides, default=(600, 1000), help=text)
    arguments = parser.parse_args(argv)
    return exit_status(lambda: _run(arguments))


def _run(a: argparse.Namespace) -> None:
    images, _ = read_truth(a.ground_truth, None)
    sizes = dict(zip(images.image_ids, map(tuple, images.sizes.tolist()), strict=True))
    count = convert(a.predictions, sizes, a.output, *a.resized)
    print(f"{count:,} of {len(sizes):,} annotated images have predictions; written to {a.output}")


def _sides(text: str) -> Size:
    sides = [int(x) if x.isdecimal() else 0 for x in text.split(",")]
    if text != "none" and not (len(sides) == 2 and 0 < sides[0] <= sides[1]):
        raise argparse.ArgumentTypeError(f"{text!r} must be none or as 600,1000")
    return (0, 0) if text == "none" else tuple(sides)


def _check_no_pickle(path: epath.Path) -> None:
    """ValueError for what torch.save writes: reading it would run code of the file's choice."""
    if not path.exists():
        raise ValueError(f"{path} is missing; TEST.CUSTUM_EVAL True makes that project write it")
    with path.open("rb") as file:
        start = file.read(4)
    if start[:1] == b"\x80" or start == b"PK\x03\x04":
        raise ValueError(
            f"{path} is a pickle of another project's classes, which is not read, as reading one "
            "can run any code: give custom_prediction.json (TEST.CUSTUM_EVAL True), or write JSON "
            "Lines inside that project with the few lines in docs/evaluation.md"
        )


def _read_info(path: epath.Path) -> _Info:
    if not path.exists():
        raise ValueError(f"{path} is missing; it is written beside the predictions, copy it too")
    content = read_json(path, dict)
    files = content.get("idx_to_files")
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise ValueError(f"{path}, idx_to_files: must be a list of paths, got {shown(files)}")
    return _Info(files, *(_names(path, content, f"ind_to_{x}") for x in ("classes", "predicates")))


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


def _resized(width: int, height: int, short: int, long: int) -> Size:
    """(width, height) of the network input: the rounding of maskrcnn-benchmark's Resize."""
    low, high = sorted((width, height))
    if high / low * short > long:
        short = round(long * low / high)
    other = high if low == short else int(short * high / low)
    return (short, other) if width < height else (other, short)


def _graph(place: str, entry: Any, info: _Info, size: Size, stored: Size) -> dict[str, list[dict]]:
    """Objects and relations of an image, whose boxes are in pixels of an image of size `stored`."""
    if not isinstance(entry, dict):
        raise ValueError(f"{place}: must be an object, got {shown(entry)}; {REMEDY}")
    boxes, labels, scores, pairs, probabilities = _arrays(place, entry, info)
    _check_boxes(place, boxes, stored)
    _check_pairs(place, pairs)
    apart = pairs[:, 0] != pairs[:, 1]  # [0, 0] stands there for "no pair"
    pairs, predicates, triplet_scores = _ranked(scores, pairs[apart], probabilities[apart])
    boxes = boxes * np.tile(np.divide(size, stored), 2)
    objects = zip(boxes.tolist(), labels.tolist(), scores.tolist(), strict=True)
    relations = zip(pairs.tolist(), predicates.tolist(), triplet_scores.tolist(), strict=True)
    return {
        "objects": [{"box": b, "label": info.classes[k], "score": x} for b, k, x in objects],
        "relations": [
            {"subject": s, "predicate": info.predicates[p], "object": o, "score": x}
            for (s, o), p, x in relations
        ],
    }


def _arrays(place: str, entry: dict, info: _Info) -> list[np.ndarray]:
    """bbox [n, 4], bbox_labels [n], bbox_scores [n], rel_pairs [m, 2], rel_all_scores [m, p]."""
    for field in ("bbox", "rel_pairs"):
        if not isinstance(entry.get(field), list):
            raise ValueError(f"{place}, {field}: must be a list, got {shown(entry.get(field))}")
    n, m = len(entry["bbox"]), len(entry["rel_pairs"])
    c, p = len(info.classes), len(info.predicates)
    rules = {
        "bbox": _Rule(n, 4, -LARGEST, LARGEST, "4 numbers [x1, y1, x2, y2]"),
        "bbox_labels": _Rule(n, 0, 1, c - 1, f"a class from 1 to {c - 1}", whole=True),
        "bbox_scores": _Rule(n, 0, 0, ROUNDED, "a probability"),
        "rel_pairs": _Rule(m, 2, 0, n - 1, f"two of the {n} boxes, from 0", whole=True),
        "rel_all_scores": _Rule(m, p, 0, ROUNDED, f"{p} probabilities"),
    }
    return [_array(f"{place}, {key}", entry.get(key), rule) for key, rule in rules.items()]


def _array(place: str, value: Any, rule: _Rule) -> np.ndarray:
    if not isinstance(value, list) or len(value) != rule.count:
        found = f"{len(value)} entries" if isinstance(value, list) else shown(value)
        raise ValueError(f"{place}: must be a list of {rule.count} entries, got {found}; {REMEDY}")
    for i, entry in enumerate(value):
        if not rule.holds(entry):
            raise ValueError(f"{place}[{i}]: must be {rule.meaning}, got {shown(entry)}; {REMEDY}")
    shape = (rule.count, rule.width) if rule.width else rule.count
    return np.array(value, np.int64 if rule.whole else np.float64).reshape(shape)


def _check_boxes(place: str, boxes: Float[np.ndarray, "n 4"], stored: Size) -> None:
    low, high = boxes[:, :2], boxes[:, 2:]
    margin = OUTSIDE * np.array(stored)
    cases = {
        f"must have x2 >= x1 and y2 >= y1; {REMEDY}": high < low,
        f"lies outside the network input of {stored[0]} x {stored[1]} pixels; --resized must say "
        "what the model was run with": (low < -margin) | (high > stored + margin),
    }
    for rule, wrong in cases.items():
        for i in np.flatnonzero(wrong.any(axis=1))[:1]:
            raise ValueError(f"{place}, bbox[{i}]: {boxes[i].tolist()} {rule}")


def _check_pairs(place: str, pairs: Int[np.ndarray, "m 2"]) -> None:
    _, first, index = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
    for i in np.flatnonzero(first[index.reshape(-1)] != np.arange(len(pairs)))[:1]:
        rule = "stands twice; a pair has one row of scores, remove the other"
        raise ValueError(f"{place}, rel_pairs[{i}]: {pairs[i].tolist()} {rule}")


def _ranked(
    object_scores: Float[np.ndarray, "n"],
    pairs: Int[np.ndarray, "m 2"],
    probabilities: Float[np.ndarray, "m p"],
) -> tuple[Int[np.ndarray, "k 2"], Int[np.ndarray, "k"], Float[np.ndarray, "k"]]:
    """(pair, predicate, triplet score) of what is kept, best first, ties by position."""
    foreground = probabilities[:, 1:]
    scores = object_scores[pairs].prod(axis=1)[:, None] * foreground
    order = np.argsort(-scores, axis=None, kind="stable")
    kept = np.zeros(scores.shape, bool)
    kept[np.arange(len(pairs)), foreground.argmax(axis=1)] = True
    kept.reshape(-1)[order[:FREE_PREDICTIONS]] = True
    order = order[kept.reshape(-1)[order]]
    rows, columns = np.divmod(order, foreground.shape[1])
    return pairs[rows], columns + 1, scores.reshape(-1)[order]


if __name__ == "__main__":
    sys.exit(main())
