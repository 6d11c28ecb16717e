"""The command `python -m linknet_jax.data`: every verb once, and wrong usage."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import damage
import pytest

from linknet_jax.data import files
from linknet_jax.data.__main__ import main
from linknet_jax.data.public.locations import load_locations


@pytest.fixture(autouse=True)
def fresh():
    files._load.cache_clear()


@pytest.fixture
def folder(tmp_path):
    """A small data set in JSON Lines with photographs."""
    world, path = damage.World("jsonl"), tmp_path / "data"
    path.mkdir()
    damage.store(path, world.files, world.photographs)
    return path


def raw(folder):
    """Two images of Visual Genome as it is released."""
    folder.mkdir()
    names = ("man", "hat")
    boxes = [{"object_id": k, "names": [n], "x": 5 + k, "y": 5, "w": 50, "h": 60 + k}
             for k, n in enumerate(names)]  # fmt: skip
    relation = {"predicate": "wearing", "relationship_id": 3, "synsets": []}
    ends = {role: {**boxes[k], "name": names[k]} for k, role in enumerate(("subject", "object"))}
    contents = {
        "image_data": {"width": 400, "height": 300},
        "objects": {"objects": boxes},
        "relationships": {"relationships": [{**relation, **ends}]},
    }
    for name, content in contents.items():
        text = json.dumps([{"image_id": k, **content} for k in (1, 2)])
        (folder / f"{name}.json").write_text(text)
    return folder


def run(capsys, *arguments):
    """(exit status, stdout, stderr)."""
    status = main([str(a) for a in arguments])
    return status, *capsys.readouterr()


def test_check(folder, capsys):
    status, out, _ = run(capsys, "check", folder)
    assert status == 0 and "train: 4 images" in out and "0 errors, 0 warnings" in out
    (folder / "images" / "1.jpg").unlink()
    files._load.cache_clear()
    status, out, _ = run(capsys, "check", folder)
    assert status == 2 and "'1.jpg'" in out
    assert run(capsys, "check", folder, "--no-images")[0] == 0
    assert run(capsys, "check", folder, "--images", folder / "images")[0] == 2


def test_check_lists_all_on_demand(folder, capsys):
    line = '{"image_id": %d, "width": 0, "height": 1, "objects": [], "relations": []}\n'
    (folder / "val.jsonl").write_text("".join(line % k for k in range(8)))
    _, out, _ = run(capsys, "check", folder)
    assert out.count("width 0") == 5 and "3 more of this kind" in out
    _, out, _ = run(capsys, "check", folder, "--all")
    assert out.count("width 0") == 8 and "more of this kind" not in out


def test_stats(folder, tmp_path, capsys):
    status, out, _ = run(capsys, "stats", folder, "--out", tmp_path / "stats")
    assert status == 0 and "horse" in out
    assert json.loads((tmp_path / "stats" / "stats.json").read_text())
    assert list((tmp_path / "stats").glob("*.png"))


@pytest.mark.parametrize("layout", files.FORMATS)
def test_convert(folder, tmp_path, capsys, layout):
    target = tmp_path / "target"
    status, out, _ = run(capsys, "convert", folder, target, "--format", layout)
    assert status == 0 and "train: 4 images" in out
    files._load.cache_clear()
    assert run(capsys, "check", target, "--images", folder / "images")[0] == 0


def test_build(tmp_path, capsys):
    status, out, _ = run(capsys, "build", raw(tmp_path / "raw"), tmp_path / "target")
    assert status == 0 and f"written to {tmp_path / 'target'}" in out
    names = {"VG-SGG.h5", "VG-SGG-dicts.json", "image_data.json", "report.json"}
    assert {p.name for p in (tmp_path / "target").iterdir()} == names
    assert run(capsys, "check", tmp_path / "target")[0] == 1  # there are no photographs


@pytest.mark.parametrize("arguments", [[], ["--list"]])
def test_download_lists_what_there_is(capsys, arguments):
    status, out, _ = run(capsys, "download", *arguments)
    assert status == 0 and all(name in out for name in load_locations(None))


def stored_predictions(folder, end):
    """What Scene-Graph-Benchmark stores of an image of 320 x 180 pixels, and ground truth."""
    contents = {
        "custom_data_info": {"idx_to_files": ["a/7.jpg"],
                             "ind_to_classes": ["__background__", "man", "hat"],
                             "ind_to_predicates": ["__background__", "has"]},
        "custom_prediction": {"0": {"bbox": [[0, 0, *end], [1, 2, 3, 4]], "bbox_labels": [1, 2],
                                    "bbox_scores": [1.0, 0.5], "rel_pairs": [[0, 1]],
                                    "rel_all_scores": [[0.5, 0.5]]}},
    }  # fmt: skip
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    truth = '{"image_id": %d, "width": 320, "height": 180, "objects": [], "relations": []}\n'
    (folder / "gt.jsonl").write_text(truth % 7 + truth % 8)
    return folder / "custom_prediction.json"


@pytest.mark.parametrize(
    ("sides", "end"),
    [([], (999, 562)), (["--resized", "90,400"], (160, 90)), (["--resized", "none"], (320, 180))],
)
def test_import(tmp_path, capsys, sides, end):
    target = tmp_path / "pred.jsonl.gz"
    names = (stored_predictions(tmp_path, end), target, "--ground_truth", tmp_path / "gt.jsonl")
    status, out, _ = run(capsys, "import", *names, *sides)
    written = f"1 of 2 annotated images have predictions; written to {target}\n"
    assert (status, out) == (0, written)
    line = json.loads(gzip.decompress(target.read_bytes()))
    assert line["image_id"] == 7 and line["objects"][0]["box"] == pytest.approx([0, 0, 320, 180])
    relation = {"subject": 0, "predicate": "has", "object": 1, "score": 0.25}
    assert line["relations"] == [relation]
    stored_predictions(tmp_path, (end[0] / 2, end[1] / 2))
    status, out, _ = run(capsys, "import", *names, *sides)
    assert status == 0 and out.startswith(f"{written}warning: the boxes of an image end at 50% (")


def test_import_of_wrong_boxes(tmp_path, capsys):
    path, target = stored_predictions(tmp_path, (999, 999)), tmp_path / "pred.jsonl"
    status, out, err = run(capsys, "import", path, target, "--ground_truth", tmp_path / "gt.jsonl")
    assert status == 2 and not out and not target.exists()
    assert err.startswith("error: ") and err.count("\n") == 1 and "image '0', bbox[0]: " in err


@pytest.mark.parametrize("sides", ["600", "1000,600", "0,5", "a,b", "1,2,3", ""])
def test_import_of_wrong_sides(capsys, sides):
    with pytest.raises(SystemExit) as stop:
        main(["import", "a.json", "b.jsonl", "--ground_truth", "gt.jsonl", "--resized", sides])
    assert stop.value.code == 2 and "must be none or as 600,1000" in capsys.readouterr().err


WRONG = {
    "no verb": ([], "VERB"),
    "unknown verb": (["chek"], "chek"),
    "no folder": (["check"], "folder"),
    "unknown option": (["check", "{data}", "--every"], "--every"),
    "no format": (["convert", "{data}", "{new}"], "--format"),
    "unknown format": (["convert", "{data}", "{new}", "--format", "voc"], "voc"),
    "no number": (["stats", "{data}", "--val-images", "many"], "many"),
    "no target": (["build", "{data}"], "target"),
    "stats of nothing": (["stats", "{new}"], "is no folder"),
    "stats of too few": (["stats", "{data}", "--val-images", "99"], "no image"),
    "convert of nothing": (["convert", "{new}", "{new}", "--format", "coco"], "is no folder"),
    "convert into itself": (["convert", "{data}", "{data}", "--format", "coco"], "not an empty"),
    "convert to a file": (["convert", "{data}", "{data}/x", "--format", "coco"], "not an empty"),
    "images nowhere": (["convert", "{data}", "{new}", "--format", "vrd", "--images", "/x"], "/x"),
    "build of nothing": (["build", "{new}", "{new}2"], "is missing"),
    "build into data": (["build", "{new}", "{data}"], "not an empty"),
    "build with no dicts": (["build", "{new}", "{new}2", "--dicts", "{new}/d.json"], "d.json"),
    "download of nothing": (["download", "no_such_thing"], "no_such_thing"),
    "locations nowhere": (["download", "--list", "--locations", "{new}/l.json"], "l.json"),
    "import without sizes": (["import", "{new}.json", "{new}"], "--ground_truth"),
    "import of nothing": (
        ["import", "{new}.json", "{new}", "--ground_truth", "{data}/train.jsonl"],
        "is missing; TEST.CUSTUM_EVAL",
    ),
    "locations wrong": (["download", "--list", "--locations", "{data}/x"], "x"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_usage_is_a_message(folder, tmp_path, capsys, name):
    arguments, text = WRONG[name]
    (folder / "x").write_text("{")
    places = {"data": folder, "new": tmp_path / "new"}
    try:
        status = main([a.format(**places) for a in arguments])
    except SystemExit as wrong:  # argparse
        status = wrong.code
    out, err = capsys.readouterr()
    assert status == 2 and text in err, (out, err)
    assert "Traceback" not in out + err and not (tmp_path / "new").exists()


def test_as_a_program(folder):
    """TensorFlow takes seconds to import and is not needed for any verb."""
    program = "import sys; sys.modules['tensorflow'] = None\n"
    program += "import runpy; runpy.run_module('linknet_jax.data', run_name='__main__')"
    for verb, status in (("check", 0), ("chek", 2)):
        command = [sys.executable, "-c", program, verb, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == status and "Traceback" not in done.stderr, done.stderr
