"""A predictor from a checkpoint: what evaluation gives, for any form of photograph."""

import dataclasses
import io
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
import tiny
from PIL import Image
from predicting import (
    create_config,
    photograph,
    quick_compiles,
    save_checkpoint,
    save_photographs,
)

from linknet_jax import Predictor, data, parallel
from linknet_jax.data import threads
from linknet_jax.data.files import Files
from linknet_jax.data.transforms import ImageError
from linknet_jax.eval_loop import compile_predict, predictions
from linknet_jax.metrics.detection import boxes_of
from linknet_jax.predictor import tasks_of
from linknet_jax.restore import load
from linknet_jax.scene_graph import graph_of
from linknet_jax.tasks import create_task

TOP = 7  # of the checkpoints' configuration


@pytest.fixture(scope="module", autouse=True)
def compile_quickly(tmp_path_factory):
    """Compiling takes longer than all else here: without optimizations, and each program once."""
    with quick_compiles(tmp_path_factory.mktemp("cache")):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("photographs")


@pytest.fixture(scope="module")
def lines(folder):
    return save_photographs(folder / "set")


@pytest.fixture(scope="module")
def runs(folder):
    return {
        task: save_checkpoint(folder / task, task, settings={"predict.top": TOP})
        for task in ("sgcls", "sgdet")
    }


@pytest.fixture(scope="module")
def predictors(runs):
    return {
        task: Predictor.from_checkpoint(path, batch_size=3, top=1000) for task, path in runs.items()
    }


def asked(lines, folder, labels=False):
    """Arguments of a call about all photographs."""
    paths = [folder / "set" / "images" / line["image_id"] for line in lines]
    boxes = [[x["box"] for x in line["objects"]] for line in lines]
    names = [[x["label"] for x in line["objects"]] for line in lines]
    return (paths, boxes, names) if labels else (paths, boxes)


def evaluated(run, task, folder):
    """The graphs that the evaluation loop scores."""
    mesh = parallel.create_mesh(devices=jax.devices()[:1])
    config, vocabulary, _, variables = load(run, "best", mesh)
    config.data.update({"name": "jsonl", "dir": str(folder / "set")})
    dataset = data.Dataset(Files(config.data, "test"), threads, config.data)
    predict = compile_predict(create_task(config, *vocabulary.sizes, task), mesh)
    for index, prediction in predictions(predict, variables, dataset, 3, mesh):
        truth = dataset.annotations[index]
        boxes = boxes_of(prediction, truth, config.data.image_size)
        yield graph_of(truth, boxes, prediction, vocabulary).cut(top=1000)


def assert_same(a, b, tolerance=1e-5):
    """Objects and relations: the names exactly, numbers almost; ties in either order."""
    assert (a.image_id, a.size, len(a.objects)) == (b.image_id, b.size, len(b.objects))
    for one, two in zip(a.objects, b.objects, strict=True):
        assert one.label == two.label
        np.testing.assert_allclose(one.box, two.box, rtol=1e-5, atol=1e-3)
        assert one.score == pytest.approx(two.score, abs=tolerance)
    for one, two in zip(sorted(a.relations), sorted(b.relations), strict=True):
        assert one[:3] == two[:3] and one.score == pytest.approx(two.score, abs=tolerance)


@pytest.mark.parametrize(
    "run, task", [("sgcls", "sgcls"), ("sgcls", "predcls"), ("sgdet", "sgdet")]
)
def test_prediction_is_evaluation(runs, predictors, lines, folder, run, task):
    given = (
        asked(lines, folder, labels=task == "predcls")
        if task != "sgdet"
        else asked(lines, folder)[:1]
    )
    graphs = predictors[run](*given)
    expected = list(evaluated(runs[run], task, folder))
    assert len(graphs) == len(expected) == len(lines)
    assert sum(len(graph.relations) for graph in expected) > 20
    for graph, other in zip(graphs, expected, strict=True):
        assert_same(graph, other)


