"""Stanford VRD (Lu et al. 2016) in its own layout.

That is objects.json, predicates.json and annotations_{train,test}.json: the relations of every
photograph, whose ends are (category, bbox [ymin, ymax, xmin, xmax]); ids count from 0. An object is
a (box, class) that a relation names, once per image. {train,test}_image_metadata.json states sizes.
The release has no validation split; an annotations_val.json of the same form is read and written.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from etils import epath

from linknet_jax.data.collection import SPLITS, AnnotationTable, Collection, Finding, pack
from linknet_jax.data.formats.values import (
    box_problem,
    check_names,
    error,
    read_json,
    shown,
    size_problem,
)
from linknet_jax.data.inspection import inspect
from linknet_jax.data.photographs import Photographs, photograph_name
from linknet_jax.data.transforms import ImageError, image_size
from linknet_jax.types import Annotation, Vocabulary

FORM = "[ymin, ymax, xmin, xmax]"
_LISTS = ("objects.json", "predicates.json")
_THREADS = 8


@dataclasses.dataclass(frozen=True)
class _Frame:
    """What the relations of one image must fit into."""

    width: int
    height: int
    vocabulary: Vocabulary


def read(folder: epath.Path, photographs: Photographs) -> Collection:
    """All splits of a folder; image ids are file names, images without relations have no boxes.

    Sizes are those of the upright photographs, or the stated ones where none is at hand.
    ValueError for files that are missing or no JSON.
    """
    findings: list[Finding] = []
    files = {split: folder / f"annotations_{split}.json" for split in SPLITS}
    files = {split: path for split, path in files.items() if path.exists()}
    missing = [name for name in _LISTS if not (folder / name).exists()]
    missing += [] if files else ["annotations_train.json"]
    if missing:
        raise ValueError(
            f"{folder}: missing {', '.join(missing)}; the layout of the VRD release is "
            f"{', '.join(_LISTS)}, annotations_train.json, annotations_test.json"
        )
    vocabulary = Vocabulary(*(_names(folder / name, findings) for name in _LISTS))
    splits = {}
    for split, path in files.items():
        images = read_json(path, dict)
        sizes = _sizes(path, split, list(images), photographs, findings)
        table = pack(_annotations(path, images, sizes, vocabulary, findings))
        splits[split], found = inspect(table, vocabulary, str(path))
        findings += found
    return Collection(vocabulary, splits, findings)


def recognises(folder: epath.Path) -> bool:
    """Whether the folder has both class lists and the annotations of a split."""
    lists = all((folder / name).exists() for name in _LISTS)
    return lists and any((folder / f"annotations_{split}.json").exists() for split in SPLITS)


def _names(path: epath.Path, findings: list[Finding]) -> tuple[str, ...]:
    wrong: list[str] = []
    names = check_names(read_json(path, list), wrong.append)
    findings += [error(path, "", text) for text in wrong]
    return names


def _sizes(
    path: epath.Path,
    split: str,
    names: list[str],
    photographs: Photographs,
    findings: list[Finding],
) -> dict[str, tuple[int, int]]:
    """(width, height) of every image of which it is known; the others become findings."""
    stated_path = path.parent / f"{split}_image_metadata.json"
    stated = read_json(stated_path, dict) if stated_path.exists() else {}
    paths = {name: photographs.find(name) for name in names}
    if not any(paths.values()):
        results = {name: _stated_size(stated.get(name), stated_path) for name in names}
    else:

        def measure(name: str) -> tuple[int, int] | str:
            if paths[name] is None:
                return f"cannot open the image {name}: it is not in {photographs}; copy it there"
            return _measured_size(name, paths[name], stated.get(name), stated_path)

        with ThreadPoolExecutor(_THREADS) as executor:
            results = dict(zip(names, executor.map(measure, names), strict=True))
    wrong = {name: result for name, result in results.items() if isinstance(result, str)}
    findings += [error(path, f"image {name!r}", text) for name, text in wrong.items()]
    return {name: size for name, size in results.items() if name not in wrong}


def _stated_size(stated: Any, path: epath.Path) -> tuple[int, int] | str:
    entry = stated if isinstance(stated, dict) else {}
    size = entry.get("width"), entry.get("height")
    if not size_problem(*size):
        return size
    return (
        f"there is no photograph, and {path.name} does not state its width and height "
        f"(got {shown(stated)}); name the folder of the photographs"
    )


def _measured_size(
    name: str, photograph: epath.Path, stated: Any, path: epath.Path
) -> tuple[int, int] | str:
    try:
        size = image_size(photograph)
    except ImageError as wrong:
        return str(wrong)
    upright = {"width": size[0], "height": size[1]}
    if stated is None or stated == upright:
        return size
    return (
        f"{name!r} upright is {upright}, but {path.name} says {stated}; "
        "correct the entry if the boxes fit the photograph"
    )


def _annotations(
    path: epath.Path,
    images: dict[str, Any],
    sizes: dict[str, tuple[int, int]],
    vocabulary: Vocabulary,
    findings: list[Finding],
) -> Iterator[Annotation]:
    for name, (width, height) in sizes.items():
        frame = _Frame(width, height, vocabulary)
        wrong = list(_problems(images[name], frame))
        findings += [error(path, f"image {name!r}, {place}", text) for place, text in wrong]
        if not wrong:
            yield _annotation(name, images[name], frame)


def _problems(rows: Any, frame: _Frame) -> Iterator[tuple[str, str]]:
    """(which relation, what is wrong with it)."""
    if not isinstance(rows, list):
        yield "relations", f"{shown(rows)} must be a list"
        return
    for number, row in enumerate(rows):
        row = row if isinstance(row, dict) else {}
        problems = {role: _object_problem(row.get(role), frame) for role in ("subject", "object")}
        count = len(frame.vocabulary.predicates) - 1
        problems["predicate"] = _id_problem(row.get("predicate"), count)
        for role, problem in problems.items():
            if problem:
                yield f"relation {number}, {role}", problem


def _object_problem(entry: Any, frame: _Frame) -> str:
    """Why a subject or object cannot be used, "" if it can."""
    if not isinstance(entry, dict):
        return f"missing (got {shown(entry)})"
    if problem := _id_problem(entry.get("category"), len(frame.vocabulary.objects) - 1):
        return f"category {problem}"
    box = entry.get("bbox")
    if problem := box_problem(box, FORM):
        return f"bbox {problem}"
    if not np.isfinite(box).all():
        return f"bbox {box} must be finite"
    ymin, ymax, xmin, xmax = box
    if min(xmin, ymin) < -1 or xmax > frame.width + 1 or ymax > frame.height + 1:
        limits = f"{frame.width}x{frame.height} (width x height)"
        return f"bbox {box} {FORM} reaches outside the image of {limits}"
    x1, y1, x2, y2 = _box(entry, frame)
    return f"bbox {box} {FORM} is empty" if x1 >= x2 or y1 >= y2 else ""


def _id_problem(value: Any, count: int) -> str:
    known = type(value) is int and 0 <= value < count
    return "" if known else f"{shown(value)} must be an integer from 0 to {count - 1}"


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
        boxes=np.array([box for _, box in objects], np.float64).reshape(-1, 4),
        labels=np.array([label for label, _ in objects], np.int32),
        relations=np.array(relations, np.int32).reshape(-1, 3),
        file_name=name,
    )


def _box(entry: dict, frame: _Frame) -> tuple[float, float, float, float]:
    """xyxy corners; up to a pixel outside, which readers tolerate, is clipped to the image."""
    ymin, ymax, xmin, xmax = entry["bbox"]
    corners, limits = (xmin, ymin, xmax, ymax), (frame.width, frame.height) * 2
    return tuple(float(min(max(v, 0), n)) for v, n in zip(corners, limits, strict=True))


def write(collection: Collection, folder: epath.Path) -> list[str]:
    """Stores the files of all splits; returns what this layout cannot hold, with counts.

    Relations keep their order; objects stand where relations name them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = (collection.vocabulary.objects, collection.vocabulary.predicates)
    for name, listed in zip(_LISTS, names, strict=True):
        (folder / name).write_text(json.dumps(listed[1:]))
    lost = _Lost()
    for split, table in collection.splits.items():
        images, sizes = _stored(table, lost)
        (folder / f"annotations_{split}.json").write_text(json.dumps(images, allow_nan=False))
        (folder / f"{split}_image_metadata.json").write_text(json.dumps(sizes))
    return lost.sentences()


