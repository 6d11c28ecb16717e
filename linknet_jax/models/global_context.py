"""Global context encoding (paper section 3.3.2): pooled features that know what is in the image."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from linknet_jax.models.layers import Linear


def average_pool(
    features: Float[Array, "b h w c"], sizes: Float[Array, "b 2"] | None
) -> Float[Array, "b c"]:
    """Mean over the map, or over the cells within `sizes` (height, width) in cells (A4b)."""
    features = features.astype(jnp.float32)
    if sizes is None:
        return features.mean((1, 2))
    rows = jnp.arange(features.shape[1]) < jnp.ceil(sizes[:, :1])
    columns = jnp.arange(features.shape[2]) < jnp.ceil(sizes[:, 1:])
    weights = rows[:, :, None] * columns[:, None, :]
    total = jnp.einsum("bhwc,bhw->bc", features, weights.astype(jnp.float32))
    return total / jnp.maximum(weights.sum((1, 2)), 1)[:, None]


class GlobalContext(nn.Module):
    """c = average of the map; logits of M-hat = W c + b over the foreground classes (eq. 9)."""

    num_classes: int
    own_convolution: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, features: Float[Array, "b h w c"], sizes: Float[Array, "b 2"] | None
    ) -> tuple[Float[Array, "b c"], Float[Array, "b classes"]]:
        """Returns c and the multi-label logits, both float32."""
        if self.own_convolution:
            convolution = nn.Conv(features.shape[-1], (3, 3), dtype=self.dtype, name="convolution")
            features = nn.relu(convolution(features))
        context = average_pool(features, sizes)
        return context, Linear(self.num_classes, name="classifier")(context)
