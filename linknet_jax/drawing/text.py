"""Typefaces, and how much room a text takes; every back end keeps to it."""

from __future__ import annotations

import functools

from PIL import ImageFont

FAMILY = "Aileron, Helvetica, Arial, 'Liberation Sans', sans-serif"
FALLBACKS = ("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Arial Unicode MS", "Yu Gothic")
_OWN = frozenset(map(chr, range(0x20, 0x7F))) | {"…"}  # what Pillow's typeface certainly has
_MEASURE = 100  # pixels: widths scale with the size


def width(text: str, size: float) -> float:
    """Pixels from the first to the last letter."""
    return font(text, _MEASURE).getlength(text) * size / _MEASURE


def font(text: str, size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own typeface, or of the FALLBACKS on this machine that with most of the letters.

    Empty boxes stand for letters that it lacks.
    """
    if _OWN.issuperset(text):
        return _typeface(None, size)
    missing = {path: sum(ord(x) not in _letters(path) for x in text) for path in _files()}
    return _typeface(min(missing, key=missing.__getitem__), size)


@functools.lru_cache(maxsize=64)
def _typeface(path: str | None, size: int) -> ImageFont.FreeTypeFont:
    if path is None:
        return ImageFont.load_default(size)
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


@functools.cache
def _letters(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font  # slow to import, and few names need it

    return frozenset(FT2Font(path).get_charmap())


@functools.cache
def _files() -> tuple[str, ...]:
    """The first comes with matplotlib, so there is one."""
    from matplotlib import font_manager

    found = []
    for family in FALLBACKS:
        try:
            found.append(str(font_manager.findfont(family, fallback_to_default=False)))
        except ValueError:
            continue
    return tuple(found)
