"""COCO json with relations, as SGG-Annotate and SGG-Benchmark (their VG150, PSG, IndoorVG) have it.

One file a split: `images`, `annotations` (bbox [x, y, width, height]), `categories`, and
`rel_categories` (id, name), `rel_annotations` (image_id, subject_id, object_id, predicate_id),
where subject and object are ids of annotations of that image. Class ids may be any integers: the
vocabulary has the listed order, and an entry 0 named background is the implied one.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from etils import epath

from linknet_jax.data import json_stream
from linknet_jax.data.collection import (
    BACKGROUND,
    SPLITS,
    AnnotationTable,
    Collection,
    Finding,
    starts,
)
from linknet_jax.data.formats.coco_columns import EXACT, Columns
from linknet_jax.data.formats.values import check_names, error, integer_problem, shown
from linknet_jax.data.inspection import inspect
from linknet_jax.data.photographs import Photographs, photograph_name
from linknet_jax.types import Annotation, Vocabulary

_WORDS = {
    **{"train": "train", "training": "train", "test": "test", "testing": "test"},
    **{"val": "val", "valid": "val", "validation": "val"},
}
_LAYOUT = "train.json, val.json, test.json or {train,val,test}/_annotations.coco.json"
_LOOKED_AT = 100  # photographs tried to find the folder of a split


def read(folder: epath.Path, photographs: Photographs) -> Collection:
    """All splits of a folder; the files are streamed, so that memory holds the packed arrays only.

    A split is told by its file's name (train.json, instances_val2017.json) or folder
    (valid/_annotations.coco.json). ValueError for files that are missing or no JSON.
    """
    findings: list[Finding] = []
    vocabulary, splits = None, {}
    for split, path in _files(folder).items():
        objects = _classes(path, "categories", findings)
        predicates = _classes(path, "rel_categories", findings)
        own = Vocabulary(*((BACKGROUND, *x.values()) for x in (objects, predicates)))
        vocabulary = vocabulary or own
        difference = _difference(own, vocabulary)
        findings += [error(path, "", text) for text in difference]
        if not difference:
            table, found = _table(path, (objects, predicates), vocabulary)
            splits[split] = _with_folder(table, folder, path, photographs)
            findings += found
    return Collection(vocabulary, splits, findings)


def recognises(folder: epath.Path) -> bool:
    """Whether file names look like this layout; VRD's do as well."""
    return bool(_candidates(folder))


def _files(folder: epath.Path) -> dict[str, epath.Path]:
    """The file of each split."""
    candidates = _candidates(folder)
    if not candidates:
        raise ValueError(f"{folder}: no file of a split; name them {_LAYOUT}")
    for split, paths in candidates.items():
        if len(paths) > 1:
            listed = shown([str(path.relative_to(folder)) for path in paths])
            raise ValueError(
                f"{folder}: {len(paths)} files for the split {split}, {listed}; keep one of them"
            )
    return {split: paths[0] for split, paths in candidates.items()}


def _candidates(folder: epath.Path) -> dict[str, list[epath.Path]]:
    """The files that may be those of each split."""
    found: dict[str, list[epath.Path]] = {}
    for place in ("", "annotations", *_WORDS):
        for path in sorted((folder / place).glob("*.json")) if (folder / place).is_dir() else ():
            split = _split(path.stem) or _split(place)
            found.setdefault(split, []).append(path)
    return {split: found[split] for split in SPLITS if split in found}


def _split(name: str) -> str:
    """`instances_val2017` to `val`; "" unless exactly one split is named."""
    named = {_WORDS[word] for word in re.findall("[a-z]+", name.lower()) if word in _WORDS}
    return named.pop() if len(named) == 1 else ""


def _records(path: epath.Path, section: str) -> Iterator[Any]:
    try:
        yield from json_stream.items(path, f"{section}.item")
    except json_stream.DamagedError as wrong:
        raise ValueError(f"{path} is no JSON file: {_where(path, wrong)}") from wrong


def _where(path: epath.Path, wrong: json_stream.DamagedError) -> str:
    """Line and column, which the streaming parser does not know."""
    place = f"{wrong.reason} ({wrong.place})"
    if isinstance(wrong.__cause__, RecursionError):
        return place
    try:
        json.loads(path.read_text())
    except (ValueError, RecursionError) as exact:
        return f"{exact}; write or copy it again"
    return f"{place}; NaN, Infinity and integers of more than 64 bits cannot be read: remove them"


def _classes(path: epath.Path, section: str, findings: list[Finding]) -> dict[int, str]:
    """Name of every class id, the background's excepted, in the listed order."""
    classes: dict[int, str] = {}
    for number, record in enumerate(_records(path, section)):
        record = record if isinstance(record, dict) else {}
        key, name = record.get("id"), record.get("name")
        where = f"{section}[{number}]"
        if problem := integer_problem(key):
            findings.append(error(path, where, f"id {problem}"))
        elif key in classes:
            findings.append(error(path, where, f"id {key} stands twice"))
        elif (key, str(name).strip("_").lower()) != (0, "background"):
            classes[key] = name
    if not classes:
        findings.append(error(path, section, "has no class; list every class as {id, name}"))
    wrong: list[str] = []
    names = check_names(list(classes.values()), wrong.append)
    findings += [error(path, section, text) for text in wrong]
    return {key: name for key, name in classes.items() if name in names}


