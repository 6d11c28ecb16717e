"""Named overrides of the default configuration: data sets, presets, rows of the paper's tables."""

from __future__ import annotations

# What a task changes in the embedded default.
TASKS = {
    "detector": {
        "data.images_with": "boxes",
        "detector.score": 0.05,
        "train.steps": 1000,
        "eval.metric": "mAP@50",
    },
    "sgdet": {
        "model.freeze_trunk": True,
        "model.freeze_box_head": True,
        "sampling.pairs": 64,
        "sampling.related": 16,
        "train.steps": 500,
        "train.lr": 3e-4,
        "eval.metric": "R@50",
    },
}

PAPER_SIZE = {
    "model.trunk": "vgg16",
    "model.fc_dim": 4096,
    "model.pooling_dim": 4096,
    "model.embed_dim": 200,
    "model.hidden_dim": 256,
    "model.layout_dim": 128,
    "model.roi_chunk": 512,
    "model.dropout": 0.5,
    "data.image_size": 592,
    "data.max_objects": 64,
    "rpn.ratios": (0.23232838, 0.63365731, 1.28478321, 3.15089189),
    "rpn.scales": (2.22152954, 4.12315647, 7.21692515, 12.60263013, 22.7102731),
    "rpn.width": 512,
    "rpn.before": 6000,
    "rpn.proposals": 1000,
    "rpn.train_before": 12000,
    "rpn.train_proposals": 2000,
    "rpn.sampled": 256,
    "rpn.sampled_positive": 128,
    "detector.sampled": 256,
    "detector.sampled_foreground": 64,
    "train.batch_size": 6,
    "eval.batch_size": 8,
}

# A30: 1e-3 an image of the batch, a tenth of it for fc6 and fc7.
PAPER_TRAINING = {
    "train.optimizer": "sgd",
    "train.lr": 6e-3,
    "train.fc_lr_ratio": 0.1,
    "train.schedule": "plateau",
    "train.warmup": 0,
    "train.eval_every": 9620,  # an epoch of 57,723 images
    "train.steps": 96200,
    "train.early_stop": 8,
    "train.log_every": 100,
    "checkpoint.every": 2000,
    "eval.metric": "R@100",
}

# Boxes and classes alone (model.visual=False), at Visual Genome's counts: minutes on a CPU.
BOXES = {
    "model.visual": False,
    "model.roi_chunk": 512,
    "model.fc_dim": 256,
    "model.pooling_dim": 256,
    "model.embed_dim": 100,
    "model.hidden_dim": 128,
    "model.layout_dim": 64,
    "model.dropout": 0.3,
    "train.batch_size": 64,
    "train.steps": 2350,
    "train.optimizer": "adamw",
    "train.lr": 1.5e-3,
    "train.fc_lr_ratio": 1.0,
    "train.weight_decay": 1e-2,
    "train.schedule": "cosine",
    "train.warmup": 200,
    "train.early_stop": 0,
    "train.ema": 0.999,
    "train.log_every": 47,
    "train.eval_every": 235,
    "checkpoint.every": 235,
    "eval.batch_size": 128,
    "eval.metric": "F1@100",  # R@100 stays flat while mR@100 still grows
}

DATASETS = {
    "vg150": {
        "data.name": "visual_genome",
        "data.val_images": 5000,
        "data.flip": True,
        **PAPER_SIZE,
        **PAPER_TRAINING,
    },
    "vrd": {
        "data.name": "vrd",
        "data.val_images": 0,  # the release has no validation split: the first tenth of train
        "data.image_size": 128,
        "data.max_objects": 24,
        "model.dropout": 0.5,  # overfitted after a few epochs
        "train.steps": 300,
        "train.eval_every": 50,
        "checkpoint.every": 50,
        "train.warmup": 30,
        "eval.metric": "R@50",
        "eval.batch_size": 24,
    },
    # Files of an unknown size in any layout: --config.data.dir says where.
    "custom": {
        "data.name": "custom",
        "data.val_images": 0,  # the files' own validation split, else a tenth of train
        "data.image_size": 128,
        "data.max_objects": 32,  # where an image has more, the message says how many
        "data.flip": True,
        "model.dropout": 0.5,
        "eval.metric": "R@50",
        "eval.batch_size": 24,
    },
}

PRESETS = {
    "paper": {},  # the equations as they stand: the default of every flag
    "motifs": {
        "model.frequency_bias": True,
        "model.union_mask": True,
        "model.layout_head": "batch_norm",
    },
    "boxes": BOXES,
    # Photographs without a GPU: a trunk whose ImageNet weights come with a package.
    "lite0": {
        "model.trunk": "efficientnet_lite0",
        "model.freeze_trunk": True,
        "model.frequency_bias": True,
        "data.image_size": 320,
        "data.flip": False,
    },
    "full_size": PAPER_SIZE | PAPER_TRAINING,
}

# Tables 2a, 2b and 3 of the paper.
TABLES = {
    "exp1": {"model.use_glem": False, "model.use_gcem": False},
    "exp2": {"model.use_gcem": False},
    "exp3": {"model.use_glem": False},
    "exp4": {"model.row_op": "sigmoid"},
    "exp5": {
        "model.use_glem": False,
        "model.use_gcem": False,
        "model.similarity": "euclidean",
    },
    "exp6": {"model.similarity": "euclidean"},
    **{f"rem{n}": {"model.num_rem": n} for n in (1, 2, 3, 4)},
    **{f"r{r}": {"model.reduction": r} for r in (1, 2, 4, 8)},
    "e0_softmax": {"model.e0_label": "softmax"},
    "e0_no_context": {"model.e0_context": False},
}

VARIANTS = DATASETS | PRESETS | TABLES

# What a variant is besides, in one task (METHOD.md 3.3 and 3.5).
IN_TASK = {
    ("detector", "vg150"): {
        "data.images_with": "boxes",
        "train.batch_size": 18,
        "train.lr": 0.018,
        "train.eval_every": 3800,  # an epoch of 68,538 images
        "train.steps": 190000,
        "train.threshold": 1e-3,
        "eval.metric": "mAP@50",
    },
    ("sgdet", "vg150"): {
        "data.overlap_filter": True,
        "sampling.touching": True,
        "train.lr": 6e-4,
    },
    ("detector", "full_size"): {"eval.metric": "mAP@50"},
    ("sgdet", "full_size"): {"train.lr": 6e-4},
    ("detector", "vrd"): {"eval.metric": "mAP@50"},
    ("detector", "custom"): {"eval.metric": "mAP@50"},
}
