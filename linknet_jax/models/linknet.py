"""LinkNet (paper figure 1): objects and their relations from an image and its boxes."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

from linknet_jax.models.backbones import TRUNKS
from linknet_jax.models.box_heads import BoxFeatures
from linknet_jax.models.global_context import GlobalContext
from linknet_jax.models.layers import Linear, MaskedBatchNorm, UnitVarianceLinear, fold
from linknet_jax.models.packed_heads import over_boxes, over_rows
from linknet_jax.models.relational_embedding import RelationalStack
from linknet_jax.models.roi_heads import EdgeHead, ObjectHead
from linknet_jax.ops import boxes as box_ops
from linknet_jax.ops.decoding import decode_labels
from linknet_jax.ops.packing import pack
from linknet_jax.ops.pairs import unordered, upper_triangle
from linknet_jax.types import LinkNetOutput


class LinkNet(nn.Module):
    """Works on one device's images; attention never leaves an image.

    Attributes:
      config: the `model` section of the configuration, frozen.
      num_objects: C_obj, background included.
      num_predicates: C_rel, background included.
    """

    config: nn.FrozenDict
    num_objects: int
    num_predicates: int

    @nn.compact
    def __call__(
        self,
        images: UInt8[Array, "b h w 3"] | None,
        image_sizes: Float[Array, "b 2"],
        boxes: Float[Array, "b n 4"],
        box_mask: Bool[Array, "b n"],
        pair_mask: Bool[Array, "b n n"],
        labels: Int[Array, "b n"] | None = None,
        label_distribution: Float[Array, "b n c"] | None = None,
        keys: Key[Array, "b"] | None = None,
        train: bool = False,
        features: tuple[Float[Array, "b y x k"], ...] | None = None,
        class_boxes: Float[Array, "b n c 4"] | None = None,
    ) -> LinkNetOutput:
        """Object and predicate logits with the paper's intermediates.

        `labels` feed the edges where given and not 0 (PredCls, teacher forcing), else the model's
        own: the argmax over the foreground, or, with `class_boxes` (SGDet), `decode_labels`.
        `label_distribution` replaces l_i. `keys`, one an image, turn dropout on. `features` of the
        trunk replace `images`. Without `visual`, both are ignored and `label_distribution` must be
        given.
        """
        config = self.config
        boxes = jnp.where(box_mask[..., None], boxes, jnp.asarray(box_ops.BENIGN_BOX))
        trunk = TRUNKS[config["trunk"]]
        operands = {"boxes": boxes, "image_sizes": image_sizes}
        context = context_logits = box_logits = None
        if config["visual"]:
            if features is None:
                features = trunk(dtype=jnp.dtype(config["dtype"]), name="trunk")(images)
            if config["freeze_trunk"]:
                features = jax.lax.stop_gradient(features)
            operands["features"] = features
            sizes = image_sizes / trunk.strides[-1]
            context, context_logits = self._context(features[-1], sizes)
            f, box_logits = self._regions(features, boxes, box_mask, keys, trunk.strides)
        else:
            f = BoxFeatures(config, name="box_features")(boxes, image_sizes)
        if label_distribution is None:
            label_distribution = jax.nn.softmax(jax.lax.stop_gradient(box_logits))
        o3, o4, matrices = self._objects(f, label_distribution, context, box_mask)
        own = 1 + jnp.argmax(o4[..., 1:], axis=-1)
        if class_boxes is not None:
            own = jax.vmap(decode_labels)(o4, class_boxes, box_mask)
        labels = own if labels is None else jnp.where(labels == 0, own, labels)
        labels = jnp.where(box_mask, labels, 0)
        k1 = self._label_matrix("K1")
        e0, e1 = self._edges(k1, labels, o3, o4, box_mask)
        operands |= {"E1": e1, "labels": labels}
        if not config["visual"]:
            operands["classes"] = k1[labels]
        operands["layout"] = self._layout(boxes, pair_mask, train)
        g2 = self._predicates(operands, pair_mask, keys, trunk.strides, train)
        r1, r2 = [*matrices, None, None][:2]
        return LinkNetOutput(
            box_logits, context, context_logits, r1, r2, o3, o4, labels, e0, g2, pair_mask
        )

    def _context(self, features, sizes):
        """c and the logits of M-hat (eq. 9); background is no class there (A6)."""
        config = self.config
        if not config["use_gcem"]:
            return None, None
        module = GlobalContext(
            self.num_objects - 1, config["context_trunk"], jnp.dtype(config["dtype"]),
            name="context",
        )  # fmt: skip
        return module(features, sizes if config["context_pool"] == "valid" else None)

    def _regions(self, features, boxes, box_mask, keys, strides):
        """f_i and the detector's class logits of every box."""
        outputs = ("features", "classes")
        head = ObjectHead(self.config, self.num_objects, strides, outputs, name="object_head")
        chunk = self.config["roi_chunk"]
        both = over_boxes(head, features, boxes, box_mask, keys, chunk)
        return both[..., : -self.num_objects], both[..., -self.num_objects :]

    def _objects(self, f, label_distribution, context, box_mask):
        """O3, O4 and the relational embedding matrices (eqs. 1-6)."""
        config = self.config
        k0 = self._label_matrix("K0")
        o0 = [f, jnp.where(box_mask[..., None], label_distribution, 0) @ k0]
        if context is not None:
            wide = (*box_mask.shape, context.shape[-1])
            o0.append(jnp.broadcast_to(context[:, None], wide))
        o0 = jnp.concatenate(o0, axis=-1).astype(config["dtype"])
        o3, matrices = self._stack("object_stack")(o0, box_mask)
        o3 = o3.astype(jnp.float32)
        return o3, Linear(self.num_objects, name="fc3")(o3), matrices

    def _edges(self, k1, labels, o3, o4, box_mask):
        """E0 (eqs. 10, 11, Table 2b) and E1 as [b, n, (subject, object), pooling_dim]."""
        config = self.config
        soft = config["e0_label"] == "softmax"
        e0 = [jax.nn.softmax(o4) @ k1 if soft else k1[labels]]
        if config["e0_context"]:
            e0.append(o3)
        e0 = jnp.where(box_mask[..., None], jnp.concatenate(e0, axis=-1), 0)
        x, _ = self._stack("edge_stack")(e0.astype(config["dtype"]), box_mask)
        e1 = UnitVarianceLinear(2 * config["pooling_dim"], name="projection")(x, box_mask)
        return e0, e1.reshape(*box_mask.shape, 2, -1)

    def _layout(self, boxes, pair_mask, train):
        """Standardised layout of every ordered pair (eq. 17, A10, A11)."""
        config = self.config
        layout = box_ops.relative_layout(
            boxes[:, :, None], boxes[:, None, :], config["layout_box"] == "corner"
        )
        if config["use_glem"] and config["layout_head"] == "batch_norm":
            norm = MaskedBatchNorm(train, momentum=0.999, name="layout_norm")
            return norm(layout, pair_mask[..., None])
        mean = self.variable("constants", "layout_mean", jnp.zeros, 4).value
        std = self.variable("constants", "layout_std", jnp.ones, 4).value
        return (layout - mean) / std

    def _predicates(self, operands, pair_mask, keys, strides, train):
        """G2 for the wanted ordered pairs, zeros elsewhere; the union once for both directions."""
        b, n, _ = pair_mask.shape
        i, j = upper_triangle(n)
        wanted = jax.vmap(unordered)(pair_mask)[:, i, j]
        order, count = pack(wanted.reshape(-1))
        image, pair = order // i.size, order % i.size
        rows = {
            "images": image,
            "i": i[pair],
            "j": j[pair],
            "valid": jnp.arange(order.size) < count,
        }
        if keys is not None:
            pair_keys = jax.vmap(jax.random.fold_in)(fold(keys, 1)[image], i[pair])
            rows["keys"] = jax.vmap(jax.random.fold_in)(pair_keys, j[pair])
        head = EdgeHead(
            self.config, self.num_objects, self.num_predicates, strides, train, name="edge_head"
        )
        packed = over_rows(head, operands, rows, count, self.config["roi_chunk"])
        rank = jnp.maximum(jnp.cumsum(wanted) - 1, 0).reshape(b, -1)
        row = jnp.zeros((b, n, n), int).at[:, i, j].set(rank).at[:, j, i].set(rank)
        backwards = jnp.tri(n, dtype=int)  # (j, i) stands behind (i, j)
        return jnp.where(pair_mask[..., None], packed[row, backwards], 0)

    def _label_matrix(self, name: str) -> Float[Array, "c e"]:
        shape = (self.num_objects, self.config["embed_dim"])
        return self.param(name, nn.initializers.normal(0.4), shape)  # GloVe's spread (A24)

    def _stack(self, name: str) -> RelationalStack:
        config, dtype = self.config, jnp.dtype(self.config["dtype"])
        keys = ("reduction", "row_op", "similarity", "attention_scale")
        embedding = nn.FrozenDict({key: config[key] for key in keys})
        sizes = (config["hidden_dim"], config["num_rem"], config["use_rem"])
        return RelationalStack(*sizes, embedding, dtype, name=name)
