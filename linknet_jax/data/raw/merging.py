"""Greedy merging of the boxes that several annotators drew around one object (Xu et al. 2017)."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Int

SAME, NESTED, OVERLAPPING = 1, 2, 3
SAME_ABOVE = 0.9  # overlap from which two boxes are one, whatever their names
OVERLAPPING_ABOVE = 0.6  # overlap from which two boxes with the same first name are one


@dataclasses.dataclass(frozen=True, eq=False)
class Merged:
    """What merging leaves of an image's n boxes.

    Attributes:
      boxes: x, y, width, height of the m merged boxes, whole pixels.
      group: the merged box that each of the n became part of.
      kinds: why: SAME, NESTED or OVERLAPPING; 0 for the m boxes that took the others in.
    """

    boxes: Int[np.ndarray, "m 4"]
    group: Int[np.ndarray, "n"]
    kinds: Int[np.ndarray, "n"]


def merge(corners: Int[np.ndarray, "n 4"], first_names: Int[np.ndarray, "n"]) -> Merged:
    """Merges boxes (xyxy, not empty) in their order.

    Each box that is not yet part of another takes in all later ones that match it as annotated.
    The result is the mean where all are the SAME box, else the extent of all.
    """
    matches = match_kinds(corners, first_names)
    owners = _owners(np.triu(matches > 0, 1))
    itself = owners == np.arange(len(owners))
    kinds = np.where(itself, 0, matches[owners, np.arange(len(owners))])
    group = (np.cumsum(itself) - 1)[owners]
    return Merged(_united(corners, group, kinds), group, kinds)


def match_kinds(
    corners: Int[np.ndarray, "n 4"], first_names: Int[np.ndarray, "n"]
) -> Int[np.ndarray, "n n"]:
    """SAME, NESTED, OVERLAPPING or 0 for every pair; overlap is intersection over enclosing hull,
    which is smaller than the intersection over union."""
    corners = corners.astype(np.int64)
    one, other = corners[:, None], corners[None]
    low = np.maximum(one[..., :2], other[..., :2])
    high = np.minimum(one[..., 2:], other[..., 2:])
    hull = np.maximum(one[..., 2:], other[..., 2:]) - np.minimum(one[..., :2], other[..., :2])
    overlap = np.maximum(high - low, 0).prod(axis=-1) / hull.prod(axis=-1)
    inside = (low == one[..., :2]).all(axis=-1) & (high == one[..., 2:]).all(axis=-1)
    namesakes = first_names[:, None] == first_names[None]
    return np.select(
        [
            overlap > SAME_ABOVE,
            (inside | inside.T) & namesakes,
            namesakes & (overlap > OVERLAPPING_ABOVE),
        ],
        [SAME, NESTED, OVERLAPPING],
    )


def _owners(matches: Bool[np.ndarray, "n n"]) -> Int[np.ndarray, "n"]:
    """The box that takes each box in; itself for those that stay. Looks above the diagonal only."""
    everyone = np.arange(len(matches))
    owners = everyone.copy()
    for i in np.flatnonzero(matches.any(axis=1)):
        if owners[i] == i:
            owners[matches[i] & (owners == everyone)] = i
    return owners


def _united(
    corners: Int[np.ndarray, "n 4"], group: Int[np.ndarray, "n"], kinds: Int[np.ndarray, "n"]
) -> Int[np.ndarray, "m 4"]:
    if not len(group):
        return np.zeros((0, 4), np.int32)
    order = np.argsort(group, kind="stable")
    start = np.flatnonzero(np.diff(group[order], prepend=-1))
    members = corners[order].astype(np.float64)
    counts = np.diff(start, append=len(order))
    mean = np.add.reduceat(members, start) / counts[:, None]
    low, high = np.minimum.reduceat(members, start), np.maximum.reduceat(members, start)
    extent = np.concatenate([low[:, :2], high[:, 2:]], axis=1)
    extreme = np.maximum.reduceat(kinds[order], start) > SAME
    united = np.where(extreme[:, None], extent, mean)
    united[:, 2:] -= united[:, :2]
    return united.astype(np.int32)
