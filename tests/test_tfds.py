"""`tfds build` stores what the files hold, and training reads the same batches from either."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from itertools import islice

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image

from linknet_jax.config import get_default
from linknet_jax.data import Dataset, threads
from linknet_jax.data.collection import BACKGROUND, Collection, pack
from linknet_jax.data.files import Files
from linknet_jax.data.formats import coco, visual_genome
from linknet_jax.data.photographs import Photographs
from linknet_jax.types import Annotation, Vocabulary

pytest.importorskip("tensorflow")
tfds = pytest.importorskip("tensorflow_datasets")

from linknet_jax.data import pipeline  # noqa: E402
from linknet_jax.data.tfds import records  # noqa: E402
from linknet_jax.data.tfds.visual_genome_sgg import (  # noqa: E402
    visual_genome_sgg_dataset_builder as sgg,
)

FORMATS = ("tfrecord", "array_record")
VG150 = Vocabulary(
    (BACKGROUND, *(f"object {k}" for k in range(150))),
    (BACKGROUND, "left of", "right of", *(f"predicate {k}" for k in range(48))),
)


def annotation(rng, image_id, count, relations, name=""):
    """Boxes that no float32 holds, several predicates a pair."""
    width, height = rng.integers(40, 90, 2).tolist()
    low = rng.uniform(0, 20, (count, 2))
    ends = [rng.choice(count, 2, replace=False) for _ in range(relations)]
    return Annotation(
        image_id=image_id,
        width=width,
        height=height,
        boxes=np.concatenate([low, low + rng.uniform(5, 20, (count, 2))], 1),
        labels=rng.integers(1, 151, count, np.int32),
        relations=np.array(
            [(*e, p) for e, p in zip(ends, rng.integers(1, 51, relations), strict=True)], np.int32
        ).reshape(-1, 3),
        file_name=name,
    )


def write(folder, tables, vocabulary=VG150):
    """The files of the layout and a drawn photograph for every image."""
    folder = epath.Path(folder)
    rng = np.random.default_rng(1)
    for image in (image for table in tables.values() for image in table):
        path = folder / "images" / (image.file_name or f"{image.image_id}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (image.height, image.width, 3), np.uint8)
        Image.fromarray(pixels).save(path, "JPEG")
    assert visual_genome.write(Collection(vocabulary, tables), folder) == []
    return folder


def build(folder, data_dir, file_format, config="vg150", shards=2):
    """The prepared folder."""
    builder = sgg.Builder(config=config, data_dir=data_dir, file_format=file_format)
    download = tfds.download.DownloadConfig(manual_dir=folder, num_shards=shards)
    builder.download_and_prepare(download_config=download)
    return os.fspath(builder.data_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """12 images with relations, one without and one without boxes."""
    rng = np.random.default_rng(0)
    counts = [(4, 3)] * 5 + [(2, 0), (0, 0)] + [(5, 6)] * 4
    train = [annotation(rng, 100 - k, *count) for k, count in enumerate(counts)]
    test = [annotation(rng, 7, 3, 2), annotation(rng, 9, 3, 2, "sub/Straße 写真.jpg")]
    tables = {"train": pack(train), "test": pack([*test, annotation(rng, 8, 6, 4)])}
    return write(tmp_path_factory.mktemp("files"), tables)


@pytest.fixture(scope="module", params=FORMATS)
def prepared(request, folder, tmp_path_factory):
    return build(folder, tmp_path_factory.mktemp(request.param), request.param)


def config(folder, **values):
    tree = get_default("sgcls").data
    tree.update({"name": "visual_genome", "dir": os.fspath(folder), "image_size": 48})
    tree.update({"max_objects": 8, "val_images": 3, "flip": True, **values})
    return tree


def assert_equal(left, right):
    for a, b in zip(left, right, strict=True):
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_array_equal(x, y)
            assert x.dtype == y.dtype


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_batches_equal_those_of_the_files(folder, prepared, split):
    files, ready = config(folder), config(prepared)
    left = Dataset(Files(files, split), threads, files)
    right = Dataset(records.Records(ready, split), pipeline, ready)
    assert left.vocabulary == right.vocabulary and right.truth is None
    assert_equal(islice(left.train_batches(4, 0, 3), 6), islice(right.train_batches(4, 0, 3), 6))
    assert_equal(left.evaluation_batches(2), right.evaluation_batches(2))


def test_every_image_with_boxes_comes_back(folder, prepared):
    expected = visual_genome.read(folder, Photographs([]))
    found = records.load(prepared)
    assert found.collection.vocabulary == expected.vocabulary
    for split, table in expected.splits.items():
        kept = [image for image in table if len(image.boxes)]
        for a, b in zip(found.collection.splits[split], kept, strict=True):
            assert (a.image_id, a.width, a.height, a.file_name) == (
                (b.image_id, b.width, b.height, b.file_name)
            )
            assert type(a.image_id) is int
            for name in ("boxes", "labels", "relations"):
                np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
                assert getattr(a, name).dtype == getattr(b, name).dtype
            path = folder / "images" / (b.file_name or f"{b.image_id}.jpg")
            assert found.photograph(split, b.image_id) == path.read_bytes()


def test_records_are_sharded_and_plain_tfds_reads_them(folder, prepared):
    builder = tfds.builder_from_directory(prepared)
    assert builder.info.splits["train"].num_shards == 2
    assert builder.info.splits["train"].num_examples == 10
    if "tfrecord" in prepared:
        example = next(iter(builder.as_dataset("test").as_numpy_iterator()))
    else:
        example = builder.as_data_source("test")[0]
    first = visual_genome.read(folder, Photographs([])).splits["test"][0]
    assert example["image"].shape == (first.height, first.width, 3)
    np.testing.assert_array_equal(example["boxes"], first.boxes)
    np.testing.assert_array_equal(example["relations"], first.relations)


def test_any_number_of_threads(prepared):
    found = records.load(prepared)
    ids = [image.image_id for image in found.collection.splits["train"]] * 20
    with threads.ThreadPoolExecutor(8) as executor:
        together = list(executor.map(functools.partial(found.photograph, "train"), ids))
    assert together == [found.photograph("train", image_id) for image_id in ids]


def test_other_classes_and_string_ids(tmp_path):
    small = Vocabulary((BACKGROUND, "ship", "quay"), (BACKGROUND, "at"))
    boxes = np.array([[0, 0, 20, 10], [5, 5, 30, 30.1]])
    labels, relations = np.array([1, 2], np.int32), np.array([[0, 1, 1]], np.int32)
    image = Annotation("0017", 40, 50, boxes, labels, relations)
    folder = write(tmp_path / "files", {"train": pack([image])}, small)
    with pytest.raises(ValueError, match=r"2 objects and 1 predicates.*--config=other"):
        build(folder, tmp_path / "wrong", "tfrecord")
    found = records.load(build(folder, tmp_path / "data", "tfrecord", "other", 1)).collection
    assert found.vocabulary == small and found.splits["train"][0].image_id == "0017"


def test_missing_photographs_are_told_before_anything_is_written(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "files")
    (tmp_path / "files" / "images" / "96.jpg").unlink()
    with pytest.raises(ValueError, match=r"1 of 13 photographs.*'96.jpg'.*manual_dir"):
        build(tmp_path / "files", tmp_path / "data", "tfrecord")


@pytest.mark.parametrize("damage", ["truncated", "missing", "empty", "flipped"])
def test_damaged_shards_are_told(prepared, tmp_path, damage):
    folder = shutil.copytree(prepared, tmp_path / "copy")
    shard = sorted(folder.glob("*-train.*"))[1]
    data = bytearray(shard.read_bytes())
    data[300] ^= 4
    kept = {"truncated": len(data) // 3, "empty": 0, "flipped": len(data)}
    shard.write_bytes(data[: kept.get(damage, 0)])
    if damage == "missing":
        shard.unlink()
    with pytest.raises(ValueError, match=r"(?s)copy.*build or copy"):
        records.load(os.fspath(folder))


def test_the_same_id_in_two_splits(tmp_path):
    """As COCO files have it that number each split's images from 0."""
    rng, size = np.random.default_rng(3), (40, 40)
    for split, value in (("train", 10), ("val", 120), ("test", 230)):
        images = [annotation(rng, k, 2, 1, f"{split}-{k}.jpg") for k in range(2)]
        images = [dataclasses.replace(a, width=40, height=40) for a in images]
        coco.write(Collection(VG150, {split: pack(images)}), epath.Path(tmp_path / "files"))
        for a in images:
            Image.new("RGB", size, (value,) * 3).save(tmp_path / "files" / a.file_name, "JPEG")
    prepared = build(tmp_path / "files", tmp_path / "data", "tfrecord", "other", 1)
    for split, value in (("train", 10), ("val", 120), ("test", 230)):
        source = records.Records(config(prepared), split)
        for index in range(2):
            assert np.abs(source.example(index)[0].astype(int) - value).max() < 5


