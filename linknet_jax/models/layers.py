"""Small layers shared by the modules: initialisation, dropout per row, masked normalisation."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from linknet_jax.ops.packing import pack, packed_map, unpack

PACKED_FROM, CHUNK = 2**20, 512  # kernel entries from which packing pays; rows at once
torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Linear(nn.Module):
    """x W + b with U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for both, torch's default."""

    features: int
    kernel_init: nn.initializers.Initializer = torch_uniform
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b d"], mask: Bool[Array, "*b"] | None = None
    ) -> Float[Array, "*b f"]:
        """With a mask, a large layer spends nothing on padded rows and gives zeros there."""
        inputs = x.shape[-1]
        kernel = self.param("kernel", self.kernel_init, (inputs, self.features))
        bias = self.param("bias", _uniform_bias, (self.features,), inputs)
        operands = tuple(jnp.asarray(value, self.dtype) for value in (x, kernel, bias))
        if mask is None or kernel.size < PACKED_FROM:
            return _affine(operands)
        return _packed_affine(operands, mask)


def _affine(operands: tuple, rows: Int[Array, "m"] | slice = slice(None)) -> Float[Array, "m f"]:
    x, kernel, bias = operands
    return x[rows] @ kernel + bias


def _packed_affine(operands: tuple, mask: Bool[Array, "*b"]) -> Float[Array, "*b f"]:
    x, *parameters = operands
    order, count = pack(mask.reshape(-1))
    flat = (x.reshape(-1, x.shape[-1]), *parameters)
    packed = packed_map(_affine, CHUNK, flat, order, count)
    return unpack(packed, mask.reshape(-1)).reshape(*mask.shape, -1)


def _uniform_bias(key: Key[Array, ""], shape: tuple[int, ...], inputs: int) -> Float[Array, "f"]:
    return jax.random.uniform(key, shape, minval=-(inputs**-0.5), maxval=inputs**-0.5)


class UnitVarianceLinear(nn.Module):
    """Linear whose outputs have unit variance at initialisation on the given rows (A23)."""

    features: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "b n"]
    ) -> Float[Array, "b n features"]:
        """Padded rows do not count."""
        x = x.astype(jnp.float32)
        spread = jnp.sqrt((x**2 * mask[..., None]).sum() / jnp.maximum(mask.sum() * x.shape[-1], 1))

        def init(key, shape, dtype=jnp.float32):
            scale = 1 / (jnp.sqrt(shape[0]) * jnp.maximum(spread, 1e-6))
            return jax.random.normal(key, shape, dtype) * scale

        return nn.Dense(self.features, kernel_init=init, name="fc")(x)


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
    """Batch normalisation with the statistics of the valid entries.

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
