"""The metrics of scene graphs are those of exact loops; random graphs, ties and odd ends."""

import dataclasses
import json

import numpy as np
import pytest
import reference_metrics as reference

from linknet_jax.metrics.baselines import rank
from linknet_jax.metrics.scene_graph import CURVE, TASKS, SceneGraphMetrics
from linknet_jax.types import Annotation, Prediction, Vocabulary

PREDICATES = 6  # the last one is never annotated
KS = ((1, 3, 20, 50, 100), (20, 50, 100), (70,), (5, 150, 1000))
VOCABULARY = Vocabulary(
    objects=("background", "a", "b", "c"),
    predicates=("absent", *(f"p{i}" for i in range(1, PREDICATES))),
)
UNSEEN = {(s, p, o) for s in (1, 2, 3) for p in (1, 2, 5) for o in (1, 2, 3) if s != o}
TRAINING = (0, 7, 30, 7, 0, 7)


def random_objects(rng, n, scale) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of whole numbers times `scale` and classes; near copies abound: a prediction fits all.

    Some boxes have no width or height.
    """
    low = rng.integers(0, 20, (n, 2))
    boxes = np.concatenate([low, low + rng.integers(1, 25, (n, 2))], axis=1)
    labels = rng.integers(1, 4, n)
    copies = np.flatnonzero(rng.random(n) < 0.4)
    originals = rng.integers(0, max(n, 1), len(copies))
    boxes[copies] = boxes[originals] + rng.integers(-2, 3, (len(copies), 4))
    labels[copies] = labels[originals]
    halves = copies[rng.random(len(copies)) < 0.3]  # of even or odd width: of either convention
    boxes[halves] = boxes[originals[np.isin(copies, halves)]]
    boxes[halves, 2] = boxes[halves, [0]] + (boxes[halves, 2] - boxes[halves, 0]) // 2
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
    return boxes * scale, labels


def random_annotation(rng, image_id, n, frame) -> Annotation:
    """Relations with repeats, several predicates of a pair, now and then of a box with itself."""
    width, height = (int(x) for x in rng.integers(30, 700, 2))
    scale = 1.0 if frame == "original" else max(width, height) / int(frame)
    boxes, labels = random_objects(rng, n, scale)
    r = int(rng.integers(0, 8)) if n else 0
    ends = rng.integers(0, max(n, 1), (r, 2))
    ends = ends[(ends[:, 0] != ends[:, 1]) | (rng.random(r) < 0.1)]
    ends = np.concatenate([ends, ends[: len(ends) // 2]])
    relations = np.column_stack([ends, rng.integers(1, PREDICATES - 1, len(ends))])
    relations = np.concatenate([relations, relations[: r // 3]]).astype(np.int32)
    return Annotation(image_id, width, height, boxes, labels, relations)


def random_prediction(rng, labels, relations) -> Prediction:
    """Knows most of the relations; few different scores, pairs (i, i) and predicates 0 occur."""
    n, levels = len(labels), int(rng.choice([2, 4, 100]))
    probabilities = rng.integers(0, levels, (n, n, PREDICATES)) / levels
    probabilities[tuple(relations[rng.random(len(relations)) < 0.6].T)] = 1
    pairs = rng.random((n, n)) < rng.choice([0, 0.2, 0.8, 1], p=[0.1, 0.2, 0.4, 0.3])
    pairs &= ~np.eye(n, dtype=bool) | (rng.random((n, n)) < 0.3)
    p = rank(labels, rng.integers(1, levels + 1, n) / levels, probabilities, pairs)
    predicates, free = (
        np.where(rng.random(x.shape) < 0.05, 0, x) for x in (p.predicates, p.free_predicates)
    )
    return p.replace(predicates=predicates, free_predicates=free)


def pad(prediction: Prediction, rng) -> Prediction:
    """Garbage rows after the valid ones, as the device leaves them."""
    rows = {
        name: np.concatenate([x, rng.integers(-9, 99, (7, *x.shape[1:])).astype(x.dtype)])
        for name, x in vars(prediction).items()
        if np.ndim(x)
    }
    return prediction.replace(**rows)


def random_image(rng, image_id, task="predcls", frame="original") -> tuple:
    """(annotation, predicted boxes, their labels, prediction)."""
    n = int(rng.choice([0, 1, 2, 4, 8, 13], p=[0.05, 0.05, 0.2, 0.35, 0.3, 0.05]))
    annotation = random_annotation(rng, image_id, n, frame)
    labels, boxes = annotation.labels, annotation.boxes
    if task != "predcls":  # 0 is no class that could be annotated
        labels = np.where(rng.random(n) < 0.85, labels, rng.integers(0, 4, n))
    if task == "sgdet":
        step = 1 if frame == "original" else max(annotation.width, annotation.height) / int(frame)
        boxes = np.concatenate([boxes, boxes[:2]])
        boxes = boxes + step * rng.integers(-1, 2, boxes.shape)
        labels = np.concatenate([labels, labels[:2]])
    if rng.random() < 0.03:
        boxes, labels = boxes[:0], labels[:0]
    known = annotation.relations if len(boxes) else annotation.relations[:0]
    return annotation, boxes, labels, random_prediction(rng, labels, known)


def random_images(seed, count, **settings) -> list:
    rng = np.random.default_rng(seed)
    return [random_image(rng, i, **settings) for i in range(count)]


def evaluate(images, ks=KS[0], zero_shot=UNSEEN, **settings) -> SceneGraphMetrics:
    """Sums over the images, whose rows beyond the valid ones are garbage."""
    rng = np.random.default_rng(0)
    metrics = SceneGraphMetrics(PREDICATES, ks, zero_shot=zero_shot, **settings)
    for annotation, boxes, _, prediction in images:
        metrics.update(annotation, boxes, pad(prediction, rng))
    return metrics


def as_lists(images) -> list:
    """What the reference reads."""
    return [
        (
            annotation, boxes, labels,
            np.column_stack([p.pairs, p.predicates]).tolist(),
            np.column_stack([p.free_pairs, p.free_predicates]).tolist(),
            p.scores.tolist(),
        )
        for annotation, boxes, labels, p in images
    ]  # fmt: skip


def assert_same(actual, expected, where="") -> None:
    """Equal names, numbers to 1e-12, everything else exactly."""
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys(), where
        for key in expected:
            assert_same(actual[key], expected[key], f"{where} {key}")
    elif isinstance(expected, list):
        assert len(actual) == len(expected), where
        for i, (a, b) in enumerate(zip(actual, expected, strict=True)):
            assert_same(a, b, f"{where} {i}")
    elif expected is None or isinstance(expected, str | int):
        assert actual == expected, where
    else:
        assert abs(actual - float(expected)) <= 1e-12, (where, actual, float(expected))


def expected_metrics(scored, numbers, ks, task, training) -> dict:
    """All of `compute` except the protocol; `numbers` are the reference's single ones."""
    if task == "sgdet":
        numbers = numbers | dict.fromkeys(key for key in numbers if key.startswith("A@"))
    by_predicate = reference.recalls_per_predicate(scored, PREDICATES, ks, training)
    return numbers | {
        "mAP@50": None,
        "AP": None,
        "object_accuracy": reference.object_accuracy(scored) if task == "sgcls" else None,
        "per_predicate": {VOCABULARY.predicates[p]: row for p, row in by_predicate.items()},
    }


