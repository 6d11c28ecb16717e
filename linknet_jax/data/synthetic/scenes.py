"""Synthetic scenes by (seed, split, index): what is in them, what is true, what was annotated."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
from jaxtyping import Int, UInt8

from linknet_jax.data.synthetic import world
from linknet_jax.data.synthetic.arrangement import arrange
from linknet_jax.data.synthetic.drawing import paint
from linknet_jax.data.synthetic.world import Thing
from linknet_jax.types import Annotation

MOST_RELATIONS = 18  # below 20, so that whoever knows them all has R@20 = 1
ATTEMPTS = 1000


@dataclasses.dataclass(frozen=True)
class Layout:
    """A scene before it is drawn.

    Attributes:
      things: rearmost first.
      day: whether the sun is in the sky, else the moon.
      names: class of every thing.
      relations: everything that is true, (subject, object, predicate name).
      annotated: which relations the annotator wrote down, at least one.
      order: row of every thing in the annotation.
      look: seed of what does not matter: colour of the ground, place of the sun, grain.
    """

    things: list[Thing]
    day: bool
    names: list[str]
    relations: list[tuple[int, int, str]]
    annotated: list[bool]
    order: list[int]
    look: int


@dataclasses.dataclass(frozen=True)
class Scene:
    """A picture, its annotation, and all that is true (rows as in the annotation's relations)."""

    image: UInt8[np.ndarray, "size size 3"]
    annotation: Annotation
    truth: Int[np.ndarray, "t 3"]


def scene(seed: int, split: str, index: int, size: int = world.SIDE) -> Scene:
    """The `index`-th scene of a split, `size` pixels wide; depends on nothing else."""
    found = layout(seed, split, index)
    annotation, truth = describe(found, f"{split}-{index:06d}", size)
    return Scene(picture(found, size), annotation, truth)


def layout(seed: int, split: str, index: int) -> Layout:
    """The first attempt that is neither empty nor endless nor, but for test, a held-out triplet.

    ValueError if there is none among a thousand.
    """
    for attempt in range(ATTEMPTS):
        rng = random.Random(f"{seed}/{split}/{index}/{attempt}")
        things, day = arrange(rng), rng.random() < 0.5
        names = world.classes(things, day)
        relations = world.relations(things, names)
        types = {(names[s], p, names[o]) for s, o, p in relations}
        few = len(things) >= 3 and 1 <= len(relations) <= MOST_RELATIONS
        if few and (split == "test" or not types & world.ZERO_SHOT):
            annotated = [rng.random() < world.ANNOTATED[p] for _, _, p in relations]
            annotated[rng.randrange(len(relations))] = True
            order = rng.sample(range(len(things)), len(things))
            return Layout(things, day, names, relations, annotated, order, rng.getrandbits(32))
    raise ValueError(f"no scene for data.seed {seed}, {split} {index}: choose another seed")


def describe(found: Layout, image_id: str, size: int) -> tuple[Annotation, Int[np.ndarray, "t 3"]]:
    """(annotation, truth) in pixels of a `size` x `size` image."""
    boxes, labels = np.zeros((len(found.order), 4)), np.zeros(len(found.order), np.int32)
    boxes[found.order] = [thing.box for thing in found.things]
    labels[found.order] = [world.VOCABULARY.objects.index(name) for name in found.names]
    rows = [
        (found.order[s], found.order[o], world.VOCABULARY.predicates.index(p))
        for s, o, p in found.relations
    ]
    truth = np.array(rows, np.int32)
    boxes *= size / world.SIDE
    return Annotation(image_id, size, size, boxes, labels, truth[found.annotated]), truth


def picture(found: Layout, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The scene as an image."""
    rng = np.random.default_rng(found.look)
    ground = tuple(int(x) for x in rng.integers((176, 196, 140), (208, 222, 172)))
    pixels = paint(found.things, found.day, int(rng.integers(4, 110)), ground, size)
    grain = rng.integers(-8, 9, (size, size, 1), dtype=np.int8)
    return np.clip(pixels + grain, 0, 255).astype(np.uint8)
