"""The layout of VG150: VG-SGG.h5, VG-SGG-dicts.json and image_data.json (Xu et al. 2017).

Also other class counts, string ids, float boxes, missing boxes_512 and additional attributes.
"""

from __future__ import annotations

import json
from typing import Any

import h5py
import numpy as np
from etils import epath
from jaxtyping import Float, Int

from linknet_jax.data.collection import (
    BACKGROUND,
    SPLITS,
    AnnotationTable,
    Collection,
    Finding,
    compact,
    runs,
    starts,
)
from linknet_jax.data.formats.values import LARGEST, read_json, shown
from linknet_jax.data.inspection import inspect
from linknet_jax.data.photographs import Photographs
from linknet_jax.types import Vocabulary

H5 = ("VG-SGG.h5", "VG-SGG-with-attri.h5")
DICTS = ("VG-SGG-dicts.json", "VG-SGG-dicts-with-attri.json")
IMAGES = "image_data.json"
WITHOUT_ROW = {1592, 1722, 4616, 4617}  # in the official image_data.json, not in its h5
EXACT = "boxes_xyxy"  # of `write`: float64 pixels, where the integers would round
FRAMES = {EXACT: 0, "boxes_1024": 1024, "boxes_512": 512}  # best first; longer side, 0 = pixels
RANGES = ("img_to_first_box", "img_to_last_box", "img_to_first_rel", "img_to_last_rel")
NEEDED = (*RANGES, "labels", "predicates", "relationships", "split")


def decode(boxes: np.ndarray) -> Float[np.ndarray, "n 4"]:
    """Stored (cx, cy, w, h) to xyxy; whole numbers are truncated as peers do (METHOD 4.2)."""
    boxes = np.asarray(boxes).reshape(-1, 4)
    low = boxes[:, :2] - boxes[:, 2:] / 2
    if np.issubdtype(boxes.dtype, np.integer):
        low = np.trunc(low) + 0.0  # 0 for -0
    return np.concatenate([low, low + boxes[:, 2:]], axis=1).astype(np.float64)


def encode(
    boxes: Float[np.ndarray, "n 4"], sides: Int[np.ndarray, "n"], frame: int
) -> Int[np.ndarray, "n 4"]:
    """xyxy pixels of images with these longer sides to what `decode` gives back where it can."""
    scaled = np.nan_to_num(boxes) * (frame / sides)[:, None]
    low = np.clip(np.floor(scaled[:, :2] + 1e-6), 0, frame - 1)
    size = np.ceil(scaled[:, 2:] - scaled[:, :2] - 1e-6)
    size = np.clip(size, 1, frame - low)
    half = np.where(low > 0, np.ceil(size / 2), np.floor(size / 2))
    return np.concatenate([low + half, size], axis=1).astype(np.int32)


def read(folder: epath.Path, photographs: Photographs) -> Collection:
    """Every image of the files; split 0 is train, 1 val, 2 test.

    ValueError where a file is missing, damaged or inconsistent as a whole.
    """
    del photographs  # sizes are in image_data.json
    h5_path, dicts_path = (_existing(folder, names) for names in (H5, DICTS))
    vocabulary, images = read_vocabulary(dicts_path), _json(folder / IMAGES, list)
    arrays = _arrays(h5_path)
    images = _images(images, len(arrays["split"]), folder / IMAGES)
    findings = [Finding("error", str(folder / IMAGES), w, m) for w, m in _image_problems(images)]
    if findings:
        return Collection(vocabulary, {}, findings)
    table, wrong = _table(arrays, images)
    problems = [(row, f"{text} in {h5_path.name}") for row, text in wrong]
    findings = [
        Finding("error", str(h5_path), f"image {images[row]['image_id']!r}, row {row}", message)
        for row, message in problems
    ]
    findings += [] if wrong else _unused(arrays, table, h5_path)
    table = table.select(np.setdiff1d(table.rows, [row for row, _ in wrong]))
    split = arrays["split"][table.rows]
    # Its boxes were cut to the square around the image, so that some miss the image itself.
    table, found = inspect(table, vocabulary, str(h5_path), outside="warning")
    kept = split[np.isin(np.arange(len(split)), table.rows)]
    splits = {name: table.select(np.flatnonzero(kept == k)) for k, name in enumerate(SPLITS)}
    splits = {k: t for k, t in splits.items() if len(t)}
    return Collection(vocabulary, splits, findings + found, relative=bool(arrays["frame"]))


