"""Scene-graph JSON Lines: {train,val,test}.jsonl or .jsonl.gz, an image a line, classes by name.

`vocabulary.json` {"objects": [...], "predicates": [...]} fixes the order of the classes (without
the background); where it is absent, they are the names in all splits, sorted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from linknet_jax.data.collection import BACKGROUND, SPLITS, Collection, Finding, pack
from linknet_jax.data.formats.values import (
    box_problem,
    check_names,
    error,
    id_problem,
    integer_problem,
    read_json,
    shown,
    size_problem,
    stored_name,
)
from linknet_jax.data.inspection import inspect
from linknet_jax.data.photographs import Photographs
from linknet_jax.types import Annotation, Vocabulary

VOCABULARY = "vocabulary.json"


class _Names:
    """Index of each class name, in the order of appearance unless the list is fixed."""

    def __init__(self, listed: tuple[str, ...] | None):
        self.index = {name: k for k, name in enumerate(listed or (BACKGROUND,))}
        self.fixed = listed is not None

    def problem(self, name: Any) -> str:
        if not isinstance(name, str) or not name or name == BACKGROUND:
            return f"{shown(name)} must be the name of a class"
        if name not in self.index and self.fixed:
            return f"{name!r} is not in {VOCABULARY}"
        return ""

    def __getitem__(self, name: str) -> int:
        return self.index.setdefault(name, len(self.index))

    def sorted(self) -> tuple[tuple[str, ...], np.ndarray]:
        """The final list, and the final index of every index given out."""
        if self.fixed:
            return tuple(self.index), np.arange(len(self.index), dtype=np.int32)
        names = (BACKGROUND, *sorted(name for name in self.index if name != BACKGROUND))
        final = {name: k for k, name in enumerate(names)}
        return names, np.array([final[name] for name in self.index], np.int32)


def read(folder: epath.Path, photographs: Photographs) -> Collection:
    """All splits of a folder.

    A line that is wrong is a finding, and its image is left out. ValueError for a folder without
    such files, and for compressed files that are damaged.
    """
    del photographs  # sizes are in the lines
    findings: list[Finding] = []
    files = _files(folder)
    names = _listed(folder / VOCABULARY, findings)
    tables = {s: pack(_annotations(path, names, findings)) for s, path in files.items()}
    objects, predicates = (n.sorted() for n in names)
    vocabulary = Vocabulary(objects[0], predicates[0])
    splits = {}
    for split, table in tables.items():
        relations = table.relations.copy()
        relations[:, 2] = predicates[1][relations[:, 2]]
        table = dataclasses.replace(table, labels=objects[1][table.labels], relations=relations)
        splits[split], found = inspect(table, vocabulary, str(files[split]))
        findings += found
    return Collection(vocabulary, splits, findings)


def recognises(folder: epath.Path) -> bool:
    """Whether the folder has the file of a split."""
    return any((folder / f"{s}.jsonl{gz}").exists() for s in SPLITS for gz in ("", ".gz"))


def _files(folder: epath.Path) -> dict[str, epath.Path]:
    files = {}
    for split in SPLITS:
        paths = [folder / f"{split}{ending}" for ending in (".jsonl", ".jsonl.gz")]
        present = [path for path in paths if path.exists()]
        if len(present) > 1:
            raise ValueError(f"{folder}: both {split}.jsonl and {split}.jsonl.gz; keep one")
        if present:
            files[split] = present[0]
    if not files:
        raise ValueError(f"{folder}: no train.jsonl, val.jsonl or test.jsonl (or .jsonl.gz)")
    return files


def _listed(path: epath.Path, findings: list[Finding]) -> tuple[_Names, _Names]:
    if not path.exists():
        return _Names(None), _Names(None)
    lists = read_json(path, dict)
    result = []
    for key in ("objects", "predicates"):
        names = lists.get(key)
        if not isinstance(names, list):
            raise ValueError(f"{path}: {key} must be a list of names, got {shown(names)}")
        wrong: list[str] = []
        result.append(_Names(check_names(names, wrong.append)))
        findings += [error(path, key, text) for text in wrong]
    return tuple(result)


def _annotations(
    path: epath.Path, names: tuple[_Names, _Names], findings: list[Finding]
) -> Iterator[Annotation]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            record = json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError) as wrong:
            findings.append(error(path, where, f"is no JSON: {wrong}; write the line again"))
            continue
        where += f", image {shown(record.get('image_id'))}" if isinstance(record, dict) else ""
        if problem := _problem(record, *names):
            findings.append(error(path, where, problem))
        else:
            yield _annotation(record, *names)


def _lines(path: epath.Path) -> Iterator[bytes]:
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        if path.suffix == ".gz":
            file = stack.enter_context(gzip.open(file))
        try:
            yield from file
        except (EOFError, zlib.error, gzip.BadGzipFile) as wrong:
            raise ValueError(f"{path} is no complete gzip file: {wrong}; copy it again") from wrong


def _problem(record: Any, objects: _Names, predicates: _Names) -> str:
    """Why a line cannot be used, "" if it can."""
    if not isinstance(record, dict):
        form = "image_id, width, height, objects, relations"
        return f"must be an object with {form}; got {shown(record)}"
    if problem := id_problem(record.get("image_id")):
        return problem
    if problem := size_problem(record.get("width"), record.get("height")):
        return problem
    if not isinstance(record.get("file_name", ""), str):
        return f"file_name {shown(record['file_name'])} must be a string"
    for key in ("objects", "relations"):
        if not isinstance(record.get(key), list):
            return f"{key} must be a list, got {shown(record.get(key))}"
    for number, entry in enumerate(record["objects"]):
        if problem := _object_problem(entry, objects):
            return f"object {number}, {problem}"
    for number, entry in enumerate(record["relations"]):
        if problem := _relation_problem(entry, len(record["objects"]), predicates):
            return f"relation {number}, {problem}"
    return ""


def _object_problem(entry: Any, names: _Names) -> str:
    if not isinstance(entry, dict):
        return f"{shown(entry)} must be an object with box and label"
    if problem := box_problem(entry.get("box"), "[x1, y1, x2, y2]"):
        return f"box {problem}"
    problem = names.problem(entry.get("label"))
    return problem and f"label {problem}"


def _relation_problem(entry: Any, count: int, names: _Names) -> str:
    if not isinstance(entry, dict):
        return f"{shown(entry)} must be an object with subject, predicate and object"
    for role in ("subject", "object"):
        value = entry.get(role)
        if integer_problem(value) or not 0 <= value < count:
            return f"{role} {shown(value)} must be one of the line's {count} objects, from 0"
    problem = names.problem(entry.get("predicate"))
    return problem and f"predicate {problem}"


def _annotation(record: dict, objects: _Names, predicates: _Names) -> Annotation:
    relations = [
        (r["subject"], r["object"], predicates[r["predicate"]]) for r in record["relations"]
    ]
    return Annotation(
        image_id=record["image_id"],
        width=record["width"],
        height=record["height"],
        boxes=np.array([o["box"] for o in record["objects"]], np.float64).reshape(-1, 4),
        labels=np.array([objects[o["label"]] for o in record["objects"]], np.int32),
        relations=np.array(relations, np.int32).reshape(-1, 3),
        file_name=stored_name(record["image_id"], record.get("file_name", "")),
    )


def write(collection: Collection, folder: epath.Path) -> list[str]:
    """Stores a file a split and vocabulary.json; nothing is lost."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = collection.vocabulary
    lists = {"objects": vocabulary.objects[1:], "predicates": vocabulary.predicates[1:]}
    (folder / VOCABULARY).write_text(json.dumps(lists, indent=1))
    for split, table in collection.splits.items():
        with (folder / f"{split}.jsonl").open("w") as file:
            for annotation in table:
                file.write(json.dumps(_record(annotation, vocabulary), allow_nan=False) + "\n")
    return []


def _record(a: Annotation, vocabulary: Vocabulary) -> dict:
    name = {"file_name": a.file_name} if a.file_name else {}
    objects = zip(a.boxes.tolist(), a.labels.tolist(), strict=True)
    return {
        "image_id": a.image_id,
        **name,
        "width": a.width,
        "height": a.height,
        "objects": [{"box": box, "label": vocabulary.objects[k]} for box, k in objects],
        "relations": [
            {"subject": s, "predicate": vocabulary.predicates[p], "object": o}
            for s, o, p in a.relations.tolist()
        ],
    }
