"""Colours of classes, by name, and of edges."""

from __future__ import annotations

import colorsys
import hashlib

INK, GREY, PALE, WHITE, MARK = "#2b2b2b", "#6b6b6b", "#e9edf1", "#ffffff", "#d1603d"
EDGE, RIGHT, WRONG, GHOST = "#44546a", "#15803d", "#c81e1e", "#6f757d"
VERDICTS = {"unknown": EDGE, "right": RIGHT, "wrong": WRONG, "missed": GHOST}
# Degrees, nearer where the eye tells them apart.
HUES = (0, 16, 30, 44, 60, 84, 118, 150, 172, 188, 202, 216, 240, 266, 290, 318, 340)
DEPTHS = (0.155, 0.055, 0.42)  # relative luminance: of the last one letters are dark, else white


def class_colour(label: str) -> str:
    """The same in every picture and process, from the name's hash.

    There are len(HUES) x len(DEPTHS) colours, so two classes of a picture may share one.
    """
    digest = int.from_bytes(hashlib.sha256(label.encode(errors="replace")).digest()[:4])
    hue, depth = HUES[digest % len(HUES)], DEPTHS[digest // len(HUES) % len(DEPTHS)]
    return _with_luminance(hue / 360, depth)


def letters_on(colour: str) -> str:
    """White or dark, whichever reads better on a class colour: a contrast of at least 5:1."""
    rgb = tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return WHITE if _luminance(rgb) < 0.2 else INK


def shade(strength: float) -> str:
    """From white at 0 to deep blue at 1."""
    return _hex(tuple(1 + strength * (end - 1) for end in (0x1F / 255, 0x5A / 255, 0x85 / 255)))


def _with_luminance(hue: float, luminance: float) -> str:
    """The HLS lightness of a hue at which it has that luminance, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        rgb = colorsys.hls_to_rgb(hue, middle, 0.72)
        low, high = (middle, high) if _luminance(rgb) < luminance else (low, middle)
    return _hex(colorsys.hls_to_rgb(hue, low, 0.72))


def _luminance(rgb: tuple[float, ...]) -> float:
    """Relative luminance (WCAG 2.2)."""
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _hex(rgb: tuple[float, ...]) -> str:
    return "#" + "".join(f"{round(255 * x):02x}" for x in rgb)
