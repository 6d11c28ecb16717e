"""A scene graph as one picture: the photograph with its boxes, and beside it the graph."""

from __future__ import annotations

from PIL import Image

from linknet_jax.drawing import graph as graph_panel
from linknet_jax.drawing import photograph
from linknet_jax.drawing.plates import things_of
from linknet_jax.drawing.shapes import Drawing, Group, Point
from linknet_jax.drawing.truth import judge
from linknet_jax.scene_graph import SceneGraph

MARGIN, WIDE = 16.0, 2.2


def draw(
    graph: SceneGraph, image: Image.Image | None = None, truth: SceneGraph | None = None
) -> Drawing:
    """The best relation of every pair; take `graph.cut(top=20)` of a graph with all pairs.

    Args:
      graph: what to draw.
      image: the upright photograph, of any resolution; None leaves its area pale.
      truth: its annotated graph: right relations become green, wrong ones red, missed ones grey
        and dashed (the paper's Figure 3); without it all are of one colour.
    """
    judged = judge(graph, truth)
    things = things_of(graph, judged)
    left = photograph.panel(graph, image, things)
    right = graph_panel.panel(graph, judged, things)
    shift = _beside(left.size, right.size)
    panels = (Group(left.shapes, (MARGIN, MARGIN)), Group(right.shapes, shift))
    far = [max(MARGIN + left.size[k], shift[k] + right.size[k]) + MARGIN for k in (0, 1)]
    return Drawing(tuple(far), panels, f"Scene graph of {graph.image_id}")


def _beside(left: Point, right: Point) -> Point:
    """Where the graph begins: right of the photograph, or below one that is very wide."""
    if left[0] > WIDE * left[1]:
        return MARGIN + max(0.0, (left[0] - right[0]) / 2), left[1] + 2 * MARGIN
    return left[0] + 2 * MARGIN, MARGIN + max(0.0, (left[1] - right[1]) / 2)
