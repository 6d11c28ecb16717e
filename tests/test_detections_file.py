"""A detector's file: as a naive reading, in the batches of every loader, refused where wrong."""

from __future__ import annotations

import dataclasses
import gzip
import json
import shutil
import tracemalloc
from itertools import islice

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image

from linknet_jax import data
from linknet_jax.config import get_default
from linknet_jax.data import Dataset, boxes_only, threads
from linknet_jax.data.batching import FILLER, Draw, make_batch
from linknet_jax.data.collection import Collection, pack
from linknet_jax.data.detections import load_detections
from linknet_jax.data.formats import jsonl
from linknet_jax.data.mirror import flips
from linknet_jax.ops.boxes import BENIGN_BOX
from linknet_jax.types import Annotation, Vocabulary
from linknet_jax.validation import validate

OBJECTS = ("__background__", "left hand", "right hand", "zebra", "Äpfel")
MIRRORED = [0, 2, 1, 3, 4]
SIZE, WIDTH, HEIGHT = 24, 48, 40
SCALE = SIZE / WIDTH


class Scenes:
    """Pictures of noise; the odd ones have a text as id."""

    vocabulary = Vocabulary(OBJECTS, ("__background__", "on"))
    truth = None

    def __init__(self, count=9):
        self.annotations = [
            Annotation(
                image_id=f"{k}.jpg" if k % 2 else k,
                width=WIDTH,
                height=HEIGHT,
                boxes=np.array([(1, 2, 30, 20), (5, 6, 20, 39.0)]),
                labels=np.array([1, 3], np.int32),
                relations=np.array([(0, 1, 1)], np.int32),
            )
            for k in range(count)
        ]

    def example(self, index, flip=False):
        pixels = np.random.default_rng(index).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        size = np.array([HEIGHT * SCALE, SIZE], np.float32)
        return pixels[:, ::-1] if flip else pixels, size, SCALE


def entry(box=(1, 2, 30.5, 20), label="zebra", score=0.5, **more):
    return {"box": list(box), "label": label, "score": score, **more}


def random_entries(rng, count):
    """Boxes that reach out of the photograph, some wholly; scores that are often equal."""
    low = rng.uniform(-10, 50, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(0, 40, (count, 2))], 1).tolist()
    labels = rng.choice(OBJECTS[1:], count).tolist()
    scores = (rng.integers(0, 4, count) / 3).tolist()
    return [entry(b, k, s, mask=[1]) for b, k, s in zip(boxes, labels, scores, strict=True)]


def random_records(count=9, seed=0):
    """All images but the third, in another order, and one that no split has."""
    rng = np.random.default_rng(seed)
    ids = [a.image_id for a in Scenes(count).annotations]
    ids = [ids[k] for k in rng.permutation(count) if k != 2] + ["elsewhere"]
    counts = [0, 1, 7, *rng.integers(0, 12, count)]
    return [
        {"image_id": x, "objects": random_entries(rng, n), "relations": "ignored"}
        for x, n in zip(ids, counts, strict=False)
    ]


def store(path, records):
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n\n" for r in records).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def naive(records, image_id, limit):
    """Rows (box, label, score) from the definition: each next one has the best score left."""
    left = next((list(r["objects"]) for r in records if r["image_id"] == image_id), [])
    rows = []
    while left and len(rows) < limit:
        best = max(range(len(left)), key=lambda k: (left[k]["score"], -k))
        x = left.pop(best)
        rows.append((x["box"], OBJECTS.index(x["label"]), float(np.float32(x["score"]))))
    return rows


def rows_of(boxes, labels, scores):
    assert (boxes.dtype, labels.dtype, scores.dtype) == (np.float64, np.int32, np.float32)
    return list(zip(boxes.tolist(), labels.tolist(), scores.tolist(), strict=True))


