"""Object detection: neither boxes nor classes are given."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
from ml_collections import ConfigDict

from linknet_jax import losses
from linknet_jax.models.detector import Detector, DetectorOutputs
from linknet_jax.ops.ranking import no_triplets
from linknet_jax.tasks.example import example_image
from linknet_jax.types import Batch, Detections, Prediction

ANCHOR_BOXES, BOX_DELTAS = 4.0, 8.0  # weights of the smooth L1 terms (METHOD.md 3.2, 3.3)


@dataclasses.dataclass(frozen=True)
class Detection:
    """The detector that SGDet stands on, trained alone."""

    config: ConfigDict
    num_objects: int
    num_predicates: int
    name = "detector"

    @property
    def model(self) -> Detector:
        """The network this task runs."""
        sections = {name: self.config[name].to_dict() for name in ("model", "rpn", "detector")}
        limit = self.config.data.max_detections
        return Detector(nn.FrozenDict(sections), self.num_objects, limit)

    def init(self, key: Key[Array, ""]) -> dict:
        """Fresh variables."""
        return self.model.init(key, *example_image(self.config))

    def weights(self) -> dict[str, float]:
        """The terms of the loss, with their weights."""
        return {"anchor_class": 1.0, "anchor_box": ANCHOR_BOXES, "box_class": 1.0,
                "box_delta": BOX_DELTAS}  # fmt: skip

    def prepare(
        self, variables: dict, batch: Batch, keys: Key[Array, "b"]
    ) -> tuple[Batch, Key[Array, "b"]]:
        """What the losses of a batch are computed from."""
        del variables
        return batch, keys

    def counts(self, batch: Batch, *_) -> dict[str, Float[Array, ""]]:
        """What each loss is divided by: samples as they are drawn where an image has that many."""
        images = batch.example_mask.sum().astype(jnp.float32)
        anchors, boxes = (images * self.config[x].sampled for x in ("rpn", "detector"))
        return {
            "anchor_class": anchors, "anchor_box": anchors, "box_class": boxes, "box_delta": boxes,
        }  # fmt: skip

    def losses(
        self, variables: dict, batch: Batch, keys: Key[Array, "b"]
    ) -> tuple[dict[str, Float[Array, ""]], dict]:
        """Sums of the losses; no running statistics."""
        found = self.model.apply(
            variables, batch.images, batch.image_sizes, batch.boxes, batch.box_mask,
            jnp.where(batch.box_mask, batch.labels, 0), keys, batch.features, method="sampled",
        )  # fmt: skip
        return detector_losses(found, batch.example_mask), {}

    def detect(self, variables: dict, batch: Batch) -> Detections:
        """Detections of every image."""
        return self.model.apply(variables, batch.images, batch.image_sizes, batch.features)

    def predict(self, variables: dict, batch: Batch) -> Prediction:
        """Detections as a prediction without relations."""
        found = self.detect(variables, batch)
        boxes = boxes_of_labels(found, found.labels)
        return jax.vmap(no_triplets)(found.labels, found.scores, boxes, found.mask)


def detector_losses(
    found: DetectorOutputs, example_mask: Bool[Array, "b"]
) -> dict[str, Float[Array, ""]]:
    """Sums over the drawn anchors and boxes of real images; box terms over objects alone."""
    anchors, boxes, real = found.anchors, found.boxes, example_mask[:, None]
    true_anchors = real & anchors.mask & (anchors.labels > 0)
    true_boxes = real & boxes.mask & (boxes.labels > 0)
    return {
        "anchor_class": losses.cross_entropy(
            found.anchor_logits, anchors.labels, real & anchors.mask
        ),
        "anchor_box": losses.smooth_l1(found.anchor_deltas, anchors.deltas, true_anchors),
        "box_class": losses.cross_entropy(found.box_logits, boxes.labels, real & boxes.mask),
        "box_delta": losses.smooth_l1(found.box_deltas, boxes.deltas, true_boxes),
    }


def boxes_of_labels(found: Detections, labels: Int[Array, "b d"]) -> Float[Array, "b d 4"]:
    """Every detection where the class of that label puts it."""
    if found.class_boxes is None:
        return found.boxes
    return jnp.take_along_axis(found.class_boxes, labels[..., None, None], axis=2)[:, :, 0]