@dataclasses.dataclass
class _Lost:
    """Counts of what a table has and the layout has not."""

    ids: int = 0
    images: int = 0
    unrelated: int = 0
    equal: int = 0
    clipped: int = 0

    def sentences(self) -> list[str]:
        texts = {
            "ids": "image ids became file names",
            "images": "images were left out, as another of their split has the same file name",
            "unrelated": "objects without a relation were left out",
            "equal": "objects were merged with one of the same box and class",
            "clipped": "boxes were clipped to their image",
        }
        counts = dataclasses.asdict(self)
        return [f"{counts[key]} {text}" for key, text in texts.items() if counts[key]]


def _stored(table: AnnotationTable, lost: _Lost) -> tuple[dict, dict]:
    """The two JSON objects of a split."""
    images, sizes = {}, {}
    for a in table:
        name = photograph_name(a)
        lost.ids += name != a.image_id
        if name in images:
            lost.images += 1
            continue
        used = np.unique(a.relations[:, :2])
        boxes = np.clip(a.boxes, 0, (a.width, a.height) * 2)
        distinct = {(*boxes[k], a.labels[k]) for k in used}
        lost.unrelated += len(a.boxes) - len(used)
        lost.equal += len(used) - len(distinct)
        lost.clipped += int((boxes != a.boxes).any(axis=1)[used].sum())
        images[name] = [_row(boxes, a.labels, relation) for relation in a.relations.tolist()]
        sizes[name] = {"width": a.width, "height": a.height}
    return images, sizes


def _row(boxes: np.ndarray, labels: np.ndarray, relation: list[int]) -> dict:
    ends = {}
    for role, k in zip(("subject", "object"), relation[:2], strict=True):
        x1, y1, x2, y2 = boxes[k].tolist()
        ends[role] = {"category": int(labels[k]) - 1, "bbox": [y1, y2, x1, x2]}
    return {"predicate": relation[2] - 1, **ends}
