"""Scene graph detection: neither boxes nor classes are given (METHOD.md 1.1, 1.5, 3.5)."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Bool, Float, Int, Key

from linknet_jax.models.layers import fold
from linknet_jax.models.linknet import LinkNet
from linknet_jax.ops.boxes import overlaps
from linknet_jax.ops.pairs import all_pairs
from linknet_jax.ops.proposal_pairs import relate
from linknet_jax.tasks.classification import SceneGraphClassification, without_labels
from linknet_jax.tasks.detection import Detection, boxes_of_labels
from linknet_jax.types import Batch, LinkNetOutput, Prediction

FOUND = 0.5  # IoU from which a box has found a true one (METHOD.md 1.1)


class SceneGraphDetection(SceneGraphClassification):
    """SGDet: a detector finds boxes; LinkNet classifies them and their relations.

    Both networks read one tree of variables, in which trunk and box head stand once.
    """

    name = "sgdet"

    @property
    def detection(self) -> Detection:
        """The detector's own task."""
        return Detection(self.config, self.num_objects, self.num_predicates)

    @property
    def model(self) -> LinkNet:
        """LinkNet; end to end, the trunk learns from the relations too."""
        model = super().model
        if not self.config.train.end_to_end:
            return model
        return model.clone(config=model.config.copy({"freeze_trunk": False}))

    def init(self, key: Key[Array, ""]) -> dict:
        """Fresh variables of the detector and of LinkNet."""
        trees = [flatten_dict(dict(x)) for x in (self.detection.init(key), super().init(key))]
        return unflatten_dict(trees[0] | trees[1])

    def weights(self) -> dict[str, float]:
        """The box head learns from the detector's own losses, end to end, or not at all."""
        weights = super().weights()
        weights.pop("box_head", None)
        return weights | (self.detection.weights() if self.config.train.end_to_end else {})

    def find(self, variables: dict, batch: Batch) -> Batch:
        """The batch with the detector's boxes in place of the annotated ones.

        No gradient passes. The trunk's maps stay in it, unless they are to be trained.
        """
        features, detection = batch.features, self.detection
        if features is None:
            features = detection.model.apply(variables, batch.images, method="features")
        found = detection.detect(variables, batch.replace(features=features))
        found, features = jax.lax.stop_gradient((found, features))
        if self.config.train.end_to_end:
            features = None
        return batch.replace(
            boxes=found.boxes, box_mask=found.mask, detections=found, features=features
        )

    def prepare(
        self, variables: dict, batch: Batch, keys: Key[Array, "b"]
    ) -> tuple[Batch, Bool[Array, "b d d"], Key[Array, "b"], Batch]:
        """The boxes that were found, with the classes and relations of the true ones they fit."""
        limits, found = self.config.sampling, self.find(variables, batch)
        draw = functools.partial(
            relate, foreground=FOUND, limit=limits.pairs, related_limit=limits.related,
            touching=limits.touching,
        )  # fmt: skip
        labels, predicates, pair_mask = jax.vmap(draw)(
            found.boxes, found.box_mask, batch.boxes, batch.labels, batch.box_mask,
            batch.predicates, fold(keys, 3),
        )  # fmt: skip
        return found.replace(labels=labels, predicates=predicates), pair_mask, keys, batch

    def counts(
        self, batch: Batch, pair_mask: Bool[Array, "b d d"], keys: Key[Array, "b"], truth: Batch
    ) -> dict[str, Float[Array, ""]]:
        """What each loss is divided by."""
        counts = super().counts(batch, pair_mask, keys)
        return counts | (self.detection.counts(truth) if "anchor_box" in self.weights() else {})

    def losses(
        self,
        variables: dict,
        batch: Batch,
        pair_mask: Bool[Array, "b d d"],
        keys: Key[Array, "b"],
        truth: Batch,
    ) -> tuple[dict[str, Float[Array, ""]], dict]:
        """Sums of the losses, and the updated running statistics."""
        sums, updates = super().losses(variables, batch, pair_mask, keys, truth)
        if "anchor_box" in self.weights():
            sums |= self.detection.losses(variables, truth, keys)[0]
        return sums, updates

    def inputs(self, batch: Batch, train: bool) -> dict:
        """Training: the classes of true boxes; else classes are decoded together (1.5)."""
        if not train:
            return {"class_boxes": batch.detections.class_boxes}
        return super().inputs(batch, train)

    def predict(self, variables: dict, batch: Batch) -> Prediction:
        """Ranked triplets and their boxes; only pairs of boxes that overlap, if `touching`."""
        batch = self.find(variables, batch)
        masks = jax.vmap(all_pairs)(batch.box_mask)
        if self.config.sampling.touching:
            boxes = jnp.where(batch.box_mask[..., None], batch.boxes, 0)
            masks &= jax.vmap(overlaps)(boxes)
        prediction = self.rank(variables, batch, masks)
        return prediction.replace(
            boxes=boxes_of_labels(batch.detections, prediction.labels),
            box_count=batch.box_mask.sum(axis=-1),
        )


class GivenDetections(SceneGraphDetection):
    """SGDet on the boxes, classes and scores of a file (`data.detections`).

    As in PredCls the classes are not predicted again; pixels give the features.
    """

    def init(self, key: Key[Array, ""]) -> dict:
        """Fresh variables of LinkNet alone."""
        return SceneGraphClassification.init(self, key)

    def weights(self) -> dict[str, float]:
        """As PredCls."""
        return without_labels(SceneGraphClassification.weights(self), self.config)

    def find(self, variables: dict, batch: Batch) -> Batch:
        """The batch with the file's boxes in place of the annotated ones."""
        del variables
        return batch.replace(boxes=batch.detections.boxes, box_mask=batch.detections.mask)

    def inputs(self, batch: Batch, train: bool) -> dict:
        """The file's classes feed the edges; in training, those of the true boxes that they fit."""
        given = batch.detections
        inputs = {"labels": given.labels}
        if train and self.config.model.e0_label_train == "ground_truth":
            inputs["labels"] = jnp.where(batch.labels > 0, batch.labels, given.labels)
        if self.config.model.predcls_l == "gt":
            one = jax.nn.one_hot(given.labels, self.num_objects) * given.scores[..., None]
            inputs["label_distribution"] = one.at[..., 0].set(1 - given.scores)
        return inputs

    def objects(
        self, graph: LinkNetOutput, batch: Batch
    ) -> tuple[Int[Array, "b n"], Float[Array, "b n"]]:
        """The file's."""
        return batch.detections.labels, batch.detections.scores