@pytest.mark.parametrize("name", ["d.jsonl", "d.jsonl.gz"])
@pytest.mark.parametrize("limit", [1, 5, 64])
def test_as_a_naive_reading(tmp_path, name, limit):
    records = random_records(40, seed=limit)
    table = load_detections(str(store(tmp_path / name, records)), limit, OBJECTS)
    counts = set()
    for image_id in [*(a.image_id for a in Scenes(41).annotations), "elsewhere", "2", "1"]:
        found = rows_of(*table[image_id])
        assert found == naive(records, image_id, limit)
        counts.add(len(found))
    assert {0, 1} <= counts and max(counts) == min(limit, 11)


def test_a_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    path = store(tmp_path / "d.jsonl", random_records())
    table = load_detections(str(path), 8, OBJECTS)
    assert load_detections(str(path), 8, OBJECTS) is table
    assert load_detections(str(path), 1, OBJECTS) is not table
    store(path, [{"image_id": 1, "objects": [entry()]}])
    assert load_detections(str(path), 8, OBJECTS).rows == {1: 0}


def test_memory_of_many_boxes(tmp_path):
    """40 bytes a box, read and held: 100,000 images of 64 boxes take less than 300 MB."""
    rng = np.random.default_rng(0)
    objects = [random_entries(rng, 64) for _ in range(4)]
    count = 2000
    path = store(tmp_path / "d.jsonl",
                 [{"image_id": k, "objects": objects[k % 4]} for k in range(count)])  # fmt: skip
    load_detections(str(store(tmp_path / "small.jsonl", random_records())), 64, OBJECTS)
    tracemalloc.start()
    table = load_detections(str(path), 64, OBJECTS)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(table.boxes) == 64 * count
    assert held < 48 * 64 * count and peak < held + 12e6  # beside it a chunk of the file


def expected(records, index, limit, flip=False, clip=False):
    """(boxes, labels, scores) in pixels of the network input, box by box."""
    rows = []
    for (x1, y1, x2, y2), label, score in naive(
        records, Scenes(index + 1).annotations[index].image_id, limit
    ):
        if flip:
            x1, x2, label = WIDTH - x2, WIDTH - x1, MIRRORED[label]
        cut = max(x1, 0), max(y1, 0), min(x2, WIDTH), min(y2, HEIGHT)
        box = cut if clip and cut[0] < cut[2] and cut[1] < cut[3] else (x1, y1, x2, y2)
        rows.append(([v * SCALE for v in box], label, score))
    return rows


def check_batch(batch, records, limit, mirrored, clip):
    found = batch.detections
    assert found.boxes.shape == (len(batch.images), limit, 4) and found.class_boxes is None
    kinds = [x.dtype for x in (found.boxes, found.mask, found.labels, found.scores)]
    assert kinds == [np.float32, bool, np.int32, np.float32]
    assert (found.boxes[~found.mask] == BENIGN_BOX).all()
    for row, index in enumerate(batch.image_index):
        wanted = [] if index == FILLER else expected(records, index, limit, mirrored[row], clip)
        n = len(wanted)
        assert found.mask[row].tolist() == [True] * n + [False] * (limit - n)
        for k, (box, label, score) in enumerate(wanted):
            np.testing.assert_allclose(found.boxes[row, k], box, rtol=1e-6, atol=1e-5)
            assert (found.labels[row, k], found.scores[row, k]) == (label, score)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("limit", [1, 4, 20])
def test_placed_as_the_boxes_are(tmp_path, limit, clip):
    records = random_records()
    table = load_detections(str(store(tmp_path / "d.jsonl", records)), limit, OBJECTS)
    indices, mirrored = np.array([0, FILLER, 2, 3, 4, 3]), np.array([0, 1, 1, 1, 0, 0], bool)
    source, zeros = Scenes(), np.zeros(6, int)
    sizes = np.tile(np.float32([HEIGHT * SCALE, SIZE]), (6, 1))
    draw = Draw(indices, zeros, mirrored, clip)
    arguments = (source, np.zeros((6, 8, 8, 3), np.uint8), sizes, np.full(6, SCALE), draw, 3, 0)
    batch = make_batch(*arguments, table)
    check_batch(batch, records, limit, mirrored, clip)
    without = make_batch(*arguments)
    assert without.detections is None
    same = jax.tree.map(np.array_equal, batch.replace(detections=None), without)
    assert all(jax.tree.leaves(same)) and len(jax.tree.leaves(same)) == 8


