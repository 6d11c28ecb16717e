"""Stanford VRD (Lu et al. 2016) in its own file layout.

That is a folder with images/, objects.json, predicates.json and annotations_{train,test}.json.

The layout has no validation split: `val` is the first tenth of annotations_train.json (at least
one image, in the order of the file), which `train` leaves out, so that nothing is selected on test.
"""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from linknet_jax.data.batching import Example
from linknet_jax.data.transforms import ImageError, image_size, load_image
from linknet_jax.types import Annotation, Vocabulary

SHOWN_FINDINGS = 10


@dataclasses.dataclass(frozen=True)
class _Frame:
    """What the relations of one image must fit into."""

    width: int
    height: int
    vocabulary: Vocabulary


class Vrd:
    """The photographs and relations of one split.

    An object is a (box, class) that a relation names, once per image; images without relations
    have no objects and are left out. Raises ValueError that lists what is wrong with the files.

    Attributes:
      vocabulary: VRD's 100 objects and 70 predicates after "__background__".
      annotations: in the order of the file; image_id is the file name.
      truth: None.
    """

    def __init__(self, config: ConfigDict, split: str):
        if split not in ("train", "val", "test"):
            raise ValueError(f"split {split!r} must be train, val or test")
        part = "test" if split == "test" else "train"
        folder = _folder(config.dir, part)
        self.truth = None
        self.vocabulary = Vocabulary(_names(folder, "objects"), _names(folder, "predicates"))
        annotations = _annotations(folder, part, self.vocabulary, config.threads)
        self.annotations = _split(annotations, split)
        if not self.annotations:
            raise ValueError(f"{folder}: no image with relations for the split {split}")
        self._images = folder / "images"
        self._size = config.image_size

    def example(self, index: int) -> Example:
        """Pixels, (height, width) that they cover, scale; see `transforms.load_image`."""
        return load_image(self._images / self.annotations[index].image_id, self._size)


def _folder(path: str, part: str) -> epath.Path:
    expected = [f"annotations_{part}.json", "objects.json", "predicates.json", "images"]
    if not path:
        raise ValueError(
            f"data.name=vrd needs the folder that holds {', '.join(expected)}: "
            "set --config.data.dir=FOLDER"
        )
    folder = epath.Path(path)
    missing = [name for name in expected if not (folder / name).exists()]
    if missing:
        raise ValueError(
            f"data.dir={path!r}: missing {', '.join(missing)}; expected the layout of the VRD "
            f"release ({', '.join(expected)}): set --config.data.dir=FOLDER"
        )
    return folder


def _read_json(path: epath.Path, kind: type) -> Any:
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file: {error}; copy it again") from error
    if not isinstance(value, kind):
        raise ValueError(f"{path} must hold a JSON {kind.__name__}, got {type(value).__name__}")
    return value


def _names(folder: epath.Path, kind: str) -> tuple[str, ...]:
    return ("__background__", *_read_json(folder / f"{kind}.json", list))


def _annotations(
    folder: epath.Path, part: str, vocabulary: Vocabulary, threads: int
) -> list[Annotation]:
    """All images of a file that have relations, validated as a whole."""
    path = folder / f"annotations_{part}.json"
    images = _read_json(path, dict)
    entries = {name: rows for name, rows in images.items() if rows}
    findings: list[str] = []
    sizes = _sizes(folder, part, list(entries), threads, findings)
    annotations = []
    for name, (width, height) in sizes.items():
        frame = _Frame(width, height, vocabulary)
        wrong = _findings(entries[name], frame)
        findings += [f"image {name!r}, {finding}" for finding in wrong]
        if not wrong:
            annotations.append(_annotation(name, entries[name], frame))
    if findings:
        raise ValueError(_report(path, findings))
    itself = sum(int((a.relations[:, 0] == a.relations[:, 1]).sum()) for a in annotations)
    logging.info(
        "%s: %d images, %d more without relations are left out; "
        "%d relations of an object with itself are evaluated but cannot be trained",
        *(path, len(annotations), len(images) - len(entries), itself),
    )
    return annotations


