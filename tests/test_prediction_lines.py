"""Lines of predictions: what is read is what was ranked, bit for bit; unknown names; slow loops."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from etils import epath

from linknet_jax.data.formats.graph_lines import Names
from linknet_jax.data.formats.jsonl import record_of
from linknet_jax.data.formats.lines import line_writer
from linknet_jax.data.formats.prediction_lines import (
    prediction_record,
    ranked,
    read_predictions,
    read_truth,
)
from linknet_jax.metrics.baselines import rank
from linknet_jax.ops.ranking import rank_triplets
from linknet_jax.types import FREE_PREDICTIONS, Annotation, Vocabulary

OBJECTS = ("__background__", "zebra", "man", "Äpfel")
PREDICATES = tuple(f"p{k}" for k in range(21))
NAMES = Vocabulary(OBJECTS, PREDICATES)
SIZE = 12  # boxes of the device's padded images


def write(path, records):
    with line_writer(epath.Path(path)) as write_line:
        for record in records:
            write_line(record)
    return epath.Path(path)


def rankings(prediction, n):
    """All that counts of an image of n objects, as bytes where it is float32."""
    best, free = prediction.ranking(), prediction.free_ranking()
    scores = prediction.scores[: len(best[0])], prediction.free_scores[: len(free[0])]
    values = (prediction.labels[:n], prediction.label_scores[:n], *best, *free, *scores)
    return [x.tobytes() if x.dtype == np.float32 else x.tolist() for x in map(np.asarray, values)]


def random_boxes(rng, n):
    """Any float64 numbers that a file may hold, tiny and huge."""
    numbers = rng.integers(0, 2**64, 12 * n + 100, dtype=np.uint64).view(np.float64)
    numbers = numbers[np.abs(numbers) < 2**31][: 4 * n]
    return np.sort(numbers.reshape(-1, 2, 2), axis=1).reshape(-1, 4)


def random_inputs(rng, n):
    """(labels, object scores, predicate values, pairs): often equal, often 0."""
    levels = int(rng.choice([1, 2, 3, 1000]))
    values = rng.integers(0, levels + 1, (n, n, len(PREDICATES))) / levels
    pairs = (rng.random((n, n)) < rng.choice([0.1, 0.6, 1])) & ~np.eye(n, dtype=bool)
    scores = rng.choice([0, 0.3, 1, rng.random()], n).astype(np.float32)
    return rng.integers(1, len(OBJECTS), n).astype(np.int32), scores, values, pairs


def on_host(rng, n):
    return rank(*random_inputs(rng, n))


def on_device(rng, n):
    labels, scores, values, pairs = random_inputs(rng, SIZE)
    pairs[n:] = pairs[:, n:] = False
    return jax.tree.map(np.asarray, _ranked_on_device(labels, scores, 4 * values, pairs))


@jax.jit
def _ranked_on_device(labels, scores, logits, pairs):
    return rank_triplets(labels, scores, logits, pairs)


@pytest.mark.parametrize("predict", [on_host, on_device])
def test_rankings_survive_the_file(tmp_path, predict):
    rng = np.random.default_rng(0)
    sizes = [0, 1, 2, *rng.integers(2, SIZE + 1, 250).tolist()]
    images = [(n, random_boxes(rng, n), predict(rng, n)) for n in sizes]
    records = (prediction_record(k, b, p, NAMES) for k, (_, b, p) in enumerate(images))
    path = write(tmp_path / "p.jsonl", records)
    borders = empty = 0
    for line, image_id, boxes, read in read_predictions(path, NAMES, "names"):
        n, expected_boxes, expected = images[image_id]
        assert line == image_id + 1 and boxes.tobytes() == expected_boxes.tobytes()
        assert rankings(read, n) == rankings(expected, n)
        listed = json.loads(path.read_text().splitlines()[image_id])["relations"]
        scores = [x["score"] for x in listed]
        assert scores == sorted(scores, reverse=True)
        keys = [(-x["score"], x["subject"], x["object"], int(x["predicate"][1:])) for x in listed]
        assert keys == sorted(set(keys))  # by score, pair, predicate, and each once
        borders += len(scores) > FREE_PREDICTIONS and scores[99] == scores[100]
        empty += not listed
    assert image_id == len(sizes) - 1 and borders > 10 and empty > 2


def slowly_ranked(triplets, scores):
    """(constrained, free) positions in the list."""
    order = sorted(range(len(scores)), key=lambda k: -scores[k])  # stable
    best, seen = [], set()
    for k in order:
        pair = tuple(triplets[k][:2])
        if pair not in seen:
            best.append(k)
        seen.add(pair)
    return best, order[:100]


@pytest.mark.parametrize("seed", range(60))
def test_ranked_is_what_a_loop_finds(seed):
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(1, 9)), int(rng.choice([0, 1, 5, 90, 100, 101, 400]))
    ends = rng.integers(0, n, (m, 2)) if m else np.zeros((0, 2), int)
    triplets = np.column_stack([ends, rng.integers(1, 6, m)]).astype(np.int32)
    scores = rng.integers(-3, 4, m) / 3 + rng.choice([0, 1e-12], m)  # apart in float64 alone
    got = ranked(np.ones(n, np.int32), np.ones(n), triplets, scores)
    best, free = slowly_ranked(triplets.tolist(), scores.tolist())
    assert got.count == len(best) and got.free_count == len(free)
    for rows, pairs, predicates, values in (
        (best, got.pairs, got.predicates, got.scores),
        (free, got.free_pairs, got.free_predicates, got.free_scores),
    ):
        assert pairs.tolist() == triplets[rows, :2].tolist()
        assert predicates.tolist() == triplets[rows, 2].tolist()
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, scores[rows].astype(np.float32))


def test_every_float32_and_float64_survives_the_text(tmp_path):
    rng = np.random.default_rng(0)
    special = np.array([0, -0.0, 1e-45, 1.1754942e-38, 3.4028235e38, 0.1, 1 / 3, 2**24 + 2], "f4")
    scores = rng.integers(0, 2**32, 30_000, dtype=np.uint32).view(np.float32)
    scores = np.concatenate([special, scores[np.isfinite(scores)], rng.random(10_000, np.float32)])
    n = len(scores)
    pairs = np.column_stack([np.arange(n), np.zeros(n, int)])
    prediction = ranked(np.ones(n, np.int32), scores, np.column_stack([pairs, pairs[:, 1] + 1]),
                        scores.astype(float))  # fmt: skip
    boxes = random_boxes(rng, n)
    truth = Annotation("x", 5, 6, boxes, prediction.labels, np.zeros((0, 3), np.int32))
    path = write(tmp_path / "p.jsonl", [prediction_record("x", boxes, prediction, NAMES)])
    ((_, _, read_boxes, read),) = read_predictions(path, NAMES, "names")
    assert rankings(read, n) == rankings(prediction, n)
    assert read_boxes.tobytes() == boxes.tobytes()
    table, _ = read_truth(write(tmp_path / "t.jsonl.gz", [record_of(truth, NAMES)]), NAMES, "names")
    assert table[0].boxes.tobytes() == boxes.tobytes()


def test_compressed_lines_do_not_hold_the_time(tmp_path, monkeypatch):
    contents = set()
    for now in (1e9, 1.5e9):
        monkeypatch.setattr("time.time", lambda now=now: now)
        contents.add(write(tmp_path / f"{now}.jsonl.gz", [line()]).read_bytes())
    assert len(contents) == 1


def line(image_id=1, labels=("man", "zebra"), predicate="p1", **scores):
    box = [0, 0, 1, 1]
    return {
        "image_id": image_id, "width": 10, "height": 10,
        "objects": [{"box": box, "label": label, **scores} for label in labels],
        "relations": [{"subject": 0, "predicate": predicate, "object": 1, **scores}],
    }  # fmt: skip


def test_open_names_are_those_of_the_truth_sorted(tmp_path):
    path = write(tmp_path / "t.jsonl", [line(), line(2, ("cow", "man"), "a")])
    table, names = read_truth(path, None)
    assert names == Vocabulary(
        ("__background__", "cow", "man", "zebra"), ("__background__", "a", "p1")
    )
    assert [x.labels.tolist() for x in table] == [[2, 3], [1, 2]]
    assert [x.relations.tolist() for x in table] == [[[0, 1, 2]], [[0, 1, 1]]]
    lines = [line(1, ("cow", "unheard"), "a", score=1), line(2, predicate="of", score=1)]
    read = list(read_predictions(write(tmp_path / "p.jsonl", lines), names))
    assert [x.labels.tolist() for *_, x in read] == [[1, 0], [2, 3]]
    assert [x.predicates.tolist() for *_, x in read] == [[1], [0]]
    assert [x.free_predicates.tolist() for *_, x in read] == [[1], [0]]


def test_fixed_names_keep_their_order_and_refuse_others(tmp_path):
    table, names = read_truth(write(tmp_path / "t.jsonl", [line()]), NAMES, "dicts.json")
    assert names == NAMES and table[0].labels.tolist() == [2, 1]
    for wrong in (line(labels=("man", "cow"), score=1), line(predicate="of", score=1)):
        path = write(tmp_path / "p.jsonl", [line(0, score=1), wrong])
        with pytest.raises(ValueError, match=r"p.jsonl, line 2, image 1: .* is not in dicts.json"):
            list(read_predictions(path, NAMES, "dicts.json"))
        with pytest.raises(ValueError, match=r"p.jsonl, line 2, image 1: .* is not in dicts.json"):
            read_truth(path, NAMES, "dicts.json")


def test_names():
    open_names, fixed = Names(), Names(OBJECTS, "file")
    assert [open_names[x] for x in ("b", "a", "b")] == [1, 2, 1]
    names, final = open_names.sorted()
    assert names == ("__background__", "a", "b") and final.tolist() == [0, 2, 1]
    assert fixed.sorted()[0] == OBJECTS and fixed.sorted()[1].tolist() == [0, 1, 2, 3]
    for wrong in ("", "__background__", 7, None, ["a"], True):
        assert "must be the name of a class" in open_names.problem(wrong)
    assert "is not in file" in fixed.problem("cow") and not open_names.problem("cow")
    assert not fixed.problem("zebra")
