"""Pictures of images of a split with their predicted graphs, and which images are worth showing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from linknet_jax import data, parallel
from linknet_jax.drawing import picture, png
from linknet_jax.metrics.detection import boxes_of
from linknet_jax.scene_graph import Object, Relation, SceneGraph, graph_of
from linknet_jax.types import Batch, Prediction, image_of

SHOWN = 4  # pictures of a kind
TOP, LEAST = 8, 0.2  # relations of a picture, and the score from which one is drawn
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
    """Each image with its best predicted relations, right and wrong, and the ones it missed."""
    for batch in dataset.batches_of(indices, config.eval.batch_size):
        result = parallel.local_rows(predict(variables, batch))
        for row in np.flatnonzero(batch.example_mask):
            yield _picture(batch, image_of(result, row), dataset, int(row), config.model.visual)


def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures below each other."""
    width, height = max(x.width for x in pictures), sum(x.height for x in pictures)
    sheet, top = Image.new("RGB", (width, height), "white"), 0
    for one in pictures:
        sheet.paste(one, (0, top))
        top += one.height
    return sheet


def _picture(
    batch: Batch, prediction: Prediction, dataset: data.Dataset, row: int, visual: bool
) -> Image.Image:
    index = int(batch.image_index[row])
    annotation = dataset.annotations[index]
    boxes = boxes_of(prediction, annotation, batch.images.shape[1])
    graph = graph_of(annotation, boxes, prediction, dataset.vocabulary).cut(LEAST, TOP)
    height, width = batch.image_sizes[row].astype(int)
    view = Image.fromarray(batch.images[row, :height, :width]) if visual else None
    truth = _truth(dataset, index, graph, prediction.boxes is None)
    return png.render(picture.draw(graph, view, truth)).reduce(2)  # a report holds dozens


def _truth(dataset: data.Dataset, index: int, predicted: SceneGraph, given: bool) -> SceneGraph:
    """What is annotated; of `given` boxes also what was predicted and is known to hold."""
    annotation, names = dataset.annotations[index], dataset.vocabulary
    boxes = map(tuple, annotation.boxes.tolist())
    objects = [
        Object(box, names.objects[label], 1.0)
        for box, label in zip(boxes, annotation.labels, strict=True)
    ]
    rows = {tuple(row) for row in annotation.relations.tolist()}
    if given and dataset.truth is not None:
        numbers = {name: number for number, name in enumerate(names.predicates)}
        said = {(r.subject, r.object, numbers[r.predicate]) for r in predicted.relations}
        rows |= said & {tuple(row) for row in dataset.truth[index].tolist()}
    relations = [Relation(s, names.predicates[p], o, 1.0) for s, o, p in sorted(rows)]
    return SceneGraph(predicted.image_id, predicted.size, tuple(objects), tuple(relations))
