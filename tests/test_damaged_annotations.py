"""Damaged annotations of every layout through the whole path, as test_damaged does photographs."""

from __future__ import annotations

import copy
import gzip
import json

import damage
import h5py
import numpy as np
import pytest
from damage import LOADS, World, verify

pytest.importorskip("tensorflow")

NAN, INF = float("nan"), float("inf")


def put(value, *path):
    """A change of the files: another value at the path; ... removes it, a function maps it."""

    def change(files):
        parent = files
        for key in path[:-1]:
            parent = parent[key]
        if value is ...:
            del parent[path[-1]]
        else:
            parent[path[-1]] = value(parent[path[-1]]) if callable(value) else value

    return change


def cases(path, pattern, *values):
    """A case for each wrong value at one place."""
    return [(put(value, *path), pattern) for value in values]


T = "train.json"
BOXES = ([NAN, 1, 9, 9], [1, INF, 9, 9], [5, 5, 0, 4], [5, 5, -3, 4], [900, 5, 4, 4],
         [-90, 5, 4, 4], [1e300, 1, 1e300, 9], [1, 2, 3], [1, 2, 3, 4, 5], [], None, "1 2 3 4",
         ["1", 2, 3, 4], [True, 2, 3, 4], [[1, 2, 3, 4]], {}, [None] * 4, 10**400, ...)  # fmt: skip
WRONG_SIZES = (0, -1, "64", 64.5, None, True, 2**31, 10**30, [64], NAN, ...)
COCO = [
    *cases((T, "annotations", 4, "bbox"), r"train\.json", *BOXES),
    *cases((T, "images", 1, "width"), r"train\.json", *WRONG_SIZES),
    *cases((T, "images", 1, "height"), r"train\.json", *WRONG_SIZES),
    *cases((T, "images", 1, "id"), r"train\.json", 1, "2", 2.5, None, -7, 10**30, [2], ...),
    *cases((T, "images", 1, "file_name"), r"train\.json.*file_name", 3, None, ["2.jpg"]),
    *cases((T, "images", 1), r"train\.json", 3, None, [], {}, "2"),
    *cases((T, "annotations", 4, "category_id"), r"train\.json.*annotations\[4\].*categor",
           0, 99, -1, None, "11", 11.5, [11], ...),
    *cases((T, "annotations", 4, "image_id"), r"train\.json", 1, 99, None, "2", [], ...),
    *cases((T, "annotations", 4, "id"), r"train\.json", 103, 999, None, "104", -5, 1.5, ...),
    *cases((T, "annotations", 4), r"train\.json", None, [], 7, "x", ...),
    *cases((T, "rel_annotations", 2, "subject_id"), r"train\.json.*rel_annotations\[2\]",
           999, 100, -1, None, "103", 1.5, 10**18, ...),
    *cases((T, "rel_annotations", 2, "object_id"), r"train\.json.*rel_annotations\[2\]", 0, 100),
    *cases((T, "rel_annotations", 2, "predicate_id"), r"train\.json.*rel_annotations\[2\]",
           2, -1, None, "1", 0.5, True, ...),
    *cases((T, "rel_annotations", 2, "image_id"), r"train\.json.*rel_annotations\[2\]",
           1, 99, None, ...),
    *cases((T, "annotations"), r"train\.json", [], {}, None, "x", 5, ...),
    *cases((T, "images"), r"train\.json", [], {}, None, ...),
    *cases((T, "categories"), r"train\.json", [], {}, None, [{"id": 11, "name": "man"}],
           [{"id": 11, "name": n} for n in damage.OBJECTS],
           [{"id": 11 + k, "name": "man"} for k in range(3)], ...),
    *cases((T, "categories", 0, "name"), r"train\.json", "hat", None, 3, "", "__background__"),
    *cases((T, "rel_categories"), r"train\.json", [], None, [{"id": 0, "name": "on"}], ...),
    *cases(("test.json", "categories", 0, "name"), r"test\.json.*objects", "woman"),
    *cases(("test.json", "rel_categories", 0, "name"), r"test\.json.*predicates", "under"),
    *cases(("val.json",), r"val\.json", {}, [], None, b"", b"\0" * 99),
    *cases(("train_copy.json",), r"2 files for the split train", {}),
    *cases((T, "info"), r"train\.json.*nested deeper",
           *([json.loads("[" * n + "]" * n)] for n in (100, 900))),
    *cases((T, "categories"), LOADS, lambda x: x[::-1],
           lambda x: [{"id": 0, "name": "__background__"}, *x]),
    *cases(("test.json", "categories"), LOADS, lambda x: x[::-1], lambda x: x[1:] + x[:1]),
    *cases((T, "annotations"), LOADS,
           lambda x: x[6:] + x[:6], lambda x: [{**a, "area": -1, "x": {"[": 1}} for a in x]),
    *cases((T, "info"), LOADS, "[" * 500, {"a": [[[[[{}]]]]]}, '"[{' * 200, "\\" * 9),
]  # fmt: skip

