"""Export: what is written, that it predicts as the Predictor does, and what is refused."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest
import tiny
from etils import epath
from PIL import Image

from linknet_jax.checkpoints import Checkpoints
from linknet_jax.export import __main__ as export
from linknet_jax.export import parity
from linknet_jax.exported import Exported
from linknet_jax.types import image_of

NAMES = {
    "objects": ["__background__", *(f"thing {i}" for i in range(1, tiny.OBJECTS))],
    "predicates": ["__background__", *(f"does {i}" for i in range(1, tiny.PREDICATES))],
}
BOXES = [[5, 4, 40, 30], [20.5, 10, 64, 47], [0, 0, 12, 48]]
LABELS = ["thing 2", "thing 1", "thing 4"]
SMALLER = {"model__num_rem": 1, "data__max_objects": 6}


@pytest.fixture(scope="module", autouse=True)
def hurry(tmp_path_factory):
    """Compiles take longer than runs here, and many are the same."""
    settings = {
        "jax_disable_most_optimizations": True,
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("cache")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: jax.config.values[name] for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def save(folder, task):
    variables = tiny.variables(task, **SMALLER)
    variables = tiny.calm(variables) if task != "sgcls" else variables
    items = {"params": variables["params"]}
    constants = {name: x for name, x in variables.items() if name != "params"}
    items |= {"constants": constants} if constants else {}
    config = tiny.create_task(task, **SMALLER).config
    with Checkpoints(epath.Path(folder), keep=1) as saved:
        saved.save(7, items, None, {"config": config.to_dict(), "vocabulary": NAMES})
    return folder


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A run of each kind, by task."""
    return {x: save(tmp_path_factory.mktemp(x), x) for x in ("sgcls", "sgdet", "detector")}


def photograph(number=0, size=(64, 48)):
    noise = np.random.default_rng(number).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(noise).resize(size))


@pytest.fixture(scope="module")
def folders(checkpoints, tmp_path_factory):
    """An export of each task, by task; the one of predcls with a batch of 2."""
    top = tmp_path_factory.mktemp("exports")
    for task, run in {"sgcls": "sgcls", "predcls": "sgcls", "sgdet": "sgdet"}.items():
        batch = ["--batch", "2"] if task == "predcls" else []
        platforms = "cpu,cuda,tpu" if task == "sgcls" else "cpu"
        flags = ["--task", task, "--platforms", platforms, *batch]
        assert export.main([str(checkpoints[run]), str(top / task), *flags]) == 0
    return {path.name: path for path in top.iterdir()}


@pytest.fixture(scope="module")
def predictors(checkpoints):
    loaded = {x: export.load(epath.Path(checkpoints[x]), "best")[0] for x in ("sgcls", "sgdet")}
    return loaded | {"predcls": loaded["sgcls"]}


def given(task):
    boxes = None if task == "sgdet" else BOXES
    return boxes, LABELS if task == "predcls" else None


def same(mine, theirs):
    """Equal but for rounding."""
    if isinstance(mine, dict):
        return list(mine) == list(theirs) and all(same(x, theirs[k]) for k, x in mine.items())
    if isinstance(mine, list):
        return len(mine) == len(theirs) and all(map(same, mine, theirs))
    return abs(mine - theirs) < 1e-4 if isinstance(mine, float) else mine == theirs


@pytest.mark.parametrize("task", ["sgcls", "predcls", "sgdet"])
def test_parity_with_the_predictor(folders, predictors, task, tmp_path):
    exported, predictor, image = Exported.load(folders[task]), predictors[task], photograph()
    boxes, labels = given(task)
    inputs, _ = exported.inputs(image, boxes, labels)
    found = {name: x[0] for name, x in exported(**inputs).items()}
    query = predictor.read(image, boxes, labels)
    wanted = predictor.predict([query], task, 1)[0]
    count = len(BOXES) if boxes else int(wanted.box_count)
    assert count and found.keys() == {k for k, x in vars(wanted).items() if x is not None}
    assert parity.difference(found, wanted, count, tiny.SIDE) <= 1e-5
    Image.fromarray(image).save(tmp_path / "photo.png")
    graph = exported.graph(tmp_path / "photo.png", boxes, labels)
    theirs = predictor(tmp_path / "photo.png", boxes, labels, task).to_dict()
    assert list(graph) == list(theirs) and graph["image_id"] == "photo.png"
    assert (graph["width"], graph["height"]) == (64, 48) and graph["relations"]
    relations = {(r["subject"], r["object"]): r for r in theirs["relations"]}
    assert all(same(r, relations[r["subject"], r["object"]]) for r in graph["relations"])
    assert len(relations) == len(graph["relations"]) and same(graph["objects"], theirs["objects"])


@pytest.mark.parametrize("task", ["sgcls", "sgdet"])
def test_any_number_of_images(folders, task):
    exported, boxes = Exported.load(folders[task]), given(task)[0]
    rows = [exported.inputs(photograph(i, (40 + i, 60)), boxes)[0] for i in range(3)]
    together = exported(**{name: np.concatenate([x[name] for x in rows]) for name in rows[0]})
    for number, row in enumerate(rows):
        alone = exported(**row)
        assert {len(x) for x in alone.values()} == {1}
        for name, x in alone.items():
            np.testing.assert_allclose(together[name][number], x[0], rtol=1e-5, atol=1e-6)


