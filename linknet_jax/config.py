"""The default configuration tree. Every leaf can be overridden on the command line.

Ids such as A9 name rows of docs/ambiguities.md.
"""

from __future__ import annotations

import difflib

from ml_collections import ConfigDict

from linknet_jax.variants import IN_TASK, TASKS, VARIANTS


def get_default(task: str) -> ConfigDict:
    """The embedded default: synthetic scenes and a small LinkNet, minutes on a laptop CPU."""
    config = ConfigDict(
        {
            "name": task,  # names the default workdir, runs/NAME
            "task": task,
            "seed": 0,
            "compilation_cache": "",  # "" = WORKDIR/jax_cache
            "data": _data(),
            "start": _start(),
            "model": _model(),
            "rpn": _rpn(),
            "detector": _detector(),
            "loss": _loss(),
            "sampling": _sampling(),
            "train": _train(),
            "eval": _eval(),
            "predict": {  # what prediction leaves out; an argument of it overrides them
                "least": 0.0,  # triplet score from which a relation counts
                "object_least": 0.0,  # likewise of objects; detector.score comes before it
                "top": 100,  # relations of an image, one a pair
            },
            "profile": {
                "steps": 0,  # training steps that are traced into WORKDIR/profile
                "after": 10,  # steps of the run before them
            },
            "checkpoint": {
                "every": 250,  # steps
                "keep": 2,  # how many of the latest, beside the best
            },
        }
    )
    config.update_from_flattened_dict(TASKS.get(task, {}))
    return config


def get_config(task: str, variant: str = "") -> ConfigDict:
    """The default with named overrides, joined by commas; their order is the order they apply in.

    ValueError for an unknown name.
    """
    config = get_default(task)
    names = [name for name in variant.split(",") if name]
    for name in names:
        if name not in VARIANTS:
            near = difflib.get_close_matches(name, VARIANTS) or sorted(VARIANTS)
            raise ValueError(f"unknown variant {name!r} of {task}; nearest: {', '.join(near)}")
        config.update_from_flattened_dict(VARIANTS[name] | IN_TASK.get((task, name), {}))
    config.name = "_".join([task, *names])
    return config


def _data() -> dict:
    return {
        "name": "synthetic",  # or visual_genome | vrd | coco | jsonl | tfds | custom (finds out)
        "dir": "",  # folder of the data set's files; synthetic needs none
        "images": "",  # folders of its photographs, joined by commas; "" = found beside the files
        "image_size": 128,  # side of the square network input, pixels
        "max_objects": 10,  # N: boxes an image, padded
        "detections": "",  # JSON Lines of a detector's boxes and scores, for SGDet
        "max_detections": 64,  # boxes of a detector an image
        "seed": 0,  # of the synthetic scenes
        "train_images": 4000,  # of the synthetic splits, as test_images
        "test_images": 500,
        "val_images": 200,  # of files without a val split: the first of train; 0 = a tenth
        "val_list": "shared",  # for detector and relation model alike | motifs (docs/data.md)
        "images_with": "relations",  # relations | boxes (detector): other images are left out
        "overlap_filter": False,  # train only on relations of boxes that touch (SGDet)
        "flip": False,  # mirror half of the images in training
        "threads": 2,  # that read images, in each process
        "prefetch": 2,  # batches made ahead
        "cache": "",  # folder for the maps of a frozen trunk, computed once; "" = off
    }


def _model() -> dict:
    return {
        "visual": True,  # False: boxes and classes only, no pixels
        "trunk": "small",  # and vgg16, efficientnet_lite0, resnet50_c4 ..: docs/detection.md
        "roi_size": 7,  # bins of a pooled region along each side
        "roi_align": "aligned",  # aligned | motifs (A1)
        "roi_chunk": 128,  # RoIs or pairs that go through fc6 and fc7 at once
        "fc_dim": 256,  # fc6 and fc7
        "embed_dim": 64,  # rows of K0 and K1
        "hidden_dim": 128,  # O2, O3 and their like in the edge stack
        "pooling_dim": 256,  # union features F, and subject and object in E1
        "layout_dim": 64,  # K2
        "dropout": 0.1,  # in fc6 and fc7
        "use_rem": True,  # relational embedding
        "use_glem": True,  # geometric layout encoding
        "use_gcem": True,  # global context encoding
        "num_rem": 2,  # relational embeddings a stack (A15)
        "reduction": 2,  # r of eq. 1: width of the attention is input / r
        "row_op": "softmax",  # softmax | sigmoid (A13)
        "similarity": "dot",  # dot | euclidean | euclidean_root (A14)
        "attention_scale": "none",  # none | rsqrt_dim (A12)
        "e0_label": "argmax",  # argmax | softmax (Table 2b)
        "e0_context": True,  # O3 in E0 (Table 2b)
        "e0_label_train": "ground_truth",  # ground_truth | argmax (A9)
        "predcls_l": "detector",  # detector | gt (A2)
        "context_pool": "full",  # full | valid (A4b)
        "context_trunk": False,  # 3x3 convolution before the pooling (A4, gce_trunk)
        "layout_box": "center",  # center | corner (A10)
        "layout_head": "mlp",  # mlp | linear | batch_norm (A11)
        "frequency_bias": False,  # A17
        "union_mask": False,  # A18
        "freeze_trunk": False,  # A21
        "freeze_box_head": False,  # A21; and the region proposals
        "detector_dropout": True,  # A22
        "word_vectors": "",  # .npy of the object names' vectors (A24); "" = normal(0.4)
        "dtype": "float32",  # compute; parameters stay float32
    }