L = "train.jsonl"
JSONL = [
    *cases((L, 1, "objects", 1, "box"), r"train\.jsonl, (line 2|image 2)", *BOXES),
    *cases((L, 1, "width"), r"train\.jsonl, line 2", *WRONG_SIZES),
    *cases((L, 1, "height"), r"train\.jsonl, line 2", *WRONG_SIZES),
    *cases((L, 1, "image_id"), r"train\.jsonl", 1, None, 2.5, [2], True, ...),
    *cases((L, 1, "file_name"), r"train\.jsonl, line 2, image 2: file_name", 3, None, []),
    *cases((L, 1, "objects", 1, "label"), r"train\.jsonl, line 2, image 2: object 1, label",
           0, 1, None, "", "woman", "__background__", ["man"], "Man", "man ", ...),
    *cases((L, 1, "objects", 1), r"train\.jsonl, (line|image) 2", None, [], 7, {}, ...),
    *cases((L, 1, "objects"), r"train\.jsonl, line 2", None, {}, "x", [], 3, ...),
    *cases((L, 1, "relations"), r"train\.jsonl, line 2", None, {}, "x", 3, [1], [[0, 1, 1]], ...),
    *cases((L, 1, "relations", 0, "subject"), r"train\.jsonl, line 2, image 2: relation 0, subj",
           3, -1, None, "0", 0.5, True, 2**31, 2**64, ...),
    *cases((L, 1, "relations", 0, "object"), r"train\.jsonl, line 2, image 2: relation 0, obj",
           3, -1, None),
    *cases((L, 1, "relations", 0, "predicate"), r"train\.jsonl, line 2, image 2: relation 0, pred",
           1, "under", None, "", "__background__", ...),
    *cases((L, 1), r"train\.jsonl, line 2", None, [], 7, "x", {}),
    *cases(("vocabulary.json",), r"vocabulary\.json", [], None, {}, {"objects": ["man"]}, b""),
    *cases(("vocabulary.json", "objects"), r"vocabulary\.json|not in", [], None, {}, ["man"],
           ["man", "hat", "hat"], ["man", "hat", "horse", "man"], ["man", "hat", "horse", 3],
           ["__background__", "man", "hat", "horse"]),
    *cases(("train.jsonl.gz",), r"both train\.jsonl and train\.jsonl\.gz", b""),
    *cases(("test.jsonl.gz",), r"both test\.jsonl and test\.jsonl\.gz", gzip.compress(b"{}")),
    *cases(("val.jsonl.gz",), r"val\.jsonl\.gz", b"{}", gzip.compress(b"x" * 999)[:-9],
           gzip.compress(b"{}\n"), gzip.compress(b"[" * 5000)),
    *cases(("val.jsonl",), r"val\.jsonl, line 1", b"[" * 5000, b"\xff\xfe", b"{", b"{}{}"),
    *cases((L, 1, "note"), LOADS, "[" * 500, {"a": [[]]}, "\u2028 \x85"),
    *cases((L, 1, "objects", 1, "score"), LOADS, 0.5, None),
]  # fmt: skip

