"""The records that travel between data, model and metrics. Boxes are xyxy, half-open pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Set

import flax.struct
import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

FREE_PREDICTIONS = 100  # candidates of an image kept without the graph constraint
Triplets = Set[tuple[int, int, int]]  # (subject class, predicate, object class)


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Class names; index 0 is the background object and the absent predicate."""

    objects: tuple[str, ...]
    predicates: tuple[str, ...]

    @property
    def sizes(self) -> tuple[int, int]:
        """(C_obj, C_rel): numbers of classes, index 0 included."""
        return len(self.objects), len(self.predicates)


@dataclasses.dataclass(frozen=True)
class Annotation:
    """Host-side ground truth of one image, in pixels of the original image.

    Attributes:
      image_id: the data set's own name of the image.
      width, height: size of the original image (after EXIF orientation).
      boxes: float64 [n, 4].
      labels: int32 [n], 1 .. C_obj - 1.
      relations: int32 [r, 3], rows (subject, object, predicate); the first two index `boxes`.
      file_name: the photograph, relative to the folder of images; "" = `{image_id}.jpg`.
    """

    image_id: int | str
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    relations: np.ndarray
    file_name: str = ""


@flax.struct.dataclass
class Detections:
    """Padded boxes of a detector, best score first. Garbage in padding is allowed.

    Attributes:
      boxes: where features are read, in pixels of the network input.
      labels: the class of each box, never background.
      scores: the probability of that class.
      class_boxes: each box as every class would move it; None: the same for all.
    """

    boxes: Float[Array, "b d 4"]
    mask: Bool[Array, "b d"]
    labels: Int[Array, "b d"]
    scores: Float[Array, "b d"]
    class_boxes: Float[Array, "b d c 4"] | None = None


@flax.struct.dataclass
class Batch:
    """Padded examples; boxes in pixels of the network input. Garbage in padding is allowed.

    Attributes:
      images: raw RGB; normalisation happens on the device. 0 x 0 pixels for a model without.
      image_sizes: (height, width) of the area that the photograph covers.
      predicates: predicate of (subject, object), 0 where none is annotated.
      image_index: position in the split; joins a prediction with its Annotation, keys randomness.
      example_mask: False for the images that fill up the last batch of an evaluation.
      detections: of a given file; None where there is none.
      features: the trunk's maps, where they are known; None: computed from the images.
    """

    images: UInt8[Array, "b h w 3"]
    image_sizes: Float[Array, "b 2"]
    boxes: Float[Array, "b n 4"]
    box_mask: Bool[Array, "b n"]
    labels: Int[Array, "b n"]
    predicates: Int[Array, "b n n"]
    image_index: Int[Array, "b"]
    example_mask: Bool[Array, "b"]
    detections: Detections | None = None
    features: tuple[Float[Array, "b y x k"], ...] | None = None


@flax.struct.dataclass
class LinkNetOutput:
    """What LinkNet computes for a batch; letters are the paper's, with equation numbers.

    Attributes:
      box_logits: the detector's own classifier on every box, the source of l_i. None where the
        model sees no pixels, as `context` and `context_logits`.
      context: pooled image feature c.
      context_logits: multi-label logits of M-hat (eq. 9).
      R1, R2: relational embedding matrices (eqs. 1, 4); None when the stack has fewer.
      O3: contextual object features (eq. 5).
      O4: object class logits (eq. 6).
      labels: O4', the object labels that were fed to the edges (eq. 10).
      E0: input of the edge stack (eq. 11).
      G2: predicate logits of every ordered pair (eq. 14); 0 outside `pair_mask`.
      pair_mask: the ordered pairs (subject, object) for which G2 was computed.
    """

    box_logits: Float[Array, "b n c"] | None
    context: Float[Array, "b k"] | None
    context_logits: Float[Array, "b c"] | None
    R1: Float[Array, "b n n"] | None
    R2: Float[Array, "b n n"] | None
    O3: Float[Array, "b n d"]
    O4: Float[Array, "b n c"]
    labels: Int[Array, "b n"]
    E0: Float[Array, "b n e"]
    G2: Float[Array, "b n n p"]
    pair_mask: Bool[Array, "b n n"]


@flax.struct.dataclass
class Prediction:
    """A scored graph of one image or of a batch (leading axes), ranked, padded.

    Attributes:
      labels, label_scores: predicted object class (never background) and its probability.
      pairs, predicates, scores: the best predicate of every ordered pair, best triplet first.
      count: how many of those rows are valid.
      free_pairs, free_predicates, free_scores, free_count: the FREE_PREDICTIONS best
        (pair, predicate) candidates without the graph constraint, best first.
      boxes, box_count: what was detected, in pixels of the network input, the first `box_count`
        of them valid; None where boxes are given.
    """

    labels: Int[Array, "*b n"]
    label_scores: Float[Array, "*b n"]
    pairs: Int[Array, "*b m 2"]
    predicates: Int[Array, "*b m"]
    scores: Float[Array, "*b m"]
    count: Int[Array, "*b"]
    free_pairs: Int[Array, "*b k 2"]
    free_predicates: Int[Array, "*b k"]
    free_scores: Float[Array, "*b k"]
    free_count: Int[Array, "*b"]
    boxes: Float[Array, "*b n 4"] | None = None
    box_count: Int[Array, "*b"] | None = None

    def ranking(
        self, most: int | None = None
    ) -> tuple[Int[np.ndarray, "k 2"], Int[np.ndarray, "k"]]:
        """(pairs, predicates) of one image under the graph constraint, without padding."""
        rows = slice(int(self.count) if most is None else min(int(self.count), most))
        return np.asarray(self.pairs)[rows], np.asarray(self.predicates)[rows]

    def free_ranking(self) -> tuple[Int[np.ndarray, "k 2"], Int[np.ndarray, "k"]]:
        """(pairs, predicates) of one image without it, FREE_PREDICTIONS at most."""
        rows = slice(min(int(self.free_count), FREE_PREDICTIONS))
        return np.asarray(self.free_pairs)[rows], np.asarray(self.free_predicates)[rows]


def image_of(prediction: Prediction, index: int) -> Prediction:
    """The `index`-th image of a batched prediction."""
    return jax.tree.map(lambda x: x[index], prediction)
