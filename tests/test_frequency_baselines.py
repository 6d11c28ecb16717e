"""FREQ, FREQ+OVERLAP and zero-shot triplets of a data set against loops, and the known values."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import reference
import reference_metrics
from conftest import SHARED
from etils import epath

from linknet_jax import data
from linknet_jax.baselines import Training, create_metrics, evaluate_baselines, evaluated_splits
from linknet_jax.config import get_config
from linknet_jax.data.collection import BACKGROUND, Collection, pack
from linknet_jax.data.formats import visual_genome
from linknet_jax.types import Annotation, Vocabulary

OBJECTS, PREDICATES = (BACKGROUND, *"abcd"), (BACKGROUND, "on", "in", "under", "never")
KS = (3, 20)


def annotation(rng, name):
    """Classes lean towards predicates; gaps of half a pixel touch in the original frame only."""
    n = int(rng.integers(2, 8))
    low = rng.integers(0, 80, (n, 2)) / 2
    labels = rng.integers(1, 5, n, np.int32)
    ends = rng.integers(0, n, (int(rng.integers(0, 7)), 2))
    ends = ends[ends[:, 0] != ends[:, 1]]
    lean = (labels[ends[:, 0]] + labels[ends[:, 1]]) % 3
    predicates = np.where(rng.random(len(ends)) < 0.6, lean, rng.integers(0, 3, len(ends))) + 1
    return Annotation(
        image_id=name,
        width=64,
        height=50,
        boxes=np.concatenate([low, low + rng.integers(2, 40, (n, 2)) / 2], axis=1),
        labels=labels,
        relations=np.column_stack([ends, predicates]).astype(np.int32),
    )


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("data")
    counts = {"train": 60, "test": 25}
    splits = {k: pack(annotation(rng, f"{k}{i}") for i in range(n)) for k, n in counts.items()}
    whole = Collection(Vocabulary(OBJECTS, PREDICATES), splits)
    visual_genome.write(whole, epath.Path(folder))
    config = get_config("predcls", "boxes")
    config.model.predcls_l = "gt"
    config.data.update({"name": "custom", "dir": str(folder), "val_images": 12})
    config.eval.ks = KS
    return config


def changed(config, **changes):
    copy = config.copy_and_resolve_references()
    copy.eval.update(changes)
    return copy


def framed(annotations, frame):
    """With boxes in the pixels in which they are compared."""
    for a in annotations:
        scale = 1 if frame == "original" else int(frame) / max(a.width, a.height)
        yield dataclasses.replace(a, boxes=a.boxes * scale)


def classes(annotations):
    return {(a.labels[s], p, a.labels[o]) for a in annotations for s, o, p in a.relations}


def expected(train, images, overlap, unseen):
    """The baseline's metrics, pair by pair."""
    foreground, background = reference.pair_counts(train, len(OBJECTS), len(PREDICATES), overlap)
    rows = []
    for a in images:
        n = len(a.labels)
        probabilities = np.zeros((n, n, len(PREDICATES)))
        allowed = np.zeros((n, n), bool)
        for s, o in np.ndindex(n, n):
            seen = foreground[a.labels[s], a.labels[o]]
            absent = background[a.labels[s], a.labels[o]] + 1
            probabilities[s, o] = seen / (seen.sum() + absent)
            apart = reference_metrics.box_iou(a.boxes[s], a.boxes[o], True) == 0
            allowed[s, o] = s != o and seen.any() and not (overlap and apart)
        best, free = reference.ranked_triplets(np.ones(n), probabilities, allowed)
        rows.append((a, a.boxes, a.labels, best, free))
    kinds = [int(p) for a in train for p in a.relations[:, 2]]
    training = [kinds.count(p) for p in range(len(PREDICATES))]
    return reference_metrics.scene_graph_metrics(
        rows, len(PREDICATES), KS, unseen, training=training
    )


@pytest.mark.parametrize("frame", ["original", "1024"])
def test_equals_the_loops(config, tmp_path, frame, capsys):
    config = changed(config, frame=frame)
    results = evaluate_baselines(config, epath.Path(tmp_path / "new"))
    assert set(results) == {"test", "val"}
    parts = {s: list(data.build(config, s).annotations) for s in ("train", "val", "test")}
    assert [len(x) for x in parts.values()][1] == 12
    unseen = {"val": classes(parts["val"]) - classes(parts["train"])}
    unseen["test"] = classes(parts["test"]) - classes(parts["train"]) - classes(parts["val"])
    train = list(framed(parts["train"], frame))
    for split, scores in results.items():
        images = list(framed(parts[split], frame))
        for name, overlap in (("FREQ", False), ("FREQ+OVERLAP", True)):
            wanted = expected(train, images, overlap, unseen[split])
            found = scores[name]["predcls"]
            assert {k: found[k] for k in wanted} == pytest.approx(wanted, abs=1e-12), (split, name)
            assert 0 < found["R@3"] < found["R@20"] <= 1
            protocol = found["protocol"]
            assert protocol["split"] == split and protocol["task"] == "predcls"
        assert scores["FREQ"] != scores["FREQ+OVERLAP"]
        assert unseen[split] and any(scores["FREQ"]["predcls"][f"zR@{k}"] is not None for k in KS)
    assert json.loads((tmp_path / "new" / "baselines.json").read_text()) == results
    printed = capsys.readouterr().out
    assert "FREQ+OVERLAP" in printed and "test" in printed and "val" in printed