def recognises(folder: epath.Path) -> bool:
    """Whether the folder has an h5 of this layout."""
    return any((folder / name).exists() for name in H5)


def write(collection: Collection, folder: epath.Path) -> list[str]:
    """Stores the three files; nothing is lost, as float64 boxes go in where integers round."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {k: compact(t) for k, t in collection.splits.items()}
    images = [_image(t, row) for t in tables.values() for row in range(len(t))]
    (folder / IMAGES).write_text(json.dumps(images))
    (folder / DICTS[0]).write_text(json.dumps(_dicts(collection.vocabulary, tables)))
    with (folder / H5[0]).open("wb") as file, h5py.File(file, "w") as h5:
        for name, values in _stored(tables).items():
            h5.create_dataset(name, data=values, compression="gzip")
    return []


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


def read_vocabulary(path: epath.Path) -> Vocabulary:
    """The classes of a VG-SGG-dicts.json; ValueError where its numbers have gaps or disagree."""
    tables = _json(path, dict)
    return Vocabulary(*(_names(tables, key, path) for key in ("label", "predicate")))


def _names(tables: dict, key: str, path: epath.Path) -> tuple[str, ...]:
    """Names in the order of their indices, which must be 1 .. C without a gap."""
    index = tables.get(f"{key}_to_idx")
    if not isinstance(index, dict) or not all(type(v) is int for v in index.values()):
        raise ValueError(f"{path}: {key}_to_idx must map names to integers, got {shown(index)}")
    numbers = sorted(index.values())
    first = int(0 not in numbers)  # some files list the background
    if numbers != list(range(first, first + len(numbers))) or index.get(BACKGROUND, 0) != 0:
        raise ValueError(
            f"{path}: {key}_to_idx must number its names 1 .. {len(index)} without gap or "
            f"repetition (0 is {BACKGROUND}), got {numbers[:10]} ..."
        )
    names = {v: name for name, v in index.items() if v}
    back = tables.get(f"idx_to_{key}", {})
    if not isinstance(back, dict):
        raise ValueError(f"{path}: idx_to_{key} must map numbers to names, got {shown(back)}")
    forth = {str(v): name for v, name in names.items()}
    back = {k: name for k, name in back.items() if k != "0"}
    wrong = sorted(k for k in back.keys() | forth.keys() if back.get(k) != forth.get(k))
    if back and wrong:
        raise ValueError(
            f"{path}: {key}_to_idx and idx_to_{key} disagree on index {wrong[0]}: "
            f"{forth.get(wrong[0])!r} and {shown(back.get(wrong[0]))}; take both from one release"
        )
    return (BACKGROUND, *(names[k] for k in sorted(names)))


def _arrays(path: epath.Path) -> dict[str, np.ndarray]:
    """The datasets of the h5 by name, boxes as `boxes` in the frame `frame`; 0 = pixels."""
    try:
        with path.open("rb") as file, h5py.File(file, "r") as h5:
            boxes = next((name for name in FRAMES if name in h5), "boxes_1024")
            stored = list(h5)
            arrays = {k: np.asarray(h5[k][...]) for k in (*NEEDED, boxes) if k in stored}
    except Exception as error:  # damaged bytes surface as errors of any type
        raise ValueError(f"{path} is no complete HDF5 file: {error}; copy it again") from error
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


def _image(table: AnnotationTable, row: int) -> dict:
    width, height = map(int, table.sizes[row])
    name = table.file_names[row]
    return {"image_id": table.image_ids[row], "width": width, "height": height} | (
        {"file_name": name} if name else {}
    )


def _dicts(vocabulary: Vocabulary, tables: dict[str, AnnotationTable]) -> dict:
    result = {}
    for key, names, values in (
        ("label", vocabulary.objects, [t.labels for t in tables.values()]),
        ("predicate", vocabulary.predicates, [t.relations[:, 2] for t in tables.values()]),
    ):
        counts = np.bincount(np.concatenate([[0], *values]), minlength=len(names))
        result[f"{key}_to_idx"] = {name: k for k, name in enumerate(names) if k}
        result[f"idx_to_{key}"] = {str(k): name for k, name in enumerate(names) if k}
        count = {name: int(counts[k]) for k, name in enumerate(names) if k}
        result["object_count" if key == "label" else "predicate_count"] = count
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
