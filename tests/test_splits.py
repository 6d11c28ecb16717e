"""Which images train, val and test hold, against the rules written as loops."""

from __future__ import annotations

import dataclasses
import json

import h5py
import numpy as np
import pytest
import reference_metrics as reference
from conftest import SHARED
from etils import epath

from linknet_jax.config import get_default
from linknet_jax.data import splits
from linknet_jax.data.collection import BACKGROUND, Collection, pack
from linknet_jax.data.formats import visual_genome
from linknet_jax.data.photographs import Photographs
from linknet_jax.types import Annotation, Vocabulary

VOCABULARY = Vocabulary((BACKGROUND, *"abc"), (BACKGROUND, "on", "in"))


def settings(**changes):
    config = get_default("sgcls").data
    config.update({"name": "custom", "dir": "FOLDER", "val_images": 4, **changes})
    return config


def image(rng, name, boxes, relations):
    low = rng.uniform(-10, 100, (boxes, 2)).round()
    return Annotation(
        image_id=name,
        width=90,
        height=110,
        boxes=np.concatenate([low, low + rng.integers(1, 30, (boxes, 2))], axis=1),
        labels=rng.integers(1, 4, boxes, np.int32),
        relations=np.column_stack(
            [rng.integers(0, max(boxes, 1), (relations, 2)), rng.integers(1, 3, relations)]
        ).astype(np.int32),
    )


def images(count, seed):
    """A third of them unrelated, every seventh without boxes."""
    rng = np.random.default_rng(seed)
    boxes = [0 if k % 7 == 3 else int(rng.integers(2, 6)) for k in range(count)]
    return [
        image(rng, f"{seed}-{k}", n, 0 if not n or k % 3 == 1 else int(rng.integers(1, 5)))
        for k, n in enumerate(boxes)
    ]


WHOLE = {"train": images(40, 0), "test": images(9, 1), "val": images(8, 2)}


def collection(*names):
    return Collection(VOCABULARY, {name: pack(WHOLE[name]) for name in names})


def chosen(split, names=("train", "test"), **changes):
    return [a.image_id for a in splits.choose(collection(*names), split, settings(**changes))]


def related(name):
    return [a.image_id for a in WHOLE[name] if len(a.relations)]


def boxed(name):
    return [a.image_id for a in WHOLE[name] if len(a.boxes)]


def test_available_splits():
    assert splits.available(collection("train")) == ("train", "val")
    assert splits.available(collection("train", "test")) == ("train", "val", "test")


def test_validation_is_the_first_related_images():
    assert chosen("val") == related("train")[:4]
    assert chosen("train") == related("train")[4:]
    assert chosen("test") == related("test")


def test_a_tenth_without_a_number():
    count = len(related("train")) // 10
    assert 1 < count < 4
    assert chosen("val", val_images=0) == related("train")[:count]
    assert chosen("train", val_images=0) == related("train")[count:]
    few = Collection(VOCABULARY, {"train": pack(WHOLE["train"][:5])})
    assert len(splits.choose(few, "val", settings(val_images=0))) == 1


def test_a_split_of_their_own_is_used_whole():
    names = ("train", "val", "test")
    assert chosen("val", names) == related("val") and chosen("train", names) == related("train")
    assert chosen("val", names, images_with="boxes") == boxed("val")


def test_the_detector_validates_on_the_same_images():
    """Otherwise it would train on images that the relation model validates on."""
    assert chosen("val", images_with="boxes") == related("train")[:4]
    rest = [name for name in boxed("train") if name not in related("train")[:4]]
    assert chosen("train", images_with="boxes") == rest and len(rest) > len(chosen("train"))
    assert chosen("test", images_with="boxes") == boxed("test") != related("test")


def test_the_list_of_motifs():
    assert chosen("val", val_list="motifs") == related("train")[:4]
    detector = {"images_with": "boxes", "val_list": "motifs"}
    assert chosen("val", **detector) == boxed("train")[:4] != related("train")[:4]
    assert chosen("train", **detector) == boxed("train")[4:]


def test_overlap_filter_equals_a_loop():
    expected = {}
    for a in WHOLE["train"]:
        kept = [
            (s, o, p)
            for s, o, p in a.relations.tolist()
            if reference.box_iou(a.boxes[s], a.boxes[o], True) > 0
        ]
        if kept and a.image_id not in related("train")[:4]:
            expected[a.image_id] = kept
    found = splits.choose(collection("train"), "train", settings(overlap_filter=True))
    assert {a.image_id: [tuple(r) for r in a.relations.tolist()] for a in found} == expected
    total = sum(len(a.relations) for a in WHOLE["train"])
    assert 0 < sum(map(len, expected.values())) < total
    assert len(expected) < len(related("train")) - 4
    # Others are validated on as they are.
    assert chosen("val", overlap_filter=True) == related("train")[:4]
    kept = splits.choose(collection("train", "test"), "test", settings(overlap_filter=True))
    assert kept.relation_counts.sum() == sum(len(a.relations) for a in WHOLE["test"])


def test_boxes_that_share_a_pixel_are_not_apart():
    boxes = np.array([(0, 0, 10, 10), (10, 10, 20, 20), (10, 22, 20, 30.0)])
    relations = np.int32([(0, 1, 1), (0, 2, 1), (1, 2, 1), (2, 2, 1)])
    alone = Annotation(0, 50, 50, boxes, np.int32([1, 1, 1]), relations)
    assert splits.drop_apart(pack([alone]))[0].relations.tolist() == [[0, 1, 1], [2, 2, 1]]


