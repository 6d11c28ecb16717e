"""Data sets: `build(config, split)` gives annotations and padded batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import ModuleType

import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from linknet_jax.data.batching import Source, check_max_objects
from linknet_jax.data.stream import evaluation_indices, train_indices
from linknet_jax.types import Annotation, Batch, Vocabulary


class Dataset:
    """One split of a data set: what is annotated, and its batches for training and evaluation."""

    def __init__(self, source: Source, loader: ModuleType, config: ConfigDict):
        check_max_objects(source.annotations, config.max_objects)
        self._source, self._loader, self._config = source, loader, config

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
        pairs = ((indices, epochs) for _, indices, epochs in stream)
        return self._loader.batches(self._source, self._config, pairs, seed)

    def evaluation_batches(
        self, batch_size: int, process_index: int = 0, process_count: int = 1
    ) -> Iterator[Batch]:
        """This process's share of every image once; `example_mask` is False for the filler."""
        stream = evaluation_indices(len(self.annotations), batch_size, process_index, process_count)
        pairs = ((indices, np.zeros_like(indices)) for indices in stream)
        return self._loader.batches(self._source, self._config, pairs, seed=0)


def build(config: ConfigDict, split: str) -> Dataset:
    """The data set `config.data.name`, split train, val or test; raises ValueError."""
    sources = {"synthetic": _synthetic, "vrd": _vrd}
    if config.data.name not in sources:
        raise ValueError(f"data.name {config.data.name!r} must be one of {', '.join(sources)}")
    return sources[config.data.name](config.data, split)


def _synthetic(config: ConfigDict, split: str) -> Dataset:
    from linknet_jax.data import threads
    from linknet_jax.data.synthetic import Synthetic

    return Dataset(Synthetic(config, split), threads, config)


def _vrd(config: ConfigDict, split: str) -> Dataset:
    from linknet_jax.data.vrd import Vrd

    source = Vrd(config, split)
    try:
        from linknet_jax.data import pipeline
    except ImportError as error:
        raise ValueError(
            f"data.name=vrd reads photographs with TensorFlow, which cannot be imported ({error}): "
            "install tensorflow-cpu, or train on --config.data.name=synthetic"
        ) from error

    return Dataset(source, pipeline, config)
