"""Scene-graph JSON Lines: {train,val,test}.jsonl or .jsonl.gz, an image a line, classes by name.

`vocabulary.json` {"objects": [...], "predicates": [...]} fixes the order of the classes (without
the background); where it is absent, they are the names in all splits, sorted.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

import numpy as np
from etils import epath

from linknet_jax.data.collection import (
    SPLITS,
    AnnotationTable,
    Collection,
    Finding,
    pack,
    raise_errors,
)
from linknet_jax.data.formats.graph_lines import Names, annotation_problem, place
from linknet_jax.data.formats.lines import line_writer, read_lines
from linknet_jax.data.formats.values import check_names, error, read_json, shown, stored_name
from linknet_jax.data.inspection import inspect
from linknet_jax.data.photographs import Photographs
from linknet_jax.types import Annotation, Vocabulary

VOCABULARY = "vocabulary.json"


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
    splits, vocabulary = {}, Vocabulary(*(n.sorted()[0] for n in names))
    for split, table in tables.items():
        table = with_sorted_names(table, *names)
        splits[split], found = inspect(table, vocabulary, str(files[split]))
        findings += found
    return Collection(vocabulary, splits, findings)


def with_sorted_names(table: AnnotationTable, objects: Names, predicates: Names) -> AnnotationTable:
    """The table with the final index of every class, see `Names.sorted`."""
    relations = table.relations.copy()
    relations[:, 2] = predicates.sorted()[1][relations[:, 2]]
    labels = objects.sorted()[1][table.labels]
    return dataclasses.replace(table, labels=labels, relations=relations)


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


def _listed(path: epath.Path, findings: list[Finding]) -> tuple[Names, Names]:
    if not path.exists():
        return Names(), Names()
    lists = read_json(path, dict)
    result = []
    for key in ("objects", "predicates"):
        names = lists.get(key)
        if not isinstance(names, list):
            raise ValueError(f"{path}: {key} must be a list of names, got {shown(names)}")
        wrong: list[str] = []
        result.append(Names(check_names(names, wrong.append), VOCABULARY))
        findings += [error(path, key, text) for text in wrong]
    return tuple(result)


def read_vocabulary(path: epath.Path) -> Vocabulary:
    """The classes of a vocabulary.json; ValueError where it is none."""
    findings: list[Finding] = []
    names = _listed(path, findings)
    raise_errors(findings)
    return Vocabulary(*(n.sorted()[0] for n in names))


def _annotations(
    path: epath.Path, names: tuple[Names, Names], findings: list[Finding]
) -> Iterator[Annotation]:
    for number, record, problem in read_lines(path):
        if problem := problem or annotation_problem(record, *names):
            findings.append(error(path, place(number, record), problem))
        else:
            yield annotation_of(record, *names)


def annotation_of(record: dict, objects: Names, predicates: Names) -> Annotation:
    """The annotation of a line without problems."""
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
        with line_writer(folder / f"{split}.jsonl") as write_line:
            for annotation in table:
                write_line(record_of(annotation, vocabulary))
    return []


def record_of(a: Annotation, vocabulary: Vocabulary) -> dict:
    """The line of an annotation."""
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
