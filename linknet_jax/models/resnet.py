"""ResNet-50 and 101 with frozen batch norm as trunks, C4 and with a feature pyramid.

Architectures: He et al., "Deep Residual Learning" (CVPR 2016), table 1, with the stride on the
3x3 convolution of a bottleneck, as torchvision's weights have it; Lin et al., "Feature Pyramid
Networks" (CVPR 2017). Padding is torch's: a side of n pixels gives ceil(n / stride) cells, and
cell i is centred on pixel stride * i.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from linknet_jax.models.frozen_norm import FrozenBatchNorm
from linknet_jax.models.trunks import he_normal, normalise

# Frozen norms do not hold the sum of thirty branches back: a fresh branch starts small.
branch_normal = nn.initializers.variance_scaling(0.1, "fan_in", "truncated_normal")
frozen_norm = partial(FrozenBatchNorm, 1e-5)

LEAVES = {
    "kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean",
    "var": "running_var",
}  # fmt: skip


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution beside the input, which the first of a stage projects."""

    width: int
    stride: int
    project: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b y x d"]:
        """[b, ceil(h / stride), ceil(w / stride), 4 width], after ReLU."""
        conv, wide = partial(_convolution, dtype=self.dtype), 4 * self.width
        y = nn.relu(frozen_norm(name="bn1")(conv(self.width, 1, name="conv1")(x)))
        y = conv(self.width, 3, self.stride, name="conv2")(y)
        y = conv(wide, 1, init=branch_normal, name="conv3")(nn.relu(frozen_norm(name="bn2")(y)))
        if self.project:
            x = conv(wide, 1, self.stride, name="downsample_0")(x)
            x = frozen_norm(name="downsample_1")(x)
        return nn.relu(x + frozen_norm(name="bn3")(y))


class ResNetC4(nn.Module):
    """To the end of layer3: one map at stride 16, after ReLU."""

    depths: tuple[int, ...]
    dtype: jnp.dtype = jnp.float32
    strides = (16,)
    channels = 1024

    @nn.compact
    def __call__(self, images: UInt8[Array, "b h w 3"]) -> tuple[Float[Array, "b y x 1024"]]:
        """([b, ceil(h / 16), ceil(w / 16), 1024],)."""
        return (_stages(images, self.depths, self.dtype)[-1],)


class ResNetFPN(nn.Module):
    """P2 to P5 of a feature pyramid, linear; a region proposal network adds P6 itself."""

    depths: tuple[int, ...]
    dtype: jnp.dtype = jnp.float32
    strides = (4, 8, 16, 32)
    channels = 256

    @nn.compact
    def __call__(self, images: UInt8[Array, "b h w 3"]) -> tuple[Float[Array, "b y x 256"], ...]:
        """Four of [b, ceil(h / stride), ceil(w / stride), 256], finest first."""
        stages = _stages(images, self.depths, self.dtype)
        conv = partial(nn.Conv, self.channels, dtype=self.dtype)
        inner = [conv((1, 1), name=f"inner_{level}")(x) for level, x in enumerate(stages)]
        for level in reversed(range(len(inner) - 1)):
            inner[level] += _doubled(inner[level + 1], inner[level].shape)
        return tuple(
            conv((3, 3), padding=1, name=f"layer_{level}")(x) for level, x in enumerate(inner)
        )


class ResNet50C4(ResNetC4):
    depths: tuple[int, ...] = (3, 4, 6)


class ResNet50FPN(ResNetFPN):
    depths: tuple[int, ...] = (3, 4, 6, 3)


class ResNet101C4(ResNetC4):
    depths: tuple[int, ...] = (3, 4, 23)


class ResNet101FPN(ResNetFPN):
    depths: tuple[int, ...] = (3, 4, 23, 3)


RESNETS = {
    "resnet50_c4": ResNet50C4,
    "resnet101_c4": ResNet101C4,
    "resnet50_fpn": ResNet50FPN,
    "resnet101_fpn": ResNet101FPN,
}


def source(path: tuple[str, ...]) -> str:
    """Torchvision's name of a variable: ("layer3_0", "conv2", "kernel") to layer3.0.conv2.weight.

    `path` lies below `trunk`, of `params` or of `constants`. Names are those of a classifier's
    state dict; a detector's begin with "backbone.body." and, for the pyramid's
    fpn.inner_blocks.0.0.weight, with "backbone.". Files of older releases have one number
    in the pyramid's: fpn.inner_blocks.0.weight. Kernels are OIHW there.
    """
    *modules, leaf = path
    kind, _, level = modules[0].partition("_")
    if kind in ("inner", "layer"):
        return f"fpn.{kind}_blocks.{level}.0.{LEAVES[leaf]}"
    return f"{'.'.join(modules).replace('_', '.')}.{LEAVES[leaf]}"


def _stages(images: UInt8[Array, "b h w 3"], depths: tuple[int, ...], dtype) -> list[Array]:
    """The outputs of layer1, layer2, ...: submodules of the module that calls it."""
    x = _convolution(64, 7, 2, dtype=dtype, name="conv1")(normalise(images))
    x = nn.relu(frozen_norm(name="bn1")(x))
    x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    outputs = []
    for stage, depth in enumerate(depths):
        for block in range(depth):
            first = block == 0
            name = f"layer{stage + 1}_{block}"
            stride = 2 if first and stage else 1
            x = Bottleneck(64 * 2**stage, stride, first, dtype, name=name)(x)
        outputs.append(x)
    return outputs


def _convolution(features: int, side: int, stride: int = 1, init=he_normal, **options) -> nn.Conv:
    return nn.Conv(
        features, (side, side), stride, padding=side // 2, use_bias=False, kernel_init=init,
        **options,
    )  # fmt: skip


def _doubled(x: Float[Array, "b h w c"], shape: tuple[int, ...]) -> Float[Array, "b y x c"]:
    """Nearest neighbour to the lateral's size, which is twice as large, or one cell less."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)[:, : shape[1], : shape[2]]
