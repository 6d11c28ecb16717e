"""Any data set to the layout of VG150, read again without loss."""

from __future__ import annotations

import json

import h5py
import numpy as np
from etils import epath

from linknet_jax.data.collection import SPLITS, AnnotationTable, Collection, compact, starts
from linknet_jax.data.formats.vg_boxes import decode, encode
from linknet_jax.data.formats.vg_dicts import class_dicts
from linknet_jax.types import Vocabulary

H5, DICTS, IMAGES = "VG-SGG.h5", "VG-SGG-dicts.json", "image_data.json"
EXACT = "boxes_xyxy"  # float64 pixels, where the whole numbers would round


def write(collection: Collection, folder: epath.Path) -> list[str]:
    """Stores the three files; nothing is lost, as float64 boxes go in where integers round."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {k: compact(t) for k, t in collection.splits.items()}
    images = [_image(t, row) for t in tables.values() for row in range(len(t))]
    (folder / IMAGES).write_text(json.dumps(images))
    (folder / DICTS).write_text(json.dumps(_dicts(collection.vocabulary, tables)))
    with (folder / H5).open("wb") as file, h5py.File(file, "w") as h5:
        for name, values in _stored(tables).items():
            h5.create_dataset(name, data=values, compression="gzip")
    return []


def _image(table: AnnotationTable, row: int) -> dict:
    width, height = map(int, table.sizes[row])
    name = table.file_names[row]
    return {"image_id": table.image_ids[row], "width": width, "height": height} | (
        {"file_name": name} if name else {}
    )


def _dicts(vocabulary: Vocabulary, tables: dict[str, AnnotationTable]) -> dict:
    result = class_dicts(vocabulary)
    for key, names, values in (
        ("object_count", vocabulary.objects, [t.labels for t in tables.values()]),
        ("predicate_count", vocabulary.predicates, [t.relations[:, 2] for t in tables.values()]),
    ):
        counts = np.bincount(np.concatenate([[0], *values]), minlength=len(names))
        result[key] = {name: int(counts[k]) for k, name in enumerate(names) if k}
    return result


def _stored(tables: dict[str, AnnotationTable]) -> dict[str, np.ndarray]:
    """The datasets of the h5, the splits one after the other."""
    ordered = list(tables.values())
    box_counts = np.concatenate([t.box_counts for t in ordered])
    rel_counts = np.concatenate([t.relation_counts for t in ordered])
    boxes = np.concatenate([t.boxes for t in ordered])
    relations = np.concatenate([t.relations for t in ordered])
    sides = np.concatenate([t.sizes for t in ordered]).max(axis=1).repeat(box_counts)
    first_box, first_rel = starts(box_counts)[:-1], starts(rel_counts)[:-1]
    result = {f"boxes_{frame}": encode(boxes, sides, frame) for frame in (512, 1024)}
    back = decode(result["boxes_1024"]) * (sides / 1024.0)[:, None]
    if not np.array_equal(back, boxes):
        result[EXACT] = boxes
    return result | {
        "labels": np.concatenate([t.labels for t in ordered])[:, None],
        "predicates": relations[:, 2:],
        "relationships": np.int32(relations[:, :2] + first_box.repeat(rel_counts)[:, None]),
        "split": np.repeat([SPLITS.index(k) for k in tables], [len(t) for t in ordered]),
        **_ends("box", first_box, box_counts),
        **_ends("rel", first_rel, rel_counts),
    }


def _ends(kind: str, first: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """First and last row of every image, -1 where it has none."""
    last = np.where(counts > 0, first + counts - 1, -1)
    return {
        f"img_to_first_{kind}": np.where(counts > 0, first, -1).astype(np.int32),
        f"img_to_last_{kind}": last.astype(np.int32),
    }
