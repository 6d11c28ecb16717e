"""COCO json with relations: folders as tools write them, round trips, and damaged files."""

from __future__ import annotations

import json
import random
import re

import numpy as np
import pytest
from etils import epath
from graphs import assert_same, collection
from PIL import Image

from linknet_jax.data.formats import coco
from linknet_jax.data.photographs import photographs_of


def content(**changes):
    """Two images; annotation ids restart in neither."""
    return {
        "images": [
            {"id": 10, "file_name": "a.png", "width": 100, "height": 50},
            {"id": 4, "file_name": "4.jpg", "width": 60, "height": 80},
        ],
        "annotations": [
            {"id": 7, "image_id": 4, "category_id": 2, "bbox": [1, 2, 30, 40.5], "area": 1},
            {"id": 3, "image_id": 10, "category_id": 5, "bbox": [0, 0, 10, 10]},
            {"id": 9, "image_id": 4, "category_id": 5, "bbox": [5, 5, 5, 5]},
        ],
        "categories": [{"id": 5, "name": "man"}, {"id": 2, "name": "dog", "supercategory": "x"}],
        "rel_categories": [{"id": 0, "name": "on"}, {"id": 3, "name": "near"}],
        "rel_annotations": [
            {"id": 0, "image_id": 4, "subject_id": 9, "object_id": 7, "predicate_id": 3},
            {"id": 1, "image_id": 4, "subject_id": 7, "object_id": 9, "predicate_id": 0},
        ],
    } | changes


def save(folder, name="train.json", **changes):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content(**changes)))
    return folder


def load(folder):
    folder = epath.Path(folder)
    return coco.read(folder, photographs_of(folder))


def errors(folder):
    return [str(f) for f in load(folder).findings if f.severity == "error"]


def test_small_file(tmp_path):
    result = load(save(tmp_path))
    assert result.findings == []
    assert result.vocabulary.objects == ("__background__", "man", "dog")
    assert result.vocabulary.predicates == ("__background__", "on", "near")
    a, b = result.splits["train"]
    assert (a.image_id, a.file_name, a.width, a.height) == (10, "a.png", 100, 50)
    assert (b.image_id, b.file_name) == (4, "")  # the usual name
    np.testing.assert_array_equal(a.boxes, [[0, 0, 10, 10]])
    np.testing.assert_array_equal(b.boxes, [[1, 2, 31, 42.5], [5, 5, 10, 10]])
    assert b.labels.tolist() == [2, 1] and a.relations.shape == (0, 3)
    assert b.relations.tolist() == [[1, 0, 2], [0, 1, 1]]


@pytest.mark.parametrize("order", range(3))
def test_sections_in_any_order(tmp_path, order):
    items = list(content().items())
    random.Random(order).shuffle(items)
    (tmp_path / "train.json").write_text(json.dumps({"info": {"images": []}, **dict(items)}))
    assert_same(load(tmp_path), load(save(tmp_path / "other")))


@pytest.mark.parametrize(
    ("ids", "background"),
    [
        ((0, 1), ""),
        ((1, 2), ""),
        ((90, 17), ""),
        ((1, 2), "__background__"),
        ((2, 1), "background"),
    ],
)
def test_class_ids(tmp_path, ids, background):
    extra = [{"id": 0, "name": background}] * bool(background)
    changes = {
        "categories": [*extra, *({"id": k, "name": n} for k, n in zip(ids, "ab", strict=True))],
        "rel_categories": [*extra, {"id": ids[1], "name": "on"}],
        "annotations": [{"id": 1, "image_id": 4, "category_id": ids[1], "bbox": [1, 1, 2, 2]}],
        "rel_annotations": [
            {"image_id": 4, "subject_id": 1, "object_id": 1, "predicate_id": ids[1]}
        ],
    }
    result = load(save(tmp_path, **changes))
    assert result.vocabulary.objects == ("__background__", "a", "b")
    _, b = result.splits["train"]
    assert b.labels.tolist() == [2] and b.relations.tolist() == [[0, 0, 1]]


@pytest.mark.parametrize(
    "names",
    [
        ("train.json", "val.json", "test.json"),
        ("train_relations.json", "val_relations.json", "test_relations.json"),
        ("annotations/instances_train2017.json", "annotations/instances_val2017.json", "test.json"),
        ("train/_annotations.coco.json", "valid/_annotations.coco.json", "test/annotations.json"),
    ],
)
def test_splits_by_file_name(tmp_path, names):
    for number, name in enumerate(names):
        images = [{"id": number, "file_name": f"{number}.jpg", "width": 9, "height": 9}]
        save(tmp_path, name, images=images, annotations=[], rel_annotations=[])
    (tmp_path / "categories.json").write_text("{}")
    assert coco.recognises(epath.Path(tmp_path))
    splits = load(tmp_path).splits
    assert [(k, [a.image_id for a in t]) for k, t in splits.items()] == [
        ("train", [0]),
        ("val", [1]),
        ("test", [2]),
    ]


