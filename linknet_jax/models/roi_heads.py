"""fc6 and fc7 on pooled regions, and what hangs on them: one call handles one packed chunk."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from linknet_jax.models.box_heads import PairFeatures
from linknet_jax.models.layers import Linear, MaskedBatchNorm, fold, row_dropout, torch_uniform
from linknet_jax.ops import boxes as box_ops
from linknet_jax.ops.pyramid import pyramid_align
from linknet_jax.ops.spatial_mask import draw_pair

LAYOUT_DROPOUT = 0.1  # A11


class FullyConnected(nn.Module):
    """fc6, ReLU, dropout, fc7; with `final_relu` also ReLU and dropout behind fc7 (A1)."""

    hidden: int
    features: int
    dropout: float
    final_relu: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, pooled: Float[Array, "m p p c"], keys: Key[Array, "m"] | None
    ) -> Float[Array, "m f"]:
        """Keys give each row its own dropout; None turns dropout off."""
        x = pooled.reshape(pooled.shape[0], -1)
        x = nn.relu(Linear(self.hidden, dtype=self.dtype, name="fc6")(x))
        x = Linear(self.features, dtype=self.dtype, name="fc7")(
            row_dropout(x, fold(keys, 0), self.dropout)
        )
        return row_dropout(nn.relu(x), fold(keys, 1), self.dropout) if self.final_relu else x


class ObjectHead(nn.Module):
    """What is read off a box's region: RoI features f_i, and the detector's own head.

    Attributes:
      outputs: which of features (f_i), classes (the source of l_i, A3) and deltas (how each class
        would move the box) are computed, one after the other in the last axis.
    """

    config: nn.FrozenDict
    num_objects: int
    strides: tuple[int, ...]
    outputs: tuple[str, ...]

    @nn.compact
    def __call__(self, operands: dict, rows: dict) -> Float[Array, "m f"]:
        """float32; `rows`: boxes [m, 4], images [m], keys [m] or None."""
        config, keys = self.config, rows.get("keys")
        pooled = pool(operands["features"], rows["boxes"], rows["images"], self.strides, config)
        sizes = {"hidden": config["fc_dim"], "features": config["fc_dim"], "final_relu": True}
        sizes |= {"dropout": config["dropout"], "dtype": jnp.dtype(config["dtype"])}
        detector_keys = fold(keys, 0) if config["detector_dropout"] else None
        detected = FullyConnected(**sizes, name="box_features")(pooled, detector_keys)
        detected, found = detected.astype(jnp.float32), []
        if "features" in self.outputs:
            f = FullyConnected(**sizes, name="object_features")(pooled, fold(keys, 1))
            found.append(f.astype(jnp.float32))
        found.append(Linear(self.num_objects, name="box_head")(detected))
        if "deltas" in self.outputs:
            small = nn.initializers.normal(0.001)  # an untrained head leaves boxes where they are
            deltas = Linear(4 * self.num_objects, kernel_init=small, name="box_deltas")
            found.append(deltas(detected))
        return jnp.concatenate(found, axis=-1)


class EdgeHead(nn.Module):
    """Predicate logits of both directions of an unordered pair (eqs. 12-14)."""

    config: nn.FrozenDict
    num_objects: int
    num_predicates: int
    strides: tuple[int, ...]
    train: bool

    @nn.compact
    def __call__(self, operands: dict, rows: dict) -> Float[Array, "m 2 p"]:
        """Logits of (i, j) and (j, i), float32.

        `operands`: features, E1 [b, n, 2, d], layout [b, n, n, 4], boxes [b, n, 4], labels [b, n],
        image_sizes [b, 2]; without `visual` no features.
        `rows`: images, i, j, valid [m], keys [m] or None.
        """
        config = self.config
        image, keys = rows["images"][:, None], rows.get("keys")
        subject = jnp.stack([rows["i"], rows["j"]], axis=1)
        object_ = subject[:, ::-1]
        union = self._union_features(operands, rows)
        e1 = operands["E1"]
        g0 = e1[image, subject, 0] * e1[image, object_, 1] * union
        g1 = [g0]
        if config["use_glem"]:
            layout = operands["layout"][image, subject, object_]
            g1.append(LayoutEncoding(config, name="layout")(layout, fold(keys, 1)))
        xavier = nn.initializers.xavier_normal()
        fc4 = Linear(self.num_predicates, kernel_init=xavier, name="fc4")
        g2 = fc4(jnp.concatenate(g1, axis=-1))  # float32: bfloat16 logits would tie
        if config["frequency_bias"]:
            shape = (self.num_objects, self.num_objects, self.num_predicates)
            table = self.param("frequency_bias", nn.initializers.zeros, shape)
            labels = operands["labels"]
            g2 = g2 + table[labels[image, subject], labels[image, object_]]
        return g2

    def _union_features(self, operands: dict, rows: dict) -> Float[Array, "m d f"]:
        """F, once for both directions; d = 2 where the spatial mask tells them apart."""
        config, keys = self.config, rows.get("keys")
        if not config["visual"]:
            return PairFeatures(config, name="pair_features")(operands, rows)
        a, b = (operands["boxes"][rows["images"], rows[name]] for name in ("i", "j"))
        pooled = pool(
            operands["features"], box_ops.union(a, b), rows["images"], self.strides, config
        )
        head = FullyConnected(
            config["fc_dim"], config["pooling_dim"], config["dropout"], False,
            jnp.dtype(config["dtype"]), name="union_features",
        )  # fmt: skip
        if not config["union_mask"]:
            return head(pooled, fold(keys, 0))[:, None]
        mask = UnionMask(pooled.shape[-1], self.train, name="union_mask")
        both = [mask(draw_pair(s, o), rows["valid"]) for s, o in ((a, b), (b, a))]
        both = [
            head(pooled + extra.astype(pooled.dtype), fold(keys, 2 + direction))
            for direction, extra in enumerate(both)
        ]
        return jnp.stack(both, axis=1)


class LayoutEncoding(nn.Module):
    """K2 of eq. 13 on the standardised layout b_{o|s} (A11)."""

    config: nn.FrozenDict

    @nn.compact
    def __call__(
        self, layout: Float[Array, "m 2 4"], keys: Key[Array, "m"] | None
    ) -> Float[Array, "m 2 g"]:
        """Linear for `linear`, else Linear, ReLU, dropout."""
        g = Linear(self.config["layout_dim"], name="K2")(layout)
        if self.config["layout_head"] == "linear":
            return g
        return row_dropout(nn.relu(g), keys, LAYOUT_DROPOUT)


class UnionMask(nn.Module):
    """The two drawn rectangles, convolved to the shape of a pooled region (A18)."""

    features: int
    train: bool

    @nn.compact
    def __call__(
        self, rectangles: Float[Array, "m 27 27 2"], valid: Bool[Array, "m"]
    ) -> Float[Array, "m 7 7 c"]:
        """Batch statistics are those of the chunk's valid rows while training."""
        keep = valid[:, None, None, None]

        def norm(x, name):
            return MaskedBatchNorm(self.train, momentum=0.99, name=name)(x, keep)

        init = {"kernel_init": torch_uniform}
        x = nn.Conv(self.features // 2, (7, 7), 2, padding=3, name="conv1", **init)(rectangles)
        x = nn.max_pool(norm(nn.relu(x), "norm1"), (3, 3), (2, 2), ((1, 1), (1, 1)))
        x = nn.Conv(self.features, (3, 3), padding=1, name="conv2", **init)(x)
        return norm(nn.relu(x), "norm2")


def pool(
    features: tuple[Float[Array, "b h w c"], ...],
    boxes: Float[Array, "m 4"],
    images: Int[Array, "m"],
    strides: tuple[int, ...],
    config: nn.FrozenDict,
) -> Float[Array, "m p p c"]:
    """RoIAlign with the sampling that the configuration names (A1)."""
    return pyramid_align(
        features, boxes, images, strides=strides, size=config["roi_size"],
        method=config["roi_align"],
    )  # fmt: skip
