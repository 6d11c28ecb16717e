"""Plates pushed off each other, and off lines that are not theirs."""

from __future__ import annotations

import itertools

import numpy as np
from jaxtyping import Float, Int

GAP = 13.0  # pixels between plates
STEPS = 60  # of pushing plates off lines
STRETCH = 1.05
Places = Float[np.ndarray, "n 2"]
Sizes = Float[np.ndarray, "n 2"]
Links = Int[np.ndarray, "m 2"]


def clear(places: Places, sizes: Sizes, links: Links) -> Places:
    """Plates pushed off each other and off lines that are not theirs."""
    for _ in range(STEPS):
        places = places + 0.5 * _apart(places, sizes) + 0.25 * off_lines(places, sizes, links)
    return places


def part(places: Places, sizes: Sizes) -> Places:
    """No plate over another: pushed, and now and then stretched so that it ends."""
    for step in itertools.count(1):
        push = _apart(places, sizes)
        if not push.any():
            return places
        places = places + 0.55 * push
        if step % 20 == 0:
            places = places * STRETCH


def _apart(places: Places, sizes: Sizes) -> Places:
    """How far each plate must go, along the shorter way out of each plate it touches."""
    ways = places[:, None] - places[None]
    inside = (sizes[:, None] + sizes[None]) / 2 + GAP - np.abs(ways)
    touching = (inside > 1e-6).all(axis=-1) & ~np.eye(len(places), dtype=bool)
    order = np.sign(np.arange(len(places))[:, None] - np.arange(len(places))[None])
    signs = np.where(ways == 0, order[..., None], np.sign(ways))
    across = inside[..., 0] < inside[..., 1]
    chosen = np.stack([across, ~across], axis=-1) & touching[..., None]
    return np.where(chosen, inside * signs, 0).sum(axis=1) / 2


def off_lines(places: Places, sizes: Sizes, links: Links) -> Places:
    """How far plates must go off the lines, across them."""
    if not len(links):
        return np.zeros_like(places)
    start, way = places[links[:, 0]], places[links[:, 1]] - places[links[:, 0]]
    length = np.maximum(np.sqrt((way**2).sum(axis=-1)), 1e-6)
    normal = np.stack([-way[:, 1], way[:, 0]], axis=-1) / length[:, None]
    to = places[:, None] - start[None]
    along = (to * way[None]).sum(axis=-1) / length**2
    off = (to * normal[None]).sum(axis=-1)
    half = (np.abs(normal)[None] * (sizes[:, None] / 2)).sum(axis=-1) + 4
    own = (links[None] == np.arange(len(places))[:, None, None]).any(axis=-1)
    need = np.where(~own & (along > 0) & (along < 1), np.maximum(half - np.abs(off), 0), 0)
    signs = np.where(off == 0, 1.0, np.sign(off))
    return np.clip((need * signs)[..., None] * normal[None], -40, 40).sum(axis=1)
