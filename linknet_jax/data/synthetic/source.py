"""The embedded default data set: synthetic scenes, drawn on first use and kept in memory."""

from __future__ import annotations

import numpy as np
from ml_collections import ConfigDict

from linknet_jax.data.batching import Example
from linknet_jax.data.synthetic import scenes, world
from linknet_jax.types import Annotation

SPLITS = ("train", "val", "test")


class Synthetic:
    """The interface that every data set has.

    Attributes:
      vocabulary: class names.
      annotations: one per image of the split.
      truth: int32 [t, 3] per image: every true relation, annotated or not.
    """

    vocabulary = world.VOCABULARY

    def __init__(self, config: ConfigDict, split: str):
        """`config` is the tree's `data`; ValueError if `split` is not train, val or test."""
        if split not in SPLITS:
            raise ValueError(f"split {split!r} is unknown: choose one of {', '.join(SPLITS)}")
        number, self._size = config[f"{split}_images"], config.image_size
        self._layouts = [scenes.layout(config.seed, split, index) for index in range(number)]
        described = [
            scenes.describe(found, f"{split}-{index:06d}", self._size)
            for index, found in enumerate(self._layouts)
        ]
        self.annotations: list[Annotation] = [annotation for annotation, _ in described]
        self.truth: list[np.ndarray] = [truth for _, truth in described]
        self._images: dict[int, np.ndarray] = {}

    def example(self, index: int, flip: bool = False) -> Example:
        """(image, its valid (height, width), network pixels per original pixel)."""
        if index not in self._images:
            self._images[index] = scenes.picture(self._layouts[index], self._size)
        image = self._images[index]
        return image[:, ::-1] if flip else image, np.full(2, self._size, np.float32), 1.0
