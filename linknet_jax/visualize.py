"""Pictures of scene graphs: the image with its boxes, and beside it the graph."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from linknet_jax.types import Prediction, Vocabulary

SIDE = 420  # pixels of either half
FONT = ImageFont.load_default(14)
SMALL = ImageFont.load_default(12)
INK, RIGHT, WRONG = (40, 40, 40), (20, 130, 60), (170, 170, 170)


def draw_graph(
    image: UInt8[np.ndarray, "h w 3"],
    boxes: Float[np.ndarray, "n 4"],
    prediction: Prediction,
    vocabulary: Vocabulary,
    known: Iterable[tuple[int, int, int]] = (),
    top: int = 8,
    least: float = 0.2,
) -> Image.Image:
    """The `top` best triplets of one image with a score of at least `least`; boxes in its pixels.

    Edges among the `known` (subject, object, predicate) are green, others grey.
    """
    names = [f"{vocabulary.objects[label]} {i}" for i, label in
             enumerate(prediction.labels[: len(boxes)])]  # fmt: skip
    rows = [k for k in range(min(top, int(prediction.count))) if prediction.scores[k] >= least]
    edges = [(*map(int, prediction.pairs[k]), int(prediction.predicates[k])) for k in rows]
    canvas = Image.new("RGB", (2 * SIDE, SIDE), "white")
    canvas.paste(_boxes(image, boxes, prediction.labels, names), (0, 0))
    canvas.paste(_graph(names, prediction.labels, edges, set(known), vocabulary), (SIDE, 0))
    return canvas


def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one size below each other."""
    width, height = pictures[0].size
    sheet = Image.new("RGB", (width, height * len(pictures)), "white")
    for row, picture in enumerate(pictures):
        sheet.paste(picture, (0, row * height))
    return sheet


def class_colour(label: int) -> tuple[int, int, int]:
    """One colour a class, the same in every picture; neighbours in the list differ most."""
    hue = (label * 0.618034) % 1
    return tuple(int(255 * x) for x in colorsys.hsv_to_rgb(hue, 0.75, 0.8))


def _boxes(image, boxes, labels, names) -> Image.Image:
    scale = SIDE / max(image.shape[:2])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    half = Image.new("RGB", (SIDE, SIDE), "white")
    half.paste(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS), (0, 0))
    pen = ImageDraw.Draw(half)
    for box, label, name in zip(boxes * scale, labels, names, strict=False):
        pen.rectangle([tuple(box[:2]), tuple(box[2:])], outline=class_colour(int(label)), width=2)
        _tag(pen, (box[0], max(box[1] - 16, 0)), name, class_colour(int(label)), "la")
    return half


def _graph(names, labels, edges, known, vocabulary) -> Image.Image:
    half = Image.new("RGB", (SIDE, SIDE), "white")
    pen = ImageDraw.Draw(half)
    places = [_on_circle(i, len(names)) for i in range(len(names))]
    for edge in edges:
        start, end = _lane(places[edge[0]], places[edge[1]])
        _arrow(pen, start, end, RIGHT if edge in known else WRONG)
    for subject, object_, predicate in edges:
        (x1, y1), (x2, y2) = _lane(places[subject], places[object_])
        place = (0.6 * x1 + 0.4 * x2, 0.6 * y1 + 0.4 * y2)
        _tag(pen, place, vocabulary.predicates[predicate], None, "mm")
    for place, label, name in zip(places, labels, names, strict=False):
        _tag(pen, place, name, class_colour(int(label)), "mm")
    return half


def _on_circle(i: int, n: int) -> tuple[float, float]:
    angle = 2 * math.pi * i / max(n, 1) - math.pi / 2
    return SIDE / 2 + 0.37 * SIDE * math.cos(angle), SIDE / 2 + 0.42 * SIDE * math.sin(angle)


def _lane(start, end, shift: float = 6):
    """The two places moved to the right-hand side of the way, so that opposite edges part."""
    dx, dy = _direction(start, end)
    return [(x - shift * dy, y + shift * dx) for x, y in (start, end)]


def _direction(start, end) -> tuple[float, float]:
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = math.hypot(dx, dy) or 1.0
    return dx / length, dy / length


def _arrow(pen, start, end, colour) -> None:
    dx, dy = _direction(start, end)
    tip = (end[0] - 26 * dx, end[1] - 16 * dy)
    pen.line([start, tip], fill=colour, width=2)
    base = (tip[0] - 10 * dx, tip[1] - 10 * dy)
    side = (4 * dy, -4 * dx)
    wings = [(base[0] + s * side[0], base[1] + s * side[1]) for s in (1, -1)]
    pen.polygon([tip, *wings], fill=colour)


def _tag(pen, place, text, colour, anchor) -> None:
    """Text on a filled plate: white on the class colour, dark on white for predicates."""
    font = FONT if colour else SMALL
    left, top, right, bottom = pen.textbbox(place, text, font, anchor=anchor)
    pen.rectangle([left - 2, top - 2, right + 2, bottom + 2], fill=colour or "white")
    pen.text(place, text, "white" if colour else INK, font, anchor=anchor)
