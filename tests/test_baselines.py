import numpy as np
import pytest
import reference

from linknet_jax.metrics.baselines import ceiling_prediction, frequency_prediction, rank
from linknet_jax.metrics.scene_graph import SceneGraphMetrics
from linknet_jax.types import Annotation, Vocabulary

PREDICATES = 6
VOCABULARY = Vocabulary(("background", "a", "b"), tuple(f"p{i}" for i in range(PREDICATES)))


def triplets(pairs, predicates) -> list:
    return np.column_stack([pairs, predicates]).tolist()


@pytest.mark.parametrize("n", [0, 1, 2, 8])
def test_rank_equals_the_loop(n):
    rng = np.random.default_rng(n)
    scores, probabilities = rng.integers(0, 4, n) / 3, rng.integers(0, 3, (n, n, PREDICATES)) / 2
    mask = (rng.random((n, n)) < 0.9) & ~np.eye(n, dtype=bool)
    prediction = rank(np.ones(n, np.int32), scores, probabilities, mask)
    best, free = reference.ranked_triplets(scores, probabilities, mask)
    assert triplets(prediction.pairs, prediction.predicates) == [list(x) for x in best]
    assert triplets(prediction.free_pairs, prediction.free_predicates) == [list(x) for x in free]
    assert prediction.count == len(best) == mask.sum()
    assert prediction.free_count == len(free) == min(100, mask.sum() * (PREDICATES - 1))
    subject, object_ = prediction.pairs.T
    o, probability = np.float32(scores), np.float32(probabilities)
    expected = o[subject] * o[object_] * probability[subject, object_, prediction.predicates]
    np.testing.assert_array_equal(prediction.scores, expected)


def test_frequency_ranks_by_the_table_and_drops_unknown_pairs():
    probabilities = np.zeros((3, 3, 4))
    probabilities[1, 2] = [0.9, 0.1, 0.4, 0.4]
    probabilities[2, 1] = [0.0, 0.0, 0.0, 0.5]
    labels = np.array([1, 2, 1])
    prediction = frequency_prediction(probabilities, labels, np.ones(3))
    expected = [[1, 0, 3], [1, 2, 3], [0, 1, 2], [2, 1, 2]]
    assert triplets(prediction.pairs, prediction.predicates) == expected
    np.testing.assert_array_equal(prediction.scores, np.float32([0.5, 0.5, 0.4, 0.4]))
    free = triplets(prediction.free_pairs, prediction.free_predicates)
    assert len(free) == 4 * 3 and free[:3] == [[1, 0, 3], [1, 2, 3], [0, 1, 2]]
    weighted = frequency_prediction(probabilities, labels, np.array([1, 0.5, 0.9]))
    assert weighted.pairs[0].tolist() == [1, 0] and weighted.pairs[1].tolist() == [1, 2]
    assert weighted.scores[-1] == np.float32(0.45) * np.float32(0.4)
    allowed = np.zeros((3, 3), bool)
    allowed[0, 1] = allowed[0, 2] = True
    some = frequency_prediction(probabilities, labels, np.ones(3), allowed)
    assert triplets(some.pairs, some.predicates) == [[0, 1, 2]]
    assert frequency_prediction(probabilities, labels[:0], np.ones(0)).count == 0
    assert frequency_prediction(probabilities, labels, np.zeros(3)).free_count == 0


def test_ceiling_knows_every_relation_in_pair_order():
    truth = np.array([[1, 0, 2], [0, 1, 3], [0, 1, 1], [0, 1, 1]])
    prediction = ceiling_prediction(truth, np.array([1, 2]))
    assert triplets(prediction.pairs, prediction.predicates) == [[0, 1, 1], [1, 0, 2]]
    free = triplets(prediction.free_pairs, prediction.free_predicates)
    assert free == [[0, 1, 1], [0, 1, 3], [1, 0, 2]] and prediction.free_count == 3
    boxes = np.array([[0, 0, 9, 9], [20, 0, 29, 9.0]])
    metrics = SceneGraphMetrics(PREDICATES, (20,))
    metrics.update(Annotation(0, 50, 50, boxes, np.array([1, 2]), truth), boxes, prediction)
    result = metrics.compute(VOCABULARY)
    assert result["R@20"] == 0.75 and result["ng-R@20"] == 1


def test_ceiling_keeps_a_hundred_without_the_graph_constraint():
    truth = np.array([[i, j, 1] for i in range(11) for j in range(11) if i != j])
    prediction = ceiling_prediction(truth, np.ones(11, np.int32))
    assert prediction.count == 110 and prediction.free_count == len(prediction.free_pairs) == 100
