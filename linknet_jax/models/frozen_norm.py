"""Batch norm with the constants of a trained network, shared by the pretrained trunks."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class FrozenBatchNorm(nn.Module):
    """y = x a + b from the four constants of a trained batch norm; nothing updates them."""

    epsilon: float

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """Keeps the dtype of x; no gradient reaches the constants."""
        initial = {"scale": jnp.ones, "bias": jnp.zeros, "mean": jnp.zeros, "var": jnp.ones}
        scale, bias, mean, var = (
            jax.lax.stop_gradient(self.variable("constants", name, init, x.shape[-1:]).value)
            for name, init in initial.items()
        )
        a = scale * jax.lax.rsqrt(var + self.epsilon)
        return (x * a + (bias - mean * a)).astype(x.dtype)