V = "annotations_train.json"
PAIR = {"category": 0, "bbox": [0, 9, 0, 9]}
VRD = [
    *cases((V, "2.jpg", 0, "subject", "bbox"), r"annotations_train\.json, image '2.jpg', relation",
           *BOXES),
    *cases((V, "2.jpg", 0, "object", "bbox"), r"annotations_train\.json, image '2.jpg', relation",
           [1, 9, 38, 61], [0, 90, 0, 9], [0, 9, 9, 0]),  # as the other layouts have it, ...
    *cases((V, "2.jpg", 0, "subject", "category"), r"image '2.jpg', relation 0, subject: category",
           3, -1, None, "0", 0.5, True, 2**40, [0], ...),
    *cases((V, "2.jpg", 0, "predicate"), r"image '2.jpg', relation 0, predicate",
           2, -1, None, "0", 0.5, False, ...),
    *cases((V, "2.jpg", 0, "subject"), r"image '2.jpg', relation 0, subject", None, [], 3, {}, ...),
    *cases((V, "2.jpg", 0), r"image '2.jpg', relation 0", None, [], 3, {}, "x"),
    *cases((V, "2.jpg"), r"image '2.jpg', relations", None, 3, {}, "x", True),
    *cases((V,), r"annotations_train\.json", None, 3, [], "x"),
    *cases((V, "gone.jpg"), r"annotations_train\.json, image 'gone\.jpg'", [],
           [{"predicate": 0, "subject": PAIR, "object": PAIR}]),
    *cases(("objects.json",), r"objects\.json|category", [], {}, None, ["man"], ["man", "hat", 3],
           ["man", "hat", "hat"], ["man", "hat", ""], ["__background__", "man", "hat", "horse"]),
    *cases(("predicates.json",), r"predicates\.json|predicate", [], {}, None, ["on"], ["on", "on"]),
    *cases(("train_image_metadata.json",), r"train_image_metadata\.json", [], None, 3, b"", b"{"),
    *cases(("train_image_metadata.json", "2.jpg"), r"image '2.jpg'.*train_image_metadata", 3, [],
           {}, {"width": 64, "height": 40}, {"width": 0, "height": 0}, {"width": "40"}),
    *cases(("train_image_metadata.json",), LOADS, {}, ...),
    *cases(("train_image_metadata.json", "2.jpg"), LOADS, ...),
    *cases(("train_image_metadata.json", "other.jpg"), LOADS, 3),
]  # fmt: skip

H, D, M = "VG-SGG.h5", "VG-SGG-dicts.json", "image_data.json"
H5, DICTS, IMAGES = r"VG-SGG\.h5", r"VG-SGG-dicts\.json", r"image_data\.json"


def at(index, value):
    """An array with another value at one place."""

    def change(array):
        array = array.copy()
        array[index] = value
        return array

    return change


