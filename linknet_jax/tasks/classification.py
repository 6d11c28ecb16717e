"""SGCls and PredCls: boxes are given. Tasks alone know which ground truth a network sees."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
from ml_collections import ConfigDict

from linknet_jax import losses
from linknet_jax.models.linknet import LinkNet
from linknet_jax.ops.pairs import all_pairs, sample_pairs
from linknet_jax.ops.ranking import rank_triplets
from linknet_jax.tasks.example import BOXES, example_boxes, example_image
from linknet_jax.types import Batch, LinkNetOutput, Prediction


@dataclasses.dataclass(frozen=True)
class SceneGraphClassification:
    """SGCls: boxes are given; object classes and predicates are predicted."""

    config: ConfigDict
    num_objects: int
    num_predicates: int
    name = "sgcls"

    @property
    def model(self) -> LinkNet:
        """The network this task runs."""
        config = nn.FrozenDict(self.config.model.to_dict())
        return LinkNet(config, self.num_objects, self.num_predicates)

    def init(self, key: Key[Array, ""]) -> dict:
        """Fresh variables."""
        inputs = {}
        if not self.config.model.visual:
            shape = (1, BOXES, self.num_objects)
            inputs["label_distribution"] = jnp.full(shape, 1 / self.num_objects)
        operands = (*example_image(self.config), *example_boxes(self.config))
        return dict(self.model.init(key, *operands, **inputs))

    def inputs(self, batch: Batch, train: bool) -> dict:
        """The ground truth that enters the forward pass, beside the boxes."""
        teacher = train and self.config.model.e0_label_train == "ground_truth"
        return {"labels": batch.labels if teacher else None}

    def forward(
        self,
        variables: dict,
        batch: Batch,
        pair_mask: Bool[Array, "b n n"],
        keys: Key[Array, "b"] | None = None,
        train: bool = False,
    ) -> tuple[LinkNetOutput, dict]:
        """The network's output and the updated running statistics, if it has any."""
        return self.model.apply(
            variables, batch.images, batch.image_sizes, batch.boxes, batch.box_mask, pair_mask,
            keys=keys, train=train, features=batch.features,
            mutable=["batch_stats"] if train else [],
            **self.inputs(batch, train),
        )  # fmt: skip

    def weights(self) -> dict[str, float]:
        """The terms of the loss that this task trains, with their weights (eq. 18)."""
        config = self.config
        weights = {"object": config.loss.object, "relation": config.loss.relation}
        if config.model.use_gcem and config.model.visual:
            weights["context"] = config.loss.context
        if not config.model.freeze_box_head:
            weights["box_head"] = config.loss.box_head
        return weights

    def prepare(
        self, variables: dict, batch: Batch, keys: Key[Array, "b"]
    ) -> tuple[Batch, Bool[Array, "b n n"], Key[Array, "b"]]:
        """What the losses of a batch are computed from: arguments of `counts` and `losses`."""
        del variables
        return batch, self.sample(batch, keys), keys

    def sample(self, batch: Batch, keys: Key[Array, "b"]) -> Bool[Array, "b n n"]:
        """The ordered pairs to train on (A27)."""
        limits = self.config.sampling
        masks = jax.vmap(all_pairs)(batch.box_mask)
        draw = jax.vmap(sample_pairs, (0, 0, 0, None, None))
        return draw(batch.predicates, masks, keys, limits.pairs, limits.related)

    def counts(
        self, batch: Batch, pair_mask: Bool[Array, "b n n"], keys: Key[Array, "b"] | None = None
    ) -> dict[str, Float[Array, ""]]:
        """What each loss is divided by, known before the forward pass."""
        del keys
        summed = self.config.loss.context_reduction == "sum"
        objects, images = batch.box_mask.sum(), batch.example_mask.sum()
        counts = {
            "object": objects,
            "box_head": objects,
            "relation": pair_mask.sum(),
            "context": images * (1 if summed else self.num_objects - 1),
        }
        return {name: counts[name].astype(jnp.float32) for name in counts if name in self.weights()}

    def losses(
        self,
        variables: dict,
        batch: Batch,
        pair_mask: Bool[Array, "b n n"],
        keys: Key[Array, "b"],
        truth: Batch | None = None,
    ) -> tuple[dict[str, Float[Array, ""]], dict]:
        """Sums of the losses, and the updated running statistics.

        `truth` has the annotated objects, where `batch` holds others.
        """
        truth = batch if truth is None else truth
        graph, updates = self.forward(variables, batch, pair_mask, keys, train=True)
        terms = {
            "object": lambda: losses.cross_entropy(graph.O4, batch.labels, batch.box_mask),
            "relation": lambda: losses.cross_entropy(graph.G2, batch.predicates, pair_mask),
            "context": lambda: losses.multi_label(
                graph.context_logits,
                losses.present_classes(truth.labels, truth.box_mask, self.num_objects),
                batch.example_mask,
            ),
            "box_head": lambda: losses.cross_entropy(
                graph.box_logits, batch.labels, batch.box_mask
            ),
        }
        return {name: terms[name]() for name in terms if name in self.weights()}, updates

    def objects(
        self, graph: LinkNetOutput, batch: Batch
    ) -> tuple[Int[Array, "b n"], Float[Array, "b n"]]:
        """Label of every box and its score: softmax over all classes, background never chosen."""
        probabilities = jax.nn.softmax(graph.O4)
        scores = jnp.take_along_axis(probabilities, graph.labels[..., None], -1)[..., 0]
        return graph.labels, scores

    def predict(self, variables: dict, batch: Batch) -> Prediction:
        """Ranked triplets of every image."""
        return self.rank(variables, batch, jax.vmap(all_pairs)(batch.box_mask))

    def rank(self, variables: dict, batch: Batch, pair_mask: Bool[Array, "b n n"]) -> Prediction:
        """Ranked triplets of these pairs."""
        graph, _ = self.forward(variables, batch, pair_mask)
        labels, scores = self.objects(graph, batch)
        return jax.vmap(rank_triplets)(labels, scores, graph.G2, pair_mask)


class PredicateClassification(SceneGraphClassification):
    """PredCls: boxes and object classes are given; predicates are predicted."""

    name = "predcls"

    def inputs(self, batch: Batch, train: bool) -> dict:
        """True labels feed the edges; l_i is the detector's or one-hot (A2)."""
        inputs = {"labels": batch.labels}
        if self.config.model.predcls_l == "gt":
            inputs["label_distribution"] = jax.nn.one_hot(batch.labels, self.num_objects)
        return inputs

    def weights(self) -> dict[str, float]:
        """No loss on labels that are given; the box head trains where l_i needs it."""
        return without_labels(super().weights(), self.config)

    def objects(
        self, graph: LinkNetOutput, batch: Batch
    ) -> tuple[Int[Array, "b n"], Float[Array, "b n"]]:
        """The given labels, score 1."""
        return batch.labels, jnp.ones(batch.labels.shape)


def without_labels(weights: dict[str, float], config: ConfigDict) -> dict[str, float]:
    """The terms of a loss that remain where object classes are given."""
    dropped = {"object"} | ({"box_head"} if config.model.predcls_l == "gt" else set())
    return {name: w for name, w in weights.items() if name not in dropped}
