"""Small layers shared by the modules: torch's default initialisation, dropout per row."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

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


class MaskedBatchNorm(nn.Module):
    """Batch normalisation with the statistics of the valid entries (METHOD 2.4).

    Where there are none the running statistics serve and stay as they are: a device whose images
    hold no pair must not spread NaN.
    """

    train: bool
    momentum: float

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"], mask: Bool[Array, "*m 1"]) -> Float[Array, "*b d"]:
        """`mask` broadcasts against x, its last axis 1."""
        d = x.shape[-1]
        mean = self.variable("batch_stats", "mean", jnp.zeros, d)
        var = self.variable("batch_stats", "var", jnp.ones, d)
        scale = self.param("scale", nn.initializers.ones, (d,))
        bias = self.param("bias", nn.initializers.zeros, (d,))
        center, spread = mean.value, var.value
        if self.train:
            center, spread = _moments(x, mask, center, spread)
            kept = self.momentum
            mean.value = kept * mean.value + (1 - kept) * jax.lax.stop_gradient(center)
            var.value = kept * var.value + (1 - kept) * jax.lax.stop_gradient(spread)
        return (x - center) * jax.lax.rsqrt(spread + 1e-5) * scale + bias


def _moments(
    x: Float[Array, "*b d"],
    mask: Bool[Array, "*m 1"],
    mean: Float[Array, "d"],
    var: Float[Array, "d"],
) -> tuple[Float[Array, "d"], Float[Array, "d"]]:
    """Mean and variance over the valid entries, or those given where there are none."""
    valid, axes = jnp.broadcast_to(mask, (*x.shape[:-1], 1)), tuple(range(x.ndim - 1))
    count = valid.sum()

    def average(values):
        return jnp.where(valid, values, 0).sum(axes) / jnp.maximum(count, 1)

    center = jnp.where(count > 0, average(x), mean)
    return center, jnp.where(count > 0, average((x - center) ** 2), var)
