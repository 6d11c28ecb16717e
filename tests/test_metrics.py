import json

import numpy as np
import pytest
import reference

from linknet_jax.metrics.baselines import ceiling_prediction, rank
from linknet_jax.metrics.matching import NO_MATCH, match
from linknet_jax.metrics.scene_graph import SceneGraphMetrics
from linknet_jax.types import Annotation, Prediction, Vocabulary

PREDICATES = 6
KS = (1, 3, 20, 50, 100)
VOCABULARY = Vocabulary(
    objects=("background", "a", "b", "c"),
    predicates=("absent", *(f"p{i}" for i in range(1, PREDICATES))),
)
UNSEEN = {(s, p, o) for s in (1, 2, 3) for p in (1, 2, 5) for o in (1, 2, 3) if s != o}


def random_annotation(rng, n, r, image_id=0) -> Annotation:
    corner = rng.integers(0, 20, (n, 2))
    boxes = np.concatenate([corner, corner + rng.integers(1, 25, (n, 2))], axis=1)
    pairs = rng.integers(0, n, (r, 2)) if r else np.zeros((0, 2), int)
    pairs[:, 1] = np.where(pairs[:, 0] == pairs[:, 1], (pairs[:, 1] + 1) % max(n, 1), pairs[:, 1])
    relations = np.column_stack([pairs, rng.integers(1, PREDICATES - 1, r)])
    relations = np.concatenate([relations, relations[: r // 3]])
    return Annotation(
        image_id,
        50,
        50,
        boxes.astype(np.float64),
        rng.integers(1, 4, n),
        relations.astype(np.int32),
    )


def random_prediction(rng, labels, relations, levels=4) -> Prediction:
    """Knows most of the relations; scores of few levels, so that ties abound."""
    n = len(labels)
    probabilities = rng.integers(0, levels, (n, n, PREDICATES)) / levels
    known = relations[rng.random(len(relations)) < 0.7]
    probabilities[tuple(known.T)] = 1
    mask = (rng.random((n, n)) < 0.8) & ~np.eye(n, dtype=bool)
    return rank(labels, rng.integers(1, levels, n) / levels, probabilities, mask)


def pad(prediction: Prediction, rng) -> Prediction:
    """Garbage rows after the valid ones, as the device leaves them."""
    rows = {
        name: np.concatenate([x, rng.integers(0, 50, (7, *x.shape[1:])).astype(x.dtype)])
        for name, x in vars(prediction).items()
        if np.ndim(x)
    }
    return prediction.replace(**rows)


def triplets(pairs, predicates) -> list:
    return np.column_stack([pairs, predicates]).tolist()


def random_images(rng, task, count=60) -> list:
    images = []
    for i in range(count):
        n = int(rng.choice([0, 1, 3, 5, 9]))
        annotation = random_annotation(rng, n, int(rng.integers(0, 7)) if n > 1 else 0, i)
        labels, boxes = annotation.labels, annotation.boxes
        if task != "predcls":
            labels = np.where(rng.random(n) < 0.9, labels, rng.integers(1, 4, n))
        if task == "sgdet":
            boxes = np.concatenate([boxes + rng.normal(0, 2, boxes.shape), boxes[:2] + 0.5])
            labels = np.concatenate([labels, labels[:2]])
        prediction = random_prediction(rng, labels, annotation.relations)
        if i % 6 == 5:
            prediction = ceiling_prediction(np.zeros((0, 3), int), labels)
        images.append((annotation, boxes, labels, prediction))
    return images


def evaluate(images, rng=None, **settings) -> SceneGraphMetrics:
    metrics = SceneGraphMetrics(PREDICATES, KS, zero_shot=UNSEEN, **settings)
    for annotation, boxes, _, prediction in images:
        metrics.update(annotation, boxes, pad(prediction, rng) if rng else prediction)
    return metrics


@pytest.mark.parametrize("inclusive", [True, False])
@pytest.mark.parametrize("task", ["predcls", "sgcls", "sgdet"])
def test_equals_the_triple_loop(task, inclusive):
    rng = np.random.default_rng(int(inclusive))
    images = random_images(rng, task)
    lists = [
        (
            annotation,
            boxes,
            labels,
            triplets(p.pairs, p.predicates),
            triplets(p.free_pairs, p.free_predicates),
        )
        for annotation, boxes, labels, p in images
    ]
    expected = reference.scene_graph_metrics(lists, PREDICATES, KS, UNSEEN, inclusive)
    if task == "sgdet":
        expected |= {key: None for key in expected if key.startswith("A@")}
    actual = evaluate(images, rng, task=task, inclusive=inclusive).compute(VOCABULARY)
    assert {key: actual[key] for key in expected} == pytest.approx(expected, abs=1e-12)
    assert 0 < actual["R@3"] < actual["R@20"] < 1 and actual["zR@20"] > 0
    related = [image for image in images if len(image[0].relations)]
    assert actual["counts"]["images"] == len(related)
    assert actual["counts"]["skipped_without_relations"] == len(images) - len(related) > 0
    empty = sum(not image[3].count for image in related)
    assert actual["counts"]["without_predictions"] == empty > 0
    assert actual["counts"]["absent_predicates"] == 1
    right = sum((image[2][: len(image[0].labels)] == image[0].labels).sum() for image in related)
    objects = sum(len(image[0].labels) for image in related)
    assert actual["object_accuracy"] == (right / objects if task == "sgcls" else None)


@pytest.mark.parametrize("seed", range(3))
def test_match_equals_the_triple_loop(seed):
    rng = np.random.default_rng(seed)
    annotation = random_annotation(rng, 6, 9)
    p = random_prediction(rng, annotation.labels, annotation.relations)
    ranks = match(
        annotation.boxes, annotation.labels, annotation.relations,
        annotation.boxes, annotation.labels, p.free_pairs, p.free_predicates,
    )  # fmt: skip
    rows = triplets(p.free_pairs, p.free_predicates)
    for k in (0, 1, 5, 30, 100):
        found = reference.found_relations(annotation, annotation.boxes, annotation.labels, rows[:k])
        assert set(np.flatnonzero(ranks < k)) == found


def test_match_goes_by_overlap_and_label_not_by_index():
    boxes = np.array([[0, 0, 9, 9], [20, 20, 29, 29], [0, 0, 9, 9.0]])
    labels = np.array([1, 2, 1])
    relations = np.array([[0, 1, 4], [2, 1, 4], [0, 1, 4], [1, 0, 4], [0, 1, 5]])
    pairs, predicates = np.array([[1, 2], [2, 1]]), np.array([3, 4])
    ranks = match(boxes, labels, relations, boxes, labels, pairs, predicates)
    assert ranks.tolist() == [1, 1, 1, NO_MATCH, NO_MATCH]


def test_iou_of_one_half_matches_and_the_convention_decides():
    truth = np.array([[0, 0, 9, 9], [50, 50, 60, 60.0]])
    labels, relation, pair = np.array([1, 1]), np.array([[0, 1, 1]]), np.array([[0, 1]])

    def rank_of(width, inclusive):
        boxes = np.array([[0, 0, width, 9], truth[1]])
        return match(truth, labels, relation, boxes, labels, pair, np.array([1]), 0.5, inclusive)[0]

    assert rank_of(4, True) == 0 and rank_of(4, False) == NO_MATCH
    assert rank_of(4.5, False) == 0 and rank_of(3.99, True) == NO_MATCH


def hand_image() -> tuple[Annotation, Prediction]:
    boxes = np.array([[0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9.0]])
    relations = np.array([[0, 1, 1], [0, 1, 2], [1, 2, 1], [1, 2, 1]])
    ranked = np.array([[2, 0, 3], [0, 1, 1], [1, 2, 1], [1, 0, 5]])
    free = np.array([[0, 1, 2], [2, 0, 3], [0, 1, 1], [1, 2, 5]])
    one = np.ones(4, np.float32)
    return Annotation(7, 60, 10, boxes, np.array([1, 2, 3]), relations), Prediction(
        np.array([1, 2, 3]), one[:3], ranked[:, :2], ranked[:, 2], one, np.int32(4),
        free[:, :2], free[:, 2], one, np.int32(4),
    )  # fmt: skip


def test_hand_values():
    annotation, prediction = hand_image()
    metrics = SceneGraphMetrics(PREDICATES, (1, 2, 3), zero_shot={(1, 2, 2), (2, 1, 3)})
    metrics.update(annotation, annotation.boxes, prediction)
    empty = prediction.replace(count=np.int32(0), free_count=np.int32(0))
    one = Annotation(8, 60, 10, annotation.boxes, annotation.labels, np.array([[1, 2, 4]]))
    metrics.update(one, annotation.boxes, empty)
    result = metrics.compute(VOCABULARY)
    expected = {
        "R@1": 0, "R@2": 1 / 8, "R@3": 3 / 8, "ng-R@1": 1 / 8, "ng-R@2": 1 / 8, "ng-R@3": 1 / 4,
        "mR@1": 0, "mR@2": 1 / 15, "mR@3": 1 / 5, "ng-mR@1": 1 / 5, "ng-mR@3": 4 / 15,
        "A@1": 1 / 5, "A@2": 3 / 5, "A@3": 3 / 5, "F1@1": 0, "F1@3": 2 * 0.375 * 0.2 / 0.575,
        "zR@2": 0, "zR@3": 2 / 3, "ng-zR@1": 1 / 3, "ng-zR@3": 1 / 3,
    }  # fmt: skip
    assert {key: result[key] for key in expected} == pytest.approx(expected)
    assert result["per_predicate"]["p1"] == pytest.approx({
        "recall@1": 0, "recall@2": 1 / 3, "recall@3": 1, "ng-recall@1": 0, "ng-recall@2": 0,
        "ng-recall@3": 1 / 3, "count": 3, "images": 1,
    })  # fmt: skip
    assert result["per_predicate"]["p4"]["recall@3"] == 0
    assert result["per_predicate"]["p5"]["recall@3"] is None
    assert result["counts"]["absent_predicates"] == 2
    assert result["protocol"]["missing"] == "zero"
    assert result["protocol"]["zero_shot_triplets"] == 2


def test_merge_equals_a_single_pass_and_never_mixes_settings():
    images = random_images(np.random.default_rng(3), "sgcls")
    whole = evaluate(images, task="sgcls")
    first, second = evaluate(images[:10], task="sgcls"), evaluate(images[10:], task="sgcls")
    before = first.state()
    merged = first.merge(second)
    np.testing.assert_allclose(merged.state(), whole.state(), rtol=1e-14)
    assert merged.compute(VOCABULARY)["R@20"] == pytest.approx(whole.compute(VOCABULARY)["R@20"])
    np.testing.assert_array_equal(first.state(), before)
    gathered = np.stack([first.state().view(np.uint32), second.state().view(np.uint32)])
    restored = first.from_state(gathered.view(np.float64).sum(axis=0))
    np.testing.assert_allclose(restored.state(), whole.state(), rtol=1e-14)
    with pytest.raises(ValueError, match="cannot merge"):
        first.merge(evaluate(images, task="predcls"))


def test_nothing_to_score_is_none_and_json_has_no_nan():
    metrics = SceneGraphMetrics(PREDICATES)
    annotation, prediction = hand_image()
    bare = Annotation(1, 9, 9, annotation.boxes, annotation.labels, np.zeros((0, 3), np.int32))
    metrics.update(bare, annotation.boxes, prediction)
    result = metrics.compute(VOCABULARY)
    flat = [key for key in result if "@" in key]
    assert len(flat) == 3 * 8 + 1 and all(result[key] is None for key in flat)
    assert result["counts"]["skipped_without_relations"] == 1 and result["counts"]["images"] == 0
    metrics.update(annotation, annotation.boxes, prediction)
    result = metrics.compute(VOCABULARY)
    assert result["zR@20"] is None and result["object_accuracy"] is None and result["R@20"] == 0.75
    assert result["protocol"]["zero_shot_triplets"] is None
    json.dumps(result, allow_nan=False)


def test_monotone_in_k():
    result = evaluate(random_images(np.random.default_rng(5), "sgcls"), task="sgcls").compute(
        VOCABULARY
    )
    for kind in ("R", "ng-R", "mR", "ng-mR", "zR", "ng-zR", "A", "F1"):
        values = [result[f"{kind}@{k}"] for k in KS]
        assert values == sorted(values) and values[0] < values[-1]


def test_errors_name_value_and_remedy():
    annotation, prediction = hand_image()
    with pytest.raises(ValueError, match=r"image 7: 2 predicted boxes.*3 annotated"):
        SceneGraphMetrics(PREDICATES).update(annotation, annotation.boxes[:2], prediction)
    with pytest.raises(ValueError, match=r"ks = \(20, 200\).*eval\.ks"):
        SceneGraphMetrics(PREDICATES, (20, 200))
    with pytest.raises(ValueError, match="task 'detection'"):
        SceneGraphMetrics(PREDICATES, task="detection")
    with pytest.raises(ValueError, match=r"6 predicates .* count 51"):
        SceneGraphMetrics(51).compute(VOCABULARY)