@pytest.mark.parametrize("exact", [False, True])
def test_boxes_that_miss_their_image_load_as_from_the_files(tmp_path, exact):
    """VG150's were cut to the square around the image; `exact` ones are stored as pixels."""
    boxes = np.array([(2, 40, 20, 60), (1, 1, 9, 9 + exact / 3)])
    labels, relations = np.array([1, 2], np.int32), np.array([[0, 1, 1]], np.int32)
    images = [Annotation(k, 64, 32, boxes, labels, relations) for k in range(2)]
    folder = write(tmp_path / "files", {"train": pack(images)})
    assert visual_genome.read(folder, Photographs([])).relative != exact
    ready, files = config(build(folder, tmp_path / "data", "tfrecord")), config(folder)
    found = Dataset(records.Records(ready, "val"), pipeline, ready)
    wanted = Dataset(Files(files, "val"), threads, files)
    assert records.load(ready.dir).collection.relative != exact
    assert_equal(found.evaluation_batches(1), wanted.evaluation_batches(1))


def test_undecodable_photograph_is_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "files")
    path = tmp_path / "files" / "images" / "98.jpg"
    path.write_bytes(path.read_bytes()[:200])
    source = records.Records(
        config(build(tmp_path / "files", tmp_path / "data", "tfrecord"), val_images=1), "train"
    )
    with pytest.raises(ValueError, match=r"1\.0\.0, image 98: cannot decode"):
        source.example([a.image_id for a in source.annotations].index(98))