@pytest.fixture
def config(tmp_path):
    tree = get_default("sgcls").data
    path = store(tmp_path / "d.jsonl", random_records())
    tree.update({"image_size": SIZE, "max_objects": 3, "flip": True, "max_detections": 6})
    tree.detections = str(path)
    return tree


def loaders():
    pytest.importorskip("tensorflow")
    from linknet_jax.data import pipeline

    return threads, pipeline, boxes_only


def test_all_loaders_give_equal_batches(config):
    def batches(loader):
        dataset = Dataset(Scenes(), loader, config)
        return [
            *islice(dataset.train_batches(4, 3, 2), 5),
            *dataset.evaluation_batches(4),
            *dataset.batches_of([2, 5, 5], 2),
        ]

    first, *others = map(batches, loaders())
    for other in others:
        for a, b in zip(first, other, strict=True):
            jax.tree.map(np.testing.assert_array_equal, a.detections, b.detections)
    records, mirrored = random_records(), 0
    for number, batch in enumerate(first):
        training = number < 5
        steps = 4 * (number + 2) + np.arange(4)
        flipped = flips(3, steps // 9, batch.image_index) if training else np.zeros(4, bool)
        check_batch(batch, records, 6, flipped, clip=training)
        mirrored += flipped.sum()
    assert 0 < mirrored < 20


def test_of_an_image_in_original_pixels(config):
    dataset, records = Dataset(Scenes(), threads, config), random_records()
    for index, annotation in enumerate(dataset.annotations):
        assert rows_of(*dataset.detections(index)) == naive(records, annotation.image_id, 6)


def test_without_a_file_nothing_changes(config):
    config.detections = ""
    dataset = Dataset(Scenes(), threads, config)
    batches = [next(dataset.train_batches(2, 0)), *dataset.evaluation_batches(4)]
    assert all(b.detections is None and len(jax.tree.leaves(b)) == 8 for b in batches)
    with pytest.raises(ValueError, match=r"data\.detections is empty; set --config"):
        dataset.detections(0)
    dataset.check_detections()


def test_images_of_other_ids(config, tmp_path):
    """Numbers are no texts; a split built for its statistics alone may have no line."""
    store(tmp_path / "d.jsonl", [{"image_id": "0", "objects": [entry()]}])
    dataset = Dataset(Scenes(), threads, config)
    uses = (
        dataset.check_detections,
        lambda: dataset.train_batches(2, 0),
        lambda: dataset.evaluation_batches(2),
        lambda: dataset.batches_of([1], 2),
    )
    for use in uses:
        with pytest.raises(ValueError, match=r"(?s)d\.jsonl.*none of the split's 9 .* 0, .* '0':"):
            use()
    store(tmp_path / "d.jsonl", [{"image_id": 0, "objects": []}])
    batch = next(Dataset(Scenes(), threads, config).batches_of([1, 0], 2))
    assert not batch.detections.mask.any() and batch.example_mask.all()


NAN, INFINITY, HUGE = float("nan"), float("inf"), 10**400
WRONG = {
    "label": (entry(label="zebro"), ["label 'zebro'", "no class", "nearest: zebra", "leave"]),
    "far label": (entry(label="qqqqqq"), ["label 'qqqqqq'", "nearest: none"]),
    "long label": (entry(label="z" * 10**6), ["label 'zzz", "no class of the data set"]),
    "background": (entry(label="__background__"), ["label '__background__' must be the name"]),
    "number as label": (entry(label=3), ["label 3 must be the name of a class"]),
    "list as label": (entry(label=["zebra"]), ["label ['zebra'] must be the name"]),
    "score": (entry(score=1.01), ["score 1.01 must be a probability from 0 to 1"]),
    "negative": (entry(score=-1e-9), ["score -1e-09 must be a probability from 0 to 1"]),
    "x2 < x1": (entry([5, 0, 4, 9]), ["box [5, 0, 4, 9] must be", "x2 >= x1"]),
    "y2 < y1": (entry([5, 9, 6, 8.5]), ["box [5, 9, 6, 8.5] must be", "y2 >= y1"]),
    "NaN": (entry([NAN, 0, 4, 9]), ["box [nan, 0, 4, 9] must be finite"]),
    "infinite": (entry([1, 0, INFINITY, 9]), ["box [1, 0, inf, 9] must be finite"]),
    "huge": (entry([1, 0, HUGE, 9]), ["box [1, 0, 1000", "must be 4 numbers"]),
    "three numbers": (entry([1, 2, 3]), ["box [1, 2, 3] must be 4 numbers [x1, y1, x2, y2]"]),
    "texts": (entry(["1", 2, 3, 4]), ["box ['1', 2, 3, 4] must be 4 numbers"]),
    "no object": ("zebra", ["'zebra' must be an object with box and label"]),
    **{
        f"score {str(x)[:9]}": (entry(score=x), [f"score {str(x)[:9]}", "must be a finite number"])
        for x in (NAN, INFINITY, -INFINITY, HUGE, None, True)
    },
}


def refused(path, parts):
    with pytest.raises(ValueError) as error:
        load_detections(str(path), 64, OBJECTS)
    text = str(error.value)
    assert all(part in text for part in (str(path), *parts)), text
    assert len(text) < 600


@pytest.mark.parametrize("case", WRONG)
def test_wrong_objects_are_told(tmp_path, case):
    wrong, parts = WRONG[case]
    records = [
        {"image_id": 1, "objects": [entry()]},
        {"image_id": "b.jpg", "objects": [entry(), wrong]},
    ]
    path = store(tmp_path / "d.jsonl", records)
    refused(path, ["line 3, image 'b.jpg': object 1, ", *parts])


LINES = {
    "no list": ({"image_id": 2, "objects": {}}, ["line 3, image 2: objects must be a list"]),
    "no objects": ({"image_id": 2}, ["line 3, image 2: objects must be a list, got None"]),
    "twice": ({"image_id": 1, "objects": []}, ["line 3, image 1", "line 1 already; keep one"]),
    "float id": ({"image_id": 2.0, "objects": []}, ["line 3", "image id 2.0 must be an integer"]),
    "no id": ({"objects": []}, ["line 3, image None: image id None must be an integer"]),
    "a list": ([1], ["line 3: must be an object with image_id, objects; got [1]"]),
}


@pytest.mark.parametrize("case", LINES)
def test_wrong_lines_are_told(tmp_path, case):
    record, parts = LINES[case]
    refused(store(tmp_path / "d.jsonl", [{"image_id": 1, "objects": [entry()]}, record]), parts)


def test_wrong_files_are_told(tmp_path, config):
    path = tmp_path / "d.jsonl"
    for content, parts in {
        b"": ["has no line"],
        b"\n \n": ["has no line"],
        b'{"image_id": 1, "objects": []}\n{"image_id"': ["line 2", "is no JSON"],
        b"\x89HDF\xff": ["line 1", "is no JSON"],
        b"[" * 10**5: ["line 1", "is no JSON"],
    }.items():
        path.write_bytes(content)
        refused(path, parts)
    cut = store(tmp_path / "cut.jsonl.gz", random_records())
    cut.write_bytes(cut.read_bytes()[:-20])
    refused(cut, ["no complete gzip file", "copy it again"])
    for missing in (tmp_path / "none.jsonl", tmp_path):
        refused(missing, ["is no file; set --config.data.detections=FILE"])
        config.detections = str(missing)
        with pytest.raises(ValueError, match="is no file"):
            Dataset(Scenes(), threads, config)


@pytest.mark.parametrize("limit", [1, 0, -3])
def test_max_detections(limit):
    tree = get_default("sgcls")
    tree.data.max_detections = limit
    with pytest.raises(ValueError, match=rf"data\.max_detections={limit}: must be at least 2"):
        validate(tree)


def test_built_synthetic_scenes(tmp_path):
    tree = get_default("sgcls")
    tree.data.update({"train_images": 3, "val_images": 2, "test_images": 2, "image_size": SIZE})
    image = data.build(tree, "val").annotations[1]
    label = data.build(tree, "val").vocabulary.objects[2]
    record = {"image_id": image.image_id, "objects": [entry([1, 2, 5, 9], label, 0.25)]}
    tree.data.detections = str(store(tmp_path / "d.jsonl", [record]))
    found = next(data.build(tree, "val").evaluation_batches(3)).detections
    assert found.mask.shape == (3, 64) and found.mask.sum(1).tolist() == [0, 1, 0]
    assert found.boxes[1, 0].tolist() == [1, 2, 5, 9] and found.scores[1, 0] == 0.25
    data.build(tree, "train")  # for its statistics
    with pytest.raises(ValueError, match=r"'train-000000', the file's as 'val-000001'"):
        data.build(tree, "train").check_detections()


def test_records_of_tfds_give_those_of_the_files(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    from linknet_jax.data.tfds.prepare import prepare

    images = [dataclasses.replace(a, image_id=k) for k, a in enumerate(Scenes(4).annotations)]
    folder = epath.Path(tmp_path / "files")
    jsonl.write(Collection(Scenes.vocabulary, {"train": pack(images)}), folder)
    (folder / "images").mkdir()
    for a in images:
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "files" / "images" / f"{a.image_id}.jpg")
    records = [{"image_id": k, "objects": [entry([k, 2, 9, 9.5]), entry()]} for k in (3, 0)]
    tree = get_default("sgcls")
    tree.data.update({"name": "jsonl", "dir": str(folder), "val_images": 1, "flip": True})
    tree.data.detections = str(store(tmp_path / "d.jsonl", records))
    wanted = list(islice(data.build(tree, "train").train_batches(3, 0), 4))
    tree.data.update({"name": "tfds", "dir": str(prepare(folder, epath.Path(tmp_path / "tfds")))})
    found = list(islice(data.build(tree, "train").train_batches(3, 0), 4))
    for a, b in zip(wanted, found, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)
        assert a.detections.mask.sum() == 2


def test_real_detections(vrd_dir, tmp_path):
    tree = get_default("predcls")
    tree.model.visual = False
    file = shutil.copy(vrd_dir / "detections.jsonl", tmp_path)
    tree.data.update({"name": "vrd", "dir": str(vrd_dir), "max_objects": 40, "detections": file})
    dataset = data.build(tree, "test")
    table = dataset._detections
    assert (len(table.rows), len(table.boxes)) == (755, 5768)
    assert np.diff(table.start).max() == 23 and np.diff(table.start).min() == 0
    lines = [json.loads(x) for x in open(file)]
    by_id = {x["image_id"]: x["objects"] for x in lines}
    counts = []
    for batch in dataset.evaluation_batches(40):
        for row, index in enumerate(batch.image_index):
            if index == FILLER:
                continue
            a = dataset.annotations[index]
            objects = sorted(by_id[a.image_id], key=lambda x: -x["score"])
            scale = tree.data.image_size / max(a.width, a.height)
            wanted = np.array([x["box"] for x in objects]).reshape(-1, 4) * scale
            boxes = batch.detections.boxes[row][batch.detections.mask[row]]
            np.testing.assert_allclose(boxes, wanted, rtol=1e-6)
            counts.append(len(boxes))
    assert len(counts) == 100 and sum(counts) > 500