def _difference(own: Vocabulary, first: Vocabulary) -> list[str]:
    """What sets a file's class lists apart from the first file's; their order may differ."""
    texts = []
    for section in ("objects", "predicates"):
        here, there = set(getattr(own, section)), set(getattr(first, section))
        if here != there:
            texts.append(
                f"the {section} must be those of the other splits' files: not there "
                f"{sorted(here - there)}, only there {sorted(there - here)}"
            )
    return texts


def _table(
    path: epath.Path, classes: tuple[dict[int, str], dict[int, str]], vocabulary: Vocabulary
) -> tuple[AnnotationTable, list[Finding]]:
    indices = []
    for names, order in zip(classes, (vocabulary.objects, vocabulary.predicates), strict=True):
        index = {name: i for i, name in enumerate(order)}
        indices.append({key: index[name] for key, name in names.items()})
    columns = Columns(path, *indices)
    for section, add in (
        ("images", columns.add_image),
        ("annotations", columns.add_box),
        ("rel_annotations", columns.add_relation),
    ):
        number = -1
        for number, record in enumerate(_records(path, section)):
            add(number, record if isinstance(record, dict) else {})
        if number < 0:
            columns.findings.append(Finding("warning", str(path), section, "has no entry"))
    table, found = inspect(columns.table(), vocabulary, str(path))
    return table, columns.findings + found


def _with_folder(
    table: AnnotationTable, folder: epath.Path, path: epath.Path, photographs: Photographs
) -> AnnotationTable:
    """File names with the split's folder before them, if the photographs lie in there."""
    parent = path.parent.name
    if path.parent == folder or parent == "annotations":
        return table
    first = [photograph_name(table[i]) for i in range(min(len(table), _LOOKED_AT))]
    if any(map(photographs.find, first)):
        return table
    if not any(photographs.find(f"{parent}/{name}") for name in first):
        return table
    pairs = zip(table.image_ids, table.file_names, strict=True)
    names = [f"{parent}/{name or f'{image_id}.jpg'}" for image_id, name in pairs]
    return dataclasses.replace(table, file_names=names)


def write(collection: Collection, folder: epath.Path) -> list[str]:
    """Stores train.json, val.json and test.json, a record a line; nothing is lost.

    Boxes whose x + width is not exactly x2 carry their corners as `bbox_xyxy` in addition.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for split, table in collection.splits.items():
        with (folder / f"{split}.json").open("w") as file:
            _write_file(file, table, collection.vocabulary)
    return []


def _write_file(file: TextIO, table: AnnotationTable, vocabulary: Vocabulary) -> None:
    counts = (table.box_counts, table.relation_counts)
    first_box, first_relation = (starts(c).tolist() for c in counts)
    sections = {
        "categories": _class_records(vocabulary.objects),
        "rel_categories": _class_records(vocabulary.predicates),
        "images": map(_image_record, table),
        "annotations": (r for k, a in enumerate(table) for r in _box_records(a, 1 + first_box[k])),
        "rel_annotations": (
            r
            for k, a in enumerate(table)
            for r in _relation_records(a, 1 + first_box[k], 1 + first_relation[k])
        ),
    }
    for separator, (section, records) in zip("{,,,,", sections.items(), strict=True):
        file.write(f'{separator}"{section}": [')
        for number, record in enumerate(records):
            file.write((",\n" if number else "\n") + json.dumps(record, allow_nan=False))
        file.write("]\n")
    file.write("}\n")


def _class_records(names: tuple[str, ...]) -> Iterator[dict]:
    return ({"id": k, "name": name} for k, name in enumerate(names) if k)


def _image_record(a: Annotation) -> dict:
    name = photograph_name(a)
    return {"id": a.image_id, "file_name": name, "width": a.width, "height": a.height}


def _box_records(a: Annotation, first: int) -> Iterator[dict]:
    for k, (box, label) in enumerate(zip(a.boxes.tolist(), a.labels.tolist(), strict=True)):
        x1, y1, x2, y2 = box
        bbox = [x1, y1, x2 - x1, y2 - y1]
        record = {"id": first + k, "image_id": a.image_id, "category_id": label, "bbox": bbox}
        if [x1 + bbox[2], y1 + bbox[3]] != [x2, y2]:
            record[EXACT] = box
        yield record | {"area": bbox[2] * bbox[3], "iscrowd": 0}


def _relation_records(a: Annotation, first_box: int, first: int) -> Iterator[dict]:
    for k, (subject, object_, predicate) in enumerate(a.relations.tolist()):
        yield {
            "id": first + k,
            "image_id": a.image_id,
            "subject_id": first_box + subject,
            "object_id": first_box + object_,
            "predicate_id": predicate,
        }
