"""Wrong files for the command that scores: one message with place, value and rule; no trace."""

from __future__ import annotations

import gzip
import json

import pytest
from score_files import BOXES, VOCABULARY, assert_refused, predicted, run, truth, valid

P, T, Z, V = "predictions", "ground_truth", "zero_shot", "vocabulary"
BOTH = (T, P)
NAN, INFINITY = float("nan"), float("inf")
HUGE = 10**400  # JSON has no largest number


def entry(kind, number=1, **values):
    """An edit of an object or a relation."""
    return lambda record: record[kind][number].update(values)


def box(*corners):
    return entry("objects", box=list(corners))


def head(**values):
    return lambda record: record.update(values)


RECORDS = {  # of the second line
    "label": (BOTH, entry("objects", label="cow"), ["label 'cow' is not in", "vocabulary.jsonl"]),
    "predicate": (BOTH, entry("relations", 0, predicate="of"), ["predicate 'of' is not in"]),
    "no name": (BOTH, entry("objects", label=""), ["label '' must be the name of a class"]),
    "background": (BOTH, entry("objects", label="__background__"), ["'__background__' must be"]),
    "number as name": (BOTH, entry("relations", 0, predicate=3), ["predicate 3 must be the name"]),
    "list as name": (BOTH, entry("objects", label=["man"]), ["label ['man'] must be the name"]),
    **{
        f"{role} {str(value)[:9]!r}": (
            BOTH,
            entry("relations", 0, **{role: value}),
            [f"relation 0, {role} ", str(value)[:9], "must be one of the line's 2 objects, from 0"],
        )
        for role in ("subject", "object")
        for value in (2, -1, True, 1.0, "0", None, [0], NAN, HUGE)
    },
    "x2 < x1": (BOTH, box(5, 0, 4, 9), ["object 1, box [5, 0, 4, 9] must be", "x2 >= x1"]),
    "y2 < y1": (BOTH, box(5, 9, 6, 8.5), ["object 1, box [5, 9, 6, 8.5] must be", "y2 >= y1"]),
    "NaN in a box": (BOTH, box(NAN, 0, 4, 9), ["object 1, box [nan, 0, 4, 9] must be finite"]),
    "infinite box": (BOTH, box(1, 0, INFINITY, 9), ["box [1, 0, inf, 9] must be finite"]),
    "three numbers": (BOTH, box(1, 2, 3), ["box [1, 2, 3] must be 4 numbers [x1, y1, x2, y2]"]),
    "texts in a box": (BOTH, box("1", 2, 3, 4), ["box ['1', 2, 3, 4] must be 4 numbers"]),
    "bool in a box": (BOTH, box(True, 2, 3, 4), ["box [True, 2, 3, 4] must be 4 numbers"]),
    "huge box": (BOTH, box(0, 0, HUGE, 1), ["object 1, box [0, 0, 1000", "must be 4 numbers"]),
    "no box": (BOTH, entry("objects", box=None), ["object 1, box None must be 4 numbers"]),
    **{
        f"{kind} score {str(value)[:9]!r}": (
            (P,),
            entry(kind, score=value),
            [f"{kind[:-1]} 1, score ", str(value)[:9], "must be a finite number"],
        )
        for kind in ("objects", "relations")
        for value in (NAN, INFINITY, -INFINITY, 1e300, HUGE, None, True, "0.5", [0.5])
    },
    "no score": ((P,), lambda r: r["objects"][0].pop("score"), ["object 0, score None must be"]),
    "no subject": (BOTH, lambda r: r["relations"][0].pop("subject"), ["subject None must be one"]),
    "integer twice": (BOTH, head(image_id=7), ["image 7", "stands in line 1 already"]),
    "unknown image": ((P,), head(image_id="c"), ["image 'c' is not in", "ground_truth.jsonl"]),
    "text for integer": ((P,), head(image_id="7"),
                         ["image '7' is not in", "an integer in both files or a string in both"]),
    "long id": ((P,), head(image_id="7" * 10**5), ["image '777", "is not in"]),
    "float id": (BOTH, head(image_id=7.0), ["image id 7.0 must be an integer or a string"]),
    "no id": (BOTH, head(image_id=None), ["image id None must be an integer or a string"]),
    "no relations": (BOTH, head(relations=None), ["relations must be a list, got None"]),
    "objects by name": (BOTH, head(objects={}), ["objects must be a list, got {}"]),
    "text as object": (BOTH, head(objects=["man"]), ["object 0, 'man' must be an object with box"]),
    "list as relation": (BOTH, head(relations=[[0, 1]]), ["relation 0, [0, 1] must be an object"]),
    "no width": ((T,), head(width=None), ["width None and height 600 must be integers from 1"]),
    "height 0": ((T,), head(height=0), ["width 800 and height 0 must be integers from 1"]),
    "file name": ((T,), head(file_name=5), ["file_name 5 must be a string"]),
}  # fmt: skip


