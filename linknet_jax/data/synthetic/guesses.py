"""The best classes that the look of the drawn things alone allows, without their context."""

from __future__ import annotations

import collections

import numpy as np
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from linknet_jax.data.synthetic import scenes, world

Guess = tuple[Int[np.ndarray, "n"], Float[np.ndarray, "n"]]  # labels, probabilities


def context_free(config: ConfigDict, split: str) -> list[Guess]:
    """The most probable class of every annotated thing, given its icon, and that probability.

    Dog and wolf share an icon, as do ball and orange, bird and bat; probabilities are the
    frequencies in the training split. A thing whose icon is not in that split has the background
    class and 0. `config` is the tree's `data`.
    """
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for index in range(config.train_images):
        found = scenes.layout(config.seed, "train", index)
        for thing, name in zip(found.things, found.names, strict=True):
            counts[thing.icon][name] += 1
    best = {icon: _best(names) for icon, names in counts.items()}
    number = config[f"{split}_images"]
    return [_guess(scenes.layout(config.seed, split, index), best) for index in range(number)]


def _best(names: collections.Counter) -> tuple[int, float]:
    name, count = names.most_common(1)[0]
    return world.VOCABULARY.objects.index(name), count / names.total()


def _guess(found: scenes.Layout, best: dict[str, tuple[int, float]]) -> Guess:
    labels, scores = np.zeros(len(found.order), np.int32), np.zeros(len(found.order))
    for thing, row in zip(found.things, found.order, strict=True):
        labels[row], scores[row] = best.get(thing.icon, (0, 0.0))
    return labels, scores
