"""Damaged bytes of annotation files, and harmless oddities, in every layout and all the way."""

from __future__ import annotations

import gzip
import io
import json
import random

import damage
import h5py
import pytest
from damage import LAYOUTS, LOADS, World, outcome, verify

pytest.importorskip("tensorflow")

BYTES = {
    "empty": lambda b: b"",
    "zeros": lambda b: bytes(len(b)),
    "half": lambda b: b[: len(b) // 2 - 7],  # within a line
    "all but the last": lambda b: b.rstrip()[:-1],
    "byte order mark": lambda b: b"\xef\xbb\xbf" + b,
    "UTF-16": lambda b: b.decode().encode("utf-16"),
    "UTF-32": lambda b: b.decode().encode("utf-32"),
    "compressed": gzip.compress,
    "page": lambda b: b"<!DOCTYPE html><html>404 Not Found</html>",
    "null": lambda b: b"null",
    "number": lambda b: b"7",
    "string": lambda b: b'"x"',
    "twice": lambda b: b + b,
    "no quotes": lambda b: b.replace(b'"', b""),
    "single quotes": lambda b: b.replace(b'"', b"'"),
    "NaN": lambda b: b"NaN" + b,
    "deep": lambda b: b"[" * 1500,
    "deep and closed": lambda b: b"[" * 1500 + b"]" * 1500,
    "no UTF-8": lambda b: b.replace(b'"', b'"\xff', 1),
    "control characters": lambda b: b.replace(b'"', b'"\x01', 1),
}
JSON_FILES = [
    (layout, name) for layout in LAYOUTS for name in World(layout).files if ".json" in name
]
# Lines may begin with the mark; a split without images is only mentioned.
HARMLESS = {("byte order mark", ".jsonl"), ("empty", ".jsonl")}


@pytest.mark.parametrize("name", BYTES)
@pytest.mark.parametrize(("layout", "file"), JSON_FILES)
def test_bytes(tmp_path, capsys, layout, file, name):
    world = World(layout)
    damage.store(tmp_path, world.files, world.photographs)
    world.files[file] = BYTES[name]((tmp_path / file).read_bytes())
    expected = file.replace(".", r"\.")
    if (name, file[-6:]) in HARMLESS:
        expected = LOADS if name != "empty" else ["split .*has no image with relations"]
    verify(tmp_path, capsys, world, expected)


@pytest.mark.parametrize("part", range(40))
def test_truncated_h5(tmp_path, capsys, part):
    """The file of an interrupted copy never loads."""
    world = World("visual_genome")
    damage.store(tmp_path, world.files, world.photographs)
    whole = (tmp_path / "VG-SGG.h5").read_bytes()
    world.files["VG-SGG.h5"] = whole[: len(whole) * part // 40]
    verify(tmp_path, capsys, world, r"VG-SGG\.h5 is no complete HDF5 file.*copy it again")


@pytest.mark.parametrize("seed", range(60))
def test_wrong_bytes_in_an_h5(tmp_path, capsys, seed):
    """In its structure; a number that is another valid one cannot be told."""
    rng, world = random.Random(seed), World("visual_genome")
    file = io.BytesIO()
    with h5py.File(file, "w") as h5:
        for key, array in world.files["VG-SGG.h5"].items():
            h5.create_dataset(key, data=array, fletcher32=True)  # so that numbers are guarded
    data = bytearray(file.getvalue())
    for _ in range(rng.choice([1, 4, 60])):
        data[rng.randrange(len(data))] = rng.randrange(256)
    world.files["VG-SGG.h5"] = bytes(data)
    damage.store(tmp_path, world.files, world.photographs)
    status, printed, message = outcome(tmp_path, capsys, world.splits, tensorflow=False)
    assert (status == 2) == bool(message)
    assert not message or ("VG-SGG.h5" in printed and "VG-SGG.h5" in message)


@pytest.mark.parametrize("kind", ["group", "dangling link", "external link", "claims too much"])
@pytest.mark.parametrize("name", ["labels", "boxes_1024", "split", "img_to_first_rel"])
def test_an_h5_with_other_things(tmp_path, capsys, name, kind):
    world, file = World("visual_genome"), io.BytesIO()
    with h5py.File(file, "w") as h5:
        for key, array in world.files["VG-SGG.h5"].items():
            h5[key] = array
        del h5[name]
        if kind == "group":
            h5.create_group(name)
        elif kind == "claims too much":
            h5.create_dataset(name, shape=(2**50,), dtype="i4", chunks=(1024,))
        else:
            link = h5py.SoftLink("/x") if kind == "dangling link" else h5py.ExternalLink("x", "/x")
            h5[name] = link
    world.files["VG-SGG.h5"] = file.getvalue()
    verify(tmp_path, capsys, world, r"VG-SGG\.h5")


def loop(scene):
    scene.relations.append([1, 1, 1])


def cycle(scene):
    scene.relations = [[0, 1, 1], [1, 2, 1], [2, 0, 1]]


def every_pair(scene):
    scene.relations = [[a, b, p] for a in range(3) for b in range(3) if a != b for p in (1, 2)]


def repeated(scene):
    scene.relations = scene.relations * 3


def outside(scene):
    scene.boxes[0] = [0, 0, scene.width + 8, scene.height]


def equal_boxes(scene):
    scene.boxes[1] = list(scene.boxes[0])
    scene.labels[1] = scene.labels[0] % 3 + 1


GRAPHS = [loop, cycle, every_pair, repeated, outside, equal_boxes]


@pytest.mark.parametrize("change", GRAPHS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("number", [1, 5])
def test_unusual_graphs(tmp_path, capsys, layout, number, change):
    """Of a training image and of a test image; VRD refuses boxes that reach outside."""
    world = World(layout)
    change(world.scenes[number])
    world.files = LAYOUTS[layout](world.splits)
    refused = layout == "vrd" and change is outside
    verify(tmp_path, capsys, world, "reaches outside" if refused else LOADS)


@pytest.mark.parametrize("layout", ["coco", "jsonl", "visual_genome"])
@pytest.mark.parametrize(
    "image_id", [0, -7, 2**40, 2**62, "2", "", "日本", "a/b", " ", "x\n", "-", "é", "train"]
)
def test_ids_of_images(tmp_path, capsys, layout, image_id):
    world = World(layout)
    world.scenes[1].image_id = image_id
    world.files = LAYOUTS[layout](world.splits)
    verify(tmp_path, capsys, world, LOADS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_image_without_anything(tmp_path, capsys, layout):
    """It is left out of training and evaluation, as nothing can be learned or measured there."""
    world = World(layout)
    scene = world.scenes[1]
    scene.boxes, scene.labels, scene.relations = [], [], []
    world.files = LAYOUTS[layout](world.splits)
    damage.store(tmp_path, world.files, world.photographs)
    status, printed, message = outcome(tmp_path, capsys, world.splits, tensorflow=False)
    assert status == 0 and not message and "train: 4 images (3 with relations)" in printed


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_pipeline_of_tensorflow_says_the_same(tmp_path, capsys, layout):
    world = World(layout)
    world.photographs["2.jpg"] = json.dumps("no photograph").encode()
    verify(tmp_path, capsys, world, r"2\.jpg.*replace it by a complete JPEG", tensorflow=True)
