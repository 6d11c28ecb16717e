"""The left half of a picture: the photograph, its boxes and their names."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

from linknet_jax.drawing.colours import PALE, WHITE
from linknet_jax.drawing.free import free_place
from linknet_jax.drawing.plates import Thing, middle_of, plate, plate_size
from linknet_jax.drawing.shapes import Box, Drawing, Group, Line, Photograph, Point, Rectangle
from linknet_jax.scene_graph import SceneGraph

AREA, LONGEST = 720.0 * 540, 1000.0  # of the photograph; of its longer side
LEAST = (360.0, 240.0)  # of the panel
SIZE = 12.5  # of the letters
TOUCHING = 3.0  # pixels between a box and its name that need no line


def panel(graph: SceneGraph, image: Image.Image | None, things: Sequence[Thing]) -> Drawing:
    """The photograph with names that never cover each other.

    Where it is too small for all names, they lie beside and below it. None: a pale area for it.
    """
    width, height = graph.size
    scale = min((AREA / (width * height)) ** 0.5, LONGEST / max(width, height))
    width, height = max(scale * width, 1.0), max(scale * height, 1.0)
    room = (max(width, LEAST[0]), max(height, LEAST[1]))
    left = (room[0] - width) / 2
    frame = (left, 0.0, left + width, height)
    boxes = [_placed(x.box, scale, frame) for x in things]
    plates = _plates(things, boxes, room)
    behind = Rectangle(frame, PALE) if image is None else Photograph(frame, image)
    below = sorted(range(len(things)), key=lambda i: -_area(boxes[i]))
    outlines = [_outline(i, things[i], boxes[i]) for i in below]
    names = [_name(i, x, boxes[i], plates[i]) for i, x in enumerate(things)]
    size = tuple(max([room[k], *(x[k + 2] for x in plates)]) for k in (0, 1))
    return Drawing(size, (behind, *outlines, *names), f"Photograph {graph.image_id}")


def _placed(box: Box, scale: float, frame: Box) -> Box:
    """In the panel, cut to the photograph."""
    xs = sorted(min(max(frame[0] + scale * x, frame[0]), frame[2]) for x in box[::2])
    ys = sorted(min(max(frame[1] + scale * y, frame[1]), frame[3]) for y in box[1::2])
    return xs[0], ys[0], xs[1], ys[1]


def _plates(things: Sequence[Thing], boxes: Sequence[Box], room: Point) -> list[Box]:
    """Where names lie: small boxes choose first, because their names have fewest places."""
    plates: dict[int, Box] = {}
    for i in sorted(range(len(things)), key=lambda i: _area(boxes[i])):
        size = plate_size(things[i].name, SIZE)
        corners = _corners(boxes[i], size)
        x, y = free_place(size, corners, list(plates.values()), (0.0, 0.0, *room))
        plates[i] = (x, y, x + size[0], y + size[1])
    return [plates[i] for i in range(len(things))]


def _corners(box: Box, size: Point) -> list[Point]:
    """Where a name of that size may touch its box, best first."""
    x1, y1, x2, y2 = box
    width, height = size
    out = [(x1, y1 - height), (x1, y2), (x2 - width, y1 - height), (x2 - width, y2)]
    within = [(x1, y1), (x2 - width, y1), (x1, y2 - height), (x2 - width, y2 - height)]
    beside = [(x2, y1), (x1 - width, y1), (x2, y2 - height), (x1 - width, y2 - height)]
    roomy = x2 - x1 > 1.5 * width and y2 - y1 > 3 * height
    return [*within, *out, *beside] if roomy else [*out, *beside, *within]


def _outline(number: int, thing: Thing, box: Box) -> Group:
    """The box; a white rim shows it on a background of its own colour."""
    radius = 0.0 if thing.ghost else 2.0
    rim = Rectangle(box, None, WHITE, 3.6, radius)
    line = Rectangle(box, None, thing.colour, 2.0, radius, thing.ghost)
    return Group((rim, line), kind="object", number=number)


def _name(number: int, thing: Thing, box: Box, place: Box) -> Group:
    shapes = plate(thing, middle_of(place), SIZE)
    start, end = _nearest(place, box)
    if math.dist(start, end) > TOUCHING:
        shapes = (Line(start, end, WHITE, 3.0), Line(start, end, thing.colour, 1.4), *shapes)
    return Group(shapes, kind="object", number=number)


def _nearest(plate: Box, box: Box) -> tuple[Point, Point]:
    """The points of a plate and of a box that are nearest to each other."""
    ends = []
    for low, high in ((0, 2), (1, 3)):
        start = min(max(box[low], plate[low]), plate[high])
        ends.append((start, min(max(start, box[low]), box[high])))
    return (ends[0][0], ends[1][0]), (ends[0][1], ends[1][1])


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
