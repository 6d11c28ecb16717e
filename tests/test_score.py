"""The command that scores files gives what the metrics give on the same arrays, to the last bit."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from scoring import ANNOTATED, NAMES, TRAINING, UNSEEN, command, images, store, without_lines

from linknet_jax import cli
from linknet_jax.metrics.detection import DetectionMetrics
from linknet_jax.metrics.scene_graph import TASKS, SceneGraphMetrics
from linknet_jax.types import Vocabulary

ROOT = pathlib.Path(__file__).parents[1]
WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = None  # as where it is not installed
from linknet_jax.score import main
sys.exit(main())
"""


def open_names():
    """(vocabulary of what occurs, sorted; new index of every class; of every predicate)."""
    lists, tables = [], []
    for names, occurring in zip((NAMES.objects, NAMES.predicates), ANNOTATED, strict=True):
        kept = (names[0], *sorted(names[k] for k in occurring))
        lists.append(kept)
        tables.append(np.array([kept.index(x) if x in kept else 0 for x in names]))
    return Vocabulary(*lists), *tables


def renamed(image, objects, predicates):
    """The image with other numbers of the same classes."""
    a, p = image.annotation, image.prediction
    relations = a.relations.copy()
    relations[:, 2] = predicates[relations[:, 2]]
    truth = dataclasses.replace(a, labels=objects[a.labels], relations=relations)
    prediction = p.replace(
        labels=objects[p.labels],
        predicates=predicates[p.predicates],
        free_predicates=predicates[p.free_predicates],
    )
    return dataclasses.replace(image, annotation=truth, prediction=prediction)


def expected(content, task, closed, unseen=None, training=TRAINING, **settings):
    """What the command should write, by the metrics' own functions on the arrays."""
    names = NAMES
    if not closed:
        names, objects, predicates = open_names()
        content = [renamed(x, objects, predicates) for x in content]
        unseen = unseen and {(objects[s], predicates[p], objects[o]) for s, p, o in unseen
                             if (s, o) != (2, 4)} | {("zebra", 1, 2)}  # fmt: skip
    metrics = SceneGraphMetrics(len(names.predicates), task=task, zero_shot=unseen, **settings)
    detection = DetectionMetrics()
    for x in content:
        x = x if x.listed else without_lines(x)
        metrics.update(x.annotation, x.boxes, x.prediction)
        detection.update(x.annotation, x.boxes, x.prediction)
    result = metrics.compute(names, training if closed else None)
    result |= detection.compute() if task == "sgdet" else {}
    result["protocol"]["predicates"]["source"] = "vocabulary" if closed else "ground truth"
    return result


SETTINGS = [
    ({}, {}),
    ({"iou": "exclusive"}, {"inclusive": False}),
    ({"frame": "1024", "split": "val"}, {"frame": "1024", "split": "val"}),
    ({"missing": "skip", "ks": "1,7,300"}, {"missing": "skip", "ks": (1, 7, 300)}),
    ({"zero_shot": True}, {"unseen": UNSEEN}),
]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("flags, settings", SETTINGS, ids=str)
def test_equals_the_metrics_on_arrays(tmp_path, capsys, task, closed, flags, settings):
    content = images(task)
    paths = store(tmp_path, content)
    flags = {**flags, "zero_shot": paths["zero_shot"] if "zero_shot" in flags else None}
    files = {key: paths[key] for key in ("ground_truth", "predictions")}
    files |= {"vocabulary": paths["vocabulary"]} if closed else {}
    assert command(task, tmp_path / "m.json", **files, **flags) == 0
    result = json.loads((tmp_path / "m.json").read_text())
    assert result == json.loads(json.dumps(expected(content, task, closed, **settings)))
    recalls = [key for key in result if key.startswith(("R@", "mR@", "ng-R@"))]
    assert any(0 < result[key] < 1 for key in recalls if result[key] is not None)
    empty = [x for x in content if not x.listed or not x.prediction.count]
    missing = sum(len(x.annotation.relations) > 0 for x in empty)
    assert result["counts"]["without_predictions"] == missing > 1
    assert (result["AP"] is None) == (task != "sgdet")
    assert f"written to {tmp_path / 'm.json'}" in capsys.readouterr().out