def test_the_frame_decides_what_touches(config):
    """A gap of half a pixel is closed by the inclusive convention in small frames only."""
    tables = [
        Training(changed(config, frame=frame), evaluated_splits(config)).tables
        for frame in ("original", "1024")
    ]
    np.testing.assert_array_equal(tables[0]["FREQ"], tables[1]["FREQ"])
    assert (tables[0]["FREQ+OVERLAP"] != tables[1]["FREQ+OVERLAP"]).any()
    boxes = np.array([(0, 0, 10, 10), (10.5, 0, 20, 10.0)])
    pair = Annotation(0, 64, 64, boxes, np.int32([1, 2]), np.zeros((0, 3), np.int32))
    found = []
    for frame in ("original", "1024"):
        training = Training(changed(config, frame=frame), evaluated_splits(config))
        ones = np.ones(2, np.float32)
        found.append(
            int(training.predict("FREQ+OVERLAP", pair, pair.boxes, pair.labels, ones).count)
        )
        assert training.predict("FREQ", pair, pair.boxes, pair.labels, ones).count == 2
    assert found == [2, 0]


def test_predictions_use_the_labels_and_scores_that_are_given(config):
    training = Training(config, evaluated_splits(config))
    image = data.build(config, "test").annotations[0]
    labels = np.array([1 + label % 4 for label in image.labels], np.int32)
    scores = np.linspace(0.2, 0.9, len(labels)).astype(np.float32)
    found = training.predict("FREQ", image, image.boxes, labels, scores)
    (s, o), p = found.pairs[0], found.predicates[0]
    wanted = scores[s] * scores[o] * np.float32(training.tables["FREQ"][labels[s], labels[o], p])
    assert found.scores[0] == wanted and (found.labels == labels).all()
    assert (training.tables["FREQ"][..., 0] == 0).all()


def listed(tmp_path, rows):
    path = tmp_path / "triplets.json"
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return str(path)


def test_a_list_of_zero_shot_triplets(config, tmp_path):
    path = listed(tmp_path, [["a", "on", "b"], ["c", "under", "a"], ["a", "on", "b"]])
    splits = evaluated_splits(config)
    training = Training(changed(config, zero_shot=path), splits)
    assert training.unseen("test") == training.unseen("val") == {(1, 1, 2), (3, 3, 1)}
    metrics = create_metrics(config, "predcls", splits["val"], "val", training.unseen("val"))
    assert metrics.zero_shot == {(1, 1, 2), (3, 3, 1)} and metrics.ks == KS


@pytest.mark.parametrize(
    "rows",
    ["[", "5", "", [["a", "on"]], [["a", "on", "b", "b"]], [["a", "b", "on"]], [[1, 1, 2]],
     [["a", ["on"], "b"]], [None]],
)  # fmt: skip
def test_wrong_lists(config, tmp_path, rows):
    config = changed(config, zero_shot=listed(tmp_path, rows))
    with pytest.raises(
        ValueError, match=r"triplets.json: .*\[subject, predicate, object\].*mend the file"
    ):
        Training(config, evaluated_splits(config))
    with pytest.raises(ValueError, match=r"absent.json: must be a JSON list"):
        Training(changed(config, zero_shot=str(tmp_path / "absent.json")), {})


def test_without_a_test_split(config):
    assert list(evaluated_splits(config)) == ["test", "val"]
    folder = epath.Path(config.data.dir)
    whole = visual_genome.read(folder, None)
    only = epath.Path(str(folder) + "_train")
    visual_genome.write(Collection(whole.vocabulary, {"train": whole.splits["train"]}), only)
    copy = changed(config)
    copy.data.dir = str(only)
    splits = evaluated_splits(copy)
    assert list(splits) == ["val"] and Training(copy, splits).unseen("val")


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """(results, number of images) on the public Visual Genome annotations."""
    folder = SHARED / "vg150_boxes"
    if not folder.is_dir():
        pytest.skip(f"no {folder} (set LINKNET_SHARED_DATA)")
    config = get_config("predcls", "boxes")
    config.model.predcls_l = "gt"
    config.data.update({"name": "visual_genome", "dir": str(folder)})
    config.data.update({"val_images": 3000, "max_objects": 48})
    config.eval.frame = "1024"
    config.eval.zero_shot = str(folder / "zero_shot_triplets.json")
    return evaluate_baselines(config, epath.Path(tmp_path_factory.mktemp("public")))


KNOWN = {
    "val": {"FREQ": (55.97, 62.54, 64.30), "FREQ+OVERLAP": (56.51, 60.73, 61.35)},
    "test": {"FREQ": (56.79, 62.20, 63.67)},
}


@pytest.mark.parametrize("split", KNOWN)
def test_known_values(public, split):
    """Computed independently of this project, to two decimals."""
    for name, wanted in KNOWN[split].items():
        found = public[split][name]["predcls"]
        assert [100 * found[f"R@{k}"] for k in (20, 50, 100)] == pytest.approx(wanted, abs=0.0051)
        assert found["counts"]["images"] == {"val": 3000, "test": 5000}[split]
        assert 0 < found["zR@50"] < found["R@50"]
