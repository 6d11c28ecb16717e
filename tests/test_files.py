"""A data set in files, from annotations and photographs to the same batches everywhere."""

from __future__ import annotations

import dataclasses
import json
import os
from itertools import islice

import jax
import numpy as np
import pytest
from conftest import SHARED
from etils import epath
from PIL import Image

from linknet_jax import data
from linknet_jax.config import get_config, get_default
from linknet_jax.data import Dataset, boxes_only, files, threads
from linknet_jax.data.collection import BACKGROUND, Collection, pack
from linknet_jax.data.formats import visual_genome
from linknet_jax.data.mirror import flips, mirror
from linknet_jax.data.transforms import ImageError, load_image, resize_and_pad
from linknet_jax.types import Annotation, Vocabulary

VOCABULARY = Vocabulary((BACKGROUND, "a", "left b", "right b"), (BACKGROUND, "on", "in"))
COUNT, BATCH, SIZE = 13, 4, 32


def annotation(rng, name, width, height):
    """Some boxes reach outside."""
    low = rng.integers(0, 20, (3, 2))
    return Annotation(
        image_id=name,
        width=width,
        height=height,
        boxes=np.concatenate([low, low + rng.integers(3, 12, (3, 2))], 1).astype(np.float64),
        labels=rng.integers(1, 4, 3, np.int32),
        relations=np.array([(0, 1, 1), (0, 1, 2), (2, 0, 1)], np.int32),
    )


