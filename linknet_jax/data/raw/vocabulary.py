"""Which names become classes, and the class of every merged box."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from linknet_jax.data.collection import BACKGROUND
from linknet_jax.types import Vocabulary


def vg150() -> Vocabulary:
    """Xu et al.'s 150 objects and 50 predicates, in their order."""
    file = importlib.resources.files("linknet_jax.data") / "vg150.json"
    names = json.loads(file.read_text())
    return Vocabulary(*((BACKGROUND, *names[key]) for key in ("objects", "predicates")))


def class_numbers(spelled: Sequence[str], classes: Sequence[str]) -> Int[np.ndarray, "s"]:
    """The class of each spelled name; 0 outside the vocabulary."""
    index = {name: number for number, name in enumerate(classes) if number}
    return np.array([index.get(name, 0) for name in spelled], np.int32)


def box_labels(
    boxes: Int[np.ndarray, "k"],
    names: Int[np.ndarray, "k"],
    counts: Int[np.ndarray, "s"],
    classes: Int[np.ndarray, "s"],
    total: int,
) -> Int[np.ndarray, "total"]:
    """The class of each of an image's `total` boxes: of its names the one with the highest count.

    0 where none is in the vocabulary; of equal counts the first class.
    """
    inside = classes[names] > 0
    boxes, names = boxes[inside], names[inside]
    order = np.lexsort([-classes[names], counts[names]])
    labels = np.zeros(total, np.int32)
    labels[boxes[order]] = classes[names[order]]  # the last assignment of several holds
    return labels
