"""The VRD reader: the real files, and small folders with one thing wrong each."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from linknet_jax.config import get_default
from linknet_jax.data.vrd import Vrd


def settings(folder, size=64):
    config = get_default("sgcls").data
    config.update({"name": "vrd", "dir": str(folder), "image_size": size})
    return config


def relation(subject=0, object_=1, predicate=0, box=(5, 25, 10, 40), other=(0, 30, 0, 60)):
    """Boxes are [ymin, ymax, xmin, xmax]."""
    return {
        "predicate": predicate,
        "subject": {"category": subject, "bbox": list(box)},
        "object": {"category": object_, "bbox": list(other)},
    }


def write(folder, annotations, split="train", metadata=None):
    """A VRD folder whose photographs are 60 pixels wide and 30 high."""
    (folder / "images").mkdir(exist_ok=True)
    for name in annotations:
        Image.new("RGB", (60, 30), "red").save(folder / "images" / name)
    (folder / "objects.json").write_text(json.dumps(["person", "dog", "hat"]))
    (folder / "predicates.json").write_text(json.dumps(["on", "wear"]))
    (folder / f"annotations_{split}.json").write_text(json.dumps(annotations))
    if metadata:
        (folder / f"{split}_image_metadata.json").write_text(json.dumps(metadata))
    return folder


def test_real_counts(vrd_dir):
    train, val, test = (Vrd(settings(vrd_dir), split) for split in ("train", "val", "test"))
    assert [len(s.annotations) for s in (train, val, test)] == [590, 65, 100]
    relations = [sum(len(a.relations) for a in s.annotations) for s in (train, val, test)]
    assert (relations[0] + relations[1], relations[2]) == (5295, 776)
    assert [len(names) for names in (test.vocabulary.objects, test.vocabulary.predicates)] == [
        101,
        71,
    ]
    ids = [{a.image_id for a in s.annotations} for s in (train, val, test)]
    assert not ids[0] & ids[1] and not ids[2] & (ids[0] | ids[1])
    stated = json.loads((vrd_dir / "test_image_metadata.json").read_text())
    for a in test.annotations:
        assert stated[a.image_id] == {"width": a.width, "height": a.height}


def test_real_relations_survive_the_indexing(vrd_dir):
    split = Vrd(settings(vrd_dir), "test")
    raw = json.loads((vrd_dir / "annotations_test.json").read_text())
    for a in split.annotations[:20]:
        assert len({(*box, label) for box, label in zip(a.boxes.tolist(), a.labels, strict=True)}) \
            == len(a.boxes)  # fmt: skip
        for row, (s, o, p) in zip(raw[a.image_id], a.relations, strict=True):
            assert row["predicate"] + 1 == p
            for entry, i in ((row["subject"], s), (row["object"], o)):
                ymin, ymax, xmin, xmax = entry["bbox"]
                assert a.boxes[i].tolist() == [xmin, ymin, xmax, ymax]
                assert a.labels[i] == entry["category"] + 1


def test_real_example(vrd_dir):
    split = Vrd(settings(vrd_dir, 128), "test")
    image, valid, scale = split.example(3)
    a = split.annotations[3]
    assert image.shape == (128, 128, 3) and scale == 128 / max(a.width, a.height)
    np.testing.assert_allclose(valid, [a.height * scale, a.width * scale], atol=1)
    assert split.truth is None


def test_objects_are_shared_by_relations(tmp_path):
    rows = [relation(), relation(predicate=1), relation(2, 0, other=(5, 25, 10, 40))]
    (a,) = Vrd(settings(write(tmp_path, {"x.jpg": rows}, "test")), "test").annotations
    assert (a.image_id, a.width, a.height) == ("x.jpg", 60, 30)
    np.testing.assert_array_equal(a.boxes, [[10, 5, 40, 25], [0, 0, 60, 30], [10, 5, 40, 25]])
    np.testing.assert_array_equal(a.labels, [1, 2, 3])
    np.testing.assert_array_equal(a.relations, [[0, 1, 1], [0, 1, 2], [2, 0, 1]])


def test_vocabulary(tmp_path):
    vocabulary = Vrd(settings(write(tmp_path, {"x.jpg": [relation()]}, "test")), "test").vocabulary
    assert vocabulary.objects == ("__background__", "person", "dog", "hat")
    assert vocabulary.predicates == ("__background__", "on", "wear")


def test_val_is_the_head_of_train_and_images_without_relations_are_dropped(tmp_path):
    annotations = {f"{i}.jpg": [relation()] if i != 3 else [] for i in range(21)}
    folder = write(tmp_path, annotations)
    names = {
        split: [a.image_id for a in Vrd(settings(folder), split).annotations]
        for split in ("val", "train")
    }
    assert names["val"] == ["0.jpg", "1.jpg"]
    assert names["train"] == [f"{i}.jpg" for i in range(2, 21) if i != 3]


def test_up_to_a_pixel_outside_is_clipped(tmp_path):
    rows = [relation(box=(-1, 31, 0, 60.5))]
    (a,) = Vrd(settings(write(tmp_path, {"x.jpg": rows}, "test")), "test").annotations
    assert a.boxes[0].tolist() == [0, 0, 60, 30]


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
        (relation(predicate=2), "predicate: 2 must be an integer from 0 to 1"),
        (relation(predicate=-1), "predicate: -1 must be"),
        ({"predicate": 0, "subject": relation()["subject"]}, "object: missing"),
        ("on", "subject: missing"),
    ],
)
def test_bad_relation(tmp_path, row, message):
    folder = write(tmp_path, {"ok.jpg": [relation()], "x.jpg": [relation(), row]}, "test")
    with pytest.raises(ValueError, match=rf"(?s)annotations_test.*'x.jpg', relation 1, {message}"):
        Vrd(settings(folder), "test")


def test_findings_are_collected_and_cut(tmp_path):
    rows = [relation(subject=7) for _ in range(13)]
    with pytest.raises(ValueError, match=r"(?s)13 problems.*relation 9, .*and 3 more") as error:
        Vrd(settings(write(tmp_path, {"x.jpg": rows}, "test")), "test")
    assert len(str(error.value).splitlines()) == 12


def test_missing_and_broken_images(tmp_path):
    names = ("ok.jpg", "cut.jpg", "gone.jpg")
    folder = write(tmp_path, {name: [relation()] for name in names}, "test")
    (folder / "images" / "gone.jpg").unlink()
    whole = (folder / "images" / "cut.jpg").read_bytes()
    (folder / "images" / "cut.jpg").write_bytes(whole[:-40])
    with pytest.raises(ValueError, match=r"(?s)2 problems.*decode.*cut\.jpg.*open.*gone\.jpg"):
        Vrd(settings(folder), "test")


def test_rotated_photograph_is_measured_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = {"width": 30, "height": 60}
    folder = write(tmp_path, {"x.jpg": [relation(box=(0, 55, 0, 30), other=(1, 9, 1, 9))]}, "test")
    Image.new("RGB", (60, 30)).save(folder / "images" / "x.jpg", exif=exif)
    (a,) = Vrd(settings(folder), "test").annotations
    assert (a.width, a.height) == (30, 60)
    (folder / "test_image_metadata.json").write_text(json.dumps({"x.jpg": upright}))
    Vrd(settings(folder), "test")


def test_metadata_that_contradicts_the_photograph(tmp_path):
    metadata = {"x.jpg": {"width": 120, "height": 60}}
    folder = write(tmp_path, {"x.jpg": [relation()]}, "test", metadata)
    with pytest.raises(ValueError, match=r"'x.jpg' upright is .*60.*metadata.json says .*120"):
        Vrd(settings(folder), "test")


def test_missing_folder_and_files(tmp_path):
    with pytest.raises(ValueError, match=r"annotations_train\.json.*--config\.data\.dir=FOLDER"):
        Vrd(settings(""), "train")
    with pytest.raises(ValueError, match=r"nowhere.*missing annotations_test\.json.*data\.dir"):
        Vrd(settings(tmp_path / "nowhere"), "test")
    folder = write(tmp_path, {"x.jpg": [relation()]}, "test")
    with pytest.raises(ValueError, match=r"missing annotations_train\.json;"):
        Vrd(settings(folder), "train")
    (folder / "objects.json").write_text("{oops")
    with pytest.raises(ValueError, match=r"objects\.json is no JSON"):
        Vrd(settings(folder), "test")
    with pytest.raises(ValueError, match="split 'dev'"):
        Vrd(settings(folder), "dev")


def test_a_split_without_images(tmp_path):
    with pytest.raises(ValueError, match="no image with relations for the split train"):
        Vrd(settings(write(tmp_path, {"x.jpg": [relation()]})), "train")
