"""Scene graph detection on real photographs' detections: FREQ on an R-CNN's boxes."""

import json

import numpy as np
import pytest
import reference_metrics
from etils import epath

from linknet_jax import score
from linknet_jax.atomic import write_json
from linknet_jax.data import statistics
from linknet_jax.data.files import load
from linknet_jax.data.formats.jsonl import record_of
from linknet_jax.data.formats.lines import line_writer, read_lines
from linknet_jax.data.formats.prediction_lines import prediction_record
from linknet_jax.data.formats.vg_dicts import training_dicts
from linknet_jax.metrics.baselines import frequency_prediction

KS = (20, 50, 100)


def detected(lines, names):
    """(boxes, labels, scores) of an image's detections."""
    boxes = np.array([x["box"] for x in lines], float).reshape(-1, 4)
    labels = np.array([names.index(x["label"]) for x in lines], int)
    return boxes, labels, np.array([x["score"] for x in lines], np.float32)


@pytest.fixture(scope="module")
def scored(vrd_dir, tmp_path_factory):
    """(metrics of the command, (annotation, boxes, labels, constrained, free) of every image)."""
    folder = epath.Path(tmp_path_factory.mktemp("scored"))
    collection = load("vrd", str(vrd_dir), "")[0]
    names, train = collection.vocabulary, collection.splits["train"]
    table = statistics.predicate_probabilities(*statistics.count(train, *names.sizes, False))
    found = {x["image_id"]: x["objects"]
             for _, x, _ in read_lines(epath.Path(vrd_dir) / "detections.jsonl")}  # fmt: skip
    images = []
    with line_writer(folder / "gt.jsonl") as truth, line_writer(folder / "pred.jsonl.gz") as lines:
        for a in collection.splits["test"]:
            boxes, labels, scores = detected(found[a.file_name or a.image_id], names.objects)
            p = frequency_prediction(table, labels, scores)
            truth(record_of(a, names))
            lines(prediction_record(a.image_id, boxes, p, names))
            rankings = (np.column_stack(x).tolist() for x in (p.ranking(), p.free_ranking()))
            images.append((a, boxes, labels, *rankings))
    counts = statistics.predicate_counts(train, names.sizes[1])
    write_json(folder / "dicts.json", training_dicts(names, counts))
    arguments = {"task": "sgdet", "ground_truth": "gt.jsonl", "predictions": "pred.jsonl.gz",
                 "vocabulary": "dicts.json", "output": "metrics.json"}  # fmt: skip
    paths = {k: v if k == "task" else str(folder / v) for k, v in arguments.items()}
    assert score.main([x for k, v in paths.items() for x in (f"--{k}", v)]) == 0
    return json.loads((folder / "metrics.json").read_text()), images, counts.tolist()


def test_recalls_are_the_exact_loops(scored):
    metrics, images, counts = scored
    expected = reference_metrics.scene_graph_metrics(images, len(counts), KS, training=counts)
    expected = {k: x for k, x in expected.items() if not k.startswith("A@")}
    assert {k: metrics[k] for k in expected} == {
        k: None if x is None else pytest.approx(float(x), abs=1e-12) for k, x in expected.items()
    }
    assert 0.05 < metrics["R@20"] < metrics["ng-R@100"] < 0.5


def test_detections_have_the_known_precision(scored):
    """As pycocotools 2.0.11 gives it for the same boxes."""
    metrics, *_ = scored
    assert metrics["mAP@50"] == pytest.approx(0.52339163, abs=1e-8)
    assert metrics["AP"] == pytest.approx(0.38201984, abs=1e-8)
