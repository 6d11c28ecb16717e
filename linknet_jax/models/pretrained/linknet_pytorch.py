"""linknet-pytorch: the whole of its relation model.

Names and layouts are those of lib/rel_model_linknet.py in github.com/jiayan97/linknet-pytorch.
There every relational embedding has an output layer `fc1`: ours stand between the embeddings (fc1
of a stack), or have names of their own (fc3, projection).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from linknet_jax.models.pretrained import motifs, vgg16
from linknet_jax.models.pretrained.rules import Rule, Source, linear, matrix, moments, norm

FLAGS = {  # how its forward pass reads the weights
    "model.use_rem": True,
    "model.use_glem": True,
    "model.use_gcem": True,
    "model.num_rem": 2,
    "model.row_op": "softmax",
    "model.similarity": "dot",
    "model.attention_scale": "none",
    "model.e0_label": "argmax",
    "model.e0_context": True,
    "model.context_trunk": False,
    "model.context_pool": "full",
    "model.layout_box": "center",
    "model.layout_head": "batch_norm",
}


def relations(tensors: dict[str, np.ndarray]) -> Source:
    """Everything of RelModelLinknet, with its detector."""
    params, stats = motifs.relation_rules(tensors)
    params["edge_head"] |= {
        "layout": {"K2": linear("pos_embed.1", _sizes(tensors)["layout"], 4)},
        "fc4": _fc4(tensors),
    }
    params |= _objects(tensors) | {"layout_norm": norm("pos_embed.0", 4)}
    stats["layout_norm"] = moments("pos_embed.0", 4)
    return Source(
        kind="linknet-pytorch",
        origin="a VGG16 checkpoint of its models/train_rels.py with -model linknet",
        rules={"params": params, "batch_stats": stats},
        settings=_settings(tensors),
        ignored={"detector.rpn_head.anchors": motifs.ANCHORS},
    )


def _sizes(tensors: dict[str, np.ndarray]) -> dict[str, int]:
    classes, fc_dim = matrix(tensors, "detector.score_fc.weight", motifs.SIZES)
    _, embed = matrix(tensors, "context.obj_embed.weight", (classes, 200))
    half, hidden = matrix(tensors, "context.RE2.W.weight", (128, 256))
    twice_pooling, _ = matrix(tensors, "context.RE4.fc1.weight", (8192, hidden))
    layout, _ = matrix(tensors, "pos_embed.1.weight", (128, 4))
    sizes = {"classes": classes, "fc": fc_dim, "embed": embed, "hidden": hidden}
    pooling = twice_pooling // 2
    return sizes | {"reduction": hidden // half, "pooling": pooling, "layout": layout}


def _settings(tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    sizes = _sizes(tensors)
    measured = {
        "model.pooling_dim": sizes["pooling"],
        "model.embed_dim": sizes["embed"],
        "model.hidden_dim": sizes["hidden"],
        "model.layout_dim": sizes["layout"],
        "model.reduction": sizes["reduction"],
    }
    return motifs.relation_settings(tensors) | measured | FLAGS


def _objects(tensors: dict[str, np.ndarray]) -> dict[str, dict]:
    """Label matrices, both stacks, fc3, the projection to E1 and the multi-label classifier."""
    sizes = _sizes(tensors)
    classes, hidden, embed = sizes["classes"], sizes["hidden"], sizes["embed"]
    wide = sizes["fc"] + embed + vgg16.CHANNELS
    return {
        "K0": Rule("context.obj_embed.weight", (classes, embed)),
        "K1": Rule("context.obj_embed2.weight", (classes, embed)),
        "object_stack": _stack("context.RE1", "context.RE2", wide, sizes),
        "fc3": linear("context.RE2.fc1", classes, hidden),
        "edge_stack": _stack("context.RE3", "context.RE4", embed + hidden, sizes),
        "projection": {"fc": linear("context.RE4.fc1", 2 * sizes["pooling"], hidden)},
        "context": {"classifier": _multi_label(classes)},
    }


def _stack(first: str, second: str, inputs: int, sizes: dict[str, int]) -> dict[str, dict]:
    hidden, reduction = sizes["hidden"], sizes["reduction"]
    return {
        "rem1": _embedding(first, inputs, reduction),
        "fc1": linear(f"{first}.fc1", hidden, inputs),
        "rem2": _embedding(second, hidden, reduction),
    }


def _embedding(name: str, inputs: int, reduction: int) -> dict[str, dict]:
    inner = inputs // reduction
    maps = {key: linear(f"{name}.{key}", inner, inputs) for key in ("W", "U", "H")}
    return maps | {"fc": linear(f"{name}.fc0", inputs, inner)}


def _fc4(tensors: dict[str, np.ndarray]) -> dict[str, Rule]:
    sizes = _sizes(tensors)
    inputs = sizes["pooling"] + sizes["layout"]
    predicates, _ = matrix(tensors, "rel_compress.weight", (motifs.PREDICATES, inputs))
    return linear("rel_compress", predicates, inputs)


def _multi_label(classes: int) -> dict[str, Rule]:
    """Theirs has the background, too, and a softmax over all; ours a sigmoid for each class."""

    def foreground(rule: Rule) -> Rule:
        note = [rule.note] if rule.note else []
        note += ["without the background's row", "trained with softmax, here read with sigmoid"]
        return rule._replace(change=lambda x: rule.change(x[1:]), note=", ".join(note))

    rules = linear("GCE.multi_score_fc", classes, vgg16.CHANNELS)
    return {key: foreground(rule) for key, rule in rules.items()}