def expected_counts(images, scored, zero_shot) -> dict[str, int]:
    with_relations = [x for x in images if len(x[0].relations)]
    present = {p for x in scored for _, _, p in x.relations}
    return {
        "images": len(scored),
        "skipped_without_relations": len(images) - len(with_relations),
        "without_predictions": sum(not x[3].count for x in with_relations),
        "relations": sum(len(x.relations) for x in scored),
        "absent_predicates": PREDICATES - 1 - len(present),
        "zero_shot_images": len(
            reference.recalls(scored, 1, "", reference.in_list(zero_shot))
        ),
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(60))
def test_equals_exact_loops(seed):
    """60 times 55 graphs, of every task and under every setting."""
    task, ks = TASKS[seed % 3], KS[seed % 4]
    rules = {
        "inclusive": seed % 2 == 0,
        "missing": "skip" if seed % 5 == 0 else "zero",
        "frame": "1024" if seed % 7 < 2 else "original",
    }
    zero_shot, training = UNSEEN if seed % 6 else None, TRAINING if seed % 8 < 4 else None
    images = random_images(seed, 55, task=task, frame=rules["frame"])
    lists = as_lists(images)
    scored = reference.scored_images(lists, **rules)
    options = {**rules, "training": training}
    numbers = reference.scene_graph_metrics(lists, PREDICATES, ks, zero_shot, **options)
    points = reference.scene_graph_metrics(lists, PREDICATES, CURVE, zero_shot, **options)
    expected = expected_metrics(scored, numbers, ks, task, training)
    expected["curve"] = {"K": list(CURVE)} | {
        kind: [points[f"{kind}@{k}"] for k in CURVE] for kind in ("R", "mR", "ng-R", "ng-mR")
    }
    expected["counts"] = expected_counts(images, scored, zero_shot)
    metrics = evaluate(images, ks, zero_shot, task=task, **rules)
    actual = metrics.compute(VOCABULARY, training)
    del actual["protocol"]
    assert_same(actual, expected)
    diagnosis = metrics.diagnosis(VOCABULARY)
    assert_same(diagnosis["confusion"], reference.confusion(scored, PREDICATES), "confusion")
    edges = {"edges": [i / 10 for i in range(11)]}
    assert_same(diagnosis["calibration"], edges | reference.calibration(scored), "calibration")


