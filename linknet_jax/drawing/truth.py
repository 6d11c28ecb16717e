"""Which relations of a graph are right, and which annotated ones it misses."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from linknet_jax.ops.boxes import iou
from linknet_jax.scene_graph import Object, Relation, SceneGraph

LEAST_IOU = 0.5


class Judged(NamedTuple):
    """Relations with what they are worth.

    Attributes:
      relations: the graph's, then the missed ones; ends count the graph's objects, then `ghosts`.
      verdicts: of each: "right", "wrong", "missed", or "unknown" where there is no truth.
      ghosts: annotated objects of missed relations that the graph does not have.
    """

    relations: list[Relation]
    verdicts: list[str]
    ghosts: list[Object]


def judge(graph: SceneGraph, truth: SceneGraph | None) -> Judged:
    """Compares the best relation of every pair with the truth, best first.

    Right: both boxes have IoU >= LEAST_IOU with those of an annotated relation of the same classes
    and predicate that no better relation has found (the paper's Figure 3).
    """
    relations = graph.best()
    if truth is None:
        return Judged(relations, ["unknown"] * len(relations), [])
    overlaps = _overlaps(graph, truth)
    left = list(dict.fromkeys(x[:3] for x in truth.relations))
    verdicts = []
    for relation in relations:
        found = _found(relation, left, overlaps)
        verdicts.append("right" if found else "wrong")
        left = [x for x in left if x != found]
    missed, ghosts = _missed(left, overlaps, graph, truth)
    return Judged([*relations, *missed], verdicts + ["missed"] * len(missed), ghosts)


def _overlaps(graph: SceneGraph, truth: SceneGraph) -> Float[np.ndarray, "n g"]:
    """IoU of objects of one class, 0 where the classes differ."""
    boxes = [np.array([x.box for x in y.objects], float).reshape(-1, 4) for y in (graph, truth)]
    same = [[a.label == b.label for b in truth.objects] for a in graph.objects]
    return iou(*boxes) * np.array(same, float).reshape(len(boxes[0]), len(boxes[1]))


def _found(
    relation: Relation, left: list[tuple[int, str, int]], overlaps: Float[np.ndarray, "n g"]
) -> tuple[int, str, int] | None:
    """The annotated relation that this one agrees with best."""

    def shared(x: tuple[int, str, int]) -> float:
        return min(overlaps[relation.subject, x[0]], overlaps[relation.object, x[2]])

    near = [x for x in left if x[1] == relation.predicate and shared(x) >= LEAST_IOU]
    return max(near, key=shared, default=None)


def _missed(
    left: list[tuple[int, str, int]],
    overlaps: Float[np.ndarray, "n g"],
    graph: SceneGraph,
    truth: SceneGraph,
) -> tuple[list[Relation], list[Object]]:
    place: dict[int, int] = {}
    ghosts: list[Object] = []
    for end in (x for subject, _, object_ in left for x in (subject, object_)):
        if end in place:
            continue
        seen = overlaps[:, end]
        if len(seen) and seen.max() >= LEAST_IOU:
            place[end] = int(seen.argmax())
        else:
            place[end] = len(graph.objects) + len(ghosts)
            ghosts.append(truth.objects[end])
    return [Relation(place[s], p, place[o], 1.0) for s, p, o in left], ghosts