def test_tasks_differ_and_keep_what_is_given(predictors, lines, folder):
    paths, boxes, labels = asked(lines, folder, labels=True)
    classified = predictors["sgcls"](paths, boxes, labels, task="sgcls")
    given = predictors["sgcls"](paths, boxes, labels)
    for graph, named, line in zip(classified, given, lines, strict=True):
        names = [x["label"] for x in line["objects"]]
        assert [x.label for x in named.objects] == names
        assert [list(x.box) for x in graph.objects] == [x["box"] for x in line["objects"]]
        assert graph.size == (line["width"], line["height"])
        assert graph.image_id == line["image_id"]
    assert [[x.label for x in graph.objects] for graph in classified] != labels


@pytest.mark.parametrize("run", ["sgcls", "sgdet"])
def test_a_list_is_its_photographs(predictors, lines, folder, run):
    paths, boxes = asked(lines, folder)
    whole = predictors[run](paths, *([boxes] if run == "sgcls" else []))
    for path, corners, graph in zip(paths, boxes, whole, strict=True):
        assert_same(predictors[run](path, *([corners] if run == "sgcls" else [])), graph)
    assert predictors[run]([], *([[]] if run == "sgcls" else [])) == []


def test_all_forms_of_a_photograph_are_one(predictors, folder, lines):
    path, boxes = folder / "set" / "images" / "3.png", [[0, 0, 90, 60], [20, 10, 190, 80]]
    with Image.open(path) as image:
        forms = [str(path), path.read_bytes(), image.copy(), np.asarray(image.convert("RGB"))]
    expected = predictors["sgcls"](path, boxes)
    assert len(expected.relations) == 2
    for form in forms:
        graph = predictors["sgcls"](form, boxes)
        assert_same(dataclasses.replace(graph, image_id="3.png"), expected)


def test_more_boxes_than_the_checkpoint_has_room_for(predictors, lines, folder):
    """What fits is the same in the larger size; all boxes get a label."""
    predictor = predictors["sgcls"]
    room = predictor.config.data.max_objects
    few = [x["box"] for x in lines[3]["objects"]]
    many = np.tile([[3.0, 4, 50, 60]], (2 * room + 1, 1)) + np.arange(2 * room + 1)[:, None]
    path = folder / "set" / "images" / "3.png"
    alone, (both, crowd) = predictor(path, few), predictor([path, path], [few, many])
    assert len(crowd.objects) == 2 * room + 1 and len(crowd.relations) == 420  # 21 x 20 pairs
    assert_same(both, alone)


def test_threads_do_not_disturb_each_other(predictors, lines, folder):
    paths, boxes = asked(lines, folder)
    calls = [*zip(paths, boxes, strict=True)] * 6
    expected = {path: predictors["sgcls"](path, box) for path, box in calls[: len(paths)]}
    with ThreadPoolExecutor(8) as pool:
        graphs = list(pool.map(lambda call: predictors["sgcls"](*call), calls))
    for (path, _), graph in zip(calls, graphs, strict=True):
        assert graph == expected[path]


def test_photographs_of_any_size_compile_once(predictors):
    predictor = predictors["sgcls"]
    rng, compiled = np.random.default_rng(0), predictor._compiled["sgcls"]
    one = [[[0, 0, 5, 5]]]
    predictor([photograph(9, 9)] * 2, one * 2)
    predictor(photograph(9, 9), one[0])
    before = compiled._cache_size()
    for width, height in rng.integers(1, 300, (40, 2)):
        boxes = rng.uniform(0, 9, (rng.integers(0, 8), 4))
        predictor(photograph(width, height), np.sort(boxes.reshape(-1, 2, 2), 1).reshape(-1, 4))
    for count in range(1, 8):
        predictor([photograph(30 + count, 20)] * (1 + count), one * (1 + count))
    assert compiled._cache_size() == before


