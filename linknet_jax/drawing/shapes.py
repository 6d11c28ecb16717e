"""What a picture consists of, whichever file it becomes. Lengths are CSS pixels, y points down."""

from __future__ import annotations

from typing import Literal, NamedTuple

from PIL import Image

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # x1, y1, x2, y2


class Rectangle(NamedTuple):
    """`fill` and `stroke` are #rrggbb, or None for none; `radius` rounds the corners."""

    box: Box
    fill: str | None = None
    stroke: str | None = None
    width: float = 1.0
    radius: float = 0.0
    dashed: bool = False


class Line(NamedTuple):
    """Straight, with an arrow head at the `end` where `arrow` is set."""

    start: Point
    end: Point
    colour: str
    width: float = 1.5
    dashed: bool = False
    arrow: bool = False


class Text(NamedTuple):
    """One line around its middle; `turned` reads upwards."""

    middle: Point
    text: str
    size: float
    colour: str
    turned: bool = False


class Photograph(NamedTuple):
    """An image stretched to the box."""

    box: Box
    image: Image.Image


class Group(NamedTuple):
    """Shapes moved by `shift`; `kind` and `number` say what of the scene graph they show."""

    shapes: tuple[Shape, ...]
    shift: Point = (0.0, 0.0)
    kind: Literal["object", "relation"] | None = None
    number: int = 0


class Drawing(NamedTuple):
    """`label` describes it to who cannot see it."""

    size: Point
    shapes: tuple[Shape, ...]
    label: str


Shape = Rectangle | Line | Text | Photograph | Group