def test_the_collection_stays_as_it_is():
    whole = collection("train")
    before = whole.splits["train"].boxes.copy()
    splits.choose(whole, "train", settings(overlap_filter=True))
    np.testing.assert_array_equal(whole.splits["train"].boxes, before)


def test_splits_that_are_not_there():
    with pytest.raises(ValueError, match="split 'dev' must be one of train, val, test"):
        chosen("dev")
    with pytest.raises(ValueError, match=r"data.dir='FOLDER' has no test split"):
        chosen("test", ("train",))
    with pytest.raises(ValueError, match=r"has no (val|train) split"):
        chosen("val", ("test",))
    with pytest.raises(ValueError, match=r"no image with relations in train.*data.val_images=100"):
        chosen("train", val_images=100)
    empty = Collection(VOCABULARY, {"train": pack([WHOLE["train"][1]])})
    with pytest.raises(ValueError, match="no image with relations in val"):
        splits.choose(empty, "val", settings())


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """Trivial boxes in the numbers of Xu et al.'s file: images, boxes, relations, splits."""
    rng = np.random.default_rng(0)
    split = np.repeat([0, 2], [75651, 32422]).astype(np.int32)
    boxes, relations = np.zeros(108073, int), np.zeros(108073, int)
    for number, with_boxes, with_relations in ((0, 73538, 62723), (2, 31876, 26446)):
        rows = rng.permutation(np.flatnonzero(split == number))
        boxes[rows[:with_boxes]], relations[rows[:with_relations]] = 10, 6
    for counts, total in ((boxes, 1145398), (relations, 622705)):
        counts[np.flatnonzero(counts)[: total - counts.sum()]] += 1
    arrays = {"split": split}
    for kind, counts in (("box", boxes), ("rel", relations)):
        end = np.cumsum(counts)
        arrays[f"img_to_first_{kind}"] = np.where(counts, end - counts, -1).astype(np.int32)
        arrays[f"img_to_last_{kind}"] = np.where(counts, end - 1, -1).astype(np.int32)
    first = np.repeat(arrays["img_to_first_box"], relations)
    place = np.arange(622705) - np.repeat(arrays["img_to_first_rel"], relations)
    arrays |= {
        "labels": np.ones((1145398, 1), np.int32),
        "boxes_1024": np.tile(np.int32([(512, 400, 300, 300)]), (1145398, 1)),
        "predicates": np.ones((622705, 1), np.int32),
        "relationships": np.stack([first, first + 1 + place], axis=1).astype(np.int32),
    }
    folder = tmp_path_factory.mktemp("official")
    with h5py.File(folder / "VG-SGG.h5", "w") as h5:
        for name, values in arrays.items():
            h5.create_dataset(name, data=values)
    names = {"label_to_idx": {"a": 1}, "predicate_to_idx": {"on": 1}}
    (folder / "VG-SGG-dicts.json").write_text(json.dumps(names))
    ids = [1592, 1722, 4616, 4617, *range(2_000_000, 2_108_073)]
    entries = [{"image_id": k, "width": 900, "height": 800} for k in ids]
    (folder / "image_data.json").write_text(json.dumps(entries))
    return epath.Path(folder)


def test_counts_of_the_official_files(official):
    config = settings(name="visual_genome", val_images=5000)
    whole = visual_genome.read(official, Photographs([]))
    parts = {name: splits.choose(whole, name, config) for name in ("train", "val", "test")}
    assert {k: len(t) for k, t in parts.items()} == {"train": 57723, "val": 5000, "test": 26446}
    ids = [a for t in parts.values() for a in np.asarray(t.image_ids)[t.rows].tolist()]
    assert len(set(ids)) == len(ids)
    config.images_with = "boxes"
    detector = {name: splits.choose(whole, name, config) for name in parts}
    assert {k: len(t) for k, t in detector.items()} == {"train": 68538, "val": 5000, "test": 31876}
    config.images_with, config.val_images = "relations", 100
    assert len(splits.choose(whole, "train", config)) == 62623
    # An image that changed sides gives other counts: wrong files.
    config.val_images = 5000
    row = parts["train"].rows[-1:]
    train, test = whole.splits["train"], whole.splits["test"]
    moved = {
        "train": dataclasses.replace(train, rows=np.setdiff1d(train.rows, row)),
        "test": dataclasses.replace(test, rows=np.concatenate([test.rows, row])),
    }
    for name, count in (("train", 57722), ("test", 26447)):
        match = f"{name} has {count} images with relations, but the official VG150 has"
        with pytest.raises(ValueError, match=match):
            splits.choose(Collection(whole.vocabulary, moved), name, config)


PUBLIC = {
    "vg150_boxes": ({"train": 15000, "val": 3000, "test": 5000}, 3000),
    "rs_mksgg": ({"train": 3295, "val": 366, "test": 754}, 0),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_counts_of_public_files(name):
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"no {folder} (set LINKNET_SHARED_DATA)")
    counts, val_images = PUBLIC[name]
    whole = visual_genome.read(epath.Path(folder), Photographs([]))
    config = settings(val_images=val_images)
    parts = {split: splits.choose(whole, split, config) for split in counts}
    assert {k: len(t) for k, t in parts.items()} == counts
    ids = {k: set(np.asarray(t.image_ids)[t.rows].tolist()) for k, t in parts.items()}
    assert len(set().union(*ids.values())) == sum(counts.values())