def test_a_fixed_batch_is_filled_up(folders):
    exported = Exported.load(folders["predcls"])
    rows = [exported.inputs(photograph(i), BOXES, LABELS)[0] for i in range(3)]
    two, three = ({k: np.concatenate([x[k] for x in rows[:n]]) for k in rows[0]} for n in (2, 3))
    one, both = exported(**rows[1]), exported(**two)
    assert len(one["labels"]) == 1 and len(both["labels"]) == 2
    np.testing.assert_allclose(one["scores"][0], both["scores"][1], rtol=1e-6)
    with pytest.raises(ValueError, match="a batch of 3 images; this model takes 1 to 2 images"):
        exported(**three)


def test_what_is_written(folders):
    metadata = json.loads((folders["sgcls"] / "metadata.json").read_text())
    assert {x.name for x in folders["sgcls"].iterdir()} == {
        "metadata.json", "model.jaxexport", "parameters.npz",
    }  # fmt: skip
    assert metadata["platforms"] == ["cpu", "cuda", "tpu"] and metadata["step"] == 7
    assert metadata["batch"] == "symbolic" and metadata["objects"] == NAMES["objects"]
    assert metadata["inputs"] == {
        "images": {"shape": ["b", 32, 32, 3], "dtype": "uint8"},
        "image_sizes": {"shape": ["b", 2], "dtype": "float32"},
        "boxes": {"shape": ["b", 6, 4], "dtype": "float32"},
        "box_mask": {"shape": ["b", 6], "dtype": "bool"},
    }
    assert metadata["outputs"]["pairs"] == {"shape": ["b", 36, 2], "dtype": "int32"}
    assert metadata["thresholds"] == {"least": 0.0, "object_least": 0.0, "top": 100}
    assert metadata["versions"]["jax"] == jax.__version__
    assert metadata["check"]["difference"] <= 1e-5 and metadata["check"]["relations"] > 0
    sizes = [json.loads((folders[x] / "metadata.json").read_text()) for x in ("predcls", "sgdet")]
    assert sizes[0]["inputs"]["labels"]["shape"] == [2, 6]
    assert sizes[1]["inputs"].keys() == {"images", "image_sizes"}


def check_says(monkeypatch, difference):
    found = parity.Agreement("cpu", 1, 2, 2, difference)
    monkeypatch.setattr(parity, "compare", lambda *_: found)


def test_room_for_more_boxes(checkpoints, tmp_path, monkeypatch):
    check_says(monkeypatch, 0.0)
    flags = ["--objects", "9", "--platforms", "cpu", "--batch", "1"]
    assert export.main([str(checkpoints["sgcls"]), str(tmp_path / "out"), *flags]) == 0
    exported = Exported.load(tmp_path / "out")
    assert exported.inputs(photograph(), BOXES * 3)[0]["boxes"].shape == (1, 9, 4)
    with pytest.raises(ValueError, match=r"10 boxes, but this model has room for 9: .*--objects"):
        exported.inputs(photograph(), [*BOXES * 3, BOXES[0]])


@pytest.mark.parametrize("difference", [1.1e-5, np.inf, np.nan])
def test_beyond_the_limit_nothing_is_written(
    checkpoints, tmp_path, monkeypatch, capsys, difference
):
    check_says(monkeypatch, difference)
    flags = ["--platforms", "cpu", "--batch", "1"]
    assert export.main([str(checkpoints["sgcls"]), str(tmp_path / "out"), *flags]) == 1
    said = capsys.readouterr()
    assert "BEYOND" in said.out and "nothing is written" in said.err
    assert not (tmp_path / "out").exists()


def test_difference_sees_what_changed(folders, predictors):
    exported, predictor = Exported.load(folders["sgcls"]), predictors["sgcls"]
    found = {k: x[0] for k, x in exported(**exported.inputs(photograph(), BOXES)[0]).items()}
    wanted = predictor.predict([predictor.read(photograph(), BOXES)], "sgcls", 1)[0]
    for name, change, least in [
        ("scores", lambda x: x + np.float32(0.01), 0.009),
        ("label_scores", lambda x: x * np.nan, None),
        ("labels", lambda x: x % 4 + 1, np.inf),
        ("predicates", lambda x: x % 3 + 1, np.inf),
        ("count", lambda x: x - 1, np.inf),
    ]:
        other = dataclasses.replace(wanted, **{name: change(getattr(wanted, name))})
        value = parity.difference(found, other, len(BOXES), tiny.SIDE)
        assert not value <= 1e-5 and (least is None or value >= least), name
    batched = jax.tree.map(lambda x: np.asarray(x)[None], wanted)
    assert parity.difference(found, image_of(batched, 0), len(BOXES), tiny.SIDE) <= 1e-5


@pytest.mark.parametrize(
    "run, flags, message",
    [
        ("sgcls", ["--task", "sgdet"], "--task sgdet: this checkpoint can do sgcls, predcls"),
        ("detector", [], "a detector alone, without relations"),
        ("sgcls", ["--platforms", "cpu,gpu"], "--platforms gpu: must be of cpu, cuda, rocm, tpu"),
        ("sgcls", ["--platforms", "tpu"], "add cpu, on which the export is checked here"),
        ("sgcls", ["--step", "9"], "'9' is none of best, latest"),
        ("none", [], "holds no checkpoints"),
    ],
)
def test_refused(checkpoints, tmp_path, capsys, run, flags, message):
    source = checkpoints.get(run, tmp_path / "nothing")
    assert export.main([str(source), str(tmp_path / "out"), *flags]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_an_export_is_not_overwritten(checkpoints, folders, capsys):
    before = (folders["sgcls"] / "metadata.json").read_bytes()
    assert export.main([str(checkpoints["sgcls"]), str(folders["sgcls"])]) == 2
    assert "holds an exported model already" in capsys.readouterr().err
    assert pathlib.Path(folders["sgcls"] / "metadata.json").read_bytes() == before
