"""A drawing as pixels, with Pillow."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from PIL import Image, ImageDraw, ImageOps

from linknet_jax.drawing import text
from linknet_jax.drawing.shapes import (
    Drawing,
    Group,
    Line,
    Photograph,
    Point,
    Rectangle,
    Shape,
    Text,
)

SCALE = 2  # pixels of the file for one of the drawing
FINER = 2  # lines are drawn that much larger, because Pillow does not smooth them
DASH = (5.0, 4.0)
HEAD = (9.0, 3.6)  # length and half the width of an arrow head
BASELINE = 0.35  # of the size, below the middle


def render(drawing: Drawing) -> Image.Image:
    """SCALE pixels for each of the drawing; texts lie on top."""
    size = tuple(math.ceil(SCALE * x) for x in drawing.size)
    canvas = Image.new("RGB", tuple(FINER * x for x in size), "white")
    pen = ImageDraw.Draw(canvas)
    shapes = list(flat(drawing.shapes))
    for shape, shift in shapes:
        _draw(canvas, pen, shape, shift)
    canvas = canvas.reduce(FINER)
    for shape, shift in shapes:
        if isinstance(shape, Text):
            _write(canvas, shape, shift)
    return canvas


def flat(shapes: tuple, shift: Point = (0.0, 0.0)) -> Iterator[tuple]:
    """Every shape that is no group, with how far its groups move it."""
    for shape in shapes:
        if isinstance(shape, Group):
            yield from flat(shape.shapes, (shift[0] + shape.shift[0], shift[1] + shape.shift[1]))
        else:
            yield shape, shift


def dashes(start: Point, end: Point) -> Iterator[tuple[Point, Point]]:
    """The pieces of a dashed line."""
    length = math.dist(start, end)
    for k in range(math.ceil(length / sum(DASH))):
        ends = [min(k * sum(DASH) + x, length) / length for x in (0.0, DASH[0])]
        yield tuple(_between(start, end, share) for share in ends)


def arrow_head(line: Line) -> tuple[Point, Point, Point]:
    """The tip and the two wings."""
    length = math.dist(line.start, line.end) or 1.0
    x, y = ((b - a) / length for a, b in zip(line.start, line.end, strict=True))
    base = (line.end[0] - HEAD[0] * x, line.end[1] - HEAD[0] * y)
    wings = [(base[0] - s * HEAD[1] * y, base[1] + s * HEAD[1] * x) for s in (1, -1)]
    return line.end, wings[0], wings[1]


def stem(line: Line) -> tuple[Point, Point]:
    """The line as far as its arrow head, which would be blunt on top of it."""
    length = math.dist(line.start, line.end)
    if not line.arrow or length <= HEAD[0]:
        return line.start, line.end
    return line.start, _between(line.start, line.end, 1 - HEAD[0] / length)


def _between(start: Point, end: Point, share: float) -> Point:
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])


def _draw(canvas: Image.Image, pen: ImageDraw.ImageDraw, shape: Shape, shift: Point) -> None:
    if isinstance(shape, Photograph):
        _paste(canvas, shape, shift)
    elif isinstance(shape, Rectangle):
        _rectangle(pen, shape, shift)
    elif isinstance(shape, Line):
        _line(pen, shape, shift)


def _paste(canvas: Image.Image, shape: Photograph, shift: Point) -> None:
    corner, end = (tuple(map(round, _fine(x, shift))) for x in (shape.box[:2], shape.box[2:]))
    size = tuple(max(b - a, 1) for a, b in zip(corner, end, strict=True))
    canvas.paste(upright(shape.image).resize(size, Image.Resampling.BICUBIC), corner)


def upright(image: Image.Image) -> Image.Image:
    """In RGB, turned as its EXIF data say."""
    return ImageOps.exif_transpose(image).convert("RGB")


def _rectangle(pen: ImageDraw.ImageDraw, shape: Rectangle, shift: Point) -> None:
    """SVG's strokes lie on both sides of the edge, Pillow's within."""
    x1, y1, x2, y2 = shape.box
    half = shape.width / 2 if shape.stroke and not shape.dashed else 0.0
    start, end = _fine((x1 - half, y1 - half), shift), _fine((x2 + half, y2 + half), shift)
    box = (*start, max(end[0] - 1, start[0]), max(end[1] - 1, start[1]))
    if not shape.dashed:
        width = round(shape.width * SCALE * FINER) if shape.stroke else 0
        radius = shape.radius * SCALE * FINER
        pen.rounded_rectangle(box, radius, shape.fill, shape.stroke, width)
        return
    pen.rectangle(box, shape.fill)
    corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
    for side in itertools.pairwise(corners):
        _line(pen, Line(*side, shape.stroke, shape.width, dashed=True), shift)


def _line(pen: ImageDraw.ImageDraw, line: Line, shift: Point) -> None:
    start, end = stem(line)
    width = round(line.width * SCALE * FINER)
    for ends in dashes(start, end) if line.dashed else [(start, end)]:
        pen.line([_fine(x, shift) for x in ends], line.colour, width)
    if line.arrow:
        pen.polygon([_fine(x, shift) for x in arrow_head(line)], line.colour)


def _fine(point: Point, shift: Point) -> Point:
    return tuple(SCALE * FINER * (a + b) for a, b in zip(point, shift, strict=True))


def _write(canvas: Image.Image, shape: Text, shift: Point) -> None:
    font = text.font(shape.text, round(shape.size * SCALE))
    x, y = (SCALE * (a + b) for a, b in zip(shape.middle, shift, strict=True))
    if not shape.turned:
        place = (x, y + BASELINE * shape.size * SCALE)
        ImageDraw.Draw(canvas).text(place, shape.text, shape.colour, font, anchor="ms")
        return
    size = (math.ceil(font.getlength(shape.text)) + 4, math.ceil(1.6 * shape.size * SCALE))
    mask = Image.new("L", size)
    place = (size[0] / 2, size[1] / 2 + BASELINE * shape.size * SCALE)
    ImageDraw.Draw(mask).text(place, shape.text, 255, font, anchor="ms")
    mask = mask.transpose(Image.Transpose.ROTATE_90)
    corner = (round(x - mask.width / 2), round(y - mask.height / 2))
    canvas.paste(shape.colour, (*corner, corner[0] + mask.width, corner[1] + mask.height), mask)
