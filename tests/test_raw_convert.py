"""Raw Visual Genome to VG150: against slow loops, and one small file for every reason to drop."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import raw_reference as reference
from etils import epath
from raw_reference import object_, relation, write

from linknet_jax.data.collection import pack
from linknet_jax.data.formats import visual_genome
from linknet_jax.data.photographs import Photographs
from linknet_jax.data.raw.convert import convert_raw
from linknet_jax.data.raw.encoding import encode_raw, stored_pixels
from linknet_jax.data.raw.report import Report, describe_splits, fingerprint
from linknet_jax.types import Annotation, Vocabulary

WORDS = Vocabulary(("__background__", "dog", "hat", "man"), ("__background__", "has", "on"))
MAN, HAT, DOG = (object_(1, 11, 21, 300, 300, "Man"), object_(2, 101, 21, 50, 60, "hat"),
                 object_(3, 401, 301, 90, 80, "dog"))  # fmt: skip
SIZE = (500, 400)


def convert(folder, rows, relations=(), size=SIZE, vocabulary=WORDS):
    """The annotation of a single image, and the report."""
    write(folder, {5: list(rows)}, {5: list(relations)}, {5: size})
    collection, report = convert_raw(epath.Path(folder), vocabulary=vocabulary)
    assert collection.findings == [] and balanced(report)
    (annotation,) = collection.splits["test"]  # 0.7 images are none
    return annotation, report


def balanced(report):
    """What was read is what was dropped and what was kept."""
    r = report
    boxes = (r.boxes_tiny, r.boxes_merged_same, r.boxes_merged_nested, r.boxes_merged_overlapping,
             r.boxes_outside_vocabulary, r.boxes_kept)  # fmt: skip
    relations = (r.relations_without_box, r.relations_outside_vocabulary, r.relations_self)
    return (
        r.boxes_read + r.boxes_added == sum(boxes)
        and r.relations_read == sum(relations) + r.relations_kept
        and r.images_read == r.images_removed + r.images_kept
    )


def changed(report):
    """The counts that are not 0, without those of the images."""
    counts = dataclasses.asdict(report).items()
    return {k: v for k, v in counts if type(v) is int and v and not k.startswith("images")}


def random_files(seed, folder):
    rng = np.random.default_rng(seed)
    names = ["man", "Men", "hat", "HAT.", "dog", "thing", "puppy", "a man"]
    objects, relations, images = {}, {}, {}
    for i in [*rng.permutation(40).tolist(), 1592]:
        width, height = map(int, rng.integers(60, 900, 2))
        images[i] = (width, height)
        pool = []
        for number in range(int(rng.integers(0, 14))):
            x, y = int(rng.integers(-3, width)), int(rng.integers(-3, height))
            w, h = int(rng.integers(1, width)), int(rng.integers(1, height // 2))
            if pool and rng.random() < 0.5:
                o = pool[rng.integers(len(pool))]
                x, y = (o[k] + int(rng.integers(0, 4)) for k in "xy")
                w, h = (max(1, o[k] - int(rng.integers(-3, 9))) for k in "wh")
            chosen = [names[k] for k in rng.integers(len(names), size=rng.integers(1, 3))]
            number = number - 1 if number and rng.random() < 0.05 else number  # a repeated id
            pool.append(object_(100 * i + number, x, y, w, h, *chosen))
        present = rng.random(len(pool)) < 0.85
        objects[i] = [o for o, here in zip(pool, present, strict=True) if here]
        relations[i] = [
            relation(pool[a], ["ON", "has ", "over", "sits on"][rng.integers(4)], pool[b])
            for a, b in rng.integers(max(len(pool), 1), size=(12 * bool(pool), 2))
        ]
    shuffled = [dict(sorted(d.items(), key=lambda _: rng.random())) for d in (objects, relations)]
    write(folder, *shuffled, images)
    return objects, relations, images


@pytest.mark.parametrize("seed", range(12))
def test_equals_the_reference(tmp_path, seed):
    files = random_files(seed, tmp_path)
    object_lines, predicate_lines = ["man,men,a man", "dog,puppy"], ["on,sits on"]
    (tmp_path / "object_alias.txt").write_text("\n".join(object_lines))
    (tmp_path / "relationship_alias.txt").write_text("\n".join(predicate_lines))
    collection, report = convert_raw(epath.Path(tmp_path), vocabulary=WORDS)
    expected = reference.convert(
        *files, (WORDS.objects[1:], WORDS.predicates[1:]), object_lines, predicate_lines
    )
    found = [a for part in ("train", "test") for a in collection.splits[part]]
    assert [a.image_id for a in found] == list(expected)
    for a, (boxes, labels, relations) in zip(found, expected.values(), strict=True):
        np.testing.assert_array_equal(a.boxes, np.reshape(boxes, (-1, 4)))
        assert [WORDS.objects[k] for k in a.labels] == labels
        rows = [(s, o, WORDS.predicates[p]) for s, o, p in a.relations.tolist()]
        assert rows == relations
    assert balanced(report) and (report.object_aliases, report.predicate_aliases) == (5, 2)
    assert len(collection.splits["train"]) == 28 and report.images_removed == 1
    merged = (report.boxes_merged_same, report.boxes_merged_nested, report.boxes_merged_overlapping)
    assert min(merged) > 0 and report.boxes_tiny > 0 and report.relations_self > 0


def test_what_is_kept(tmp_path):
    rows = [relation(MAN, "ON", DOG), relation(MAN, "has!", HAT)]
    a, report = convert(tmp_path, [MAN, HAT, DOG], rows)
    assert (a.image_id, a.width, a.height, a.file_name) == (5, 500, 400, "")
    np.testing.assert_array_equal(a.labels, [3, 2, 1])
    np.testing.assert_array_equal(a.relations, [[0, 2, 2], [0, 1, 1]])
    assert changed(report) == {
        "boxes_read": 3, "boxes_kept": 3, "relations_read": 2, "relations_kept": 2,
    }  # fmt: skip
    np.testing.assert_allclose(a.boxes[0], [10, 20, 310, 320], atol=1)


def test_objects_of_relations_only(tmp_path):
    """Each mention is added, and the mentions are merged; names may be `names` there too."""
    twice = [relation(MAN, "on", DOG), relation(MAN, "has", HAT)]
    twice[1]["object"]["names"] = [twice[1]["object"].pop("name")]
    a, report = convert(tmp_path, [DOG], twice)
    np.testing.assert_array_equal(a.labels, [1, 3, 2])
    np.testing.assert_array_equal(a.relations, [[1, 0, 2], [1, 2, 1]])
    assert (report.boxes_read, report.boxes_added, report.boxes_merged_same) == (1, 3, 1)


def test_a_tiny_object_is_not_added_again(tmp_path):
    """0.2 % of 500 x 400 are 400 pixels: that much is dropped, one more row is kept."""
    tiny, small = object_(2, 5, 5, 20, 20, "hat"), object_(4, 305, 5, 20, 21, "hat")
    rows = [relation(MAN, "has", tiny), relation(MAN, "has", small)]
    a, report = convert(tmp_path, [MAN, tiny, small], rows)
    assert len(a.boxes) == 2 and a.relations.tolist() == [[0, 1, 1]]
    assert (report.boxes_tiny, report.boxes_added, report.relations_without_box) == (1, 0, 1)


@pytest.mark.parametrize("size", [(0, 50), (50, 0), (-50, -50)])
def test_boxes_without_area(tmp_path, size):
    _, report = convert(tmp_path, [MAN, object_(9, 40, 40, *size, "dog")])
    assert (report.boxes_tiny, report.boxes_kept) == (1, 1)


def test_outside_the_vocabulary(tmp_path):
    thing = object_(8, 300, 10, 80, 80, "thing")
    nameless = object_(9, 400, 100, 80, 80), object_(10, 410, 110, 40, 40)
    rows = [relation(MAN, "has", thing), relation(MAN, "above", DOG), relation(MAN, "on", DOG)]
    a, report = convert(tmp_path, [thing, MAN, *nameless, DOG], rows)
    np.testing.assert_array_equal(a.labels, [3, 1])
    assert a.relations.tolist() == [[0, 1, 2]]
    assert report.boxes_outside_vocabulary == 3
    assert (report.relations_without_box, report.relations_outside_vocabulary) == (1, 1)


def test_relations_within_one_merged_box(tmp_path):
    twin = object_(4, 12, 21, 300, 300, "person")
    rows = [relation(MAN, "on", twin), relation(twin, "has", HAT), relation(MAN, "has", HAT)]
    a, report = convert(tmp_path, [MAN, twin, HAT], rows)
    assert a.relations.tolist() == [[0, 1, 1], [0, 1, 1]]  # duplicates stay
    assert (report.relations_self, report.boxes_merged_same) == (1, 1)


def test_a_nested_and_an_overlapping_box(tmp_path):
    inner, beside = object_(4, 111, 121, 30, 300, "man"), object_(5, 31, 31, 300, 300, "man")
    _, report = convert(tmp_path, [MAN, beside, object_(6, 111, 121, 30, 30, "man")])
    assert (report.boxes_merged_overlapping, report.boxes_merged_nested) == (1, 1)
    a, report = convert(tmp_path, [MAN, inner])  # reaches beyond: neither
    assert len(a.boxes) == 2


def test_aliases_lie_in_the_folder(tmp_path):
    rows = [object_(1, 11, 21, 300, 300, "Gentlemen"), DOG]
    verbs = [relation(rows[0], "sits on.", DOG)]
    a, _ = convert(tmp_path, rows, verbs)
    assert len(a.boxes) == 1
    (tmp_path / "object_alias.txt").write_text("man,gentlemen")
    a, _ = convert(tmp_path, rows, verbs)
    assert a.labels.tolist() == [3, 1] and len(a.relations) == 0
    (tmp_path / "relationship_alias.txt").write_text("on,sits on")
    a, _ = convert(tmp_path, rows, verbs)
    assert a.labels.tolist() == [3, 1] and a.relations.tolist() == [[0, 1, 2]]


def test_the_most_frequent_name_of_a_merged_box_is_its_label(tmp_path):
    man, dog = (dict(object_(7, 11, 21, 300, 300, name)) for name in ("man", "dog"))
    objects = {1: [man, {**dog, "object_id": 8}], 2: [DOG], 3: []}
    write(tmp_path, objects, {1: [], 2: [], 3: []}, dict.fromkeys(objects, SIZE))
    collection, _ = convert_raw(epath.Path(tmp_path), vocabulary=WORDS)
    assert [a.labels.tolist() for a in collection.splits["train"]] == [[1], [1]]
    objects[3] = [man]
    objects[2] = [{**man, "object_id": 4, "x": 100}]
    write(tmp_path, objects, {1: [], 2: [], 3: []}, dict.fromkeys(objects, SIZE))
    collection, _ = convert_raw(epath.Path(tmp_path), vocabulary=WORDS)
    assert [a.labels.tolist() for a in collection.splits["train"]] == [[3], [3]]


def test_vg150_is_the_default(tmp_path):
    a, _ = convert(tmp_path, [DOG], vocabulary=None)
    assert a.labels.tolist() == [37]


@pytest.mark.parametrize("seed", range(8))
def test_encoding_equals_the_reference(seed):
    rng = np.random.default_rng(seed)
    sides = rng.integers(10, 1500, 200)
    boxes = np.concatenate(
        [rng.integers(-20, 1.2 * sides[:, None], (200, 2)), rng.integers(1, 1500, (200, 2))], axis=1
    )
    pairs = list(zip(boxes.tolist(), sides.tolist(), strict=True))
    np.testing.assert_array_equal(encode_raw(boxes, sides), [reference.encode(*p) for p in pairs])
    pixels = [reference.pixels(reference.encode(*p), p[1]) for p in pairs]
    np.testing.assert_array_equal(stored_pixels(boxes, sides), pixels)


@pytest.mark.parametrize(
    ("box", "stored"),
    [
        ((1, 1, 1024, 1024), (512, 512, 1024, 1024)),
        ((1, 1, 3, 2), (1, 1, 3, 2)),
        ((0, -5, 10, 10), (5, 5, 10, 10)),  # moved to the border, not cut
        ((1025, 1, 5, 5), (1023, 2, 2, 5)),  # at least 2 x 2 at the far border
        ((1020, 1020, 50, 5), (1021, 1021, 5, 5)),
        ((11, 700, 7, 400), (13, 861, 7, 325)),
    ],
)
def test_encoding_at_the_border(box, stored):
    """In the frame itself: the first pixel is 1, and the frame is a square of 1024."""
    assert encode_raw(np.array([box]), np.array([1024])).tolist() == [list(stored)]


def test_reading_the_written_h5_gives_the_same(tmp_path):
    (tmp_path / "raw").mkdir()
    random_files(3, tmp_path / "raw")
    collection, _ = convert_raw(epath.Path(tmp_path) / "raw", vocabulary=WORDS)
    folder = epath.Path(tmp_path) / "vg150"
    assert visual_genome.write(collection, folder) == []
    back = visual_genome.read(folder, Photographs([]))
    assert not [f for f in back.findings if "outside" not in f.message and f.severity == "error"]
    known = {a.image_id: a for part in back.splits.values() for a in part}
    for a in (a for part in collection.splits.values() for a in part if a.image_id in known):
        for field in ("boxes", "labels", "relations"):
            np.testing.assert_array_equal(getattr(a, field), getattr(known[a.image_id], field))


def test_images_that_a_file_lacks(tmp_path):
    images = dict.fromkeys([1, 2, 3, 1592, 1722, 4616, 4617], SIZE)
    on = relation(MAN, "on", DOG)
    write(tmp_path, {2: [MAN, DOG], 1: [MAN], 9: [], 1592: []}, {3: [on], 2: [on], 8: []}, images)
    collection, report = convert_raw(epath.Path(tmp_path), vocabulary=WORDS)
    found = [a for part in collection.splits.values() for a in part]
    assert [(a.image_id, len(a.boxes), len(a.relations)) for a in found] == [
        *((1, 1, 0), (2, 2, 1), (3, 2, 1))
    ]
    assert (report.images_without_objects, report.images_without_relationships) == (1, 1)
    assert (report.images_removed, report.images_kept, report.images_unknown) == (4, 3, 2)
    texts = sorted(map(str, collection.findings))
    assert len(texts) == 4 and all(text.startswith("warning: ") for text in texts)
    assert "objects.json: 1 images (3) of image_data.json are not in this file" in texts[0]
    assert "objects.json: 1 images (9) of this file are not in image_data.json" in texts[1]
    assert "relationships.json: 1 images (1) of image_data" in texts[2]
    assert "relationships.json: 1 images (8) of this file" in texts[3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": None}, "object 1: x None must be a number of pixels"),
        ({"y": "4"}, "object 1: y '4' must be a number"),
        ({"w": True}, "object 1: w True must be"),
        ({"h": 1e300}, r"object 1: h 1e\+300 must be"),
        ({"x": -(2**40)}, "object 1: x -1099511627776 must be"),
        ({"object_id": 2.5}, "object 1: object_id 2.5 must be an integer"),
        ({"object_id": None}, "object 1: object_id None"),
        ({"names": "hat"}, "object 1: names 'hat' must be a list of strings"),
        ({"names": [3]}, r"object 1: names \[3\] must be a list"),
        ({"names": None}, "object 1: names None must be"),
    ],
)
def test_wrong_objects(tmp_path, change, message):
    with pytest.raises(ValueError, match=rf"objects\.json, image 5: {message}"):
        convert(tmp_path, [MAN, HAT | change])
    missing = {k: v for k, v in HAT.items() if k not in change}
    with pytest.raises(ValueError, match=r"objects\.json, image 5: object 1: "):
        convert(tmp_path, [MAN, missing])


@pytest.mark.parametrize("row", [None, 3, "hat", [], ["object_id"]])
def test_objects_that_are_none(tmp_path, row):
    with pytest.raises(ValueError, match=r"image 5: object 1: .* must be a JSON object"):
        convert(tmp_path, [MAN, row])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predicate": None}, "relation 1: predicate None must be a string"),
        ({"predicate": 4}, "relation 1: predicate 4"),
        ({"predicate": ["on"]}, r"relation 1: predicate \['on'\]"),
        ({"subject": None}, "relation 1: subject None must have an integer object_id"),
        ({"object": {"object_id": "3"}}, "relation 1: object {'object_id': '3'} must have"),
        ({"object": {"object_id": 33}}, "in relations: object 0: x None must be"),
        ({"object": {**DOG, "object_id": 33, "names": 4}}, "in relations: object 0: names 4"),
    ],
)
def test_wrong_relations(tmp_path, change, message):
    good = relation(MAN, "on", DOG)
    with pytest.raises(ValueError, match=rf"relationships\.json, image 5(: |, ){message}"):
        convert(tmp_path, [MAN, DOG], [good, good | change])


def test_entries_without_their_list(tmp_path):
    for name, key in (("objects", "objects"), ("relationships", "relationships")):
        write(tmp_path, {5: [MAN]}, {5: []}, {5: SIZE})
        path = tmp_path / f"{name}.json"
        path.write_text('[{"image_id": 5}]')
        with pytest.raises(ValueError, match=rf"{name}\.json, image 5: no '{key}'"):
            convert_raw(epath.Path(tmp_path))
        path.write_text(f'[{{"image_id": 5, "{key}": {{"1": 2}}}}]')
        with pytest.raises(ValueError, match=rf"{name}\.json, image 5: {key} must be a JSON list"):
            convert_raw(epath.Path(tmp_path))


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (None, 5), ("5", 5), (5.5, 5), (2**21, 5)])
def test_wrong_sizes(tmp_path, size):
    write(tmp_path, {5: []}, {5: []}, {4: SIZE, 5: size})
    with pytest.raises(ValueError, match=r"image_data\.json, image 5: width .* must be"):
        convert_raw(epath.Path(tmp_path))


def test_fingerprint_of_the_splits(tmp_path):
    related = relation(MAN, "on", DOG)
    ids = [40, 7, 23, 8, 90, 11, 12, 13, 14, 15]
    relations = {i: [related] * (i not in (7, 14)) for i in reversed(ids)}
    write(tmp_path, {i: [MAN, DOG] for i in ids}, relations, dict.fromkeys(ids, SIZE))
    first, second = (convert_raw(epath.Path(tmp_path), vocabulary=WORDS)[1] for _ in range(2))
    assert first == second
    assert first.split_images == {"train": 0, "val": 6, "test": 2}
    expected = hashlib.sha256(b"40\n23\n8\n90\n11\n12\n").hexdigest()
    assert first.fingerprints["val"] == expected
    assert first.fingerprints["test"] == hashlib.sha256(b"13\n15\n").hexdigest()
    ids[0], ids[2] = ids[2], ids[0]
    write(tmp_path, {i: [MAN, DOG] for i in ids}, relations, dict.fromkeys(ids, SIZE))
    third = convert_raw(epath.Path(tmp_path), vocabulary=WORDS)[1]
    assert third.fingerprints["val"] != expected
    assert third.fingerprints["test"] == first.fingerprints["test"]


def test_the_first_5000_related_training_images_are_for_validation():
    def image(number):
        relations = np.array([[0, 1, 1]] * (number % 50 > 0))
        return Annotation(number, *SIZE, np.zeros((2, 4)), np.ones(2), relations)

    report = Report()
    describe_splits(report, pack(map(image, range(5250))), pack(map(image, range(5250, 7500))))
    assert report.split_images == {"train": 145, "val": 5000, "test": 2205}
    assert report.fingerprints["train"] == fingerprint([i for i in range(5103, 5250) if i % 50])


def test_the_report_prints_as_a_table_and_as_json(tmp_path):
    _, report = convert(tmp_path, [MAN, DOG], [relation(MAN, "on", DOG)] * 1234)
    lines = str(report).splitlines()
    assert any(line.split() == ["relations", "read", "1,234"] for line in lines)
    assert any(line.split() == ["test", "images", "1"] for line in lines)
    assert lines[-1].split() == ["test", "sha256", report.fingerprints["test"]]
    assert max(map(len, lines)) <= 100
    assert json.loads(report.to_json()) == dataclasses.asdict(report)