GENOME = [
    # boxes 3..5, relations 2..3 are those of the image in row 1
    *cases((H, "labels"), H5, at(4, 0), at(4, 9), at(4, -1), at(4, 4), lambda a: a[:-1],
           lambda a: a[1:], lambda a: a.astype(float), lambda a: a.astype("S3"), lambda a: a[:, :0],
           lambda a: np.int64(a) + 2**32, lambda a: np.tile(a, 2), lambda a: a.T, lambda a: a[0, 0],
           lambda a: h5py.Empty("i4"), lambda a: a.astype(complex), lambda a: a > 1, ...),
    *cases((H, "boxes_1024"), H5, lambda a: a[:-1], lambda a: a[:, :3], lambda a: a.T,
           lambda a: a.astype("S5"), lambda a: np.float32(a) * NAN, at((4, 2), 0), at((4, 3), -9),
           lambda a: np.where(a > 700, INF, a), lambda a: a.astype(complex), lambda a: a[0],
           lambda a: a.ravel()[:9], lambda a: h5py.Empty("f4"), lambda a: np.int64(a) + 2**40, ...),
    *cases((H, "predicates"), H5, at(2, 0), at(2, 9), at(2, -1), at(2, 3), lambda a: a[:-1],
           lambda a: a.astype(float), lambda a: np.tile(a, 2), lambda a: np.int64(a) + 2**32, ...),
    *cases((H, "relationships"), H5, at((2, 0), 0), at((2, 1), 9), at((2, 0), -1), at((2, 1), 999),
           lambda a: a + 1, lambda a: a - 1, lambda a: a[:-1], lambda a: a[:, :1], lambda a: a.T,
           lambda a: a.astype(float), lambda a: np.int64(a) + 2**32, lambda a: a * 0,
           lambda a: a[:, [0, 0]] * 0 + 17, ...),
    *cases((H, "img_to_first_box"), H5, at(1, 2), at(1, 5), at(1, -1), at(1, 900), at(1, 0),
           lambda a: a + 1, lambda a: a - 1, lambda a: a[:-1], lambda a: a[::-1], lambda a: a * 0,
           lambda a: a.astype(float), lambda a: np.int64(a) + 2**40, ...),
    *cases((H, "img_to_last_box"), H5, at(1, 6), at(1, 2), at(1, -1), at(1, 900), at(5, 18),
           lambda a: a + 1, lambda a: a - 1, lambda a: a[1:], lambda a: a * 0 + 17, ...),
    *cases((H, "img_to_first_rel"), H5, at(1, 1), at(1, 9), at(1, -1), lambda a: a - 1,
           lambda a: a[:-1], lambda a: a[::-1], ...),
    *cases((H, "img_to_first_rel"), [r"VG-SGG\.h5, predicates: 6 of 13 rows are in no image's"],
           lambda a: a + 1),
    *cases((H, "img_to_first_rel"), [r"VG-SGG\.h5, predicates: 1 of 13 rows"], at(1, 3)),
    *cases((H, "img_to_last_rel"), H5, at(1, 4), at(1, 0), at(1, -1), at(5, 99), lambda a: a + 1,
           lambda a: a[1:], ...),
    *cases((H, "split"), H5, at(1, 3), at(1, -1), lambda a: a[:-1], lambda a: a[1:],
           lambda a: a.astype(float), lambda a: a.astype("S1"), lambda a: a[0], lambda a: a[:0],
           lambda a: np.tile(a, 2), ...),
    *cases((H,), H5, {}, b"", b"\0" * 999, b"\x89HDF\r\n\x1a\n", b"no h5", gzip.compress(b"x")),
    *cases((H,), "no data set of a known layout", ...),
    *cases((D,), DICTS, b"", [], None, {}, ...),
    *cases((D, "label_to_idx"), DICTS, [], None, {}, {"man": 1, "hat": 3, "horse": 4},
           {"man": 1, "hat": 1, "horse": 2}, {"man": "1", "hat": "2", "horse": "3"},
           {"man": 1.0, "hat": 2, "horse": 3}, {"man": 0, "hat": 1, "horse": 2},
           {"man": 2, "hat": 1, "horse": 3}, {"man": -1, "hat": 1, "horse": 2}, ...),
    *cases((D, "predicate_to_idx"), DICTS, [], None, {"on": 2, "near": 3}, ...),
    *cases((D, "idx_to_label"), DICTS, [], None, {"1": "hat", "2": "man", "3": "horse"}, 3,
           {"a": "man"}, {"1": "man", "2": "hat"}, {"1": 3, "2": "hat", "3": "horse"}),
    *cases((D, "idx_to_predicate"), DICTS, {"1": "near", "2": "on"}, "x"),
    *cases((D, "label_to_idx"), r"class|relation|VG-SGG", {"man": 1, "hat": 2}),
    *cases((M,), IMAGES, b"", {}, None, [], lambda x: x[:-1], lambda x: [*x, x[0]],
           lambda x: [3] * 6, lambda x: [[]] * 6, ...),
    *cases((M, 1, "width"), "image", *WRONG_SIZES),
    *cases((M, 1, "height"), "image", *WRONG_SIZES),
    *cases((M, 1, "image_id"), "image", 1, None, 2.5, [2], True, ...),
    *cases((M, 1, "file_name"), IMAGES, 3, None, []),
    *cases((M, 1), IMAGES, None, 3, [], "x", {}),
    # boxes are parts of the longer side, whatever its length and the shape are said to be
    *cases((M, 1), LOADS, {"image_id": 2, "width": 64, "height": 40},
           {"image_id": 2, "width": 500, "height": 3}, {"image_id": 2, "width": 7, "height": 9}),
    *cases((M, 1), [r"image 2.*64 x 40; boxes are scaled to fit"],
           {"image_id": 2, "width": 64, "height": 40}),
    *cases((D, "idx_to_label"), LOADS, ..., {"0": "__background__", "1": "man", "2": "hat",
           "3": "horse"}),
    *cases((D, "label_to_idx"), LOADS, {"horse": 3, "__background__": 0, "hat": 2, "man": 1}),
    *cases((H, "boxes_512"), LOADS, np.zeros((18, 4)), np.zeros((3, 4))),
    *cases((H, "attributes"), LOADS, np.zeros((18, 10))),
    *cases((H, "labels"), LOADS, lambda a: a[:, 0], lambda a: np.uint8(a), lambda a: np.int64(a)),
    *cases((H, "boxes_1024"), LOADS, np.float32, np.float64, np.int64, np.uint16, np.int16),
    *cases((H, "relationships"), LOADS, np.uint8, np.uint64, np.int64, lambda a: a.astype(">i4")),
    *cases((H, "img_to_first_box"), LOADS, np.uint32, np.int64, lambda a: a[:, None]),
    *cases((H, "split"), LOADS, lambda a: a[:, None], np.uint8),
]  # fmt: skip
ALL = {"coco": COCO, "jsonl": JSONL, "vrd": VRD, "visual_genome": GENOME}


@pytest.mark.parametrize(
    ("layout", "number"), [(layout, k) for layout, rows in ALL.items() for k in range(len(rows))]
)
def test_values(tmp_path, capsys, layout, number):
    world, (change, expected) = World(layout), ALL[layout][number]
    world.files = copy.deepcopy(world.files)
    change(world.files)
    verify(tmp_path, capsys, world, expected)