def test_mean_recall_runs_over_the_vocabulary_or_over_what_is_annotated(tmp_path):
    files = store(tmp_path, images("sgcls"))
    del files["zero_shot"]
    closed, opened = tmp_path / "closed.json", tmp_path / "open.json"
    assert command("sgcls", closed, **files) == 0
    assert command("sgcls", opened, **(files | {"vocabulary": None})) == 0
    closed, opened = (json.loads(x.read_text()) for x in (closed, opened))
    assert closed["protocol"]["predicates"] == {"source": "vocabulary", "count": 4}
    assert opened["protocol"]["predicates"] == {"source": "ground truth", "count": 3}
    assert closed["counts"]["absent_predicates"] == 1 and not opened["counts"]["absent_predicates"]
    for key in ("mR@20", "mR@100", "ng-mR@50"):  # the one that nothing annotated has counts as 0
        assert closed[key] * 4 == pytest.approx(opened[key] * 3, rel=1e-12) and opened[key] > 0
    for key in ("R@20", "ng-R@50", "A@20", "pooled-R@100", "object_accuracy"):
        assert closed[key] == opened[key]
    assert "under" in closed["per_predicate"] and "under" not in opened["per_predicate"]
    assert "training" in closed["protocol"]["groups"] != opened["protocol"]["groups"]


def test_vocabulary_as_lists(tmp_path):
    """As `data convert --format jsonl` writes it; the relations in training are not known."""
    content = images("sgcls")
    paths = store(tmp_path, content) | {"zero_shot": None}
    lists = {"objects": NAMES.objects[1:], "predicates": NAMES.predicates[1:]}
    paths["vocabulary"].write_text(json.dumps(lists))
    assert command("sgcls", tmp_path / "m.json", **paths) == 0
    expected_values = json.loads(json.dumps(expected(content, "sgcls", True, training=None)))
    assert json.loads((tmp_path / "m.json").read_text()) == expected_values


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("closed", [True, False])
def test_order_and_compression_change_no_bit(tmp_path, task, closed):
    content, rng = images(task), np.random.default_rng(1)
    found = set()
    for k, ending in enumerate([".jsonl", ".jsonl.gz", ".jsonl.gz", ".jsonl"]):
        folder = tmp_path / str(k)
        folder.mkdir()
        paths = store(folder, content, ending)
        if not closed:
            del paths["vocabulary"]
        assert command(task, folder / "m.json", **paths) == 0
        found.add((folder / "m.json").read_bytes())
        content = [content[i] for i in rng.permutation(len(content))]
    assert len(found) == 1


def test_predictions_stand_in_another_order_than_the_truth(tmp_path):
    content = images("sgdet")
    paths = store(tmp_path, content)
    assert command("sgdet", tmp_path / "a.json", **paths) == 0
    lines = paths["predictions"].read_text().splitlines()
    paths["predictions"].write_text("\n".join(lines[::-1]))
    assert command("sgdet", tmp_path / "b.json", **paths) == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_needs_neither_devices_nor_tensorflow(tmp_path):
    paths = store(tmp_path, images("sgdet"))
    assert command("sgdet", tmp_path / "here.json", **paths) == 0
    flags = [f"--{key}={path}" for key, path in paths.items()]
    flags += ["--task=sgdet", f"--output={tmp_path / 'there.json'}"]
    environment = {**os.environ, "JAX_PLATFORMS": "nonsense"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, *flags], cwd=ROOT, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "R@100" in done.stdout and "30/30" in done.stderr  # table and progress bar
    assert (tmp_path / "there.json").read_bytes() == (tmp_path / "here.json").read_bytes()


def test_report(tmp_path, capsys):
    paths = store(tmp_path, images("predcls"))
    report = tmp_path / "new" / "report.html"
    assert command("predcls", tmp_path / "m.json", report=report, **paths) == 0
    page = report.read_text()
    assert all(f'id="{name}"' in page for name in ("results", "predicates", "curve", "protocol"))
    assert "predictions.jsonl" in page and "riding" in page and "<script src" not in page
    assert str(report) in capsys.readouterr().out