def test_photographs_in_the_folder_of_the_split(tmp_path):
    save(tmp_path, "train/_annotations.coco.json")
    assert [a.file_name for a in load(tmp_path).splits["train"]] == ["a.png", ""]
    Image.new("RGB", (100, 50)).save(tmp_path / "train" / "a.png")
    # another Photographs, as a listing is remembered
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert [a.file_name for a in load(moved).splits["train"]] == ["train/a.png", "train/4.jpg"]


def test_annotation_ids_may_repeat_in_other_images(tmp_path):
    boxes = [
        {"id": k, "image_id": image, "category_id": 2, "bbox": [k, k, 1, 1]}
        for image in (4, 10)
        for k in (1, 0)
    ]
    relations = [
        {"image_id": image, "subject_id": 0, "object_id": 1, "predicate_id": 0} for image in (10, 4)
    ]
    a, b = load(save(tmp_path, annotations=boxes, rel_annotations=relations)).splits["train"]
    for image in (a, b):
        assert image.boxes[:, 0].tolist() == [1, 0] and image.relations.tolist() == [[1, 0, 1]]


def test_round_trip(tmp_path):
    original = collection()
    assert coco.write(original, epath.Path(tmp_path)) == []
    result = load(tmp_path)
    assert_same(original, result)
    assert {f.severity for f in result.findings} <= {"warning"}


def test_written_file_is_plain_coco(tmp_path):
    original = collection(1)
    coco.write(original, epath.Path(tmp_path))
    data = json.loads((tmp_path / "test.json").read_text())
    assert data["images"][0] == {"id": 5, "file_name": "x.jpg"} | {
        k: getattr(original.splits["test"][0], k) for k in ("width", "height")
    }
    by_id = {a["id"]: a for a in data["annotations"]}
    assert len(by_id) == len(data["annotations"]) == original.splits["test"].box_counts.sum()
    names = {c["id"]: c["name"] for c in data["rel_categories"]}
    facts = [
        (by_id[r["subject_id"]]["image_id"], names[r["predicate_id"]])
        for r in data["rel_annotations"]
    ]
    vocabulary = original.vocabulary.predicates
    assert facts == [
        (a.image_id, vocabulary[p]) for a in original.splits["test"] for _, _, p in a.relations
    ]


def test_an_edited_bbox_overrules_the_exact_corners(tmp_path):
    box = {"id": 1, "image_id": 4, "category_id": 2, "bbox": [1, 1, 5, 5]}
    boxes = [box | {"bbox_xyxy": [1, 1, 9, 6]}, box | {"id": 2, "bbox_xyxy": [1, 1, 6, 6 + 1e-12]}]
    _, b = load(save(tmp_path, annotations=boxes, rel_annotations=[])).splits["train"]
    np.testing.assert_array_equal(b.boxes, [[1, 1, 6, 6], [1, 1, 6, 6 + 1e-12]])


def change(section, number, **fields):
    """`content` with other fields in one record; ... removes a field."""
    records = [dict(r) for r in content()[section]]
    records[number].update(fields)
    records[number] = {k: v for k, v in records[number].items() if v is not ...}
    return {section: records}