def test_the_random_graphs_have_what_is_hard():
    """Otherwise equality would show little."""
    images = [x for seed in range(3) for x in random_images(seed, 200, task=TASKS[seed])]
    scored = reference.scored_images(as_lists(images))
    hits = [hit for x in scored for hit in x.hits[""]]
    several = [hit for hit in hits if len(hit) > 1]
    counts = {
        "one object": sum(len(x[0].boxes) == 1 for x in images),
        "no relations": len(images) - len(scored),
        "duplicates": sum(len(set(map(tuple, x.relations))) < len(x.relations) for x in scored),
        "several predicates": sum(len(predicates_of_pairs(x)) > 0 for x in scored),
        "of a box with itself": sum(s == o for x in scored for s, o, _ in x.relations),
        "no predictions": sum(not x.best for x in scored),
        "no boxes": sum(not len(x.labels) for x in scored),
        "fewer than 20": sum(0 < len(x.best) < 20 for x in scored),
        "more than 100": sum(len(x.best) > 100 for x in scored),
        "tied scores": sum(len(set(x.scores)) < len(x.scores) for x in scored),
        "predicate 0": sum(p == 0 for x in scored for _, _, p in x.best),
        "class 0": sum(label == 0 for x in scored for label in x.labels),
        "IoU of one half": sum(0.5 in hit.values() for hit in hits),
        "several found at once": len(several),
        "by unequal overlap": sum(len(set(hit.values())) > 1 for hit in several),
    }
    assert min(counts.values()) >= 10, counts
    for k in (20, 100):  # one to one is another metric
        ways = (reference.found_by, reference.found_one_to_one)
        found, alone = (sum(len(way(x.hits[""][:k])) for x in scored) for way in ways)
        assert alone < 0.95 * found


def predicates_of_pairs(image) -> list:
    """The ordered pairs of objects with more than one predicate."""
    rows = set(map(tuple, image.relations))
    pairs = [(s, o) for s, o, _ in rows]
    return [pair for pair in set(pairs) if pairs.count(pair) > 1]


@pytest.mark.parametrize("missing", ["zero", "skip"])
def test_returns_the_recalls_of_the_image(missing):
    metrics = SceneGraphMetrics(PREDICATES, (1, 20, 150), missing=missing)
    left_out = 0
    for image in random_images(3, 100):
        scored = reference.scored_images(as_lists([image]), missing=missing)
        result = metrics.update(image[0], image[1], image[3])
        if scored:
            one = {k: reference.recalls(scored, k, "", lambda *_: True)[0] for k in (1, 20, 150)}
            assert_same(result, one)
        else:
            left_out += 1
            assert result is None
    assert left_out == 100 - metrics.compute(VOCABULARY)["counts"]["images"] > 10


def test_what_is_asked_for_changes_no_other_number():
    """Neither more K, another list of unseen triplets nor counts of training."""
    images = random_images(4, 60, task="sgcls")
    first = evaluate(images, (20,), None, task="sgcls").compute(VOCABULARY)
    second = evaluate(images, (2, 20, 500), task="sgcls").compute(VOCABULARY, TRAINING)
    flat = [key for key in first if key.endswith("@20") and "zR" not in key and "-m" not in key]
    for key in (*flat, "ng-mR@20", "object_accuracy", "curve"):
        assert first[key] == second[key], key
    assert len(flat) == 7 and first["head-mR@20"] != second["head-mR@20"]


def test_monotone_in_k():
    result = evaluate(random_images(5, 60, task="sgcls"), task="sgcls").compute(
        VOCABULARY, TRAINING
    )
    kinds = ("R", "mR", "zR", "pooled-R")
    groups = ("head-mR", "body-mR", "tail-mR")
    for kind in (*kinds, *(f"ng-{kind}" for kind in kinds), *groups, "A", "F1"):
        values = [result[f"{kind}@{k}"] for k in KS[0]]
        assert values == sorted(values) and values[0] < values[-1] < 1, kind


def test_nothing_to_score_is_none_and_json_has_no_nan():
    annotation, boxes, _, prediction = random_images(0, 1)[0]
    bare = dataclasses.replace(annotation, relations=annotation.relations[:0])
    metrics = SceneGraphMetrics(PREDICATES, task="sgcls", zero_shot=UNSEEN)
    for _ in range(2):
        result = metrics.compute(VOCABULARY)
        flat = {k: v for k, v in result.items() if not isinstance(v, dict)}
        assert len(flat) == 3 * 13 + 3 and set(flat.values()) == {None}
        assert set(result["curve"]["R"]) == {None}
        assert json.loads(json.dumps(result, allow_nan=False)) == result
        json.dumps(metrics.diagnosis(VOCABULARY), allow_nan=False)
        assert metrics.update(bare, boxes, prediction) is None
    assert metrics.compute(VOCABULARY)["counts"]["skipped_without_relations"] == 2
