"""Data sets: `build(config, split)` gives annotations and padded batches."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator, Sequence
from types import ModuleType

import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from linknet_jax.data import boxes_only, threads
from linknet_jax.data.batching import FILLER, Draw, Source, check_max_objects
from linknet_jax.data.collection import SPLITS
from linknet_jax.data.detections import Found, load_detections
from linknet_jax.data.feature_shards import FeatureShards
from linknet_jax.data.files import Files, load
from linknet_jax.data.mirror import counterparts, flips
from linknet_jax.data.splits import available
from linknet_jax.data.stream import evaluation_indices, train_indices
from linknet_jax.data.synthetic.source import Synthetic
from linknet_jax.types import Annotation, Batch, Vocabulary


class Dataset:
    """One split of a data set: what is annotated, and its batches for training and evaluation."""

    def __init__(self, source: Source, loader: ModuleType | FeatureShards, config: ConfigDict):
        check_max_objects(source.annotations, config.max_objects)
        if config.flip:
            for names in (source.vocabulary.objects, source.vocabulary.predicates):
                counterparts(names)  # ValueError now, not at the first flip
        self._source, self._loader, self._config = source, loader, config
        self._detections = None
        if config.detections:
            self._detections = load_detections(
                config.detections, config.max_detections, source.vocabulary.objects
            )

    @property
    def vocabulary(self) -> Vocabulary:
        """Class names; index 0 is the background."""
        return self._source.vocabulary

    @property
    def annotations(self) -> Sequence[Annotation]:
        """Ground truth of every image, in pixels of the original."""
        return self._source.annotations

    @property
    def truth(self) -> Sequence[Int[np.ndarray, "t 3"]] | None:
        """Every true relation of every image where the images are drawn, else None."""
        return self._source.truth

    def detections(self, index: int) -> Found:
        """(boxes in pixels of the original, labels, scores) of an image in `data.detections`.

        The best score first; ValueError without such a file.
        """
        if self._detections is None:
            raise ValueError("data.detections is empty; set --config.data.detections=FILE")
        return self._detections[self.annotations[index].image_id]

    def check_detections(self) -> None:
        """ValueError where `data.detections` has a line for no image of the split.

        Batches check it too; a split that is built for its statistics alone needs no line.
        """
        if self._detections is not None:
            self._detections.check_split(self.annotations)

    def with_features(self, stored: FeatureShards) -> Dataset:
        """The same split; its batches have the stored features in place of pixels."""
        other = copy.copy(self)
        other._loader = stored
        return other

    def train_batches(
        self,
        batch_size: int,
        seed: int,
        start_step: int = 0,
        process_index: int = 0,
        process_count: int = 1,
    ) -> Iterator[Batch]:
        """This process's share of the shuffled batches of start_step and all later steps."""
        share = (process_index, process_count)
        stream = train_indices(len(self.annotations), batch_size, seed, start_step, *share)
        draws = (self._draw(seed, indices, epochs) for _, indices, epochs in stream)
        return self._batches(draws, seed)

    def evaluation_batches(
        self, batch_size: int, process_index: int = 0, process_count: int = 1
    ) -> Iterator[Batch]:
        """This process's share of every image once; `example_mask` is False for the filler."""
        stream = evaluation_indices(len(self.annotations), batch_size, process_index, process_count)
        return self._batches(Draw(x, np.zeros_like(x), np.zeros(len(x), bool)) for x in stream)

    def batches_of(self, indices: Sequence[int], batch_size: int) -> Iterator[Batch]:
        """These images, in this order; `example_mask` is False for the filler."""
        if not len(indices):
            return iter(())
        order = evaluation_indices(len(indices), batch_size)
        chosen = np.append(np.asarray(indices, int), FILLER)  # -1 in `order` takes the last
        draws = (Draw(chosen[x], np.zeros_like(x), np.zeros(len(x), bool)) for x in order)
        return self._batches(draws)

    def _batches(self, draws: Iterator[Draw], seed: int = 0) -> Iterator[Batch]:
        self.check_detections()
        return self._loader.batches(self._source, self._config, draws, seed, self._detections)

    def _draw(self, seed: int, indices: np.ndarray, epochs: np.ndarray) -> Draw:
        mirrored = (
            flips(seed, epochs, indices) if self._config.flip else np.zeros(len(indices), bool)
        )
        return Draw(indices, epochs, mirrored, clip=True)


def build(config: ConfigDict, split: str) -> Dataset:
    """The data set `config.data.name`, split train, val or test; raises ValueError."""
    name, visual = config.data.name, config.model.visual
    if name == "synthetic":
        source = Synthetic(config.data, split)
    elif name == "tfds":
        source = _tensorflow("tfds.records").Records(config.data, split)
    else:
        source = Files(config.data, split, pixels=visual)
    if not visual:
        return Dataset(source, boxes_only, config.data)
    loader = threads if name == "synthetic" else _tensorflow("pipeline")
    return Dataset(source, loader, config.data)


def available_splits(config: ConfigDict) -> tuple[str, ...]:
    """The splits that `build` knows of this data set: train, val and mostly test."""
    name, folder = config.data.name, config.data.dir
    if name == "synthetic":
        return SPLITS
    if name == "tfds":
        return available(_tensorflow("tfds.records").load(folder).collection)
    return available(load(name, folder, config.data.images)[0])


def _tensorflow(module: str) -> ModuleType:
    """A module of this package that imports TensorFlow."""
    try:
        return importlib.import_module(f"linknet_jax.data.{module}")
    except ImportError as error:
        raise ValueError(
            f"photographs are read with TensorFlow, which cannot be imported ({error}): install "
            "tensorflow-cpu, or train on --config.data.name=synthetic"
        ) from error