@pytest.fixture
def folder(tmp_path):
    """17 photographs, of which the first four are for validation; three more to test on."""
    rng = np.random.default_rng(0)
    parts = {"train": range(COUNT + 4), "test": range(50, 53)}
    splits = {
        name: [annotation(rng, k, 32 + 3 * (k % 5), 48 - 3 * (k % 4)) for k in numbers]
        for name, numbers in parts.items()
    }
    tables = {name: pack(found) for name, found in splits.items()}
    visual_genome.write(Collection(VOCABULARY, tables), epath.Path(tmp_path))
    for number, a in enumerate(a for part in splits.values() for a in part):
        place = tmp_path / ("VG_100K", "VG_100K_2")[number % 2]
        place.mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (a.height, a.width, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{a.image_id}.jpg", quality=80)
    return tmp_path


def settings(folder, **changes):
    config = get_default("sgcls")
    config.data.update({"name": "visual_genome", "dir": str(folder), "image_size": SIZE})
    config.data.update({"max_objects": 4, "val_images": 4, "flip": True, "threads": 3, **changes})
    return config.data


@pytest.fixture(params=["threads", "pipeline", "boxes_only"])
def loader(request):
    if request.param == "pipeline":
        pytest.importorskip("tensorflow")
        from linknet_jax.data import pipeline

        return pipeline
    return {"threads": threads, "boxes_only": boxes_only}[request.param]


def dataset(folder, loader, split="train", **changes):
    config = settings(folder, **changes)
    return Dataset(files.Files(config, split, loader is not boxes_only), loader, config)


def assert_equal(left, right):
    assert len(left) == len(right) > 0
    for a, b in zip(left, right, strict=True):
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_array_equal(x, y, strict=True)


def joined(parts):
    """Global batches from the processes' shares."""
    return [jax.tree.map(lambda *x: np.concatenate(x), *same) for same in zip(*parts, strict=True)]


def test_batches_hold_the_files(folder, loader):
    found = dataset(folder, loader)
    assert len(found.annotations) == COUNT and found.truth is None
    assert found.vocabulary == VOCABULARY
    mirrored = []
    for number, batch in enumerate(islice(found.train_batches(BATCH, 5), 7)):
        for row, index in enumerate(batch.image_index.tolist()):
            epoch = (BATCH * number + row) // COUNT
            mirrored.append(bool(flips(5, np.array([epoch]), np.array([index]))[0]))
            a = found.annotations[index]
            path = epath.Path(folder) / ("VG_100K", "VG_100K_2")[a.image_id % 2]
            pixels, covered, scale = load_image(path / f"{a.image_id}.jpg", SIZE, mirrored[-1])
            a = mirror(a, VOCABULARY) if mirrored[-1] else a
            np.testing.assert_array_equal(batch.boxes[row, :3], np.float32(a.boxes * scale))
            np.testing.assert_array_equal(batch.labels[row, :3], a.labels)
            np.testing.assert_array_equal(batch.image_sizes[row], covered)
            if loader is not boxes_only:
                np.testing.assert_array_equal(batch.images[row], pixels)
        shape = (BATCH, 0, 0, 3) if loader is boxes_only else (BATCH, SIZE, SIZE, 3)
        assert batch.images.shape == shape and batch.images.dtype == np.uint8
    assert 5 < sum(mirrored) < 23


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_any_number_of_processes_reads_the_same_and_resumes_anywhere(folder, loader, processes):
    found = dataset(folder, loader)
    whole = list(islice(found.train_batches(BATCH, 3), 8))
    for start in (0, 1, 4, 7):
        shares = [
            list(islice(found.train_batches(BATCH, 3, start, p, processes), 8 - start))
            for p in range(processes)
        ]
        assert_equal(whole[start:], joined(shares))


def test_an_epoch_is_a_permutation(folder, loader):
    found = dataset(folder, loader)
    order = np.concatenate([b.image_index for b in islice(found.train_batches(BATCH, 0), COUNT)])
    epochs = order.reshape(BATCH, COUNT)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(COUNT), (BATCH, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == BATCH


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_evaluation_visits_every_image_once_and_unflipped(folder, loader, processes):
    found = dataset(folder, loader)
    shares = [list(found.evaluation_batches(8, p, processes)) for p in range(processes)]
    assert len({len(share) for share in shares}) == 1
    batches = joined(shares)
    mask = np.concatenate([b.example_mask for b in batches])
    index = np.concatenate([b.image_index for b in batches])
    np.testing.assert_array_equal(index[mask], np.arange(COUNT))
    boxes = np.concatenate([b.boxes for b in batches])[mask]
    for a, row in zip(found.annotations, boxes, strict=True):
        np.testing.assert_array_equal(
            row[:3], np.float32(a.boxes * (SIZE / max(a.width, a.height)))
        )
    assert_equal(batches, list(dataset(folder, loader, flip=False).evaluation_batches(8)))


def test_all_loaders_agree(folder):
    pytest.importorskip("tensorflow")
    from linknet_jax.data import pipeline

    read = [
        list(islice(dataset(folder, loader).train_batches(BATCH, 1, 2), 5))
        for loader in (threads, pipeline, boxes_only)
    ]
    assert_equal(read[0], read[1])
    assert_equal(*([b.replace(images=None) for b in part] for part in read[1:]))


def test_flips_are_drawn_anew_every_epoch(folder):
    found = dataset(folder, boxes_only)
    plain = dataset(folder, boxes_only, flip=False)
    seen = {}
    streams = zip(found.train_batches(1, 0), plain.train_batches(1, 0), strict=True)
    for a, b in islice(streams, 6 * COUNT):
        same = bool((a.boxes == b.boxes).all())
        seen.setdefault(int(a.image_index[0]), []).append(same)
        np.testing.assert_array_equal(a.predicates, b.predicates)
    assert all(len(x) == 6 for x in seen.values())
    assert sum(len(set(x)) == 2 for x in seen.values()) > 9
    assert 0.3 < np.mean(list(seen.values())) < 0.7


def test_splits_through_build(folder):
    config = get_default("predcls")
    config.data = settings(folder, name="custom")
    config.model.visual = False
    assert data.available_splits(config) == ("train", "val", "test")
    ids = {s: [a.image_id for a in data.build(config, s).annotations] for s in ("val", "test")}
    assert ids == {"val": [0, 1, 2, 3], "test": [50, 51, 52]}


def test_missing_photographs(folder):
    (folder / "VG_100K" / "8.jpg").unlink()
    (folder / "VG_100K_2" / "11.jpg").unlink()
    match = r"2 of 13 photographs are missing, the first is '8.jpg'; searched in .*VG_100K_2.*: set"
    with pytest.raises(ValueError, match=match):
        files.Files(settings(folder), "train")
    files.Files(settings(folder), "val")
    files.Files(settings(folder), "train", pixels=False)


def test_damaged_and_exchanged_photographs(folder, loader):
    if loader is boxes_only:
        pytest.skip("reads no photographs")
    found = dataset(folder, loader)
    path = folder / "VG_100K" / "6.jpg"
    pixels = path.read_bytes()
    path.write_bytes(pixels[: len(pixels) // 2])
    with pytest.raises(ImageError, match=r"VG_100K/6.jpg"):
        list(found.evaluation_batches(BATCH))
    Image.new("RGB", (77, 20)).save(path)
    with pytest.raises(ImageError, match=r"image 6 .*is not of 35 x 42 pixels"):
        list(found.evaluation_batches(BATCH))
    path.unlink()
    with pytest.raises(ImageError, match=r"6.jpg"):
        list(found.evaluation_batches(BATCH))


def test_boxes_that_are_parts_of_the_image_fit_other_sizes(folder):
    """The official image_data.json misstates some sizes."""
    found = files.Files(settings(folder), "train")
    a = found.annotations[0]
    other = load_image_of(2 * a.width, 2 * a.height)
    assert files.fit(other, a, SIZE, True)[2] == SIZE / max(a.width, a.height)
    other = load_image_of(a.height, a.width // 3)
    assert files.fit(other, a, SIZE, True)[2] == SIZE / max(a.width, a.height)
    with pytest.raises(ImageError, match="is not of"):
        files.fit(other, a, SIZE, False)


def test_batches_do_not_depend_on_stated_sizes_where_boxes_are_parts_of_the_image(tmp_path, loader):
    """Exchanged, doubled and squashed sizes: the same pixels and boxes, mirrored and cut alike."""
    if loader is boxes_only:
        pytest.skip("knows the stated sizes only")
    rng = np.random.default_rng(1)
    sizes = [(64, 32), (32, 64), (64, 48), (48, 64)]
    annotations = [annotation(rng, k, *sizes[k % 4]) for k in range(8)]
    annotations = [  # to the bit what whole numbers in a square of 1024 give, partly outside
        dataclasses.replace(a, boxes=np.float64([(2, 3, 29, 63), (30, 4, 63, 30), (1, 1, 9, 9)]))
        for a in annotations
    ]
    visual_genome.write(Collection(VOCABULARY, {"train": pack(annotations)}), epath.Path(tmp_path))
    for a in annotations:
        pixels = rng.integers(0, 256, (a.height, a.width, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{a.image_id}.png")
        (tmp_path / f"{a.image_id}.png").rename(tmp_path / f"{a.image_id}.jpg")

    def read():
        files._load.cache_clear()
        found = dataset(tmp_path, loader, val_images=1)
        assert files.load("visual_genome", str(tmp_path))[0].relative
        return [*islice(found.train_batches(BATCH, 2), 6), *found.evaluation_batches(BATCH)]

    right = read()
    stated = json.loads((tmp_path / "image_data.json").read_text())
    for k, image in enumerate(stated):
        width, height = image["width"], image["height"]
        image["width"], image["height"] = [(height, width), (2 * width, 2 * height), (64, 9)][k % 3]
    (tmp_path / "image_data.json").write_text(json.dumps(stated))
    assert_equal(right, read())


def load_image_of(width, height):
    return resize_and_pad(np.zeros((height, width, 3), np.uint8), SIZE)


def test_errors_in_the_files_are_raised(folder):
    names = json.loads((folder / "image_data.json").read_text())
    names[5]["image_id"] = names[6]["image_id"] = "one"
    (folder / "image_data.json").write_text(json.dumps(names))
    with pytest.raises(ValueError, match=r"1 problems in the data.*\n.*image 'one': the image id"):
        files.Files(settings(folder), "train", pixels=False)


def test_wrong_settings(tmp_path):
    with pytest.raises(ValueError, match=r"data.name=vrd needs a folder.*--config.data.dir=FOLDER"):
        files.load("vrd", "")
    with pytest.raises(ValueError, match=r"data.dir='\S*absent' is no folder"):
        files.load("vrd", str(tmp_path / "absent"))
    with pytest.raises(ValueError, match="no data set of a known layout"):
        files.load("custom", str(tmp_path))
    with pytest.raises(ValueError, match=r"data.name.'vg' must be one of synthetic, visual_gen"):
        files.load("vg", str(tmp_path))


def test_photographs_elsewhere(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("photographs")
    for name in ("VG_100K", "VG_100K_2"):
        (folder / name).rename(elsewhere / name)
    with pytest.raises(ValueError, match="13 of 13 photographs are missing"):
        files.Files(settings(folder), "train")
    images = f"{elsewhere}/VG_100K,{elsewhere}/VG_100K_2"
    assert files.Files(settings(folder, images=images), "train").example(0)[0].shape == (32, 32, 3)


@pytest.mark.parametrize("name", ["vg150_boxes", "rs_mksgg"])
def test_public_files_without_pixels(name):
    if not (SHARED / name).is_dir():
        pytest.skip(f"no {SHARED / name} (set LINKNET_SHARED_DATA)")
    config = get_config("predcls", "boxes")
    config.data.update({"name": "custom", "dir": str(SHARED / name), "max_objects": 466})
    config.data.update({"val_images": 3000 if name == "vg150_boxes" else 0, "flip": True})
    found = data.build(config, "train")
    assert len(found.annotations) == {"vg150_boxes": 15000, "rs_mksgg": 3295}[name]
    batch = next(found.train_batches(8, 0))
    assert batch.box_mask.any(axis=1).all() and batch.predicates.any(axis=(1, 2)).all()
    limits = np.tile(batch.image_sizes[:, None, ::-1], 2) + 1
    assert (batch.boxes[batch.box_mask] >= -1e-3).all()
    assert (batch.boxes <= np.where(batch.box_mask[..., None], limits, 99)).all()


def test_two_photographs_of_one_name_must_be_the_same(folder):
    original = next(folder.rglob("50.jpg"))
    twin = folder / ("VG_100K", "VG_100K_2")[original.parent.name == "VG_100K"] / "50.jpg"
    twin.write_bytes(original.read_bytes())
    files.Files(settings(folder), "test")
    twin.write_bytes(original.read_bytes() + b"x")
    with pytest.raises(ValueError, match=r"50\.jpg and .*50\.jpg differ"):
        files.Files(settings(folder), "test")


def test_a_repaired_folder_is_read_anew(folder):
    found = next(folder.rglob("51.jpg"))
    pixels = found.read_bytes()
    found.unlink()
    with pytest.raises(ValueError, match="1 of 3 photographs are missing"):
        files.Files(settings(folder), "test")
    found.write_bytes(pixels)
    os.utime(found.parent, (1, 1))  # times are compared by the second
    assert len(files.Files(settings(folder), "test").annotations) == 3
