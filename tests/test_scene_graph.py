"""A scene graph in words."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from linknet_jax.data.formats.prediction_lines import ranked
from linknet_jax.scene_graph import Object, Relation, SceneGraph, from_dict, graph_of
from linknet_jax.types import Annotation, Vocabulary

MAN, HORSE, HAT = (
    Object((1.0, 2.0, 30.0, 40.0), "man", 0.9),
    Object((5.0, 20.0, 60.0, 70.0), "horse", 0.5),
    Object((0.0, 0.0, 9.0, 9.0), 'a "hat"', 0.2),
)
GRAPH = SceneGraph(
    "photo.jpg", (80, 60), (MAN, HORSE, HAT),
    (
        Relation(0, "riding", 1, 0.4),
        Relation(0, "on", 1, 0.3),  # of the same pair
        Relation(0, "wearing", 2, 0.2),
        Relation(1, "under", 0, 0.1),
    ),
)  # fmt: skip


def test_triplets_are_the_best_of_every_pair():
    assert [tuple(t) for t in GRAPH.triplets()] == [
        ("man", "riding", "horse", 0.4),
        ("man", "wearing", 'a "hat"', 0.2),
        ("horse", "under", "man", 0.1),
    ]
    assert GRAPH.triplets(1)[0].predicate == "riding" and GRAPH.triplets(0) == []


def test_cut_leaves_out_weak_relations_and_objects():
    assert [r.predicate for r in GRAPH.cut(least=0.2).relations] == ["riding", "wearing"]
    assert [r.predicate for r in GRAPH.cut(top=1).relations] == ["riding"]
    without = GRAPH.cut(objects=0.5)
    assert without.objects == (MAN, HORSE)
    assert [(r.subject, r.object) for r in without.relations] == [(0, 1), (1, 0)]
    only = SceneGraph("x", (9, 9), (HAT, MAN, HORSE), (Relation(2, "under", 1, 0.5),)).cut(
        objects=0.5
    )
    assert only.objects == (MAN, HORSE) and only.relations == (Relation(1, "under", 0, 0.5),)


def test_the_record_is_read_again():
    record = json.loads(GRAPH.to_json())
    assert record == GRAPH.to_dict() and from_dict(record) == GRAPH
    assert (record["width"], record["height"]) == (80, 60)
    assert record["relations"][0] == {
        "subject": 0,
        "predicate": "riding",
        "object": 1,
        "score": 0.4,
    }
    things = [{"box": [0, 0, 1, 1], "label": "a"}]
    bare = {"image_id": 3, "width": 8, "height": 6, "objects": things, "relations": []}
    assert from_dict(bare).objects[0].score == 1


def test_networkx_has_all_relations():
    graph = GRAPH.to_networkx()
    assert graph.nodes[1]["label"] == "horse" and graph.nodes[0]["box"] == MAN.box
    assert {e["predicate"] for e in graph.get_edge_data(0, 1).values()} == {"riding", "on"}
    assert graph.number_of_edges() == 4 and graph.graph["image_id"] == "photo.jpg"


def test_dot_escapes_names():
    lines = GRAPH.to_dot().splitlines()
    assert lines[0] == "digraph {" and lines[-1] == "}" and len(lines) == 8
    assert r'  2 [label="a \"hat\" 2"];' in lines
    assert '  0 -> 1 [label="riding"];' in lines


@pytest.mark.parametrize("suffix", ["png", "svg", "html"])
def test_it_draws_itself_on_its_photograph(tmp_path, suffix):
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[..., 0] = 200
    graph = SceneGraph(GRAPH.image_id, GRAPH.size, GRAPH.objects, GRAPH.relations, source=pixels)
    path = tmp_path / f"graph.{suffix}"
    graph.draw(path)
    if suffix == "png":
        seen = np.asarray(Image.open(path).convert("RGB"))
        assert (seen == (200, 0, 0)).all(axis=-1).mean() > 0.05
    else:
        assert "riding" in path.read_text() and "data:image/" in path.read_text()


def test_a_prediction_in_words():
    names = Vocabulary(("", "man", "horse"), ("", "riding", "under"))
    truth = Annotation("a", 80, 60, np.zeros((0, 4)), np.zeros(0, np.int32), np.zeros((0, 3), int))
    boxes = np.array([MAN.box, HORSE.box])
    triplets, scores = np.array([[1, 0, 2], [0, 1, 1]]), np.float32([0.125, 0.25])
    prediction = ranked(np.array([1, 2]), np.float32([0.5, 0.75]), triplets, scores)
    graph = graph_of(truth, boxes, prediction, names, source="a.jpg")
    assert graph.objects == (Object(MAN.box, "man", 0.5), Object(HORSE.box, "horse", 0.75))
    assert graph.relations == (Relation(0, "riding", 1, 0.25), Relation(1, "under", 0, 0.125))
    assert (graph.image_id, graph.size, graph.source) == ("a", (80, 60), "a.jpg")


def test_a_graph_needs_no_tensorflow():
    program = "import sys, linknet_jax.scene_graph; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
