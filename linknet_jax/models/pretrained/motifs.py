"""neural-motifs: its VGG16 Faster R-CNN, and what LinkNet has a place for in its relation models.

Names and layouts are those of github.com/rowanz/neural-motifs: lib/object_detector.py,
lib/rel_model.py, lib/get_union_boxes.py and lib/sparse_targets.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from linknet_jax.models.pretrained import rules as layers
from linknet_jax.models.pretrained import vgg16
from linknet_jax.models.pretrained.rules import Rule, Source, convolution, linear, matrix

# Of its anchors (config.py): height / width, and side / 16 pixels.
RATIOS = (0.23232838, 0.63365731, 1.28478321, 3.15089189)
SCALES = (2.22152954, 4.12315647, 7.21692515, 12.60263013, 22.7102731)
PER_ANCHOR = 6  # channels of the RPN's last convolution: 2 logits, then 4 deltas
SIZES = (151, 4096)  # object classes, fc7
PREDICATES, RPN_WIDTH = 51, 512
ANCHORS = "its anchors, which the configuration gives"


def detector(tensors: dict[str, np.ndarray]) -> Source:
    """`features`, `roi_fmap`, `score_fc`, `bbox_fc` and `rpn_head` of ObjectDetector."""
    return Source(
        kind="neural-motifs detector",
        origin="a VGG16 checkpoint of its models/train_detector.py, such as vg-24.tar",
        rules={"params": detector_rules(tensors, "")},
        settings=detector_settings(tensors, ""),
        ignored={"rpn_head.anchors": ANCHORS},
    )


def relations(tensors: dict[str, np.ndarray]) -> Source:
    """The detector, both fc6/fc7 copies, the union mask and the frequency bias of RelModel."""
    params, stats = relation_rules(tensors)
    return Source(
        kind="neural-motifs relation",
        origin="a VGG16 checkpoint of its models/train_rels.py, such as vgrel-motifnet.tar",
        rules={"params": params, "batch_stats": stats},
        settings=relation_settings(tensors),
        ignored={
            "detector.rpn_head.anchors": ANCHORS,
            "context.": "MotifNet's LSTM contexts; LinkNet has relational embeddings instead",
            "post_lstm.": "reads MotifNet's LSTM context",
            "post_emb.": "reads labels where MotifNet has no LSTM context",
            "rel_compress.": "scores MotifNet's pairs; fc4 also reads the geometric layout",
        },
    )


def detector_rules(tensors: dict[str, np.ndarray], prefix: str) -> dict[str, dict]:
    """The detector within a checkpoint of either kind."""
    classes, fc_dim = matrix(tensors, f"{prefix}score_fc.weight", SIZES)
    return {
        "trunk": vgg16.trunk(prefix),
        "rpn": _rpn(tensors, prefix),
        "object_head": {
            "box_features": vgg16.regions(f"{prefix}roi_fmap", fc_dim, fc_dim),
            "box_head": linear(f"{prefix}score_fc", classes, fc_dim),
            "box_deltas": linear(f"{prefix}bbox_fc", 4 * classes, fc_dim),
        },
    }


def detector_settings(tensors: dict[str, np.ndarray], prefix: str) -> dict[str, Any]:
    """What the detector's weights imply."""
    _, fc_dim = matrix(tensors, f"{prefix}score_fc.weight", SIZES)
    return {
        "model.trunk": "vgg16",
        "model.roi_align": "motifs",
        "model.fc_dim": fc_dim,
        "rpn.width": _rpn_width(tensors, prefix),
        "rpn.ratios": RATIOS,
        "rpn.scales": SCALES,
    }


