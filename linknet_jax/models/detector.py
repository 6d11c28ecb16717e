"""Faster R-CNN (Ren et al., NeurIPS 2015) with static shapes; METHOD.md 3.2 and 3.3."""

from __future__ import annotations

import math

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

from linknet_jax.models.backbones import TRUNKS
from linknet_jax.models.layers import fold
from linknet_jax.models.packed_heads import over_boxes
from linknet_jax.models.roi_heads import ObjectHead
from linknet_jax.models.rpn import RegionProposals, anchors_of, proposal_maps, propose
from linknet_jax.ops.anchors import inside
from linknet_jax.ops.assignment import AnchorSample, BoxSample, sample_anchors, sample_boxes
from linknet_jax.ops.detections import detections
from linknet_jax.types import Detections

Maps = tuple[Float[Array, "b y x k"], ...]
LARGEST = math.log(1000 / 16)  # of dw and dh: an untrained head stays finite, as in Detectron


@flax.struct.dataclass
class DetectorOutputs:
    """What the detector says of the anchors and boxes that its losses compare with the truth.

    Attributes:
      anchors, boxes: the samples, per image.
      anchor_logits, anchor_deltas: of the sampled anchors.
      box_logits: of the sampled boxes.
      box_deltas: of the sampled boxes, those of their true class.
    """

    anchors: AnchorSample
    boxes: BoxSample
    anchor_logits: Float[Array, "b k 2"]
    anchor_deltas: Float[Array, "b k 4"]
    box_logits: Float[Array, "b m c"]
    box_deltas: Float[Array, "b m 4"]


class Detector(nn.Module):
    """Works on one device's images; its parameters stand where LinkNet has the same ones.

    Attributes:
      config: the sections `model`, `rpn` and `detector` of the configuration, frozen.
      num_objects: classes, background included.
      limit: detections an image.
    """

    config: nn.FrozenDict
    num_objects: int
    limit: int

    def setup(self):
        model, rpn = self.config["model"], self.config["rpn"]
        trunk, dtype = TRUNKS[model["trunk"]], jnp.dtype(model["dtype"])
        self.strides = trunk.strides
        self.trunk = trunk(dtype=dtype)
        anchors = len(rpn["ratios"]) * len(rpn["scales"])
        self.rpn = RegionProposals(rpn["width"], anchors, dtype)
        outputs = ("classes", "deltas")
        self.object_head = ObjectHead(model, self.num_objects, self.strides, outputs)

    def __call__(
        self,
        images: UInt8[Array, "b h w 3"] | None,
        image_sizes: Float[Array, "b 2"],
        features: Maps | None = None,
    ) -> Detections:
        """Detections of every image; `features` of the trunk replace `images`."""
        features = self.trunk(images) if features is None else features
        boxes, mask = self._propose(*self._anchors(features, image_sizes), image_sizes, "")
        logits, deltas = self._classify(features, boxes, mask, None)
        options = self.config["detector"]
        detect = jax.vmap(
            lambda *x: detections(
                *x, score=options["score"], threshold=options["nms"],
                per_class=options["per_class"], limit=self.limit, largest=LARGEST,
            )
        )  # fmt: skip
        return detect(boxes, mask, logits, deltas, image_sizes)

    def features(self, images: UInt8[Array, "b h w 3"]) -> Maps:
        """The trunk's maps."""
        return self.trunk(images)

    def sampled(
        self,
        images: UInt8[Array, "b h w 3"],
        image_sizes: Float[Array, "b 2"],
        boxes: Float[Array, "b n 4"],
        box_mask: Bool[Array, "b n"],
        labels: Int[Array, "b n"],
        keys: Key[Array, "b"],
        features: Maps | None = None,
    ) -> DetectorOutputs:
        """The outputs that training compares with the annotated boxes; keys, one an image.

        `features` of the trunk replace `images`.
        """
        features = self.trunk(images) if features is None else features
        found = self._anchors(features, image_sizes)
        anchors = self._sample_anchors(found[2], image_sizes, boxes, box_mask, fold(keys, 0))
        proposals, mask = self._propose(*found, image_sizes, "train_")
        drawn = self._sample_boxes(proposals, mask, boxes, labels, box_mask, fold(keys, 1))
        logits, deltas = self._classify(features, drawn.boxes, drawn.mask, fold(keys, 2))
        own = jnp.take_along_axis(deltas, drawn.labels[..., None, None], axis=2)[:, :, 0]
        rows = anchors.index[..., None]
        return DetectorOutputs(
            anchors=anchors,
            boxes=drawn,
            anchor_logits=jnp.take_along_axis(found[0], rows, axis=1),
            anchor_deltas=jnp.take_along_axis(found[1], rows, axis=1),
            box_logits=logits,
            box_deltas=own,
        )

    def _anchors(self, features, image_sizes):
        """Logits and deltas of every anchor, the anchors [a, 4], which are usable [b, a]."""
        maps, strides = proposal_maps(features, self.strides)
        shapes, options = [x.shape[1:3] for x in maps], self.config["rpn"]
        kinds = (tuple(options["ratios"]), tuple(options["scales"]))
        make = jax.vmap(lambda size: anchors_of(shapes, strides, *kinds, size), out_axes=(None, 0))
        return *self.rpn(maps), *make(image_sizes)

    def _propose(self, logits, deltas, anchors, usable, image_sizes, phase):
        options = self.config["rpn"]
        limits = {"before": options[f"{phase}before"], "limit": options[f"{phase}proposals"]}
        one = jax.vmap(
            lambda logits, deltas, usable, size: propose(
                logits, deltas, anchors, usable, size, threshold=options["nms"],
                min_size=options["min_size"], largest=LARGEST, **limits,
            )
        )  # fmt: skip
        return one(logits, deltas, usable, image_sizes)

    def _sample_anchors(self, anchors, image_sizes, boxes, mask, keys):
        options = self.config["rpn"]
        names = ("positive", "negative")
        limits = {"limit": options["sampled"], "positive_limit": options["sampled_positive"]}
        limits |= {name: options[name] for name in names}
        draw = jax.vmap(
            lambda size, boxes, mask, key: sample_anchors(
                anchors, inside(anchors, size), boxes, mask, key, **limits
            )
        )
        return draw(image_sizes, boxes, mask, keys)

    def _sample_boxes(self, proposals, mask, boxes, labels, box_mask, keys):
        options = self.config["detector"]
        limits = {"limit": options["sampled"], "foreground_limit": options["sampled_foreground"]}
        limits |= {"foreground": options["foreground"], "background": options["background"]}
        draw = jax.vmap(lambda *operands: sample_boxes(*operands, **limits))
        return draw(proposals, mask, boxes, labels, box_mask, keys)

    def _classify(self, features, boxes, mask, keys):
        """Class logits [b, n, c] and deltas [b, n, c, 4] of boxes."""
        chunk = self.config["model"]["roi_chunk"]
        both = over_boxes(self.object_head, features, boxes, mask, keys, chunk)
        logits, deltas = both[..., : self.num_objects], both[..., self.num_objects :]
        return logits, deltas.reshape(*deltas.shape[:-1], self.num_objects, 4)
