"""Detector, relations on it, scene graph detection: the three commands, one after the other."""

import json
import pathlib

import pytest

from linknet_jax.main import main

ROOT = pathlib.Path(__file__).parents[1]
SETTINGS = {
    "data.image_size": 48,
    "data.train_images": 16,
    "data.val_images": 8,
    "data.test_images": 8,
    "data.max_detections": 6,
    "model.fc_dim": 12,
    "model.embed_dim": 8,
    "model.hidden_dim": 8,
    "model.pooling_dim": 12,
    "model.layout_dim": 4,
    "model.roi_size": 3,
    "model.roi_chunk": 16,
    "rpn.width": 8,
    "rpn.scales": (1.5,),
    "rpn.proposals": 12,
    "rpn.train_proposals": 12,
    "rpn.sampled": 8,
    "rpn.sampled_positive": 4,
    "detector.sampled": 8,
    "detector.sampled_foreground": 4,
    "train.batch_size": 8,
    "train.steps": 2,
    "train.eval_every": 2,
    "train.warmup": 1,
    "train.log_every": 1,
    "eval.batch_size": 8,
    "eval.report": False,
}
FROZEN = ("--config.model.freeze_trunk=True", "--config.model.freeze_box_head=True")


def run(task, workdir, *arguments):
    """The results of a training run."""
    settings = [f"--config.{key}={value}" for key, value in SETTINGS.items()]
    command = ["--config", str(ROOT / f"configs/{task}.py"), "--workdir", str(workdir), *settings]
    assert main(["main", *command, *arguments]) == 0
    return json.loads((workdir / "results.json").read_text())


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """(folder, results of the detector, SGCls and SGDet)."""
    folder = tmp_path_factory.mktemp("runs")
    start = f"--config.start.detector={folder / 'detector'}"
    relations = f"--config.start.relations={folder / 'sgcls'}"
    return folder, [
        run("detector", folder / "detector"),
        run("sgcls", folder / "sgcls", start, *FROZEN),
        run("sgdet", folder / "sgdet", start, relations, "--config.eval.dump=True"),
    ]


def test_the_detector_is_scored_beside_perfect_boxes(chain):
    results = chain[1][0]
    assert results["tasks"]["detector"].keys() == {"mAP@50", "AP", "AP@50"}
    assert results["ceiling"]["detector"]["AP@50"] == 1
    assert 0.5 < results["ceiling"]["detector"]["mAP@50"] < 1


def test_scene_graph_detection_is_scored_in_all_three_tasks(chain):
    results = chain[1][2]
    assert list(results["tasks"]) == ["sgdet", "sgcls", "predcls"]
    assert results["tasks"]["sgdet"]["mAP@50"] is not None
    assert results["ceiling"]["sgdet"]["R@20"] == 1
    assert results["baselines"]["FREQ"]["sgdet"]["counts"]["images"] == 8


def test_given_detections_are_scored_as_they_are(chain, tmp_path):
    """SGCls on the boxes, classes and scores that SGDet wrote: the same objects, the same mAP."""
    folder, (_, _, sgdet) = chain
    file = folder / "sgdet/predictions/sgdet_test.jsonl.gz"
    whole = tmp_path / "both.jsonl.gz"
    whole.write_bytes(file.read_bytes() + file.with_name("sgdet_val.jsonl.gz").read_bytes())
    command = ["--mode", "eval", "--workdir", str(folder / "sgcls")]
    assert main(["main", *command, f"--config.data.detections={whole}"]) == 0
    results = json.loads((folder / "sgcls/results.json").read_text())
    assert list(results["tasks"]) == ["sgdet", "sgcls", "predcls"]
    found = [x["tasks"]["sgdet"] for x in (results, sgdet)]
    assert found[0]["mAP@50"] == pytest.approx(found[1]["mAP@50"], abs=1e-6)