BOX, RELATION = r"annotations\[1\], id 3: ", r"rel_annotations\[1\]: "


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (change("annotations", 1, bbox=[1, 2, 3]), f"image 10, {BOX}bbox.*must be 4 numbers"),
        (change("annotations", 1, bbox=[1, 2, "3", 4]), BOX + "bbox.*must be 4 numbers"),
        (change("annotations", 1, bbox=[1, 2, True, 4]), BOX + "bbox.*must be 4 numbers"),
        (change("annotations", 1, bbox=[1, 2, 2**40, 4]), BOX + "bbox.*must be 4 numbers"),
        (change("annotations", 1, bbox=...), BOX + "bbox None"),
        (change("annotations", 1, bbox=[5, 5, 0, 4]), "image 10: object 0, box .* is empty"),
        (change("annotations", 1, bbox=[500, 5, 7, 4]), "image 10: object 0, box .* outside"),
        (change("annotations", 1, category_id=1), BOX + "category_id 1 is none of the ids"),
        (change("annotations", 1, category_id=5.0), BOX + "category_id 5.0 is none"),
        (change("annotations", 1, category_id=[]), BOX + r"category_id \[\] is none"),
        (change("annotations", 1, id="x"), r"annotations\[1\], id 'x': id 'x' must be an integer"),
        (change("annotations", 2, id=7), "image 4, annotations, id 7: stands twice"),
        (change("annotations", 1, image_id=99), BOX + "image_id 99 is none of `images`"),
        (change("annotations", 1, image_id=[]), r"annotations\[1\].*image_id \[\] is none"),
        ({"annotations": ["x"]}, r"annotations\[0\].*image_id None"),
        (change("rel_annotations", 1, subject_id=3), RELATION + "subject_id 3 is no annotation"),
        (change("rel_annotations", 1, object_id=99), RELATION + "object_id 99 is no annotation"),
        (change("rel_annotations", 1, object_id=-1), RELATION + "object_id -1 is no annotation"),
        (change("rel_annotations", 1, object_id=None), RELATION + "object_id None must be"),
        (change("rel_annotations", 1, predicate_id=1), RELATION + "predicate_id 1 is none"),
        (change("rel_annotations", 1, predicate_id=...), RELATION + "predicate_id None is none"),
        (change("rel_annotations", 1, image_id="4"), RELATION + "image_id '4' is none"),
        (change("images", 0, width=0), r"images\[0\], id 10: width 0 .*must be integers from 1"),
        (change("images", 0, height=10**12), r"images\[0\], id 10: .*must be integers from 1"),
        (change("images", 0, height="9"), r"images\[0\], id 10: .*height '9' must be integers"),
        (change("images", 0, id=1.5), r"images\[0\], id 1.5: image id 1.5 must be an integer"),
        (change("images", 0, id=4), "image 4: the image id stands twice"),
        (change("images", 0, file_name=3), r"images\[0\], id 10: file_name 3 must be a string"),
        ({"categories": []}, "categories: has no class"),
        ({"rel_categories": {}}, "rel_categories: has no class"),
        (change("categories", 0, id=2), r"categories\[1\]: id 2 stands twice"),
        (change("categories", 0, name="dog"), "categories: entry 1, the name 'dog', stands twice"),
        (change("categories", 0, name=None), "categories: entry 0, None, must be a name"),
        (change("categories", 0, name="__background__"), "entry 0.*the implied background"),
        (change("categories", 0, id="5"), r"categories\[0\]: id '5' must be an integer"),
    ],
)
def test_wrong_records(tmp_path, changes, message):
    result = load(save(tmp_path, **changes))
    found = [str(f) for f in result.findings if f.severity == "error"]
    assert any(re.search(rf"train\.json.*{message}", text) for text in found), found
    table = result.splits["train"]
    assert len(table) < 2 or "categories:" in found[0] or "of `images`" in found[0]
    for a in table:
        assert (a.labels > 0).all() and len(a.labels) == len(a.boxes)


def test_only_the_wrong_image_is_left_out(tmp_path):
    result = load(save(tmp_path, **change("annotations", 0, bbox=None)))
    assert [a.image_id for a in result.splits["train"]] == [10]
    assert len([f for f in result.findings if f.severity == "error"]) == 1  # not the relations too


def test_damaged_relations_without_any_box(tmp_path):
    assert len(errors(save(tmp_path, annotations=[]))) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"no JSON.*line 1 column 1"),
        (json.dumps(content(), indent=1)[:-400], r"no JSON.*line \d\d"),
        ('{"categories": [\n{"id": 1,, }]}', "line 2 column 10"),
        (json.dumps(content(annotations=[{"bbox": [float("nan")]}])), "NaN.*cannot be read"),
        (json.dumps(content(annotations=[{"id": 2**70}])), "overflow.*64 bits cannot be read"),
        ("\ufeff{}", "no JSON"),
    ],
)
def test_files_that_are_no_json(tmp_path, text, message):
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(ValueError, match=rf"train\.json is {message}|train\.json.*{message}"):
        load(tmp_path)


def test_bytes_that_are_no_utf8(tmp_path):
    (tmp_path / "train.json").write_bytes(b'{"categories": [{"id": 1, "name": "\xff\xfe"}]}')
    with pytest.raises(ValueError, match=r"train\.json is no JSON.*position 35"):
        load(tmp_path)


def test_class_lists_of_the_splits(tmp_path):
    save(tmp_path)
    reordered = [{"id": 2, "name": "dog"}, {"id": 5, "name": "man"}]
    save(tmp_path, "val.json", categories=reordered)
    other = [{"id": 5, "name": "man"}, {"id": 2, "name": "cat"}]
    save(tmp_path, "test.json", categories=other)
    result = load(tmp_path)
    assert list(result.splits) == ["train", "val"]
    (finding,) = result.findings
    assert finding.severity == "error" and finding.file.endswith("test.json")
    assert "objects" in finding.message and "['cat'], only there ['dog']" in finding.message
    for x, y in zip(*result.splits.values(), strict=True):
        np.testing.assert_array_equal(x.labels, y.labels)


def test_folders_without_a_file_or_with_two(tmp_path):
    with pytest.raises(ValueError, match=r"no file of a split; name them train\.json"):
        load(tmp_path)
    save(tmp_path, "train.json")
    save(tmp_path, "annotations/instances_train.json")
    with pytest.raises(ValueError, match=r"2 files for the split train.*instances_train\.json"):
        load(tmp_path)


def test_missing_sections_are_mentioned(tmp_path):
    data = content()
    del data["rel_annotations"]
    (tmp_path / "test.json").write_text(json.dumps(data))
    (finding,) = load(tmp_path).findings
    assert (finding.severity, finding.where) == ("warning", "rel_annotations")
