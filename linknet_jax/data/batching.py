"""From examples and annotations to padded batches; both loaders go through here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from linknet_jax.data.detections import DetectionTable
from linknet_jax.data.mirror import mirror
from linknet_jax.ops import boxes as box_ops
from linknet_jax.ops.boxes import BENIGN_BOX
from linknet_jax.types import Annotation, Batch, Detections, Vocabulary

FILLER = -1

Example = tuple[UInt8[np.ndarray, "s s 3"], Float[np.ndarray, "2"], float]


class Draw(NamedTuple):
    """The images of one batch of this process: positions in the split (-1 is a filler), the epoch
    that each is drawn in, which of them are mirrored, and whether boxes are cut to them."""

    indices: Int[np.ndarray, "b"]
    epochs: Int[np.ndarray, "b"]
    flips: Bool[np.ndarray, "b"]
    clip: bool = False


class _Frame(NamedTuple):
    """How one image of a draw lies in the network input: `valid` is the (height, width) that its
    photograph covers there, `scale` the network's pixels per pixel of the original."""

    flip: bool
    clip: bool
    valid: Float[np.ndarray, "2"]
    scale: float


class Source(Protocol):
    """What a data set provides: annotations in memory and pixels by random access.

    Attributes:
      truth: every true relation of every image where the images are drawn, else None.
    """

    vocabulary: Vocabulary
    annotations: Sequence[Annotation]
    truth: Sequence[Int[np.ndarray, "t 3"]] | None

    def example(self, index: int, flip: bool = False) -> Example:
        """(pixels, (height, width) that the photograph covers, scale from its pixels to these).

        `flip` mirrors the photograph, left to right.
        """
        ...


def check_max_objects(annotations: Sequence[Annotation], max_objects: int) -> None:
    """Raises ValueError where an image has more objects than a batch has room for."""
    counts = np.array([len(a.boxes) for a in annotations], int)
    if not len(counts) or counts.max() <= max_objects:
        return
    worst = annotations[int(counts.argmax())]
    raise ValueError(
        f"image {worst.image_id!r} has {counts.max()} objects, but data.max_objects is "
        f"{max_objects} (exceeded by {(counts > max_objects).sum()} images): "
        f"set --config.data.max_objects={counts.max()} or more"
    )


def read_example(source: Source, index: int, flip: bool, size: int) -> Example:
    """The source's example, or a blank image for the filler of an evaluation's last batch."""
    if index == FILLER:
        return np.zeros((size, size, 3), np.uint8), np.full(2, size, np.float32), 1.0
    return source.example(index, flip)


def make_batch(
    source: Source,
    images: UInt8[np.ndarray, "b s s 3"],
    image_sizes: Float[np.ndarray, "b 2"],
    scales: Float[np.ndarray, "b"],
    draw: Draw,
    max_objects: int,
    seed: int,
    detections: DetectionTable | None = None,
) -> Batch:
    """Pads the annotations of the draw to `max_objects`; -1 gives a filler image without boxes.

    Of several predicates of a pair one annotation is drawn uniformly, keyed by
    (seed, epoch, index): anew in every epoch, alike on any number of processes. A relation of an
    object with itself is no ordered pair and has no place. Detected boxes are placed as annotated
    ones. Raises ValueError as check_max_objects.
    """
    size = len(draw.indices)
    boxes = np.tile(np.float32(BENIGN_BOX), (size, max_objects, 1))
    box_mask = np.zeros((size, max_objects), bool)
    labels = np.zeros((size, max_objects), np.int32)
    predicates = np.zeros((size, max_objects, max_objects), np.int32)
    places = zip(draw.flips, image_sizes, scales, strict=True)
    frames = [_Frame(flip, draw.clip, *place) for flip, *place in places]
    for row, (index, epoch) in enumerate(zip(draw.indices, draw.epochs, strict=True)):
        if index == FILLER:
            continue
        check_max_objects([source.annotations[index]], max_objects)
        annotation = _placed(source.annotations[index], frames[row], source.vocabulary)
        count = len(annotation.boxes)
        boxes[row, :count] = annotation.boxes
        box_mask[row, :count] = True
        labels[row, :count] = annotation.labels
        _draw_predicates(predicates[row], annotation.relations, (seed, epoch, index))
    return Batch(
        images=images,
        image_sizes=image_sizes,
        boxes=boxes,
        box_mask=box_mask,
        labels=labels,
        predicates=predicates,
        image_index=np.asarray(draw.indices, np.int32),
        example_mask=np.asarray(draw.indices) != FILLER,
        detections=None if detections is None else _detected(source, detections, draw, frames),
    )


def _detected(
    source: Source, table: DetectionTable, draw: Draw, frames: Sequence[_Frame]
) -> Detections:
    shape = len(frames), table.limit
    boxes = np.tile(np.float32(BENIGN_BOX), (*shape, 1))
    mask, labels = np.zeros(shape, bool), np.zeros(shape, np.int32)
    scores = np.zeros(shape, np.float32)
    for row, index in enumerate(draw.indices):
        if index == FILLER:
            continue
        image = source.annotations[index]
        found, classes, values = table[image.image_id]
        image = dataclasses.replace(
            image, boxes=found, labels=classes, relations=image.relations[:0]
        )
        image = _placed(image, frames[row], source.vocabulary)
        kept = slice(len(values))
        boxes[row, kept], labels[row, kept] = image.boxes, image.labels
        mask[row, kept], scores[row, kept] = True, values
    return Detections(boxes=boxes, mask=mask, labels=labels, scores=scores)


def _placed(annotation: Annotation, frame: _Frame, vocabulary: Vocabulary) -> Annotation:
    """With boxes in pixels of the network input, mirrored and cut as it was drawn."""
    annotation = _of_photograph(annotation, frame.valid, frame.scale)
    if frame.flip:
        annotation = mirror(annotation, vocabulary)
    boxes = annotation.boxes
    if frame.clip:
        boxes = box_ops.clip(boxes, np.array([annotation.width, annotation.height]))
    return dataclasses.replace(annotation, boxes=boxes * frame.scale)


def _of_photograph(
    annotation: Annotation, valid: Float[np.ndarray, "2"], scale: float
) -> Annotation:
    """With the photograph's width and height where the stated ones have another shape.

    Only boxes that are parts of the longer side come this far then (`files.fit`); they are mirrored
    and cut within the photograph.
    """
    stated = np.array([annotation.height, annotation.width]) * scale
    if np.abs(valid - stated).max() <= 1:  # what rounding to whole pixels explains
        return annotation
    height, width = (valid / scale).tolist()
    return dataclasses.replace(annotation, width=width, height=height)


def _draw_predicates(
    matrix: Int[np.ndarray, "n n"], relations: Int[np.ndarray, "r 3"], key: tuple[int, int, int]
) -> None:
    """In random order the last annotation of a pair stays: each is as likely as the others."""
    order = np.random.default_rng((1, *map(int, key))).permutation(len(relations))
    for subject, object_, predicate in relations[order]:
        if subject != object_:
            matrix[subject, object_] = predicate