def test_folders_that_are_none(prepared, tmp_path):
    with pytest.raises(ValueError, match=r"no prepared folder.*CONFIG/VERSION"):
        records.load(os.fspath(tmp_path))
    folder = shutil.copytree(prepared, tmp_path / "copy")
    (folder / "metadata.json").unlink()
    with pytest.raises(ValueError, match=r"no class names in metadata\.json"):
        records.load(os.fspath(folder))
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "riegeli"}))
    shutil.copy(epath.Path(prepared) / "metadata.json", folder)
    with pytest.raises(ValueError, match=r"riegeli.*--file_format=tfrecord or array_record"):
        records.load(os.fspath(folder))


def test_tfds_build_takes_the_folder(folder, tmp_path):
    """The code of `tfds build`; the command `tfds` itself needs apache_beam and mlcroissant."""
    program = (
        "import simple_parsing\n"
        "from tensorflow_datasets.scripts.cli import build\n"
        "parser = simple_parsing.ArgumentParser()\n"
        "parser.add_arguments(build.Args, 'build')\n"
        "parser.parse_args().build.execute()"
    )
    package = pathlib.Path(sgg.__file__).parent
    arguments = [package, "--config=vg150", "--file_format=array_record", "--num_shards=2"]
    arguments += [f"--manual_dir={folder}", f"--data_dir={tmp_path}"]
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=package.parents[3], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = records.load(os.fspath(tmp_path / "visual_genome_sgg" / "vg150" / "1.0.0"))
    assert {k: len(t) for k, t in found.collection.splits.items()} == {"train": 10, "test": 3}


class TestBuilder(tfds.testing.DatasetBuilderTestCase):
    """TensorFlow Datasets' own requirements of a builder."""

    DATASET_CLASS = sgg.Builder
    BUILDER_CONFIG_NAMES_TO_TEST = ("vg150",)
    SPLITS = {"train": 3, "test": 2}  # noqa: RUF012
    SKIP_CHECKSUMS = True

    @classmethod
    def setUpClass(cls):
        rng = np.random.default_rng(0)
        images = [annotation(rng, k, 3, 2) for k in range(5)]
        cls.EXAMPLE_DIR = tempfile.mkdtemp()
        write(cls.EXAMPLE_DIR, {"train": pack(images[:3]), "test": pack(images[3:])})
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        shutil.rmtree(cls.EXAMPLE_DIR)