def relation_rules(tensors: dict[str, np.ndarray]) -> tuple[dict, dict]:
    """(params, batch_stats) that RelModel and RelModelLinknet have in common."""
    params = detector_rules(tensors, "detector.")
    classes, fc_dim = matrix(tensors, "detector.score_fc.weight", SIZES)
    params["object_head"]["object_features"] = vgg16.regions("roi_fmap_obj", fc_dim, fc_dim)
    mask, mask_stats = _union_mask()
    params["edge_head"] = {"union_features": _union_features(tensors, fc_dim), "union_mask": mask}
    if _has_frequency_bias(tensors):
        predicates, _ = matrix(tensors, "rel_compress.weight", (PREDICATES, 0))
        params["edge_head"]["frequency_bias"] = _frequency_bias(classes, predicates)
    return params, {"edge_head": {"union_mask": mask_stats}}


def relation_settings(tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """What the weights of either relation model imply."""
    pooling_dim, _ = matrix(tensors, f"{_last(tensors)}.weight", (4096, 4096))
    return detector_settings(tensors, "detector.") | {
        "model.pooling_dim": pooling_dim,
        "model.union_mask": True,
        "model.frequency_bias": _has_frequency_bias(tensors),
    }


def _rpn_width(tensors: dict[str, np.ndarray], prefix: str) -> int:
    shape = np.shape(tensors.get(f"{prefix}rpn_head.conv.2.weight"))
    return shape[1] if len(shape) == 4 and all(shape) else RPN_WIDTH


def _rpn(tensors: dict[str, np.ndarray], prefix: str) -> dict[str, dict[str, Rule]]:
    """One convolution gives every anchor's (background, object, dx, dy, dw, dh)."""
    name, width = f"{prefix}rpn_head.conv", _rpn_width(tensors, prefix)
    both = convolution(f"{name}.2", PER_ANCHOR * len(RATIOS) * len(SCALES), width, 1)
    return {
        "conv": convolution(f"{name}.0", width, vgg16.CHANNELS, 3),
        "scores": {key: _of_each_anchor(rule, slice(0, 2)) for key, rule in both.items()},
        "deltas": {key: _of_each_anchor(rule, slice(2, 6)) for key, rule in both.items()},
    }


def _of_each_anchor(rule: Rule, part: slice) -> Rule:
    def change(x):
        x = rule.change(x)
        split = x.reshape(*x.shape[:-1], -1, PER_ANCHOR)[..., part]
        return split.reshape(*x.shape[:-1], -1)

    which = f"channels {part.start} to {part.stop - 1} of every anchor's {PER_ANCHOR}"
    note = ", ".join(text for text in (rule.note, which) if text)
    return rule._replace(change=change, note=note)


def _last(tensors: dict[str, np.ndarray]) -> str:
    """fc7 of the union features: a layer of its own where its width is not VGG's."""
    return "roi_fmap.2" if "roi_fmap.2.weight" in tensors else "roi_fmap.1.3"


def _union_features(tensors: dict[str, np.ndarray], fc_dim: int) -> dict[str, dict[str, Rule]]:
    last = _last(tensors)
    pooling_dim, _ = matrix(tensors, f"{last}.weight", (fc_dim, fc_dim))
    rules = vgg16.regions("roi_fmap.1", fc_dim, pooling_dim)
    return rules | {"fc7": linear(last, pooling_dim, fc_dim)}


def _union_mask() -> tuple[dict, dict]:
    wide = vgg16.CHANNELS
    params = {
        "conv1": convolution("union_boxes.conv.0", wide // 2, 2, 7),
        "norm1": layers.norm("union_boxes.conv.2", wide // 2),
        "conv2": convolution("union_boxes.conv.4", wide, wide // 2, 3),
        "norm2": layers.norm("union_boxes.conv.6", wide),
    }
    stats = {
        "norm1": layers.moments("union_boxes.conv.2", wide // 2),
        "norm2": layers.moments("union_boxes.conv.6", wide),
    }
    return params, stats


def _has_frequency_bias(tensors: dict[str, np.ndarray]) -> bool:
    return any(name.startswith("freq_bias.") for name in tensors)


def _frequency_bias(classes: int, predicates: int) -> Rule:
    def change(x):
        return x.reshape(classes, classes, predicates)

    note = "rows split into (subject, object)"
    shape = (classes**2, predicates)
    return Rule("freq_bias.obj_baseline.weight", shape, change, note)
