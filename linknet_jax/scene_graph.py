"""A scene graph in words: what prediction returns, and what is drawn, written and exported."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from linknet_jax.data.formats.prediction_lines import prediction_record
from linknet_jax.data.transforms import upright
from linknet_jax.types import Annotation, Prediction, Vocabulary

if TYPE_CHECKING:
    import networkx


class Object(NamedTuple):
    """A thing: (x1, y1, x2, y2) in pixels of the upright photograph, class, probability of it."""

    box: tuple[float, float, float, float]
    label: str
    score: float


class Relation(NamedTuple):
    """`subject` and `object` count the graph's objects from 0; `score` is the whole triplet's."""

    subject: int
    predicate: str
    object: int
    score: float


class Triplet(NamedTuple):
    """A relation in words."""

    subject: str
    predicate: str
    object: str
    score: float


@dataclasses.dataclass(frozen=True)
class SceneGraph:
    """Objects of a photograph and their relations.

    Attributes:
      image_id: name of the photograph.
      size: its (width, height), upright.
      objects: in the order of the given boxes, or of the detector.
      relations: the best first, ties in the order of (pair, predicate).
      source: the photograph, as `data.transforms.upright` takes it; None: pictures go without.
    """

    image_id: int | str
    size: tuple[int, int]
    objects: tuple[Object, ...]
    relations: tuple[Relation, ...]
    source: Any = dataclasses.field(default=None, repr=False, compare=False)

    def triplets(self, k: int | None = None) -> list[Triplet]:
        """The `k` best relations in words, of every pair the best one only; None: all pairs'."""
        labels = [thing.label for thing in self.objects]
        best = self.best()[:k]
        return [Triplet(labels[r.subject], r.predicate, labels[r.object], r.score) for r in best]

    def best(self) -> list[Relation]:
        """The best relation of every ordered pair, best first (graph constraint)."""
        first: dict[tuple[int, int], Relation] = {}
        for relation in self.relations:
            first.setdefault((relation.subject, relation.object), relation)
        return list(first.values())

    def cut(self, least: float = 0.0, top: int | None = None, objects: float = 0.0) -> SceneGraph:
        """With the `top` best pairs' relations of at least `least`, among objects of at least
        `objects`; the others leave, and subject and object count those that stay."""
        kept = [i for i, thing in enumerate(self.objects) if thing.score >= objects]
        place = {old: new for new, old in enumerate(kept)}
        relations = [
            r._replace(subject=place[r.subject], object=place[r.object])
            for r in self.best()
            if r.score >= least and r.subject in place and r.object in place
        ]
        things = tuple(self.objects[i] for i in kept)
        return dataclasses.replace(self, objects=things, relations=tuple(relations[:top]))

    def to_dict(self) -> dict[str, Any]:
        """A record of scene-graph JSON Lines (docs/evaluation.md) with width and height."""
        width, height = self.size
        objects = [{**x._asdict(), "box": list(x.box)} for x in self.objects]
        relations = [x._asdict() for x in self.relations]
        sizes = {"width": width, "height": height}
        return {"image_id": self.image_id, **sizes, "objects": objects, "relations": relations}

    def to_json(self, indent: int | None = None) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=indent)

    def to_networkx(self) -> networkx.MultiDiGraph:
        """Nodes 0, 1, .. with box, label, score; edges with predicate, score. Needs networkx."""
        import networkx

        graph = networkx.MultiDiGraph(image_id=self.image_id, size=self.size)
        for number, thing in enumerate(self.objects):
            graph.add_node(number, **thing._asdict())
        for r in self.relations:
            graph.add_edge(r.subject, r.object, predicate=r.predicate, score=r.score)
        return graph

    def to_dot(self) -> str:
        """Graphviz: the best relation of every pair."""
        nodes = [f"  {i} [label={_quoted(f'{x.label} {i}')}];" for i, x in enumerate(self.objects)]
        edges = [
            f"  {r.subject} -> {r.object} [label={_quoted(r.predicate)}];" for r in self.best()
        ]
        return "\n".join(["digraph {", *nodes, *edges, "}", ""])

    def draw(
        self, path: str | os.PathLike, truth: SceneGraph | None = None, top: int | None = 20
    ) -> None:
        """Writes a .png, .svg or .html of the photograph and the `top` best pairs' relations.

        With the annotated graph as `truth`, right relations are green, wrong ones red, missed ones
        grey and dashed. ValueError for another suffix.
        """
        from linknet_jax.drawing import files

        image = None if self.source is None else Image.fromarray(upright(self.source))
        files.save(self.cut(top=top), image, path, truth)


def graph_of(
    annotation: Annotation,
    boxes: Float[np.ndarray, "n 4"],
    prediction: Prediction,
    vocabulary: Vocabulary,
    source: Any = None,
) -> SceneGraph:
    """The graph of one image's prediction; `boxes` are in pixels of the photograph."""
    record = prediction_record(annotation.image_id, boxes, prediction, vocabulary)
    graph = from_dict({**record, "width": annotation.width, "height": annotation.height})
    return dataclasses.replace(graph, source=source)


def from_dict(record: dict[str, Any]) -> SceneGraph:
    """Inverse of `SceneGraph.to_dict`; objects and relations without a score, as annotated ones,
    have 1."""
    objects = [Object(tuple(x["box"]), x["label"], x.get("score", 1.0)) for x in record["objects"]]
    relations = [
        Relation(x["subject"], x["predicate"], x["object"], x.get("score", 1.0))
        for x in record["relations"]
    ]
    size = (int(record["width"]), int(record["height"]))
    return SceneGraph(record["image_id"], size, tuple(objects), tuple(relations))


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
