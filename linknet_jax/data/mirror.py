"""Horizontal flips: boxes change sides, and classes that name a side change their name."""

from __future__ import annotations

import dataclasses
import functools
import re

import numpy as np
from jaxtyping import Bool, Int

from linknet_jax.types import Annotation, Vocabulary

OTHER = {"left": "right", "Left": "Right", "LEFT": "RIGHT"}
OTHER |= {right: left for left, right in OTHER.items()}
# Also in "left_of", "LEFT OF", "toLeftOf", but not in "leftover" or "bright".
SIDE = re.compile(
    r"(?<![A-Za-z])(left|right)(?![a-z])|(?<![A-Z])(Left|Right)(?![a-z])"
    r"|(?<![A-Za-z])(LEFT|RIGHT)(?![A-Za-z])"
)


def flips(
    seed: int, epochs: Int[np.ndarray, "b"], indices: Int[np.ndarray, "b"]
) -> Bool[np.ndarray, "b"]:
    """Which images are mirrored: each with probability 1/2, a function of its arguments alone."""
    keys = zip(epochs.tolist(), indices.tolist(), strict=True)
    return np.array([np.random.default_rng((2, seed, *key)).random() < 0.5 for key in keys], bool)


def mirror(annotation: Annotation, vocabulary: Vocabulary) -> Annotation:
    """The annotation of the photograph flipped left to right."""
    objects, predicates = counterparts(vocabulary.objects), counterparts(vocabulary.predicates)
    boxes = annotation.boxes.copy()
    boxes[:, [0, 2]] = annotation.width - annotation.boxes[:, [2, 0]]
    relations = annotation.relations.copy()
    relations[:, 2] = predicates[relations[:, 2]]
    return dataclasses.replace(
        annotation, boxes=boxes, labels=objects[annotation.labels], relations=relations
    )


@functools.lru_cache
def counterparts(names: tuple[str, ...]) -> Int[np.ndarray, "c"]:
    """int32 class seen in a mirror: "left of" is "right of"; ValueError where there is none."""
    swapped = [SIDE.sub(lambda found: OTHER[found[0]], name) for name in names]
    alone = [name for name, other in zip(names, swapped, strict=True) if other not in names]
    if alone:
        raise ValueError(
            f"data.flip: the mirror image of {alone[0]!r} is no class of the data set; add it to "
            "the vocabulary or set --config.data.flip=False"
        )
    return np.array([names.index(name) for name in swapped], np.int32)
