"""What stands in for RoI and union features where a model sees no pixels (model.visual=False)."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from linknet_jax.models.layers import Linear, fold, row_dropout
from linknet_jax.ops.pair_geometry import box_geometry, pair_geometry


class BoxFeatures(nn.Module):
    """f_i from where the box lies in its image, in place of RoI features."""

    config: nn.FrozenDict

    @nn.compact
    def __call__(
        self, boxes: Float[Array, "b n 4"], image_sizes: Float[Array, "b 2"]
    ) -> Float[Array, "b n f"]:
        """float32; `image_sizes` are (height, width) of the photographs."""
        sizes = jnp.broadcast_to(image_sizes[:, None], (*boxes.shape[:2], 2))
        return nn.relu(Linear(self.config["embed_dim"], name="fc")(box_geometry(boxes, sizes)))


class PairFeatures(nn.Module):
    """F of both directions of a pair from boxes and classes, in place of union features."""

    config: nn.FrozenDict

    @nn.compact
    def __call__(self, operands: dict, rows: dict) -> Float[Array, "m 2 f"]:
        """float32; `operands` and `rows` as EdgeHead; classes [b, n, e] are rows of K1."""
        config, image, keys = self.config, rows["images"], rows.get("keys")
        a, b = (operands["boxes"][image, rows[name]] for name in ("i", "j"))
        sizes = operands["image_sizes"][image]
        geometry = jnp.stack([pair_geometry(a, b, sizes), pair_geometry(b, a, sizes)], axis=1)
        first, second = (operands["classes"][image, rows[name]] for name in ("i", "j"))
        classes = [jnp.concatenate(pair, axis=-1) for pair in ((first, second), (second, first))]
        x = jnp.concatenate([geometry, jnp.stack(classes, axis=1)], axis=-1)
        x = nn.relu(Linear(config["fc_dim"], name="fc6")(x))
        x = row_dropout(x, fold(keys, 0), config["dropout"])
        return Linear(config["pooling_dim"], name="fc7")(x)
