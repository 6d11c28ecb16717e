"""torchvision's ResNet-50 and 101, trained on ImageNet: the trunk up to layer3."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from linknet_jax.models import resnet as networks
from linknet_jax.models.pretrained.rules import Rule, Source, of_module, shapes_of


def network(tensors: dict[str, np.ndarray]) -> Source:
    """The C4 trunk; a feature pyramid's own layers are in no ImageNet file."""
    kind = f"resnet{depth(tensors, '')}_c4"
    return Source(
        kind="torchvision ResNet",
        origin="the state dict of torchvision.models.resnet50 or resnet101",
        rules=trunk(kind, networks.source),
        settings={"model.trunk": kind},
        ignored={"layer4.": "a C4 trunk ends with layer3", "fc.": "ImageNet's classifier"},
    )


def depth(tensors: dict[str, np.ndarray], prefix: str) -> int:
    """50 or 101: layer3 has 6 blocks or 23."""
    return 101 if any(name.startswith(f"{prefix}layer3.6.") for name in tensors) else 50


def trunk(kind: str, name: Callable[[tuple[str, ...]], str]) -> dict[str, dict[str, dict | Rule]]:
    """Rules for a trunk of RESNETS; `name` gives the foreign name of a path below `trunk`."""
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.uint8)
    shapes = shapes_of(networks.RESNETS[kind](), images)
    trees = {key: {"trunk": tree} for key, tree in shapes.items()}
    return of_module(trees, lambda path: name(path[2:]))
