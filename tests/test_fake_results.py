"""The imitated results have the keys and types of computed ones."""

from __future__ import annotations

import fake_results
import numpy as np
import pytest

from linknet_jax.metrics.baselines import rank
from linknet_jax.metrics.detection import DetectionMetrics
from linknet_jax.metrics.scene_graph import TASKS, SceneGraphMetrics
from linknet_jax.types import Annotation, Vocabulary

NAMES = ("on", "using", "at")
VOCABULARY = Vocabulary(("background", "thing"), ("absent", *NAMES))
COUNTED = {"images_scored", "images_skipped", "zero_shot_triplets"}  # numbers of the protocol


def _computed(task, images):
    """Metrics and diagnosis of copies of an image that has every predicate."""
    boxes, labels = np.array([[0.0, 0, 9, 9], [20, 0, 29, 9]]), np.ones(2, int)
    truth = Annotation(
        "an image", 40, 20, boxes, labels, np.array([[0, 1, 1], [0, 1, 2], [1, 0, 3]])
    )
    prediction = rank(labels, np.ones(2), np.full((2, 2, 4), 0.25), ~np.eye(2, dtype=bool))
    metrics = SceneGraphMetrics(4, fake_results.KS, task, zero_shot={(1, 1, 1)})
    objects = DetectionMetrics()
    for _ in range(images):
        metrics.update(truth, boxes, prediction)
        objects.update(truth, boxes, prediction)
    found = metrics.compute(VOCABULARY, np.ones(4, int))
    return found | (objects.compute() if task == "sgdet" else {}), metrics.diagnosis(VOCABULARY)


def _form(value):
    """Keys and types all the way down; of a list its length and the types besides None."""
    if isinstance(value, dict):
        return {key: _form(x) for key, x in value.items()}
    if isinstance(value, list):
        return len(value), {str(_form(x)) for x in value if x is not None}
    return type(value).__name__


@pytest.mark.parametrize("images", [0, 1000])
@pytest.mark.parametrize("task", TASKS)
def test_fake_results_look_like_computed_ones(task, images):
    metrics, diagnosis = _computed(task, min(images, 1))
    fake = fake_results.metrics(NAMES, task=task, images=images)
    assert _form(fake) == _form(metrics)
    assert _form(fake_results.diagnosis(NAMES, images=images)) == _form(diagnosis)
    for key in metrics["protocol"].keys() - COUNTED:
        assert fake["protocol"][key] == metrics["protocol"][key]
    assert fake["curve"]["K"] == metrics["curve"]["K"]