ODD = {  # scores, relations or objects that are no mistake, but rare
    "logits": lambda x: [r.update(score=100 * r["score"] - 50) for r in x["relations"]],
    "huge": lambda x: [r.update(score=1e30 * r["score"]) for r in x["relations"]],
    "no relation": lambda x: x["relations"].clear(),
    "whole numbers": lambda x: [r.update(score=int(9 * r["score"])) for r in x["relations"]],
    "more keys": lambda x: x.update(width=1, attributes=[], model={"a": None}),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_predictions_are_scored(tmp_path, kind):
    paths = store(tmp_path, images("sgcls"))
    records = [json.loads(x) for x in paths["predictions"].read_text().splitlines()]
    for record in records:
        ODD[kind](record)
    before, after = tmp_path / "a.json", tmp_path / "b.json"
    assert command("sgcls", before, **paths) == 0
    paths["predictions"].write_text("\n".join(map(json.dumps, records)))
    assert command("sgcls", after, report=tmp_path / "r.html", **paths) == 0
    before, after = (json.loads(x.read_text()) for x in (before, after))
    if kind == "no relation":
        assert after["R@100"] == after["ng-R@100"] == 0 < after["object_accuracy"]
    elif kind != "whole numbers":  # those tie
        assert after == before


@pytest.mark.parametrize("task", TASKS)
def test_line_without_objects_is_as_no_line(tmp_path, task):
    content = images(task)
    paths = store(tmp_path, content)
    assert command(task, tmp_path / "a.json", **paths) == 0
    unlisted = [x.annotation.image_id for x in content if not x.listed]
    empty = [{"image_id": x, "objects": [], "relations": []} for x in unlisted]
    with (tmp_path / "predictions.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in empty)
    assert command(task, tmp_path / "b.json", **paths) == 0 and len(empty) > 1
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_ground_truth_without_any_relation(tmp_path):
    """As for a detector alone."""
    content = images("sgdet")
    none = np.zeros((0, 3), np.int32)
    content = [
        dataclasses.replace(x, annotation=dataclasses.replace(x.annotation, relations=none))
        for x in content
    ]
    paths = store(tmp_path, content) | {"vocabulary": None, "zero_shot": None}
    assert command("sgdet", tmp_path / "m.json", **paths) == 0
    result = json.loads((tmp_path / "m.json").read_text())
    assert result["R@20"] is None and result["mR@20"] is None and 0 < result["mAP@50"] < 1
    assert result["counts"]["skipped_without_relations"] == len(content)


def test_harmless_forms_of_a_file(tmp_path):
    """A byte order mark, Windows ends of lines, blank lines, no end of the last line."""
    paths = store(tmp_path, images("sgcls"))
    assert command("sgcls", tmp_path / "a.json", **paths) == 0
    for key in ("ground_truth", "predictions"):
        lines = paths[key].read_bytes().splitlines()
        paths[key].write_bytes(b"\xef\xbb\xbf" + b"\r\n\r\n \t\n".join(lines))
    assert command("sgcls", tmp_path / "b.json", **paths) == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


VERBS = {
    "train": "--config.KEY=VALUE",
    "eval": "--config.KEY=VALUE",
    "score": "--ground_truth",
    "compare": "WORKDIR_A",
    "data": "check FOLDER",
}


@pytest.mark.parametrize("verb", VERBS)
def test_console_script(monkeypatch, capsys, verb):
    monkeypatch.setattr(sys, "argv", ["linknet", verb, "-h"])
    try:
        status = cli.run()
    except SystemExit as stopped:  # argparse
        status = stopped.code
    assert status == 0 and VERBS[verb] in capsys.readouterr().out


def test_console_script_scores(monkeypatch, tmp_path):
    paths = store(tmp_path, images("sgcls"))
    flags = [f"--{key}={path}" for key, path in paths.items()]
    arguments = ["linknet", "score", "--task=sgcls", f"--output={tmp_path / 'm.json'}", *flags]
    monkeypatch.setattr(sys, "argv", arguments)
    assert cli.run() == 0 and (tmp_path / "m.json").exists()
    monkeypatch.setattr(sys, "argv", [*arguments, "--predictions=nothing"])
    assert cli.run() == 2