@pytest.mark.parametrize(
    "key, name", [(key, name) for name, (keys, *_) in RECORDS.items() for key in keys]
)
def test_wrong_record(tmp_path, capsys, key, name):
    _, edit, expected = RECORDS[name]
    files = valid()
    lines = files[key].splitlines()
    record = json.loads(lines[1])
    edit(record)
    files[key] = b"\n".join([lines[0], json.dumps(record).encode(), *lines[2:]])
    place = f"{key}.jsonl, line 2"
    assert_refused(capsys, tmp_path, [place, *expected], lambda: run(tmp_path, files))


def vocabulary(**values):
    return lambda _: json.dumps(VOCABULARY | values).encode()


FILES = {
    "text twice": (BOTH, lambda x: x.replace(b'": 9', b'": "b"'),
                   ["line 3, image 'b'", "stands in line 2 already; keep one"]),
    "list": (BOTH, lambda x: x.replace(b"\n", b"\n[1]\n"), ["line 2: must be an object", "[1]"]),
    "null": (BOTH, lambda x: b"null\n" + x, ["line 1: must be an object with", "got None"]),
    "array": (BOTH, lambda x: b"[" + x.replace(b"}\n{", b"}, {").rstrip() + b"]",
              ["line 1: must be an object with image_id", "got [{"]),
    "indented": (BOTH, lambda x: json.dumps(json.loads(x.splitlines()[0]), indent=1).encode(),
                 ["line 1: is no JSON"]),
    "cut": (BOTH, lambda x: x[:-40], ["line 3: is no JSON"]),
    "two on a line": (BOTH, lambda x: x.replace(b"\n", b""), ["line 1: is no JSON: Extra data"]),
    "garbage": (BOTH, lambda x: x + bytes(range(256)), ["line 4: is no JSON", "write the line"]),
    "compressed, not named so": (BOTH, gzip.compress, ["line 1: is no JSON"]),
    "utf-16": (BOTH, lambda x: x.decode().encode("utf-16"), ["line 1: is no JSON"]),
    "deep list": (BOTH, lambda x: x + b"[" * 10**6, ["line 4: is no JSON", "recursion"]),
    "deep object": (BOTH, lambda x: b'\n{"a":' * 2 + b'{"a":' * 10**5, ["line 2: is no JSON"]),
    "long number": (BOTH, lambda x: x.replace(b"7", b"7" * 5000), ["line 1: is no JSON"]),
    "empty": (BOTH, lambda x: b"", ["has no line; write one"]),
    "blank": (BOTH, lambda x: b"\n\r\n \n", ["has no line; write one"]),
    "absent": ((T, P, V, Z), lambda x: None, ["No such file"]),
    "cut vocabulary": ((V,), lambda x: x[:-9], ["is no JSON file"]),
    "deep vocabulary": ((V,), lambda x: b"[" * 10**5, ["is no JSON file"]),
    "binary vocabulary": ((V,), lambda x: bytes(range(256)), ["is no JSON file"]),
    "vocabulary as list": ((V,), lambda x: b"[]", ["must hold a JSON object, got []"]),
    "no labels": ((V,), lambda x: b"{}", ["label_to_idx must map names to integers, got None"]),
    "text as class": ((V,), vocabulary(label_to_idx={"man": "1"}), ["got {'man': '1'}"]),
    "gap": ((V,), vocabulary(label_to_idx={"man": 1, "horse": 3}), ["without gap", "[1, 3]"]),
    "from 0": ((V,), vocabulary(predicate_to_idx={"on": 0, "riding": 1}, idx_to_predicate={}),
               ["predicate_to_idx must number its names 1 .. 2", "0 is __background__", "[0, 1]"]),
    "disagrees": ((V,), vocabulary(idx_to_label={"1": "horse", "2": "man", "3": "hat"}),
                  ["label_to_idx and idx_to_label disagree on index 1: 'man' and 'horse'"]),
    "count lacks": ((V,), vocabulary(training_predicate_count={"on": 1}), ["'riding' has none"]),
    "list of counts": ((V,), vocabulary(training_predicate_count=[3]), ["'riding' has none"]),
    "part as count": ((V,), vocabulary(training_predicate_count={"on": 1, "riding": 1.5}),
                      ["training_predicate_count must give", "'riding' has none"]),
    "lists without predicates": ((V,), lambda x: b'{"objects": ["man"]}',
                                 ["predicates must be a list of names, got None"]),
    "name twice": ((V,), lambda x: b'{"objects": ["man", "man"], "predicates": ["on"]}',
                   ["'man', stands twice"]),
    "number in list": ((V,), lambda x: b'{"objects": [7], "predicates": ["on"]}',
                       ["objects", "entry 0, 7, must be a name"]),
    "lists of other names": ((V,), lambda x: b'{"objects": ["man"], "predicates": ["riding"]}',
                             ["label 'horse' is not in"]),
    "cut triplets": ((Z,), lambda x: x[:-3], ["must be a JSON list of [subject, predicate, obj"]),
    "unknown in triplet": ((Z,), lambda x: x.replace(b"man", b"cow"), ["is not in the", "'cow'"]),
    "pair": ((Z,), lambda x: b'[["man", "horse"]]', ["must be a JSON list of [subject"]),
    "no list": ((Z,), lambda x: b"null", ["must be a JSON list of [subject"]),
    "numbers": ((Z,), lambda x: b"[[1, 1, 2]]", ["must be a JSON list of [subject"]),
}  # fmt: skip


