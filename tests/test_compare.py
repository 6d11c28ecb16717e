"""Two evaluations side by side: what is shown, what is said first, and wrong files."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys

import fake_results
import pytest
from etils import epath

from linknet_jax.compare import compare, main


def metrics(task="sgcls", split="test", ks=(20, 50, 100), shift=0.0):
    """With three predicates, one of them absent; recalls grow with K."""
    rows = {"on": (0.5, 90, "head"), "using": (0.25, 7, "tail"), "at": (None, 0, "tail")}
    found = fake_results.metrics(tuple(rows), 0, task, split, images=60, ks=ks)
    found |= {f"{kind}@{k}": 0.25 + k / 1000 + shift for kind in fake_results.ALL for k in ks}
    found |= {f"zR@{k}": None for k in ks} | {"object_accuracy": 0.5 + shift}
    for name, (recall, count, group) in rows.items():
        row = found["per_predicate"][name]
        row |= {key: recall for key in row if "@" in key}
        row |= {"count": count, "images": count, "group": group}
    return found


def results(**changes):
    value = {
        "step": 10,
        "split": "test",
        "tasks": {task: metrics(task) for task in ("sgcls", "predcls")},
        "baselines": {"FREQ": {"sgcls": metrics(shift=0.3)}},
        "splits": {"val": {"tasks": {"sgcls": metrics(split="val")}, "baselines": {}}},
    }
    return value | changes


def store(tmp_path, name, value):
    """A workdir for results, a file for metrics."""
    path = epath.Path(tmp_path) / name
    if path.exists():
        path.rmtree() if path.is_dir() else path.unlink()
    if "tasks" in value:
        path.mkdir()
        (path / "results.json").write_text(json.dumps(value))
        return path
    path.write_text(json.dumps(value))
    return path


def both(tmp_path, a, b, k=100):
    text = compare(store(tmp_path, "a", a), store(tmp_path, "b", b), k)
    return text.splitlines()


def row(lines, name):
    """The cells after a name, in its only row."""
    (line,) = [x for x in lines if x.startswith(f"{name} ")]
    return line[len(name) :].split()


def test_metrics_side_by_side(tmp_path):
    a, b = metrics(), metrics(shift=0.125)
    b["ng-R@20"] = a["ng-R@20"] - 0.1
    lines = both(tmp_path, a, b)
    assert lines[:4] == [f"A: {tmp_path}/a", f"B: {tmp_path}/b", "", "test sgcls, percent"]
    assert lines[4].split() == ["A", "B", "B", "-", "A"]  # nothing disagrees
    assert row(lines, "R@20") == ["27.00", "39.50", "+12.50"]
    assert row(lines, "ng-R@20") == ["27.00", "17.00", "-10.00"]
    assert row(lines, "object_accuracy") == ["50.00", "62.50", "+12.50"]
    shown = [line.split()[0] for line in lines[5 : lines.index("", 5)]]
    assert shown == [key for key in a if "@" in key and a[key] is not None] + ["object_accuracy"]


def test_metrics_of_one_side_and_common_k(tmp_path):
    a, b = metrics(ks=(10, 20, 50)), metrics(ks=(20, 50, 100))
    a["zR@50"], b["zR@50"] = 0.5, None
    lines = both(tmp_path, a, b, k=100)
    assert row(lines, "zR@50") == ["50.00", "-", "-"]
    assert not any(line.startswith(("R@10", "R@100", "mAP", "K", "step")) for line in lines)
    (title,) = [line for line in lines if "of each predicate" in line]
    assert title.startswith("recall@50 of each predicate (recall@100 is not in both; the largest")


def test_predicates_largest_gain_first(tmp_path):
    a, b = metrics(), metrics()
    gains = {"on": (0.5, 0.75), "using": (0.0, 0.25), "at": (None, 0.5)}
    extra = {"behind": (0.4, 0.3), "has": (0.1, 0.8)}
    for name, pair in {**gains, **extra}.items():
        for side, value in zip((a, b), pair, strict=True):
            known = side["per_predicate"].get(name, {"count": 5, "images": 5, "group": "body"})
            side["per_predicate"][name] = known | {"recall@100": value, "recall@20": 0.125}
    b["per_predicate"]["on"] |= {"count": 91, "group": "body"}
    a["per_predicate"] = dict(reversed(a["per_predicate"].items()))
    lines = both(tmp_path, a, b)
    start = lines.index("recall@100 of each predicate") + 1
    assert [line.split() for line in lines[start:]] == [
        ["predicate", "group", "count", "A", "B", "gain"],
        ["has", "body", "5", "10.00", "80.00", "+70.00"],
        ["on", "head", "/", "body", "90", "/", "91", "50.00", "75.00", "+25.00"],
        ["using", "tail", "7", "0.00", "25.00", "+25.00"],
        ["behind", "body", "5", "40.00", "30.00", "-10.00"],
        ["at", "tail", "0", "-", "50.00", "-"],
    ]
    at_20 = compare(*(epath.Path(tmp_path) / name for name in "ab"), 20).splitlines()
    assert row(at_20[at_20.index("recall@20 of each predicate") :], "has")[2:4] == ["12.50"] * 2


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("frame", "1024", "not comparable: frame is original in A and 1024 in B"),
        ("iou_convention", "exclusive", "not comparable: iou_convention is inclusive in A and"),
        ("missing", "skip", "not comparable: missing is zero in A and skip in B"),
        ("graph_constraint", "none", "not comparable: graph_constraint is R, mR, zR"),
        ("images_scored", 61, "not comparable: images_scored is 60 in A and 61 in B"),
        ("iou_threshold", 0.3, "not comparable: iou_threshold is 0.5 in A and 0.3 in B"),
        (
            "zero_shot_triplets",
            9,
            "not comparable (zR, ng-zR): zero_shot_triplets is 6129 in A and 9",
        ),
        ("predictions_kept", 70, 'not comparable: predictions_kept is {"constrained": "all pairs"'),
        ("predicates", 50, "not comparable (mR, F1, groups): predicates is {"),
        ("images_skipped", 1, None),
        ("groups", "other", "not comparable (head, body, tail): groups is thirds of the"),
    ],
)
def test_protocol_is_said_first(tmp_path, key, value, said):
    a, b = metrics(), metrics()
    b["protocol"][key] = value
    lines = both(tmp_path, a, b)
    spoken = [line for line in lines if line.startswith("not comparable")]
    assert len(spoken) == (said is not None)
    assert said is None or (lines[4].startswith(said) and lines[5].split()[0] == "A")


def test_protocol_not_stated(tmp_path):
    b = metrics()
    del b["protocol"]["missing"]
    assert "not comparable: missing is zero in A and not stated in B" in both(
        tmp_path, metrics(), b
    )


def test_different_predicates(tmp_path):
    a, b = metrics(), metrics()
    a["per_predicate"]["riding"] = a["per_predicate"]["on"]
    b["per_predicate"] = {"of": b["per_predicate"].pop("at"), **b["per_predicate"]}
    lines = both(tmp_path, a, b)
    assert lines[4:6] == [
        "not comparable (mR, F1, groups): predicates only in A: at, riding",
        "not comparable (mR, F1, groups): predicates only in B: of",
    ]
    names = [line.split()[0] for line in lines[lines.index("recall@100 of each predicate") + 2 :]]
    assert names == ["on", "using"]


def test_no_predicate_in_common(tmp_path):
    a, b = metrics(), metrics(ks=(7,))
    assert both(tmp_path, a, b)[-1] == "no predicate has a recall@K in both"


def test_every_split_and_task_of_both(tmp_path):
    a, b = results(), results()
    del b["tasks"]["predcls"]
    b["splits"]["train"] = {"tasks": {"sgdet": metrics("sgdet", "train")}}
    lines = both(tmp_path, a, b)
    assert [line for line in lines if line.endswith("percent")] == [
        "test sgcls, percent",
        "val sgcls, percent",
    ]
    assert lines[2:4] == ["only in A: test predcls", "only in B: train sgdet"]
    assert "FREQ" not in "".join(lines)


def test_results_with_metrics_of_the_score_command(tmp_path):
    lines = both(tmp_path, results(), metrics("sgcls", "val", shift=0.125))
    assert lines[2:5] == ["only in A: test sgcls, test predcls", "", "val sgcls, percent"]
    assert row(lines, "R@20") == ["27.00", "39.50", "+12.50"]
    path = epath.Path(tmp_path) / "a"
    assert (
        compare(path / "results.json", path).splitlines()[2:]
        == compare(path, path).splitlines()[2:]
    )


def test_files_of_different_splits_of_one_task(tmp_path):
    lines = both(tmp_path, metrics(split="val"), metrics(split="test"))
    assert lines[3:5] == [
        "val sgcls and test sgcls, percent",
        "not comparable: split is val in A and test in B",
    ]


def test_nothing_in_common(tmp_path):
    with pytest.raises(ValueError, match=r"no split and task in common: .*a has test sgcls, test "
                       r"predcls, val sgcls and .*b has test sgdet; evaluate"):  # fmt: skip
        both(tmp_path, results(), metrics("sgdet"))
    with pytest.raises(ValueError, match=r"has val sgcls and .* has val sgdet; evaluate"):
        both(tmp_path, metrics(split="val"), metrics("sgdet", "val"))


def change(path, value):
    """A copy of metrics with a value put at a path of keys; DELETE removes it."""
    changed = copy.deepcopy(metrics())
    *parents, last = path
    place = changed
    for key in parents:
        place = place[key]
    place[last] = value
    return json.dumps(changed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"x\.json is missing; `python -m linknet_jax.main --mode eval"),
        ("", r"x\.json is no JSON file: Expecting value"),
        ("{", r"x\.json is no JSON file"),
        ("[" * 100_000, r"x\.json is no JSON file: maximum recursion"),
        ("[1]", r"x\.json: must be an object of metrics, got \[1\]"),
        ("{}", r"x\.json, protocol: must be an object, got None"),
        ('{"tasks": 3}', r"x\.json, tasks: must be an object of tasks, got 3"),
        ('{"tasks": {"sgcls": 4}}', r"x\.json, tasks\.sgcls: must be an object of metrics, got 4"),
        ('{"tasks": {}, "splits": []}', r"x\.json, splits: must be an object of splits"),
        ('{"tasks": {}, "splits": {"val": {}}}', r"x\.json, splits\.val\.tasks: must be an object"),
        (change(["per_predicate"], []), r"x\.json, per_predicate: must be an object, got \[\]"),
        (change(["per_predicate", "on"], 1), r"x\.json, on: must be an object with recalls and a"),
        (
            change(["per_predicate", "on", "count"], None),
            "on: must be an object with recalls and a",
        ),
        (
            change(["per_predicate", "on", "recall@50"], "a"),
            "on recall@50: must be from 0 to 1, or",
        ),
        (change(["R@50"], 61.8), r"x\.json, R@50: must be from 0 to 1, or null, got 61\.8"),
        (
            change(["R@50"], float("nan")),
            r"is no JSON file: it holds NaN, which JSON does not have",
        ),
        (b"\xff\xfe", r"x\.json is no JSON file: 'utf-8' codec"),
    ],
)
def test_wrong_files(tmp_path, capsys, content, message):
    good, path = store(tmp_path, "good.json", metrics()), epath.Path(tmp_path) / "x.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for pair in ((good, path), (path, good)):
        with pytest.raises(ValueError, match=message):
            compare(*pair)
        assert main([str(x) for x in pair]) == 2
        out, err = capsys.readouterr()
        assert not out and err.startswith("error: ") and err.count("\n") == 1


def test_workdir_without_results(tmp_path, capsys):
    good = store(tmp_path, "good.json", metrics())
    assert main([str(good), str(tmp_path)]) == 2
    assert f"error: {tmp_path}/results.json is missing" in capsys.readouterr().err


def test_command(tmp_path, capsys):
    paths = [str(store(tmp_path, name, results())) for name in "ab"]
    assert main(paths) == 0
    assert capsys.readouterr().out == compare(*map(epath.Path, paths)) + "\n"
    assert main([*paths, "--k", "20"]) == 0
    assert "recall@20 of each predicate\n" in capsys.readouterr().out


def test_closed_pipe(tmp_path):
    paths = [str(store(tmp_path, name, results())) for name in "ab"]
    command = [sys.executable, "-m", "linknet_jax.compare", *paths]
    buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, env=buffered) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 0)


def test_needs_no_jax():
    program = """import sys, linknet_jax.compare
print(sorted({"jax", "tensorflow", "flax"} & set(sys.modules)))"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
