"""Pictures of images of a split with their predicted graphs, and which images are worth showing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from linknet_jax import data, parallel
from linknet_jax.types import Batch, Prediction, image_of
from linknet_jax.visualize import draw_graph

Ranked = tuple[float, int, int]  # recall, relations, position in the split


def best(seen: Sequence[Ranked], count: int) -> list[Ranked]:
    """The images of the highest recall, of equals those with most relations."""
    return sorted(seen, key=lambda x: (-x[0], -x[1], x[2]))[:count]


def worst(seen: Sequence[Ranked], count: int) -> list[Ranked]:
    """The images of the lowest recall, of equals those with most relations."""
    return sorted(seen, key=lambda x: (x[0], -x[1], x[2]))[:count]


def draw(
    predict: Callable[[dict, Batch], Prediction],
    variables: dict,
    dataset: data.Dataset,
    config: ConfigDict,
    indices: Sequence[int],
) -> Iterator[Image.Image]:
    """Each image with its predicted graph; annotated relations are green, where the images are
    drawn all true ones."""
    for batch in dataset.batches_of(indices, config.eval.batch_size):
        result = parallel.local_rows(predict(variables, batch))
        for row in np.flatnonzero(batch.example_mask):
            yield _picture(batch, image_of(result, row), dataset, int(row), config.model.visual)


def _picture(
    batch: Batch, prediction: Prediction, dataset: data.Dataset, row: int, visual: bool
) -> Image.Image:
    index = int(batch.image_index[row])
    annotation = dataset.annotations[index]
    known = annotation.relations if dataset.truth is None else dataset.truth[index]
    height, width = batch.image_sizes[row].astype(int)
    view = batch.images[row, :height, :width]
    if not visual:
        view = np.full((height, width, 3), 235, np.uint8)
    boxes = batch.boxes[row, : len(annotation.boxes)]
    return draw_graph(
        view, boxes, prediction, dataset.vocabulary, {tuple(map(int, x)) for x in known}
    )
