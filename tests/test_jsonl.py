"""Scene-graph JSON Lines: the format's definition, round trips, and damaged lines."""

from __future__ import annotations

import gzip
import json
import re

import numpy as np
import pytest
from etils import epath
from graphs import assert_same, collection

from linknet_jax.data.formats import jsonl
from linknet_jax.data.photographs import photographs_of


def record(**changes):
    return {
        "image_id": 2343749,
        "width": 800,
        "height": 600,
        "objects": [
            {"box": [1, 2, 30.25, 40], "label": "man"},
            {"box": [0, 0, 800, 600], "label": "horse"},
        ],
        "relations": [{"subject": 0, "predicate": "riding", "object": 1}],
    } | changes


def save(folder, *lines, name="train.jsonl"):
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / name).write_text("\n".join(texts) + "\n")
    return folder


def load(folder):
    folder = epath.Path(folder)
    return jsonl.read(folder, photographs_of(folder))


def test_small_file(tmp_path):
    other = record(image_id="b", file_name="c.png", relations=[{"subject": 1, "predicate": "near",
                                                              "object": 1}])  # fmt: skip
    result = load(save(tmp_path, record(file_name="2343749.jpg"), other))
    assert result.vocabulary.objects == ("__background__", "horse", "man")  # sorted
    assert result.vocabulary.predicates == ("__background__", "near", "riding")
    a, b = result.splits["train"]
    assert (a.image_id, a.file_name, a.width, a.height) == (2343749, "", 800, 600)
    assert (b.image_id, b.file_name) == ("b", "c.png")
    np.testing.assert_array_equal(a.boxes, [[1, 2, 30.25, 40], [0, 0, 800, 600]])
    assert a.labels.tolist() == [2, 1] and a.relations.tolist() == [[0, 1, 2]]
    assert b.relations.tolist() == [[1, 1, 1]]


def test_vocabulary_of_all_splits(tmp_path):
    save(tmp_path, record())
    zebra = record(image_id=1, objects=[{"box": [0, 0, 1, 1], "label": "apple"}], relations=[])
    save(tmp_path, zebra, name="test.jsonl")
    result = load(tmp_path)
    assert result.vocabulary.objects == ("__background__", "apple", "horse", "man")
    assert result.splits["train"][0].labels.tolist() == [3, 2]
    assert result.splits["test"][0].labels.tolist() == [1]


def test_listed_vocabulary(tmp_path):
    save(tmp_path, record())
    lists = {"objects": ["man", "cat", "horse"], "predicates": ["riding"]}
    (tmp_path / "vocabulary.json").write_text(json.dumps(lists))
    result = load(tmp_path)
    assert result.vocabulary.objects == ("__background__", "man", "cat", "horse")
    assert result.splits["train"][0].labels.tolist() == [1, 3]
    save(tmp_path, record(), record(image_id=1, objects=[{"box": [0, 0, 1, 1], "label": "cow"}]))
    (finding,) = load(tmp_path).findings
    assert "line 2, image 1: object 0, label 'cow' is not in vocabulary.json" in str(finding)


@pytest.mark.parametrize("compress", [False, True])
def test_round_trip(tmp_path, compress):
    original = collection()
    assert jsonl.write(original, epath.Path(tmp_path)) == []
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == sorted([*(f"{s}.jsonl" for s in original.splits), "vocabulary.json"])
    for path in tmp_path.glob("*.jsonl") if compress else ():
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert jsonl.recognises(epath.Path(tmp_path))
    assert_same(original, load(tmp_path))


def test_written_lines_are_the_format(tmp_path):
    original = collection(3)
    jsonl.write(original, epath.Path(tmp_path))
    lines = [json.loads(x) for x in (tmp_path / "val.jsonl").read_text().splitlines()]
    for line, a in zip(lines, original.splits["val"], strict=True):
        assert line["image_id"] == a.image_id and line.get("file_name", "") == a.file_name
        assert [o["box"] for o in line["objects"]] == a.boxes.tolist()
        names = [original.vocabulary.objects[k] for k in a.labels]
        assert [o["label"] for o in line["objects"]] == names
        rows = [(r["subject"], r["object"], r["predicate"]) for r in line["relations"]]
        assert rows == [(s, o, original.vocabulary.predicates[p]) for s, o, p in a.relations]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_id": None}, "image id None must be an integer or a string"),
        ({"image_id": True}, "image id True"),
        ({"image_id": [1]}, r"image id \[1\]"),
        ({"image_id": 5}, "image 5: the image id stands twice"),
        ({"width": 0}, "width 0 and height 600 must be integers from 1"),
        ({"height": 10**10}, "must be integers from 1 to 2147483647"),
        ({"width": "800"}, "width '800'"),
        ({"file_name": 1}, "file_name 1 must be a string"),
        ({"objects": None}, "objects must be a list, got None"),
        ({"relations": {}}, "relations must be a list"),
        ({"objects": [3]}, "object 0, 3 must be an object with box and label"),
        ({"objects": [{"box": [1, 2, 3], "label": "a"}]}, "object 0, box .* 4 numbers"),
        ({"objects": [{"box": [1, 2, 3, "4"], "label": "a"}]}, "object 0, box .* 4 numbers"),
        ({"objects": [{"box": [1, 2, 3, 10**400], "label": "a"}]}, "object 0, box .* 4 numbers"),
        ({"objects": [{"box": [1, 2, 3, 4]}]}, "object 0, label None must be the name"),
        ({"objects": [{"box": [1, 2, 3, 4], "label": 7}]}, "object 0, label 7 must be the name"),
        ({"objects": [{"box": [1, 2, 3, 4], "label": ""}]}, "label '' must be the name"),
        ({"objects": [{"box": [1, 2, 3, 4], "label": "__background__"}]}, "__background__' must"),
        ({"objects": [], "relations": []}, None),
        ({"relations": ["x"]}, "relation 0, 'x' must be an object with subject"),
        (
            {"relations": [{"subject": 0, "predicate": "on", "object": 2}]},
            "relation 0, object 2 must be one of the line's 2 objects, from 0",
        ),
        ({"relations": [{"subject": -1, "predicate": "on", "object": 1}]}, "subject -1 must be"),
        (
            {"relations": [{"subject": 2**70, "predicate": "on", "object": 1}]},
            "subject 1180.* must",
        ),
        ({"relations": [{"subject": 0.0, "predicate": "on", "object": 1}]}, "subject 0.0 must be"),
        ({"relations": [{"subject": 0, "predicate": 3, "object": 1}]}, "predicate 3 must be"),
        ({"relations": [{"subject": 0, "object": 1}]}, "predicate None must be"),
        ({"objects": [{"box": [9, 2, 3, 4], "label": "a"}], "relations": []}, "is empty"),
    ],
)
def test_wrong_lines(tmp_path, changes, message):
    result = load(save(tmp_path, record(image_id=5), "", record(**changes), record(image_id=6)))
    found = [str(f) for f in result.findings if f.severity == "error"]
    ids = [a.image_id for a in result.splits["train"]]
    if message is None:
        assert not found and ids == [5, 2343749, 6]
        return
    assert ids == [5, 6] and len(found) == 1
    assert "train.jsonl, line 3" in found[0] or "train.jsonl, image " in found[0]
    assert re.search(message, found[0]), found


