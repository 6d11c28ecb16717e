"""Pictures of images of a split with their predicted graphs, and which images are worth showing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from linknet_jax import data, parallel
from linknet_jax.types import Batch, Prediction, image_of
from linknet_jax.visualize import draw_graph

SHOWN = 4  # pictures of a kind
Seen = tuple[float, int, int]  # an image's recall, relations and position in the split


def extremes(seen: Sequence[Seen]) -> dict[str, list[Seen]]:
    """The images of the best and of the worst recall, of equals those with most relations."""
    return {
        kind: sorted(seen, key=lambda x: (sign * x[0], -x[1], x[2]))[:SHOWN]
        for kind, sign in (("best", -1), ("worst", 1))
    }


def draw(
    predict: Callable[[dict, Batch], Prediction],
    variables: dict,
    dataset: data.Dataset,
    config: ConfigDict,
    indices: Sequence[int],
) -> Iterator[Image.Image]:
    """Each image with its predicted graph; true relations are green.

    Those are the annotated ones, where the images are drawn all that hold.
    """
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
    if prediction.boxes is not None:
        boxes, known = prediction.boxes[: int(prediction.box_count)], ()
    return draw_graph(
        view, boxes, prediction, dataset.vocabulary, {tuple(map(int, x)) for x in known}
    )