def test_thresholds(runs, predictors, lines, folder):
    """Those of the checkpoint, and those that take their place."""
    path, boxes = (x[4] for x in asked(lines, folder))
    free = predictors["sgcls"](path, boxes)
    assert len(free.relations) > TOP
    assert Predictor.from_checkpoint(runs["sgcls"])(path, boxes).relations == free.relations[:TOP]
    least, score = free.relations[20].score, sorted(x.score for x in free.objects)[2]
    limits = {"least": least, "object_least": score, "top": 1000}
    cut = Predictor.from_checkpoint(runs["sgcls"], **limits)(path, boxes)
    assert cut == free.cut(least, 1000, score) and 0 < len(cut.relations) <= 21
    assert [x.score for x in cut.objects] == [x.score for x in free.objects if x.score >= score]
    assert max(max(r.subject, r.object) for r in cut.relations) < len(cut.objects) == 4
    with pytest.raises(ValueError, match="lest: must be one of least, object_least, top"):
        Predictor.from_checkpoint(runs["sgcls"], lest=1)


@pytest.mark.parametrize(
    "run, arguments, message",
    [
        ("sgcls", (), "of sgcls cannot do sgdet, only sgcls, predcls: give boxes; to have them"),
        ("sgcls", ([[0, 0, 3]],), r"boxes of shape \[1, 3\]; they must be \[n, 4\]"),
        ("sgcls", ([[0, 0, 3, np.nan]],), "must be finite"),
        ("sgcls", ([[5, 0, 3, 9]],), r"box \[5.0, 0.0, 3.0, 9.0\] must be .* x2 >= x1"),
        ("sgcls", ([[0, 0, 3, 9]], ["e"]), "no class 'e'; near it: a, b, c, d"),
        ("sgcls", ([[0, 0, 3, 9]], ["__background__"]), "no class '__background__'"),
        ("sgcls", ([[0, 0, 3, 9]], ["a", "b"]), "2 labels for 1 boxes"),
        ("sgcls", (None, ["a"]), "predcls needs more: give boxes and labels"),
        ("sgcls", ([[0, 0, 3, 9]], None, "predcls"), "predcls needs more: give boxes and labels"),
        ("sgcls", ([[0, 0, 3, 9]], None, "sgdet"), "cannot do sgdet"),
        ("sgcls", ([[0, 0, 3, 9]], None, "sgclass"), "cannot do sgclass"),
        ("sgdet", (None, None, "sgcls"), "sgcls needs more: give boxes"),
    ],
)
def test_wrong_questions(predictors, run, arguments, message):
    with pytest.raises(ValueError, match=message):
        predictors[run](photograph(20, 10), *arguments)


def test_a_list_needs_boxes_of_all(predictors):
    with pytest.raises(ValueError, match="2 photographs, but boxes or labels of 1"):
        predictors["sgcls"]([photograph(20, 10)] * 2, [[[0, 0, 1, 1]]])


def test_unreadable_photographs(predictors):
    for image in ("nowhere.jpg", b"text", np.zeros((3, 3), np.float32)):
        with pytest.raises(ImageError):
            predictors["sgcls"](image, [[0, 0, 1, 1]])


def test_wrong_checkpoints(tmp_path, runs):
    with pytest.raises(ValueError, match="holds no checkpoints"):
        Predictor.from_checkpoint(tmp_path)
    with pytest.raises(ValueError, match=r"'7' is none of best, latest, \[3\]"):
        Predictor.from_checkpoint(runs["sgcls"], step="7")


@pytest.mark.parametrize(
    "task, detections, expected",
    [
        ("sgdet", "", ("sgdet", "sgcls", "predcls")),
        ("sgdet", "found.jsonl", ("predcls",)),
        ("sgcls", "", ("sgcls", "predcls")),
        ("sgcls", "found.jsonl", ("sgcls", "predcls")),
        ("predcls", "", ("predcls",)),
    ],
)
def test_tasks_of_a_checkpoint(task, detections, expected):
    assert tasks_of(create_config(task, data__detections=detections)) == expected


def test_a_model_without_pixels(tmp_path):
    run = save_checkpoint(tmp_path / "run", "predcls", model__visual=False, model__predcls_l="gt")
    predictor = Predictor.from_checkpoint(run)
    data = io.BytesIO()
    photograph(40, 30).save(data, "PNG")
    graph = predictor(data.getvalue(), [[0, 0, 9, 9], [5, 5, 30, 20]], ["a", "b"])
    assert graph.size == (40, 30) and len(graph.relations) == 2
    assert tiny.SIDE == predictor.config.data.image_size
