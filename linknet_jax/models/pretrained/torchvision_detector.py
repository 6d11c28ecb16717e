"""torchvision's Faster R-CNN with a ResNet and a feature pyramid (fasterrcnn_resnet50_fpn).

Its layers are ours up to fixed factors: the region proposal network has one sigmoid logit an
anchor, its anchors are centred on the first pixel of a cell instead of the cell's middle, and the
box head's deltas are in units of the coder's weights. What weights cannot mend: its region
proposals pass a ReLU, ours a ReLU6; its RoIAlign lies half a cell further right and down
(aligned=False); its anchors are rounded to whole pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from linknet_jax.models import resnet as networks
from linknet_jax.models.pretrained.rules import Rule, Source, convolution, linear, matrix, on_region
from linknet_jax.models.pretrained.torchvision_resnet import depth, trunk

CHANNELS = networks.ResNetFPN.channels
RATIOS, SCALE = (0.5, 1.0, 2.0), 8.0  # anchors: height / width; side / stride, on every map
CODER = (10.0, 10.0, 5.0, 5.0)  # torchvision's BoxCoder of the box head


def detector(tensors: dict[str, np.ndarray]) -> Source:
    """`backbone`, `rpn.head` and `roi_heads`."""
    kind = f"resnet{depth(tensors, 'backbone.body.')}_fpn"
    old = not any(name.startswith("rpn.head.conv.0.0.") for name in tensors)
    rules = trunk(kind, lambda path: _name(path, old))
    rules["params"] |= {"rpn": _rpn(old), "object_head": _object_head(tensors)}
    _, fc_dim = matrix(tensors, "roi_heads.box_predictor.cls_score.weight", (91, 1024))
    return Source(
        kind="torchvision Faster R-CNN",
        origin="the state dict of torchvision.models.detection.fasterrcnn_resnet50_fpn, not of v2",
        rules=rules,
        settings={
            "model.trunk": kind,
            "model.fc_dim": fc_dim,
            "rpn.width": CHANNELS,
            "rpn.ratios": RATIOS,
            "rpn.scales": (SCALE,),
        },
        ignored={},
    )


def _name(path: tuple[str, ...], old: bool) -> str:
    """Releases before 0.13 number the pyramid's convolutions once, as inner_blocks.0.weight."""
    own = networks.source(path)
    if not own.startswith("fpn."):
        return f"backbone.body.{own}"
    return f"backbone.{own.replace('.0.', '.') if old else own}"


def _rpn(old: bool) -> dict[str, dict[str, Rule]]:
    count = len(RATIOS)
    scores = convolution("rpn.head.cls_logits", count, CHANNELS, 1)
    deltas = convolution("rpn.head.bbox_pred", 4 * count, CHANNELS, 1)
    half_cell = "less the half cell by which our anchors lie further right and down"
    return {
        "conv": convolution(f"rpn.head.conv{'' if old else '.0.0'}", CHANNELS, CHANNELS, 3),
        "scores": {
            key: _then(rule, _two_logits, "beside zeros for the background")
            for key, rule in scores.items()
        },
        "deltas": deltas | {"bias": _then(deltas["bias"], _to_middle, half_cell)},
    }


def _object_head(tensors: dict[str, np.ndarray]) -> dict[str, dict]:
    predictor = "roi_heads.box_predictor"
    classes, fc_dim = matrix(tensors, f"{predictor}.cls_score.weight", (91, 1024))
    deltas = linear(f"{predictor}.bbox_pred", 4 * classes, fc_dim)
    units = "divided by the coder's weights (10, 10, 5, 5)"
    return {
        "box_features": {
            "fc6": on_region("roi_heads.box_head.fc6", fc_dim, CHANNELS),
            "fc7": linear("roi_heads.box_head.fc7", fc_dim, fc_dim),
        },
        "box_head": linear(f"{predictor}.cls_score", classes, fc_dim),
        "box_deltas": {key: _then(rule, _to_sizes, units) for key, rule in deltas.items()},
    }


def _then(rule: Rule, change: Callable[[np.ndarray], np.ndarray], note: str) -> Rule:
    notes = ", ".join(text for text in (rule.note, note) if text)
    return rule._replace(change=lambda x: change(rule.change(x)), note=notes)


def _two_logits(x: np.ndarray) -> np.ndarray:
    """The softmax of (0, z) is the sigmoid of z."""
    return np.stack([np.zeros_like(x), x], axis=-1).reshape(*x.shape[:-1], -1)


def _to_middle(bias: np.ndarray) -> np.ndarray:
    """Half a cell in widths and heights of the anchor, the same on every map."""
    half = 0.5 / SCALE
    offsets = [(half * ratio**0.5, half / ratio**0.5, 0, 0) for ratio in RATIOS]
    return bias - np.asarray(offsets, np.float32).reshape(-1)


def _to_sizes(x: np.ndarray) -> np.ndarray:
    return x / np.tile(np.asarray(CODER, np.float32), x.shape[-1] // len(CODER))