def _sizes(
    folder: epath.Path, part: str, names: list[str], threads: int, findings: list[str]
) -> dict[str, tuple[int, int]]:
    """(width, height) of the upright photographs; those that cannot be used become findings."""
    stated_path = folder / f"{part}_image_metadata.json"
    stated = _read_json(stated_path, dict) if stated_path.exists() else {}

    def read(name: str) -> tuple[int, int] | str:
        try:
            size = image_size(folder / "images" / name)
        except ImageError as error:
            return str(error)
        if stated.get(name, upright := {"width": size[0], "height": size[1]}) == upright:
            return size
        return (
            f"image {name!r} upright is {upright}, but {stated_path.name} says {stated[name]}; "
            "correct the entry if the boxes fit the photograph"
        )

    with ThreadPoolExecutor(threads) as executor:
        results = dict(zip(names, executor.map(read, names), strict=True))
    findings += [result for result in results.values() if isinstance(result, str)]
    return {name: size for name, size in results.items() if not isinstance(size, str)}


def _findings(rows: Any, frame: _Frame) -> list[str]:
    if not isinstance(rows, list):
        return [f"relations {rows!r} must be a list"]
    found = []
    for number, row in enumerate(rows):
        row = row if isinstance(row, dict) else {}
        problems = [(role, _object_problem(row.get(role), frame)) for role in ("subject", "object")]
        count = len(frame.vocabulary.predicates) - 1
        problems.append(("predicate", _id_problem(row.get("predicate"), count)))
        found += [f"relation {number}, {role}: {problem}" for role, problem in problems if problem]
    return found


def _object_problem(entry: Any, frame: _Frame) -> str:
    """Why a subject or object cannot be used, "" if it can."""
    if not isinstance(entry, dict):
        return f"missing (got {entry!r})"
    if problem := _id_problem(entry.get("category"), len(frame.vocabulary.objects) - 1):
        return f"category {problem}"
    box = entry.get("bbox")
    if not isinstance(box, list) or [type(v) in (int, float) for v in box] != [True] * 4:
        return f"bbox {box!r} must be 4 numbers [ymin, ymax, xmin, xmax]"
    if not np.isfinite(box).all():
        return f"bbox {box} must be finite"
    ymin, ymax, xmin, xmax = box
    if min(xmin, ymin) < -1 or xmax > frame.width + 1 or ymax > frame.height + 1:
        limits = f"{frame.width}x{frame.height} (width x height)"
        return f"bbox {box} [ymin, ymax, xmin, xmax] reaches outside the image of {limits}"
    x1, y1, x2, y2 = _box(entry, frame)
    empty = x1 >= x2 or y1 >= y2
    return f"bbox {box} [ymin, ymax, xmin, xmax] is empty" if empty else ""


def _id_problem(value: Any, count: int) -> str:
    known = isinstance(value, int) and 0 <= value < count
    return "" if known else f"{value!r} must be an integer from 0 to {count - 1}"


def _annotation(name: str, rows: list[dict], frame: _Frame) -> Annotation:
    """Objects in the order in which the relations first name them; ids + 1 for the background."""
    objects: dict[tuple, int] = {}
    relations = []
    for row in rows:
        ends = []
        for entry in (row["subject"], row["object"]):
            key = (entry["category"] + 1, _box(entry, frame))
            ends.append(objects.setdefault(key, len(objects)))
        relations.append((*ends, row["predicate"] + 1))
    return Annotation(
        image_id=name,
        width=frame.width,
        height=frame.height,
        boxes=np.array([box for _, box in objects], np.float64),
        labels=np.array([label for label, _ in objects], np.int32),
        relations=np.array(relations, np.int32),
    )


def _box(entry: dict, frame: _Frame) -> tuple[float, float, float, float]:
    """xyxy corners; up to a pixel outside, which readers tolerate, is clipped to the image."""
    ymin, ymax, xmin, xmax = entry["bbox"]
    corners, limits = (xmin, ymin, xmax, ymax), (frame.width, frame.height) * 2
    return tuple(float(min(max(v, 0), n)) for v, n in zip(corners, limits, strict=True))


def _split(annotations: list[Annotation], split: str) -> list[Annotation]:
    held_out = max(1, len(annotations) // 10)
    return {
        "train": annotations[held_out:],
        "val": annotations[:held_out],
        "test": annotations,
    }[split]


def _report(path: epath.Path, findings: list[str]) -> str:
    shown = findings[:SHOWN_FINDINGS]
    more = len(findings) - len(shown)
    lines = [f"{path}: {len(findings)} problems; correct these entries or remove them:", *shown]
    return "\n  ".join(lines + [f"... and {more} more"] * (more > 0))
