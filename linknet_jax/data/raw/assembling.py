"""From gathered images to packed annotations, once all names have been counted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int

from linknet_jax.data.collection import AnnotationTable, pack
from linknet_jax.data.raw.encoding import stored_pixels
from linknet_jax.data.raw.gathering import Gathered, Gatherer
from linknet_jax.data.raw.report import Report
from linknet_jax.data.raw.vocabulary import box_labels, class_numbers
from linknet_jax.types import Annotation, Vocabulary


def assemble(gatherer: Gatherer, vocabulary: Vocabulary) -> AnnotationTable:
    """The boxes of the vocabulary's objects with the relations between them.

    Images stand in the order of `gatherer.sizes`.
    """
    images = [gatherer.images.pop(image_id) for image_id in gatherer.sizes]
    classes = (
        class_numbers(gatherer.names.spelled, vocabulary.objects),
        class_numbers(gatherer.predicates.spelled, vocabulary.predicates),
    )
    table = pack(_annotations(gatherer, images, _counts(gatherer, images), classes))
    report = gatherer.report
    report.images_kept, report.boxes_kept = len(table), len(table.boxes)
    report.relations_kept = len(table.relations)
    return table


def _counts(gatherer: Gatherer, images: list[Gathered]) -> Int[np.ndarray, "s"]:
    """How many merged boxes have each name."""
    used = np.concatenate([np.zeros(0, np.int32), *(image.names for image in images)])
    return np.bincount(used, minlength=len(gatherer.names.spelled))


def _annotations(
    gatherer: Gatherer,
    images: list[Gathered],
    counts: Int[np.ndarray, "s"],
    classes: tuple[Int[np.ndarray, "s"], Int[np.ndarray, "p"]],
) -> Iterator[Annotation]:
    """Empties `images`, so that no image is in memory twice."""
    images.reverse()
    for image_id, size in gatherer.sizes.items():
        image = images.pop()
        labels = box_labels(image.name_boxes, image.names, counts, classes[0], len(image.boxes))
        kept = labels > 0
        gatherer.report.boxes_outside_vocabulary += int((~kept).sum())
        yield Annotation(
            image_id=image_id,
            width=size[0],
            height=size[1],
            boxes=stored_pixels(image.boxes[kept], np.full(kept.sum(), max(size))),
            labels=labels[kept],
            relations=_relations(image, kept, classes[1], gatherer.report),
        )


def _relations(
    image: Gathered, kept: Bool[np.ndarray, "m"], verbs: Int[np.ndarray, "p"], report: Report
) -> Int[np.ndarray, "r 3"]:
    """(subject, object, predicate) of the relations that join two different kept boxes."""
    alive = kept[image.id_boxes]
    position = (np.cumsum(kept) - 1)[image.id_boxes[alive]]
    number = dict(zip(image.ids[alive].tolist(), position.tolist(), strict=True))
    ends = [number.get(i, -1) for i in image.relations[:, :2].ravel().tolist()]
    ends = np.array(ends, np.int32).reshape(-1, 2)
    verb = verbs[image.relations[:, 2]]
    lost = (ends < 0).any(axis=1)
    strange = ~lost & (verb == 0)
    itself = ~lost & ~strange & (ends[:, 0] == ends[:, 1])
    report.relations_without_box += int(lost.sum())
    report.relations_outside_vocabulary += int(strange.sum())
    report.relations_self += int(itself.sum())
    return np.column_stack([ends, verb])[~(lost | strange | itself)]