@pytest.mark.parametrize(
    "key, name", [(key, name) for name, (keys, *_) in FILES.items() for key in keys]
)
def test_wrong_file(tmp_path, capsys, key, name):
    _, spoil, expected = FILES[name]
    files = valid()
    files[key] = spoil(files[key])
    expected = [f"{key}.jsonl", *expected]
    assert_refused(capsys, tmp_path, expected, lambda: run(tmp_path, files))


def other_label(record):
    record["objects"][1]["label"] = "hat"


def moved(record):
    record["objects"][1]["box"] = [BOXES[1][0], 203, *BOXES[1][2:]]


def swapped(record):
    record["objects"].reverse()


def one_more(record):
    record["objects"].append(record["objects"][0])


MISFITS = [
    ("predcls", other_label, ["object 1, label 'hat' for 'horse'", "score sgdet", "or sgcls"]),
    ("predcls", swapped, ["object 0, box [40.5, 200", "for [10.0, 20", "in their order"]),
    ("sgcls", moved, ["object 1, box [40.5, 203.0, 400.0, 560.0] for [40.5, 200.0"]),
    ("sgcls", one_more, ["3 objects for 2 annotated ones", "sgcls is given the annotated"]),
    ("predcls", one_more, ["3 objects for 2 annotated ones", "predcls is given the annotated"]),
]


