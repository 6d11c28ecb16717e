"""What a configuration must satisfy, told before anything is compiled."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from linknet_jax.config import get_default
from linknet_jax.types import FREE_PREDICTIONS, Vocabulary

STRIDES = {  # of the coarsest map of each trunk
    "small": 8, "vgg16": 16, "efficientnet_lite0": 16, "resnet50_c4": 16, "resnet101_c4": 16,
    "resnet50_fpn": 32, "resnet101_fpn": 32,
}  # fmt: skip
CHOICES = {
    "task": ("sgcls", "predcls", "sgdet", "detector"),
    "model.trunk": tuple(STRIDES),
    "model.roi_align": ("aligned", "motifs"),
    "model.row_op": ("softmax", "sigmoid"),
    "model.similarity": ("dot", "euclidean", "euclidean_root"),
    "model.attention_scale": ("none", "rsqrt_dim"),
    "model.e0_label": ("argmax", "softmax"),
    "model.e0_label_train": ("ground_truth", "argmax"),
    "model.predcls_l": ("detector", "gt"),
    "model.context_pool": ("full", "valid"),
    "model.layout_box": ("center", "corner"),
    "model.layout_head": ("mlp", "linear", "batch_norm"),
    "data.val_list": ("shared", "motifs"),
    "data.images_with": ("relations", "boxes"),
    "model.dtype": ("float32", "bfloat16"),
    "loss.context_reduction": ("mean", "sum"),
    "train.optimizer": ("sgd", "adamw"),
    "train.schedule": ("constant", "step", "cosine", "plateau"),
    "eval.iou": ("inclusive", "exclusive"),
    "eval.frame": ("original", "1024"),
    "eval.missing": ("zero", "skip"),
}
AT_LEAST_ONE = (
    "data.threads", "data.train_images", "data.test_images",
    "model.roi_size", "model.roi_chunk", "model.fc_dim",
    "model.embed_dim", "model.hidden_dim", "model.pooling_dim", "model.layout_dim",
    "model.num_rem", "model.reduction", "sampling.pairs", "train.batch_size", "train.steps",
    "train.accumulation", "train.fsdp", "train.log_every", "train.eval_every", "eval.batch_size",
    "checkpoint.every", "checkpoint.keep", "rpn.width", "rpn.before", "rpn.proposals",
    "rpn.train_before", "rpn.train_proposals", "rpn.sampled", "detector.sampled",
    "detector.per_class", "predict.top",
)  # fmt: skip
NOT_NEGATIVE = (
    "seed", "data.seed", "data.prefetch", "data.val_images", "profile.steps", "profile.after",
    "loss.object", "loss.relation", "loss.context", "loss.box_head", "train.fc_lr_ratio",
    "train.weight_decay", "train.clip", "train.warmup", "train.patience", "train.threshold",
    "train.cooldown", "train.early_stop",
)  # fmt: skip
FRACTIONS = (
    "model.dropout", "train.ema", "train.decay", "train.momentum", "rpn.nms", "rpn.negative",
    "detector.foreground", "detector.score", "detector.nms", "predict.least",
    "predict.object_least",
)  # fmt: skip


def validate(config: ConfigDict) -> None:
    """Raises one ValueError that names each wrong value, the rule and the remedy."""
    problems = [
        *_choices(config),
        *(f"{key}={config[key]}: must be at least 1" for key in AT_LEAST_ONE if config[key] < 1),
        *(f"{key}={config[key]}: must be 0 or more, below 2**31" for key in NOT_NEGATIVE
          if not 0 <= config[key] < 2**31),
        *(f"{key}={config[key]}: must lie in [0, 1)" for key in FRACTIONS
          if not 0 <= config[key] < 1),
        *_relations(config),
    ]  # fmt: skip
    if problems:
        raise ValueError("configuration:\n  " + "\n  ".join(f"--config.{p}" for p in problems))


def _choices(config: ConfigDict) -> Iterable[str]:
    for key, allowed in CHOICES.items():
        if config[key] not in allowed:
            yield f"{key}={config[key]!r}: must be one of {', '.join(allowed)}"


def _relations(config: ConfigDict) -> Iterable[str]:
    model, train = config.model, config.train
    stride = STRIDES.get(model.trunk, 1)
    if config.data.image_size < 2 * stride:
        yield f"data.image_size={config.data.image_size}: must be at least {2 * stride}"
    for key in ("data.max_objects", "data.max_detections"):
        if config[key] < 2:
            yield f"{key}={config[key]}: must be at least 2, to have pairs"
    if config.data.images_with == "boxes" and config.data.overlap_filter:
        yield "data.overlap_filter=True: drops the images that images_with=boxes keeps"
    if train.batch_size % train.accumulation:
        yield (
            f"train.batch_size={train.batch_size}: must be a multiple of "
            f"train.accumulation={train.accumulation}"
        )
    if not 0 <= config.sampling.related <= config.sampling.pairs:
        yield (
            f"sampling.related={config.sampling.related}: must lie between 0 and "
            f"sampling.pairs={config.sampling.pairs}"
        )
    if model.union_mask and model.roi_size != 7:
        yield f"model.roi_size={model.roi_size}: the union mask is 7 x 7; set 7 or union_mask=False"
    narrowest = min(model.hidden_dim, model.embed_dim)
    if model.reduction > narrowest:
        yield (
            f"model.reduction={model.reduction}: must be at most {narrowest}, the smaller of "
            "model.hidden_dim and model.embed_dim"
        )
    if not model.visual and (config.task != "predcls" or model.predcls_l != "gt"):
        yield (
            f"model.visual={model.visual}: without pixels there is nothing to classify objects "
            "from; use --config configs/predcls.py (and model.predcls_l=gt)"
        )
    if not model.visual and model.freeze_box_head:
        yield "model.freeze_box_head=True: there is none without pixels; set False"
    yield from _detection(config)
    yield from _cache(config)
    if not 0 < train.lr < float("inf"):
        yield f"train.lr={train.lr}: must be positive and finite"
    if not all(0 < part <= 1 for part in train.milestones):
        yield f"train.milestones={train.milestones}: each must lie in (0, 1], a part of train.steps"
    yield from _evaluation(config)


def _detection(config: ConfigDict) -> Iterable[str]:
    frozen = config.model.freeze_trunk and config.model.freeze_box_head
    finds = config.task == "sgdet" and not config.data.detections
    if finds and not frozen and not config.train.end_to_end:
        yield (
            "model.freeze_trunk and model.freeze_box_head: must be True where the detector of "
            "SGDet does not learn; or set train.end_to_end=True"
        )
    if config.train.end_to_end and config.task != "sgdet":
        yield "train.end_to_end=True: needs --config configs/sgdet.py"
    if config.task == "detector" and not config.model.visual:
        yield "model.visual=False: a detector sees pixels"
    for key, part in (("rpn", "positive"), ("detector", "foreground")):
        if not 0 <= config[key][f"sampled_{part}"] <= config[key].sampled:
            yield f"{key}.sampled_{part}: must lie between 0 and {key}.sampled"
    if not 0 <= config.rpn.negative <= config.rpn.positive <= 1:
        yield f"rpn.negative={config.rpn.negative}: must lie between 0 and rpn.positive"
    if not (config.rpn.ratios and config.rpn.scales):
        yield "rpn.ratios, rpn.scales: must hold at least a number each"


def _cache(config: ConfigDict) -> Iterable[str]:
    """Stored features are those of a trunk that stays, of images as they are."""
    if not config.data.cache:
        return
    if not config.model.freeze_trunk or config.train.end_to_end:
        yield (
            "data.cache: the trunk learns in this run; set model.freeze_trunk=True and "
            "train.end_to_end=False, or data.cache empty"
        )
    if config.data.flip:
        yield "data.cache: mirrored images are not stored; set data.flip=False, or data.cache empty"
    if not config.model.visual:
        yield "data.cache: nothing reads features where model.visual=False; set data.cache empty"
    if "://" in config.data.cache:
        yield (
            f"data.cache={config.data.cache!r}: must be a folder of a file system, which all "
            "processes see; mount the bucket, or name a disk"
        )


def _evaluation(config: ConfigDict) -> Iterable[str]:
    ks, step = config.eval.ks, config.eval.step
    if step not in ("best", "latest") and not step.isdecimal():
        yield f"eval.step={step!r}: must be best, latest or the number of a step"
    if not ks or not all(type(k) is int and k >= 1 for k in ks):
        yield f"eval.ks={ks}: must be integers from 1, as (20,50)"
        return
    kinds = {"R": ks, "mR": ks, "F1": ks}
    kinds |= {f"ng-{x}": [k for k in ks if k <= FREE_PREDICTIONS] for x in ("R", "mR")}
    metrics = [f"{kind}@{k}" for kind, known in kinds.items() for k in known]
    if config.task == "detector":
        metrics = ["mAP@50", "AP", "AP@50"]
    if config.eval.metric not in metrics:
        yield f"eval.metric={config.eval.metric!r}: must be one of {', '.join(metrics)}"


def check_devices(config: ConfigDict, devices: int, training: bool) -> None:
    """ValueError where a batch cannot be split over the devices; evaluating uses only its own."""
    if training and devices % config.train.fsdp:
        raise ValueError(
            f"--config.train.fsdp={config.train.fsdp} must divide the {devices} devices"
        )
    batches = {"train.batch_size": config.train.accumulation} if training else {}
    for key, parts in (batches | {"eval.batch_size": 1}).items():
        if config[key] % (devices * parts):
            raise ValueError(
                f"--config.{key}={config[key]} must be a multiple of {devices * parts} "
                f"({devices} devices x {parts} accumulation steps)"
            )


def check_same_run(stored: dict, config: ConfigDict, free: tuple[str, ...]) -> None:
    """ValueError that lists what a rerun changed and may not; train.steps may only grow.

    A setting that the stored run does not know yet had what is its default now.
    """
    known = flatten(stored)
    free = (*free, *_unused(config))
    changed = _changes(flatten(get_default(config.task).to_dict()) | known, config, free)
    before, now = changed.get("train.steps", (0, 0))
    if now > before:
        del changed["train.steps"]
    if changed:
        raise ValueError(
            "this workdir holds a run with other settings; take another --workdir, or set back:\n"
            + _listed(changed)
        )


def check_same_model(stored: ConfigDict, config: ConfigDict) -> None:
    """ValueError that lists what an evaluation changed: only data.* and eval.* may differ."""
    free = (
        "data",
        "eval",
        "predict",
        "profile",
        "name",
        "compilation_cache",
        "start",
        *_unused(config),
    )
    changed = _changes(stored.to_dict(), config, free)
    if changed:
        raise ValueError(
            "the checkpoint was trained with other settings, and an evaluation may only change "
            "data.* and eval.*; set back:\n" + _listed(changed)
        )


def check_same_vocabulary(stored: Vocabulary, found: Vocabulary, name: str) -> None:
    """ValueError where a data set's classes are not those that a checkpoint was trained on."""
    for kind in ("objects", "predicates"):
        old, new = getattr(stored, kind), getattr(found, kind)
        pairs = itertools.zip_longest(old, new, fillvalue="(none)")
        where = [(i, a, b) for i, (a, b) in enumerate(pairs) if a != b]
        if where:
            i, a, b = where[0]
            raise ValueError(
                f"the checkpoint was trained on {len(old)} {kind}, data.name={name} has "
                f"{len(new)}, and {len(where)} differ: number {i} is {a!r} there and {b!r} here; "
                "set --config.data.name and --config.data.dir to the data set of the training"
            )


def _changes(stored: dict, config: ConfigDict, free: tuple[str, ...]) -> dict[str, tuple]:
    old, new = flatten(stored), flatten(config.to_dict())  # flat trees stay as they are
    return {
        key: (old.get(key, "(absent)"), new.get(key, "(absent)"))
        for key in sorted(old.keys() | new.keys())
        if _plain(old.get(key)) != _plain(new.get(key))
        and not any(key == name or key.startswith(f"{name}.") for name in free)
    }


def _unused(config: ConfigDict) -> tuple[str, ...]:
    """Sections that compute nothing in the task: presets set them for all tasks."""
    return ("rpn", "detector") if config.task in ("sgcls", "predcls") else ()


def _listed(changed: dict[str, tuple]) -> str:
    return "\n".join(f"  --config.{key}={a}  (now {b})" for key, (a, b) in changed.items())


def flatten(tree: dict, prefix: str = "") -> dict[str, Any]:
    """Leaves by dotted path."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        flat |= flatten(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return flat


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