def _start() -> dict:
    return {  # folders whose best checkpoint a fresh run takes what it has a place for
        "detector": "",  # of configs/detector.py, or of linknet_jax.import_weights
        "relations": "",  # of configs/sgcls.py or configs/predcls.py
    }


def _rpn() -> dict:
    """Region proposals (METHOD.md 3.2); anchors are a cell's square times these."""
    return {
        "ratios": (0.65, 1.0, 1.5),  # height / width of the anchors
        "scales": (2.5, 3.5),  # side of their square, in strides of the map
        "width": 96,  # channels of the 3x3 convolution
        "before": 400,  # anchors that enter NMS
        "proposals": 60,  # that leave it, at most
        "train_before": 600,  # likewise while the detector trains
        "train_proposals": 100,
        "nms": 0.7,  # IoU above which the lower one falls
        "min_size": 4.0,  # side of a proposal, pixels
        "positive": 0.7,  # IoU from which an anchor is an object
        "negative": 0.3,  # and below which it is background
        "sampled": 64,  # anchors an image in the loss
        "sampled_positive": 32,
    }


def _detector() -> dict:
    """Box head (METHOD.md 3.3)."""
    return {
        "foreground": 0.5,  # IoU from which a proposal is an object
        "background": (0.0, 0.5),  # IoU of those that are background
        "sampled": 64,  # boxes an image in the loss
        "sampled_foreground": 16,
        "score": 0.01,  # probability from which a class counts
        "nms": 0.3,  # IoU above which the lower box of a class falls
        "per_class": 300,  # boxes of a class that stay, data.max_detections of all
    }


def _sampling() -> dict:
    return {
        "pairs": 256,  # ordered pairs an image in training (A27)
        "related": 64,
        "touching": False,  # SGDet: only pairs of boxes that overlap (A26)
    }


def _loss() -> dict:
    return {
        "object": 1.0,  # eq. 8
        "relation": 1.0,  # lambda_1 of eq. 18
        "context": 1.0,  # lambda_2 of eq. 18
        "box_head": 1.0,  # only while the box head is trained
        "context_reduction": "mean",  # mean | sum over classes (A6)
    }


def _train() -> dict:
    return {
        "steps": 1000,
        "batch_size": 16,  # images a step, over all devices
        "accumulation": 1,  # parts of each device's images, one after the other
        "fsdp": 1,  # devices that share the large parameters and their optimizer state
        "optimizer": "adamw",  # sgd | adamw
        "lr": 1e-3,  # peak
        "fc_lr_ratio": 1.0,  # learning rate of both fc6/fc7 copies, relative to lr
        "momentum": 0.9,  # of sgd
        "weight_decay": 1e-4,
        "clip": 5.0,  # global gradient norm; 0 = off
        "schedule": "cosine",  # constant | step | cosine | plateau
        "warmup": 60,  # steps
        "milestones": (0.6, 0.85),  # of `steps`, for step
        "decay": 0.1,  # factor of step and plateau
        "patience": 3,  # evaluations without progress before plateau decays
        "threshold": 1e-4,  # absolute progress that counts
        "cooldown": 1,  # evaluations after a decay that do not count
        "early_stop": 0,  # evaluations without progress before training stops; 0 = never
        "end_to_end": False,  # SGDet: train the detector together with the relations
        "ema": 0.0,  # decay of the averaged weights; 0 = off
        "log_every": 50,  # steps
        "eval_every": 250,  # steps
    }


def _eval() -> dict:
    return {
        "batch_size": 40,  # images at once, over all devices
        "step": "best",  # best | latest | a step number
        "metric": "R@20",  # of the configured task (mAP@50); decides best, plateau, early stop
        "ks": (20, 50, 100),  # K of R@K and the others
        "frame": "original",  # pixels of IoU: original | 1024 (longer side scaled to 1024; Motifs)
        "zero_shot": "",  # .json list of triplets for zR@K; "" = those that training never shows
        "iou": "inclusive",  # inclusive | exclusive of both end pixels
        "missing": "zero",  # zero | skip: an image without predictions counts 0 | is left out
        "report": True,  # write WORKDIR/report.html
        "dump": False,  # write every prediction to WORKDIR/predictions, for linknet_jax.score
    }