@pytest.mark.parametrize("task, edit, expected", MISFITS)
def test_predictions_of_another_task(tmp_path, capsys, task, edit, expected):
    files, record = valid(), predicted("b")
    edit(record)
    lines = files[P].splitlines()
    files[P] = b"\n".join([lines[0], json.dumps(record).encode(), lines[2]])
    place = f"{P}.jsonl, line 2, image 'b': "
    assert_refused(capsys, tmp_path, [place, *expected], lambda: run(tmp_path, files, task))
    assert run(tmp_path, files, "sgdet") == 0
    if edit is other_label:
        assert run(tmp_path, files, "sgcls") == 0


def test_class_that_is_not_annotated_is_wrong_in_predcls(tmp_path, capsys):
    files, record = valid(), predicted("b")
    record["objects"][1]["label"] = "unheard"
    files[P] = json.dumps(record).encode()
    expected = ["line 1, image 'b': object 1, label a name that nothing annotated has for 'horse'"]
    options = {"vocabulary": None, "zero_shot": None}
    assert_refused(capsys, tmp_path, expected, lambda: run(tmp_path, files, "predcls", **options))


@pytest.mark.parametrize(
    "content",
    [b'["abc"]', b'{"abc": 1}', b"[[1, 2, 3]]", b'"abc"', b"[" * 10**5,
     b'[["man", ["riding"], "horse"]]', b'[["man", "riding", "horse", "man"]]'],
)  # fmt: skip
@pytest.mark.parametrize("closed", [True, False])
def test_wrong_triplets(tmp_path, capsys, content, closed):
    files = valid() | {Z: content}
    options = {} if closed else {"vocabulary": None}
    expected = ["zero_shot.jsonl: must be a JSON list of [subject, predicate, object]"]
    assert_refused(capsys, tmp_path, expected, lambda: run(tmp_path, files, **options))


WRONG_OPTIONS = [
    ({"task": "sgg"}, "--task"),
    ({"ks": "20,a"}, "'20,a' must be whole numbers from 1, joined by commas"),
    ({"ks": "0"}, "'0' must be whole numbers from 1"),
    ({"ks": "20,-1"}, "'20,-1' must be whole numbers from 1"),
    ({"ks": ""}, "'' must be whole numbers"),
    ({"ks": "1.5"}, "'1.5' must be whole numbers"),
    ({"iou": "half"}, "--iou"),
    ({"missing": "one"}, "--missing"),
]


@pytest.mark.parametrize("options, expected", WRONG_OPTIONS)
def test_wrong_option(tmp_path, capsys, options, expected):
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, valid(), **options)
    assert stopped.value.code == 2 and expected in capsys.readouterr().err


def test_valid_files_are_scored(tmp_path):
    """Or else all the others prove nothing."""
    assert json.loads(valid()[T].splitlines()[1]) == truth("b")
    for task in ("predcls", "sgcls", "sgdet"):
        assert run(tmp_path, valid(), task) == 0
        assert json.loads((tmp_path / "metrics.json").read_text())["R@20"] == 1


@pytest.mark.parametrize("corners", [[5, 5, 5, 9], [-3, -2.5, -3, -2.5], [0, 0, 10**5, 10**5]])
def test_boxes_without_width_or_outside_the_image_are_scored(tmp_path, corners):
    files = valid()
    for key in (T, P):
        files[key] = files[key].replace(json.dumps(BOXES[0]).encode(), json.dumps(corners).encode())
    for task in ("predcls", "sgcls", "sgdet"):
        assert run(tmp_path, files, task) == 0
        assert json.loads((tmp_path / "metrics.json").read_text())["R@20"] == 1


@pytest.mark.parametrize("key", ["ground_truth", "predictions", "vocabulary", "zero_shot"])
def test_no_input_is_overwritten(tmp_path, capsys, key):
    assert run(tmp_path, valid(), output=f"{key}.jsonl") == 2
    assert "is one of the files to be read" in capsys.readouterr().err
    assert (tmp_path / f"{key}.jsonl").read_bytes() == valid()[key]
