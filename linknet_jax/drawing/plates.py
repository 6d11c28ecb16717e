"""Names on coloured plates, the same beside the boxes and in the graph."""

from __future__ import annotations

from typing import NamedTuple

from linknet_jax.drawing import text
from linknet_jax.drawing.colours import GHOST, WHITE, class_colour, letters_on
from linknet_jax.drawing.shapes import Box, Point, Rectangle, Shape, Text
from linknet_jax.drawing.truth import Judged
from linknet_jax.report.labels import shorten
from linknet_jax.scene_graph import Object, SceneGraph

PADDING, HEIGHT, RADIUS = 6.0, 1.55, 3.0  # pixels beside the text; of its size; of the corners
LONGEST = 26  # columns of a name


class Thing(NamedTuple):
    """An object as it is drawn; a ghost is annotated and the graph lacks it."""

    name: str
    colour: str
    box: Box
    ghost: bool


def things_of(graph: SceneGraph, judged: Judged) -> list[Thing]:
    """The graph's objects, named with their place in it, then the ghosts."""
    real = [_real(i, x) for i, x in enumerate(graph.objects)]
    ghosts = [Thing(shorten(x.label, LONGEST), GHOST, x.box, True) for x in judged.ghosts]
    return [*real, *ghosts]


def _real(number: int, thing: Object) -> Thing:
    name = f"{shorten(thing.label, LONGEST)} {number}"
    return Thing(name, class_colour(thing.label), thing.box, False)


def plate_size(words: str, size: float) -> Point:
    """(width, height) of a plate with words of that size."""
    return text.width(words, size) + 2 * PADDING, HEIGHT * size


def plate(thing: Thing, middle: Point, size: float) -> tuple[Shape, ...]:
    """A name on the colour of its class; a ghost's is grey on white."""
    box = around(middle, plate_size(thing.name, size))
    if thing.ghost:
        frame = Rectangle(box, WHITE, GHOST, 1.2, dashed=True)
        return frame, Text(middle, thing.name, size, GHOST)
    letters = letters_on(thing.colour)
    return Rectangle(box, thing.colour, radius=RADIUS), Text(middle, thing.name, size, letters)


def around(middle: Point, size: Point) -> Box:
    """The box of that size around a point."""
    x, y = middle
    return x - size[0] / 2, y - size[1] / 2, x + size[0] / 2, y + size[1] / 2


def middle_of(box: Box) -> Point:
    """Of a box."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
