"""Where the plates of a graph lie: geometry only, the same places for the same input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from linknet_jax.drawing.push import GAP, Links, Places, Sizes
from linknet_jax.drawing.shapes import Point
from linknet_jax.drawing.stress import spread

APART = 34.0  # pixels between parts of the graph
ASPECT = 1.3  # width of all parts, over their height


def arrange(sizes: Sizes, links: Links, hints: Places) -> Places:
    """Centres of plates of (width, height), linked ones near each other, none over another.

    The left upper corner of all is (0, 0). Each connected part is laid out by `spread`, which takes
    `hints` in 0 to 1; parts stand side by side in rows, the largest first.
    """
    places = np.zeros((len(sizes), 2))
    parts = _parts(len(sizes), links)
    extents = []
    for part in parts:
        own = np.searchsorted(part, links[np.isin(links[:, 0], part)])
        found = spread(sizes[part], own, hints[part])
        places[part] = found - (found - sizes[part] / 2).min(axis=0)
        extents.append((places[part] + sizes[part] / 2).max(axis=0))
    for part, corner in zip(parts, _shelves(np.array(extents).reshape(-1, 2)), strict=True):
        places[part] += corner
    return places


def _parts(count: int, links: Links) -> list[Int[np.ndarray, "p"]]:
    """The plates of each connected part, the largest part first."""
    part = np.arange(count)
    for _ in range(count):
        for a, b in links:
            part[a] = part[b] = min(part[a], part[b])
    found = [np.flatnonzero(part == x) for x in np.unique(part)]
    return sorted(found, key=len, reverse=True)


def _shelves(extents: Sizes) -> Places:
    """Left upper corners of parts in rows, each in the middle of its row's height."""
    if not len(extents):
        return np.zeros((0, 2))
    area = float((extents + APART).prod(axis=1).sum())
    corners = rows(extents, max(extents[:, 0].max(), (ASPECT * area) ** 0.5), APART)
    for y in np.unique(corners[:, 1]):
        row = corners[:, 1] == y
        corners[row, 1] += (extents[row, 1].max() - extents[row, 1]) / 2
    return corners


def rows(sizes: Sizes, width: float, gap: float = GAP) -> Places:
    """Left upper corners of plates side by side, in rows of at most `width`."""
    places, x, y, tall = [], 0.0, 0.0, 0.0
    for wide, high in sizes.tolist():
        if x and x + wide > width:
            x, y, tall = 0.0, y + tall + gap, 0.0
        places.append((x, y))
        x, tall = x + wide + gap, max(tall, high)
    return np.array(places, float).reshape(-1, 2)


def edge_of(
    middle: Float[np.ndarray, "2"], size: Float[np.ndarray, "2"], towards: Sequence[float]
) -> Point:
    """Where the way from a plate's middle to another point leaves the plate."""
    way = np.asarray(towards, float) - middle
    share = min(1.0, float((size / 2 / np.maximum(np.abs(way), 1e-9)).min()))
    return tuple((middle + share * way).tolist())
