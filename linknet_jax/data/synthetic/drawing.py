"""What the synthetic world looks like: icons made of shapes in the unit square, and the sky."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from linknet_jax.data.synthetic.world import SIDE, Thing

SUPERSAMPLE = 2
SKY = (176, 208, 236)
INK = (30, 24, 36)
COLOURS = {
    "ink": INK, "skin": (246, 200, 160), "blue": (36, 84, 214), "navy": (28, 44, 110),
    "red": (216, 36, 52), "hair": (96, 52, 28), "wood": (164, 104, 52), "trunk": (110, 70, 40),
    "leaf": (20, 120, 52), "fur": (132, 132, 140), "chestnut": (142, 62, 26),
    "orange": (255, 132, 16), "purple": (128, 48, 168), "card": (212, 172, 116),
    "tape": (150, 100, 60), "teal": (0, 160, 160), "glass": (190, 230, 246),
    "violet": (90, 70, 150), "cream": (236, 232, 214), "lime": (150, 220, 20),
    "magenta": (220, 30, 150), "sun": (255, 236, 30), "moon": (255, 255, 240),
    "dusk": (120, 130, 190), "night": (64, 64, 140), "midnight": (36, 32, 92),
}  # fmt: skip
PERSON = (
    ("ellipse", "skin", 0.25, 0.0, 0.75, 0.32),
    ("rectangle", "navy", 0.2, 0.68, 0.45, 1.0),
    ("rectangle", "navy", 0.55, 0.68, 0.8, 1.0),
)
ICONS = {
    "tree": (
        ("rectangle", "trunk", 0.38, 0.6, 0.62, 1.0),
        ("ellipse", "leaf", 0.0, 0.0, 1.0, 0.72),
    ),
    "man": (*PERSON, ("rectangle", "blue", 0.0, 0.32, 1.0, 0.7)),
    "woman": (
        ("ellipse", "hair", 0.15, 0.0, 0.85, 0.42),
        ("ellipse", "skin", 0.28, 0.06, 0.72, 0.34),
        ("rectangle", "skin", 0.3, 0.8, 0.7, 1.0),
        ("polygon", "red", 0.5, 0.26, 1.0, 0.86, 0.0, 0.86),
    ),
    "child": (
        ("rectangle", "skin", 0.25, 0.75, 0.75, 1.0),
        ("rectangle", "lime", 0.05, 0.5, 0.95, 0.84),
        ("ellipse", "skin", 0.1, 0.0, 0.9, 0.56),
    ),
    "canine": (
        ("rectangle", "fur", 0.12, 0.6, 0.28, 1.0),
        ("rectangle", "fur", 0.58, 0.6, 0.74, 1.0),
        ("polygon", "fur", 0.0, 0.1, 0.2, 0.4, 0.12, 0.55),
        ("rectangle", "fur", 0.1, 0.38, 0.76, 0.74),
        ("polygon", "fur", 0.6, 0.0, 0.76, 0.12, 1.0, 0.3, 1.0, 0.48, 0.7, 0.55),
    ),
    "flyer": (
        ("polygon", "violet", 0.5, 0.6, 0.2, 0.0, 0.0, 0.7, 0.25, 0.55),
        ("polygon", "violet", 0.5, 0.6, 0.8, 0.0, 1.0, 0.7, 0.75, 0.55),
        ("ellipse", "violet", 0.34, 0.3, 0.66, 1.0),
    ),
    "disc": (("ellipse", "orange", 0.0, 0.0, 1.0, 1.0),),
    "table": (
        ("rectangle", "wood", 0.06, 0.3, 0.2, 1.0),
        ("rectangle", "wood", 0.8, 0.3, 0.94, 1.0),
        ("rectangle", "wood", 0.0, 0.0, 1.0, 0.36),
    ),
    "box": (
        ("rectangle", "card", 0.0, 0.0, 1.0, 1.0),
        ("rectangle", "tape", 0.38, 0.0, 0.62, 1.0),
    ),
    "horse": (
        ("rectangle", "chestnut", 0.1, 0.55, 0.22, 1.0),
        ("rectangle", "chestnut", 0.52, 0.55, 0.64, 1.0),
        ("polygon", "chestnut", 0.52, 0.4, 0.74, 0.0, 1.0, 0.2, 0.96, 0.34, 0.78, 0.3, 0.7, 0.6),
        ("ellipse", "chestnut", 0.0, 0.32, 0.74, 0.76),
    ),
    "car": (
        ("polygon", "glass", 0.15, 0.5, 0.3, 0.0, 0.7, 0.0, 0.88, 0.5),
        ("rectangle", "teal", 0.0, 0.4, 1.0, 0.8),
        ("ellipse", "ink", 0.12, 0.6, 0.36, 1.0),
        ("ellipse", "ink", 0.64, 0.6, 0.88, 1.0),
    ),
    "bike": (
        ("ring", "ink", 0.0, 0.4, 0.42, 1.0),
        ("ring", "ink", 0.58, 0.4, 1.0, 1.0),
        ("line", "magenta", 0.2, 0.7, 0.4, 0.2, 0.7, 0.3, 0.48, 0.7, 0.2, 0.7),
        ("line", "magenta", 0.8, 0.7, 0.68, 0.06, 0.84, 0.06),
    ),
    "cup": (
        ("ring", "cream", 0.55, 0.2, 1.0, 0.7),
        ("rectangle", "cream", 0.0, 0.0, 0.75, 1.0),
    ),
    "kite": (
        ("polygon", "magenta", 0.5, 0.0, 1.0, 0.4, 0.5, 1.0, 0.0, 0.4),
        ("line", "ink", 0.5, 0.0, 0.5, 1.0),
        ("line", "ink", 0.0, 0.4, 1.0, 0.4),
    ),
    "hat": (
        ("rectangle", "ink", 0.18, 0.0, 0.82, 0.8),
        ("rectangle", "red", 0.18, 0.5, 0.82, 0.72),
        ("rectangle", "ink", 0.0, 0.72, 1.0, 1.0),
    ),
    "umbrella": (
        ("line", "ink", 0.5, 0.3, 0.5, 0.97),
        ("chord", "purple", 0.0, 0.0, 1.0, 1.2),
    ),
}  # fmt: skip


def paint(
    things: list[Thing], day: bool, sky_x: int, ground: tuple[int, ...], size: int
) -> UInt8[np.ndarray, "size size 3"]:
    """The scene, first thing rearmost; `sky_x` is where the sun or moon stands."""
    canvas = Image.new("RGB", (size * SUPERSAMPLE,) * 2, SKY)
    scale = canvas.width / SIDE
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, 38 * scale, canvas.width, canvas.height), fill=ground)
    _sky(draw, day, sky_x, scale)
    for thing in things:
        _icon(draw, thing, scale)
    return np.asarray(canvas.reduce(SUPERSAMPLE))


def _sky(draw: ImageDraw.ImageDraw, day: bool, x: int, scale: float) -> None:
    """Sun or moon with stars, all above y = 18: far from every box, and from every union."""

    def disc(colour: str, x: float, y: float, radius: float) -> None:
        box = [v * scale for v in (x - radius, y - radius, x + radius, y + radius)]
        draw.ellipse(box, fill=COLOURS[colour])

    if day:
        disc("sun", x + 7, 9, 7)
        return
    for y, colour in ((18, "dusk"), (13, "night"), (7, "midnight")):
        draw.rectangle((0, 0, SIDE * scale, y * scale - 1), fill=COLOURS[colour])
    for k in range(5):
        disc("moon", (x + 25 * (k + 1)) % SIDE, 4 + 5 * k % 11, 1.2)
    disc("moon", x + 7, 9, 7)
    disc("night", x + 10, 8, 5.5)


def _icon(draw: ImageDraw.ImageDraw, thing: Thing, scale: float) -> None:
    x1, y1, x2, y2 = (v * scale for v in thing.box)
    corner, extent = (x1, y1), (x2 - x1 - 1, y2 - y1 - 1)
    for shape, colour, *where in ICONS[thing.icon]:
        points = [corner[k % 2] + extent[k % 2] * v for k, v in enumerate(where)]
        _shape(draw, shape, COLOURS[colour], points, max(1, round(scale)))


def _shape(draw: ImageDraw.ImageDraw, shape: str, colour, points: list[float], width: int) -> None:
    match shape:
        case "ring":
            draw.ellipse(points, outline=colour, width=2 * width)
        case "line":
            draw.line(points, fill=colour, width=2 * width, joint="curve")
        case "chord":
            draw.chord(points, 180, 360, fill=colour, outline=INK, width=width)
        case _:
            getattr(draw, shape)(points, fill=colour, outline=INK, width=width)
