"""The VRD layout: the real files, small folders with one thing wrong each, and round trips."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
from etils import epath
from graphs import annotation, as_facts, assert_same, collection
from PIL import Image

from linknet_jax.config import get_config
from linknet_jax.data import files
from linknet_jax.data.collection import Collection, pack
from linknet_jax.data.files import Files
from linknet_jax.data.formats import vrd
from linknet_jax.data.photographs import photographs_of


@pytest.fixture(autouse=True)
def fresh():
    """Folders are read once a process, but the tests change them."""
    files._load.cache_clear()


def split_of(folder, split, size=64, pixels=True, **settings):
    """What training reads; the variant `vrd` validates on the first tenth of train."""
    config = get_config("sgcls", "vrd").data
    config.update({"dir": str(folder), "image_size": size} | settings)
    return Files(config, split, pixels)


def relation(subject=0, object_=1, predicate=0, box=(5, 25, 10, 40), other=(0, 30, 0, 60)):
    """Boxes are [ymin, ymax, xmin, xmax]."""
    return {
        "predicate": predicate,
        "subject": {"category": subject, "bbox": list(box)},
        "object": {"category": object_, "bbox": list(other)},
    }


def save(folder, images, split="train", metadata=None, photographs=True):
    """A VRD folder whose photographs are 60 pixels wide and 30 high."""
    if photographs:
        (folder / "images").mkdir(exist_ok=True)
        for name in images:
            Image.new("RGB", (60, 30), "red").save(folder / "images" / name)
    (folder / "objects.json").write_text(json.dumps(["person", "dog", "hat"]))
    (folder / "predicates.json").write_text(json.dumps(["on", "wear"]))
    (folder / f"annotations_{split}.json").write_text(json.dumps(images))
    if metadata is not None:
        (folder / f"{split}_image_metadata.json").write_text(json.dumps(metadata))
    return folder


def load(folder):
    folder = epath.Path(folder)
    return vrd.read(folder, photographs_of(folder))


def errors(folder):
    return [str(f) for f in load(folder).findings if f.severity == "error"]


def test_small_file(tmp_path):
    rows = [relation(), relation(predicate=1), relation(2, 0, other=(5, 25, 10, 40))]
    result = load(save(tmp_path, {"x.jpg": rows, "y.jpg": []}, "test"))
    assert result.vocabulary.objects == ("__background__", "person", "dog", "hat")
    assert result.vocabulary.predicates == ("__background__", "on", "wear")
    assert list(result.splits) == ["test"] and result.findings == []
    a, b = result.splits["test"]
    assert (a.image_id, a.file_name, a.width, a.height) == ("x.jpg", "x.jpg", 60, 30)
    np.testing.assert_array_equal(a.boxes, [[10, 5, 40, 25], [0, 0, 60, 30], [10, 5, 40, 25]])
    assert a.labels.tolist() == [1, 2, 3]
    assert a.relations.tolist() == [[0, 1, 1], [0, 1, 2], [2, 0, 1]]
    assert (b.image_id, b.boxes.shape, b.relations.shape) == ("y.jpg", (0, 4), (0, 3))


def test_sizes_without_photographs(tmp_path):
    stated = {"x.jpg": {"width": 61, "height": 30}, "z.jpg": {"width": 60.5, "height": 30}}
    images = {name: [relation()] for name in ("x.jpg", "y.jpg", "z.jpg")}
    folder = save(tmp_path, images, metadata=stated, photographs=False)
    (a,) = load(folder).splits["train"]
    assert (a.image_id, a.width, a.height) == ("x.jpg", 61, 30)
    found = errors(folder)
    assert len(found) == 2 and all("does not state its width" in text for text in found)
    assert "image 'y.jpg'" in found[0] and "got None" in found[0]


def test_some_photographs_are_missing(tmp_path):
    stated = {name: {"width": 60, "height": 30} for name in ("x.jpg", "y.jpg")}
    folder = save(tmp_path, {name: [relation()] for name in stated}, metadata=stated)
    (folder / "images" / "y.jpg").unlink()
    (text,) = errors(folder)
    assert re.search(
        r"annotations_train\.json, image 'y\.jpg': cannot open .*not in .*images", text
    )


def test_sizes_that_disagree(tmp_path):
    folder = save(tmp_path, {"x.jpg": []}, metadata={"x.jpg": {"width": 120, "height": 60}})
    (text,) = errors(folder)
    assert re.search("'x.jpg' upright is .*60.*metadata.json says .*120", text)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (relation(box=(5, 25, 10, 62)), r"subject: bbox \[5, 25, 10, 62\].*outside.*60x30"),
        (relation(other=(-3, 25, 10, 40)), r"object: bbox \[-3.*outside"),
        (relation(box=(25, 5, 10, 40)), "subject: bbox.*empty"),
        (relation(box=(5, 25, 60, 61)), "subject: bbox.*empty"),
        (relation(box=(5, 25, 10, float("nan"))), "subject: bbox.*nan.*finite"),
        (relation(box=(5, 25, 10)), "subject: bbox.*4 numbers"),
        (relation(box=("1", "2", "3", "4")), "subject: bbox.*4 numbers"),
        (relation(subject=3), "subject: category 3 must be an integer from 0 to 2"),
        (relation(subject=True), "subject: category True must be"),
        (relation(predicate=2), "predicate: 2 must be an integer from 0 to 1"),
        (relation(predicate=-1), "predicate: -1 must be an integer from 0 to 1"),
        ({"predicate": 0, "subject": relation()["subject"]}, "object: missing"),
        ("on", "subject: missing"),
    ],
)
def test_wrong_relations(tmp_path, row, message):
    folder = save(tmp_path, {"ok.jpg": [relation()], "x.jpg": [relation(), row]})
    result = load(folder)
    assert [a.image_id for a in result.splits["train"]] == ["ok.jpg"]
    assert re.search(rf"annotations_train\.json, image 'x.jpg', relation 1, {message}",
                     str(result.findings[0]))  # fmt: skip
    with pytest.raises(ValueError, match=rf"(?s)annotations_train.*'x.jpg', relation 1, {message}"):
        split_of(folder, "train")


def test_findings_are_collected_and_cut(tmp_path):
    rows = [relation(subject=7) for _ in range(13)]
    with pytest.raises(ValueError, match=r"(?s)13 problems.*relation 9, .*and 3 more") as error:
        split_of(save(tmp_path, {"x.jpg": rows}, "test"), "test")
    assert len(str(error.value).splitlines()) == 12


def test_up_to_a_pixel_outside_is_clipped(tmp_path):
    rows = [relation(box=(-1, 31, 0, 60.5))]
    (a,) = load(save(tmp_path, {"x.jpg": rows})).splits["train"]
    assert a.boxes[0].tolist() == [0, 0, 60, 30]


def test_missing_and_broken_images(tmp_path):
    names = ("ok.jpg", "cut.jpg", "gone.jpg")
    folder = save(tmp_path, {name: [relation()] for name in names}, "test")
    (folder / "images" / "gone.jpg").unlink()
    whole = (folder / "images" / "cut.jpg").read_bytes()
    (folder / "images" / "cut.jpg").write_bytes(whole[:-40])
    with pytest.raises(ValueError, match=r"(?s)2 problems.*decode.*cut\.jpg.*open.*gone\.jpg"):
        split_of(folder, "test")


def test_rotated_photograph_is_measured_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    rows = [relation(box=(0, 55, 0, 30), other=(1, 9, 1, 9))]
    folder = save(tmp_path, {"x.jpg": rows}, "test", {"x.jpg": {"width": 30, "height": 60}})
    Image.new("RGB", (60, 30)).save(folder / "images" / "x.jpg", exif=exif)
    (a,) = split_of(folder, "test").annotations
    assert (a.width, a.height) == (30, 60)


def test_val_is_the_head_of_train_and_images_without_relations_are_dropped(tmp_path):
    images = {f"{i}.jpg": [relation()] if i != 3 else [] for i in range(21)}
    folder = save(tmp_path, images)
    names = {
        split: [a.image_id for a in split_of(folder, split).annotations]
        for split in ("val", "train")
    }
    assert names["val"] == ["0.jpg", "1.jpg"]
    assert names["train"] == [f"{i}.jpg" for i in range(2, 21) if i != 3]


def test_a_split_without_images(tmp_path):
    folder = save(tmp_path, {"x.jpg": [relation()]})
    assert len(split_of(folder, "val").annotations) == 1
    with pytest.raises(ValueError, match=r"no image with relations in train"):
        split_of(folder, "train")
    with pytest.raises(ValueError, match=r"data\.dir=.* has no test split"):
        split_of(folder, "test")
    with pytest.raises(ValueError, match="split 'dev' must be one of train, val, test"):
        split_of(folder, "dev")


def test_missing_folder(tmp_path):
    with pytest.raises(ValueError, match=r"data\.name=vrd.*--config\.data\.dir=FOLDER"):
        split_of("", "train")
    with pytest.raises(ValueError, match=r"nowhere' is no folder.*--config\.data\.dir=FOLDER"):
        split_of(tmp_path / "nowhere", "test")


def test_wrong_files(tmp_path):
    with pytest.raises(ValueError, match=r"missing objects\.json, predicates\.json, annotations"):
        load(tmp_path)
    save(tmp_path, {"x.jpg": 3})
    assert "'x.jpg', relations: 3 must be a list" in errors(tmp_path)[0]
    (tmp_path / "objects.json").write_text('["person", "dog", "dog"]')
    assert "objects.json: entry 2, the name 'dog', stands twice" in errors(tmp_path)[0]
    for text in ("{oops", "{}", ""):
        (tmp_path / "objects.json").write_text(text)
        with pytest.raises(ValueError, match=r"objects\.json"):
            load(tmp_path)


def holdable(seed):
    """A collection that VRD can hold: objects in the order of their relations, ids = names."""
    original = collection(seed)
    splits = {}
    for split, table in original.splits.items():
        images = []
        for a in table:
            seen = list(dict.fromkeys(a.relations[:, :2].flatten().tolist()))
            rank = {k: i for i, k in enumerate(seen)}
            rows = [(rank[s], rank[o], p) for s, o, p in a.relations.tolist()]
            name = f"{len(images)}_{a.image_id}.png"
            images.append(dataclasses.replace(
                a, image_id=name, file_name=name, boxes=a.boxes[seen], labels=a.labels[seen],
                relations=np.array(rows, np.int32).reshape(-1, 3),
            ))  # fmt: skip
        splits[split] = pack(images)
    return Collection(original.vocabulary, splits)


@pytest.mark.parametrize("seed", range(3))
def test_round_trip(tmp_path, seed):
    original = holdable(seed)
    assert vrd.write(original, epath.Path(tmp_path)) == []
    assert vrd.recognises(epath.Path(tmp_path))
    assert_same(original, load(tmp_path))


def test_what_cannot_be_held_is_counted(tmp_path):
    rng = np.random.default_rng(0)
    a = annotation(rng, 5, boxes=6, relations=0)
    boxes = np.concatenate([a.boxes[:4], a.boxes[:1], [[-3.0, 1, 9, a.height + 2]]])
    relations = np.array([[0, 1, 1], [4, 1, 2], [5, 1, 3]], np.int32)
    a = dataclasses.replace(
        a, boxes=boxes, labels=np.array([1, 2, 3, 4, 1, 2]), relations=relations
    )
    twin = dataclasses.replace(a, image_id="5")
    original = Collection(collection().vocabulary, {"test": pack([a, twin])})
    assert vrd.write(original, epath.Path(tmp_path)) == [
        "2 image ids became file names",
        "1 images were left out, as another of their split has the same file name",
        "2 objects without a relation were left out",
        "1 objects were merged with one of the same box and class",
        "1 boxes were clipped to their image",
    ]
    (b,) = load(tmp_path).splits["test"]
    assert b.image_id == "5.jpg" and b.relations.tolist() == [[0, 1, 1], [0, 1, 2], [2, 1, 3]]
    np.testing.assert_array_equal(b.boxes[2], [0, 1, 9, a.height])


def test_real_files(vrd_dir, tmp_path):
    result = load(vrd_dir)
    assert {k: len(t) for k, t in result.splits.items()} == {"train": 655, "test": 100}
    counts = [t.relation_counts.sum() for t in result.splits.values()]
    assert counts == [5295, 776] and not [f for f in result.findings if f.severity == "error"]
    assert vrd.write(result, epath.Path(tmp_path)) == []
    again = load(tmp_path)  # sizes from the written metadata
    assert_same(result, again)
    for split, table in again.splits.items():
        raw = json.loads((vrd_dir / f"annotations_{split}.json").read_text())
        for a, facts in zip(table, as_facts(table), strict=True):
            expected = []
            for row in raw[a.image_id]:
                ends = []
                for role in ("subject", "object"):
                    ymin, ymax, xmin, xmax = row[role]["bbox"]
                    x2, y2 = min(xmax, a.width), min(ymax, a.height)
                    ends.append((row[role]["category"] + 1, max(xmin, 0), max(ymin, 0), x2, y2))
                expected.append((ends[0], row["predicate"] + 1, ends[1]))
            assert facts == sorted(expected)


def test_real_splits(vrd_dir):
    train, val, test = (split_of(vrd_dir, split) for split in ("train", "val", "test"))
    assert [len(s.annotations) for s in (train, val, test)] == [590, 65, 100]
    relations = [sum(len(a.relations) for a in s.annotations) for s in (train, val, test)]
    assert (relations[0] + relations[1], relations[2]) == (5295, 776)
    assert test.vocabulary.sizes == (101, 71)
    ids = [{a.image_id for a in s.annotations} for s in (train, val, test)]
    assert not ids[0] & ids[1] and not ids[2] & (ids[0] | ids[1])
    stated = json.loads((vrd_dir / "test_image_metadata.json").read_text())
    for a in test.annotations:
        assert stated[a.image_id] == {"width": a.width, "height": a.height}


def test_real_relations_survive_the_indexing(vrd_dir):
    split = split_of(vrd_dir, "test")
    raw = json.loads((vrd_dir / "annotations_test.json").read_text())
    for a in list(split.annotations)[:20]:
        assert len({(*box, label) for box, label in zip(a.boxes.tolist(), a.labels, strict=True)}) \
            == len(a.boxes)  # fmt: skip
        for row, (s, o, p) in zip(raw[a.image_id], a.relations, strict=True):
            assert row["predicate"] + 1 == p
            for entry, i in ((row["subject"], s), (row["object"], o)):
                ymin, ymax, xmin, xmax = entry["bbox"]
                assert a.boxes[i].tolist() == [xmin, ymin, xmax, ymax]
                assert a.labels[i] == entry["category"] + 1


def test_real_example(vrd_dir):
    split = split_of(vrd_dir, "test", 128)
    image, valid, scale = split.example(3)
    a = split.annotations[3]
    assert image.shape == (128, 128, 3) and scale == 128 / max(a.width, a.height)
    np.testing.assert_allclose(valid, [a.height * scale, a.width * scale], atol=1)
    assert split.truth is None
