"""Convolutional trunks: VGG16 up to conv5_3, and a small one for the embedded default.

A trunk turns images into a tuple of feature maps, finest first; `strides` and `channels` say what
the heads find there.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in 0..1
he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")


def normalise(images: UInt8[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """Raw RGB to zero mean and unit variance by ImageNet's moments, float32."""
    return (images.astype(jnp.float32) / 255 - jnp.asarray(MEAN)) / jnp.asarray(STD)


class VGG16(nn.Module):
    """VGG16 to conv5_3 after ReLU: [b, h, w, 3] to [b, h / 16, w / 16, 512]."""

    dtype: jnp.dtype = jnp.float32
    strides = (16,)
    channels = 512

    @nn.compact
    def __call__(self, images: UInt8[Array, "b h w 3"]) -> tuple[Float[Array, "b y x 512"]]:
        x = normalise(images).astype(self.dtype)
        for stage, (width, depth) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]):
            if stage:
                x = nn.max_pool(x, (2, 2), strides=(2, 2))
            for layer in range(depth):
                name = f"conv{stage + 1}_{layer + 1}"
                x = nn.relu(
                    nn.Conv(width, (3, 3), kernel_init=he_normal, dtype=self.dtype, name=name)(x)
                )
        return (x,)


class SmallTrunk(nn.Module):
    """[b, h, w, 3] to [b, h / 8, w / 8, 96]: patches, patches of patches, two 3x3 convolutions.

    A cell sees 40 x 40 pixels and nothing normalises across space: what lies elsewhere in the
    image reaches an object only through the relational embedding and the global context.
    """

    dtype: jnp.dtype = jnp.float32
    strides = (8,)
    channels = 96

    @nn.compact
    def __call__(self, images: UInt8[Array, "b h w 3"]) -> tuple[Float[Array, "b y x 96"]]:
        x = normalise(images).astype(self.dtype)
        for layer, (width, side) in enumerate([(48, 4), (96, 2)]):
            dense = nn.Dense(
                width, kernel_init=he_normal, dtype=self.dtype, name=f"patch{layer + 1}"
            )
            x = nn.relu(dense(_patches(x, side)))
        for layer in range(2):
            name = f"conv{layer + 1}"
            x = nn.relu(nn.Conv(96, (3, 3), kernel_init=he_normal, dtype=self.dtype, name=name)(x))
        return (x,)


def _patches(x: Float[Array, "b h w c"], side: int) -> Float[Array, "b y x p"]:
    """Cuts into squares that do not overlap: the same as a strided convolution, as one product."""
    b, h, w, c = x.shape
    x = x[:, : h // side * side, : w // side * side]
    x = x.reshape(b, h // side, side, w // side, side, c)
    return x.swapaxes(2, 3).reshape(b, h // side, w // side, side * side * c)
