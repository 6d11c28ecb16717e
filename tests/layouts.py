"""A small data set in every layout, written without the package's own writers."""

from __future__ import annotations

import copy
import dataclasses
import io
import json

import h5py
import numpy as np
from PIL import Image

OBJECTS, PREDICATES = ("man", "hat", "horse"), ("on", "near")
SIZES = ((64, 48), (40, 64), (32, 32), (64, 64), (64, 16), (64, 40))  # of the images 1 .. 6


@dataclasses.dataclass
class Scene:
    """An image: boxes are whole pixels xyxy, classes count from 1."""

    image_id: int | str
    name: str
    width: int
    height: int
    boxes: list[list[float]]
    labels: list[int]
    relations: list[list[int]]
    photograph: bytes


def scenes(layout):
    """{"train": 4 scenes, "test": 2}; relations name the boxes in their order, as VRD needs."""
    result = []
    for k, (width, height) in enumerate(SIZES, 1):
        boxes = [[2 * k, 1, width - 2, height - 3], [0, 2, 8, 10], [6, 4, width, height]]
        labels = [1 + (k + i) % 3 for i in range(3)]
        relations = [[0, 1, 1 + k % 2], [2, 0, 2]] + [[0, 1, 2 - k % 2]] * (k == 3)
        low = np.random.default_rng(k).integers(0, 256, (4, 4, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(low).resize((width, height)).save(file, "JPEG", quality=95)
        name = f"{k}.jpg"
        image_id = name if layout == "vrd" else k
        photograph = file.getvalue()
        result.append(Scene(image_id, name, width, height, boxes, labels, relations, photograph))
    return {"train": result[:4], "test": result[4:]}


def coco(splits):
    files = {}
    for split, images in splits.items():
        content = files[f"{split}.json"] = {
            "categories": [{"id": 10 + k, "name": n} for k, n in enumerate(OBJECTS, 1)],
            "rel_categories": [{"id": k, "name": n} for k, n in enumerate(PREDICATES)],
            "images": [],
            "annotations": [],
            "rel_annotations": [],
        }
        for s in images:
            size = {"width": s.width, "height": s.height}
            content["images"].append({"id": s.image_id, "file_name": s.name, **size})
            first = len(content["annotations"]) + 100
            for k, (box, label) in enumerate(zip(s.boxes, s.labels, strict=True)):
                x1, y1, x2, y2 = box
                record = {"id": first + k, "image_id": s.image_id, "category_id": 10 + label}
                content["annotations"].append(record | {"bbox": [x1, y1, x2 - x1, y2 - y1]})
            for subject, object_, predicate in s.relations:
                ends = {"subject_id": first + subject, "object_id": first + object_}
                record = {"image_id": s.image_id, **ends, "predicate_id": predicate - 1}
                content["rel_annotations"].append(record)
    return files


def jsonl(splits):
    files = {"vocabulary.json": {"objects": list(OBJECTS), "predicates": list(PREDICATES)}}
    for split, images in splits.items():
        lines = files[f"{split}.jsonl"] = []
        for s in images:
            pairs = zip(s.boxes, s.labels, strict=True)
            size = {"width": s.width, "height": s.height}
            record = {"image_id": s.image_id, "file_name": s.name, **size}
            record["objects"] = [{"box": box, "label": OBJECTS[k - 1]} for box, k in pairs]
            record["relations"] = [
                {"subject": a, "predicate": PREDICATES[p - 1], "object": b}
                for a, b, p in s.relations
            ]
            lines.append(record)
    return files


def vrd(splits):
    files = {"objects.json": list(OBJECTS), "predicates.json": list(PREDICATES)}
    for split, images in splits.items():
        rows, sizes = {}, {}
        for s in images:
            sizes[s.name] = {"width": s.width, "height": s.height}
            ends = [
                {"category": label - 1, "bbox": [box[1], box[3], box[0], box[2]]}
                for box, label in zip(s.boxes, s.labels, strict=True)
            ]
            rows[s.name] = [
                {"predicate": p - 1, "subject": ends[a], "object": ends[b]}
                for a, b, p in s.relations
            ]
        rows, sizes = copy.deepcopy(rows), copy.deepcopy(sizes)
        files |= {f"annotations_{split}.json": rows, f"{split}_image_metadata.json": sizes}
    return files


def visual_genome(splits):
    tables = {}
    for key, names in (("label", OBJECTS), ("predicate", PREDICATES)):
        tables[f"{key}_to_idx"] = {name: k for k, name in enumerate(names, 1)}
        tables[f"idx_to_{key}"] = {str(k): name for k, name in enumerate(names, 1)}
    keys = ("boxes_1024", "labels", "predicates", "relationships", "split")
    ranges = [f"img_to_{end}_{kind}" for kind in ("box", "rel") for end in ("first", "last")]
    h5 = {key: [] for key in (*keys, *ranges)}
    images = []
    for s in [s for split in splits.values() for s in split]:
        factor, first = 1024 // max(s.width, s.height), len(h5["labels"])
        counts = (len(s.boxes), first), (len(s.relations), len(h5["predicates"]))
        for kind, (count, start) in zip(("box", "rel"), counts, strict=True):
            h5[f"img_to_first_{kind}"].append(start if count else -1)
            h5[f"img_to_last_{kind}"].append(start + count - 1 if count else -1)
        for x1, y1, x2, y2 in s.boxes:
            w, h = x2 - x1, y2 - y1
            center = (x1 * factor + w * factor // 2, y1 * factor + h * factor // 2)
            h5["boxes_1024"].append((*center, w * factor, h * factor))
        h5["labels"] += [[k] for k in s.labels]
        h5["predicates"] += [[p] for _, _, p in s.relations]
        h5["relationships"] += [(first + a, first + b) for a, b, _ in s.relations]
        h5["split"].append(0 if s in splits["train"] else 2)
        size = {"width": s.width, "height": s.height}
        images.append({"image_id": s.image_id, "file_name": s.name, **size})
    arrays = {key: np.array(values, np.int32) for key, values in h5.items()}
    return {"VG-SGG.h5": arrays, "VG-SGG-dicts.json": tables, "image_data.json": images}


LAYOUTS = {"coco": coco, "jsonl": jsonl, "vrd": vrd, "visual_genome": visual_genome}


def store(folder, files, photographs):
    """Python values become JSON, lists of .jsonl files lines, arrays an h5; bytes stay."""
    for name, value in files.items():
        path = folder / name
        if isinstance(value, bytes):
            path.write_bytes(value)
        elif name.endswith(".h5"):
            with h5py.File(path, "w") as h5:
                for key, array in value.items():
                    h5[key] = array
        elif name.endswith(".jsonl"):
            path.write_text("".join(f"{json.dumps(line)}\n" for line in value))
        else:
            path.write_text(json.dumps(value))
    for name, content in photographs.items():
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
