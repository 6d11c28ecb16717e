"""torchvision's VGG16, trained on ImageNet: the trunk, and fc6 and fc7 of the box head."""

from __future__ import annotations

import numpy as np

from linknet_jax.models.pretrained.rules import Rule, Source, convolution, linear, matrix, on_region

# index in torchvision's `features` -> (our name, outputs, inputs)
LAYERS = {
    0: ("conv1_1", 64, 3), 2: ("conv1_2", 64, 64),
    5: ("conv2_1", 128, 64), 7: ("conv2_2", 128, 128),
    10: ("conv3_1", 256, 128), 12: ("conv3_2", 256, 256), 14: ("conv3_3", 256, 256),
    17: ("conv4_1", 512, 256), 19: ("conv4_2", 512, 512), 21: ("conv4_3", 512, 512),
    24: ("conv5_1", 512, 512), 26: ("conv5_2", 512, 512), 28: ("conv5_3", 512, 512),
}  # fmt: skip
CHANNELS = 512


def network(tensors: dict[str, np.ndarray]) -> Source:
    """`features.N`, `classifier.0` (fc6) and `classifier.3` (fc7) of torchvision.models.vgg16."""
    fc_dim, _ = matrix(tensors, "classifier.3.weight", (4096, 4096))
    head = {"box_features": regions("classifier", fc_dim, fc_dim)}
    return Source(
        kind="torchvision VGG16",
        origin="the state dict of torchvision.models.vgg16, without batch norm",
        rules={"params": {"trunk": trunk(""), "object_head": head}},
        settings={"model.trunk": "vgg16", "model.fc_dim": fc_dim},
        ignored={"classifier.6.": "ImageNet's classes"},
    )


def trunk(prefix: str) -> dict[str, dict[str, Rule]]:
    """conv1_1 to conv5_3."""
    return {
        name: convolution(f"{prefix}features.{index}", outputs, inputs, 3)
        for index, (name, outputs, inputs) in LAYERS.items()
    }


def regions(prefix: str, fc_dim: int, features: int) -> dict[str, dict[str, Rule]]:
    """fc6 and fc7 as torchvision's classifier numbers them: ReLU and dropout stand between."""
    return {
        "fc6": on_region(f"{prefix}.0", fc_dim, CHANNELS),
        "fc7": linear(f"{prefix}.3", features, fc_dim),
    }
