"""Small layers shared by the modules: torch's default initialisation, dropout per row."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Linear(nn.Module):
    """x W + b with U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for both, torch's default (METHOD 1.8)."""

    features: int
    kernel_init: nn.initializers.Initializer = torch_uniform
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b f"]:
        inputs = x.shape[-1]
        kernel = self.param("kernel", self.kernel_init, (inputs, self.features))
        bias = self.param("bias", _uniform_bias, (self.features,), inputs)
        return x.astype(self.dtype) @ kernel.astype(self.dtype) + bias.astype(self.dtype)


def _uniform_bias(key: Key[Array, ""], shape: tuple[int, ...], inputs: int) -> Float[Array, "f"]:
    return jax.random.uniform(key, shape, minval=-(inputs**-0.5), maxval=inputs**-0.5)


def row_dropout(
    x: Float[Array, "m *d"], keys: Key[Array, "m"] | None, rate: float
) -> Float[Array, "m *d"]:
    """Dropout whose mask depends on each row's own key, not on where the row is packed."""
    if keys is None or rate == 0:
        return x
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)


def fold(keys: Key[Array, "m"] | None, number: int) -> Key[Array, "m"] | None:
    """Independent keys for another use; None (no randomness) stays None."""
    if keys is None:
        return None
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)
