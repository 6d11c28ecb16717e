"""The layout of VG150: VG-SGG.h5, VG-SGG-dicts.json and image_data.json (Xu et al. 2017).

Also other class counts, string ids, float boxes, missing boxes_512 and additional attributes.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from etils import epath

from linknet_jax.data.collection import (
    SPLITS,
    AnnotationTable,
    Collection,
    Finding,
    runs,
    starts,
)
from linknet_jax.data.formats import vg_writer
from linknet_jax.data.formats.values import LARGEST, error, read_json, shown
from linknet_jax.data.formats.vg_boxes import decode
from linknet_jax.data.formats.vg_dicts import read_vocabulary
from linknet_jax.data.formats.vg_writer import EXACT, IMAGES, write
from linknet_jax.data.inspection import inspect
from linknet_jax.data.photographs import Photographs

__all__ = ["read", "recognises", "write"]

H5 = (vg_writer.H5, "VG-SGG-with-attri.h5")
DICTS = (vg_writer.DICTS, "VG-SGG-dicts-with-attri.json")
WITHOUT_ROW = {1592, 1722, 4616, 4617}  # in the official image_data.json, not in its h5
FRAMES = {EXACT: 0, "boxes_1024": 1024, "boxes_512": 512}  # best first; longer side, 0 = pixels
RANGES = ("img_to_first_box", "img_to_last_box", "img_to_first_rel", "img_to_last_rel")
NEEDED = (*RANGES, "labels", "predicates", "relationships", "split")


def read(folder: epath.Path, photographs: Photographs) -> Collection:
    """Every image of the files; split 0 is train, 1 val, 2 test.

    ValueError where a file is missing, damaged or inconsistent as a whole.
    """
    del photographs  # sizes are in image_data.json
    h5_path, dicts_path = (_existing(folder, names) for names in (H5, DICTS))
    vocabulary, images = read_vocabulary(dicts_path), _json(folder / IMAGES, list)
    arrays = _arrays(h5_path)
    images = _images(images, len(arrays["split"]), folder / IMAGES)
    findings = [error(folder / IMAGES, *problem) for problem in _image_problems(images)]
    if findings:
        return Collection(vocabulary, {}, findings)
    table, wrong = _table(arrays, images)
    findings = [
        error(h5_path, f"image {images[row]['image_id']!r}, row {row}", f"{text} in {h5_path.name}")
        for row, text in wrong
    ]
    findings += [] if wrong else _unused(arrays, table, h5_path)
    table = table.select(np.setdiff1d(table.rows, [row for row, _ in wrong]))
    split = arrays["split"][table.rows]
    # Its boxes were cut to the square around the image, so that some miss the image itself.
    table, found = inspect(table, vocabulary, str(h5_path), outside="warning")
    split = split[table.rows]
    splits = {name: table.select(np.flatnonzero(split == k)) for k, name in enumerate(SPLITS)}
    splits = {k: t for k, t in splits.items() if len(t)}
    return Collection(vocabulary, splits, findings + found, relative=bool(arrays["frame"]))


def recognises(folder: epath.Path) -> bool:
    """Whether the folder has an h5 of this layout."""
    return any((folder / name).exists() for name in H5)


def _existing(folder: epath.Path, names: tuple[str, ...]) -> epath.Path:
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise ValueError(
        f"{folder}: no {' or '.join(names)}; a folder of this layout holds {H5[0]}, {DICTS[0]} "
        f"and {IMAGES}: set --config.data.dir=FOLDER"
    )


def _json(path: epath.Path, kind: type) -> Any:
    if not path.exists():
        raise ValueError(f"{path} is missing; a folder of this layout holds it beside {H5[0]}")
    return read_json(path, kind)


def _arrays(path: epath.Path) -> dict[str, np.ndarray]:
    """The datasets of the h5 by name, boxes as `boxes` in the frame `frame`; 0 = pixels."""
    try:
        with path.open("rb") as file, h5py.File(file, "r") as h5:
            boxes = next((name for name in FRAMES if name in h5), "boxes_1024")
            stored = list(h5)
            arrays = {k: np.asarray(h5[k][...]) for k in (*NEEDED, boxes) if k in stored}
    except Exception as wrong:  # damaged bytes surface as errors of any type
        raise ValueError(f"{path} is no complete HDF5 file: {wrong}; copy it again") from wrong
    missing = [name for name in (*NEEDED, boxes) if name not in arrays]
    if missing:
        raise ValueError(f"{path}: no dataset {', '.join(missing)}; has {stored}")
    arrays |= {"boxes": arrays.pop(boxes), "frame": np.array(FRAMES[boxes])}
    _check_arrays(arrays, path)
    return arrays


def _check_arrays(arrays: dict[str, np.ndarray], path: epath.Path) -> None:
    """ValueError where lengths or types disagree, which would shift every later image."""
    boxes, relations, images = (
        arrays[name].shape[0] if arrays[name].ndim else 0
        for name in ("boxes", "relationships", "split")
    )
    expected = {"boxes": (boxes, 4), "labels": (boxes, 1), "relationships": (relations, 2)}
    expected |= {"predicates": (relations, 1)}
    expected |= {name: (images, 1) for name in (*RANGES, "split")}
    for name, shape in expected.items():
        array = arrays[name]
        if array.size != np.prod(shape) or array.shape[:1] != shape[:1]:
            raise ValueError(f"{path}: {name} has shape {list(array.shape)}, expected {shape}")
        whole = np.issubdtype(array.dtype, np.integer)
        if not whole and not (name == "boxes" and np.issubdtype(array.dtype, np.floating)):
            raise ValueError(f"{path}: {name} has dtype {array.dtype}, expected integers")
        if whole and array.size and not -LARGEST <= array.min() <= array.max() <= LARGEST:
            raise ValueError(f"{path}: {name} has {array.min()} .. {array.max()}: over 32 bits")
        arrays[name] = array.reshape(shape if shape[1] > 1 else shape[0])
    unknown = np.setdiff1d(arrays["split"], range(len(SPLITS)))
    if len(unknown):
        raise ValueError(f"{path}: split has {unknown.tolist()}; 0 is train, 1 val, 2 test")


def _images(images: list, count: int, path: epath.Path) -> list:
    """The entries that belong to the rows of the h5, one for one."""
    if len(images) == count + len(WITHOUT_ROW):
        images = [x for x in images if not _without_row(x)]
    if len(images) != count:
        raise ValueError(
            f"{path} has {len(images)} images, but the h5 has {count} rows: every annotation "
            "would be shifted; take both files from one release"
        )
    return images


def _without_row(image: Any) -> bool:
    return isinstance(image, dict) and image.get("image_id") in WITHOUT_ROW


def _image_problems(images: list) -> list[tuple[str, str]]:
    """(where, what) of entries that lack an id or a size, or name no file."""
    problems = []
    for row, image in enumerate(images):
        image = image if isinstance(image, dict) else {}
        values = [image.get(key) for key in ("image_id", "width", "height")]
        kinds, name = [type(v) for v in values], image.get("file_name", "")
        known = kinds[0] in (int, str) and kinds[1:] == [int, int] and isinstance(name, str)
        if not known or max(map(abs, values[1:])) > LARGEST:
            what = f"image_id, width, height, file_name are {shown([*values, name])}"
            problems.append((f"entry {row}", f"{what}; needs two integers of pixels, names"))
    return problems


def _table(arrays: dict, images: list) -> tuple[AnnotationTable, list[tuple[int, str]]]:
    """The packed annotations of all rows, and (row, what) of those whose ranges are wrong."""
    boxes, relations = arrays["boxes"], arrays["relationships"]
    first_box, box_counts, bad_boxes = _ranges(arrays, "box", len(boxes))
    first_rel, rel_counts, bad_rels = _ranges(arrays, "rel", len(relations))
    wrong = [
        (int(row), f"the range of its {what} leaves the file or is another image's too")
        for what, rows in (("boxes", bad_boxes), ("relations", bad_rels))
        for row in rows
    ]
    sizes = np.array([(x["width"], x["height"]) for x in images], np.int32).reshape(-1, 2)
    box_rows, rel_rows = runs(first_box, box_counts), runs(first_rel, rel_counts)
    if arrays["frame"]:
        scale = sizes.max(axis=1).repeat(box_counts)[:, None] / float(arrays["frame"])
        pixels = decode(boxes[box_rows]) * scale
    else:
        pixels = np.asarray(boxes[box_rows], np.float64)
    local = relations[rel_rows] - first_box.repeat(rel_counts)[:, None]
    table = AnnotationTable(
        image_ids=[x["image_id"] for x in images],
        file_names=[x.get("file_name", "") for x in images],
        sizes=sizes,
        boxes=pixels,
        labels=arrays["labels"][box_rows].astype(np.int32),
        box_start=starts(box_counts),
        relations=np.column_stack([local, arrays["predicates"][rel_rows]]).astype(np.int32),
        relation_start=starts(rel_counts),
        rows=np.arange(len(images)),
    )
    return table, wrong


def _ranges(arrays: dict, kind: str, total: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(first, count, rows that are wrong) of every image's boxes or relations; -1 is none."""
    first, last = (arrays[f"img_to_{end}_{kind}"].astype(np.int64) for end in ("first", "last"))
    absent = (first < 0) & (last < 0)
    wrong = ~absent & ((first < 0) | (last < first) | (last >= total))
    counts = np.where(absent | wrong, 0, last - first + 1)
    rows = runs(first, counts)
    shared = np.bincount(rows)[rows] > 1  # by several images
    wrong[np.repeat(np.arange(len(counts)), counts)[shared]] = True
    counts[wrong] = 0
    return np.where(counts > 0, first, 0), counts, np.flatnonzero(wrong)


def _unused(arrays: dict, table: AnnotationTable, path: epath.Path) -> list[Finding]:
    """Warnings about boxes and relations in no image's range, as if ranges began too late."""
    used = {"labels": len(table.labels), "predicates": len(table.relations)}
    return [
        Finding("warning", str(path), name, f"{unused} of {len(arrays[name])} rows are in no "
                "image's range and not used; copy the file again unless that is on purpose")
        for name, count in used.items()
        if (unused := len(arrays[name]) - count)
    ]  # fmt: skip
