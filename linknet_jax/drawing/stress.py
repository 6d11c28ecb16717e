"""A connected graph in the plane, by stress majorisation (Gansner et al. 2004)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from linknet_jax.drawing.push import Links, Places, Sizes, clear, off_lines, part

LINK = np.array([76.0, 54.0])  # pixels of a link, across and down: plates are wide
STARTS, STEPS = 6, 60


def spread(sizes: Sizes, links: Links, hints: Places) -> Places:
    """Centres of plates, linked ones near each other, none over another.

    Several starts are tried, the first from `hints` (in 0 to 1), and that with the fewest lines
    across plates and lines is taken.
    """
    distances = _distances(len(sizes), links)
    found = []
    for start in itertools.islice(_starts(hints, distances), STARTS):
        places = part(clear(_stress(start, distances) * LINK, sizes, links), sizes)
        found.append((_faults(places, sizes, links), places))
    return min(found, key=lambda x: x[0])[1]


def _distances(count: int, links: Links) -> Float[np.ndarray, "n n"]:
    """Links between any two plates."""
    steps = np.full((count, count), np.inf)
    np.fill_diagonal(steps, 0)
    steps[links[:, 0], links[:, 1]] = steps[links[:, 1], links[:, 0]] = 1
    np.fill_diagonal(steps, 0)
    for middle in range(count):
        steps = np.minimum(steps, steps[:, middle, None] + steps[None, middle])
    return steps


def _starts(hints: Places, distances: Float[np.ndarray, "n n"]) -> Iterator[Places]:
    """The hints, then plates on a spiral in different orders."""
    count = len(hints)
    turn = np.pi * (3 - 5**0.5) * np.arange(count)
    spiral = np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    spiral = spiral * np.sqrt(np.arange(count) + 0.5)[:, None]
    reach = distances.max() * 0.7
    yield (hints - 0.5) * reach + 0.05 * spiral
    order = np.argsort(distances.sum(axis=1), kind="stable")
    for shift in range(STARTS):
        places = np.empty_like(spiral)
        places[np.roll(order, shift * (count // STARTS + 1))] = spiral
        yield places * reach / np.sqrt(count)


def _stress(places: Places, distances: Float[np.ndarray, "n n"]) -> Places:
    """Plates at the distances of the graph, as nearly as 2 dimensions allow."""
    weights = np.where(distances > 0, np.maximum(distances, 1e-9) ** -2.0, 0)
    total = np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
    for _ in range(STEPS):
        ways = places[:, None] - places[None]
        lengths = np.sqrt((ways**2).sum(axis=-1))
        pull = distances / np.maximum(lengths, 1e-6)
        aims = places[None] + ways * pull[..., None]
        places = (weights[..., None] * aims).sum(axis=1) / total
    return places


def _faults(places: Places, sizes: Sizes, links: Links) -> float:
    """Lines across foreign plates count most, then crossings, then the area."""
    across = (np.abs(off_lines(places, sizes * 0.9, links)).sum(axis=1) > 0).sum()
    extent = np.ptp(places, axis=0) + 1
    return 6.0 * across + _crossings(places, links) + 4e-5 * float(extent.prod())


def _crossings(places: Places, links: Links) -> int:
    a, b = places[links[:, 0]], places[links[:, 1]]
    way = b - a

    def side(points: Places) -> Float[np.ndarray, "m m"]:
        to = points[None] - a[:, None]
        return np.sign(way[:, None, 0] * to[..., 1] - way[:, None, 1] * to[..., 0])

    parted = side(a) * side(b) < 0
    return int((parted & parted.T).sum()) // 2