@pytest.mark.parametrize(
    "text",
    [
        "{oops",
        "[1, 2]",
        "3",
        '{"image_id": 1',
        "[" * 100_000,
        json.dumps(record())[:50],
        "1" * 9999,
    ],
)
def test_lines_that_are_no_record(tmp_path, text):
    result = load(save(tmp_path, record(), text, record(image_id=1)))
    (finding,) = result.findings
    assert (finding.severity, finding.where) == ("error", "line 2")
    assert len(result.splits["train"]) == 2


def test_numbers_that_are_not_finite(tmp_path):
    boxes = ["[NaN, 0, 1, 1]", "[0, 0, Infinity, 1]", "[0, 0, 1e999, 1]"]
    lines = [json.dumps(record(image_id=k)).replace("[1, 2, 30.25, 40]", box)
             for k, box in enumerate(boxes)]  # fmt: skip
    result = load(save(tmp_path, *lines, record()))
    assert len(result.splits["train"]) == 1
    assert all("image" in f.where and "finite" in f.message for f in result.findings)
    assert len(result.findings) == 3


def test_bytes_that_are_no_utf8(tmp_path):
    (tmp_path / "test.jsonl").write_bytes(b"\xff\xfe{}\n" + json.dumps(record()).encode())
    result = load(tmp_path)
    assert [f.where for f in result.findings] == ["line 1"] and len(result.splits["test"]) == 1


def test_damaged_gzip(tmp_path):
    data = gzip.compress("\n".join(json.dumps(record(image_id=k)) for k in range(99)).encode())
    for wrong in (data[:-20], data[: len(data) // 2], b"text", data[:40] + b"\0\0\0" + data[43:]):
        (tmp_path / "train.jsonl.gz").write_bytes(wrong)
        with pytest.raises(ValueError, match=r"jsonl\.gz, after line \d+: is no complete gzip"):
            load(tmp_path)


def test_folders_without_a_file_or_with_two(tmp_path):
    with pytest.raises(ValueError, match=r"no train\.jsonl"):
        load(tmp_path)
    (tmp_path / "train.jsonl").write_text("")
    assert len(load(tmp_path).splits["train"]) == 0
    (tmp_path / "train.jsonl.gz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"both train\.jsonl and train\.jsonl\.gz"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"objects": ["a", "a"], "predicates": ["on"]}, "objects: entry 1, the name 'a', stands"),
        ({"objects": ["a", 3], "predicates": ["on"]}, "objects: entry 1, 3, must be a name"),
        ({"objects": ["a"], "predicates": ["__background__"]}, "predicates: entry 0.*background"),
    ],
)
def test_wrong_vocabulary(tmp_path, lists, message):
    save(tmp_path)
    (tmp_path / "vocabulary.json").write_text(json.dumps(lists))
    (finding,) = load(tmp_path).findings
    assert finding.severity == "error" and re.search(message, str(finding))


def test_vocabulary_that_is_none(tmp_path):
    save(tmp_path)
    for text in ('{"objects": ["a"]}', "[]", "{", ""):
        (tmp_path / "vocabulary.json").write_text(text)
        with pytest.raises(ValueError, match=r"vocabulary\.json"):
            load(tmp_path)


def test_names_in_plain_utf8_after_a_byte_order_mark(tmp_path):
    line = json.dumps(record(objects=[{"box": [0, 0, 1, 1], "label": "日本"}], relations=[]),
                      ensure_ascii=False)  # fmt: skip
    (tmp_path / "train.jsonl").write_bytes(f"\ufeff{line}\r\n".encode())
    result = load(tmp_path)
    assert result.findings == [] and result.vocabulary.objects == ("__background__", "日本")
