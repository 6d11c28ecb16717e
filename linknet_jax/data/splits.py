"""From what the files hold to the images of a split (docs/data.md)."""

from __future__ import annotations

import numpy as np
from ml_collections import ConfigDict

from linknet_jax.data.collection import SPLITS, AnnotationTable, Collection, compact
from linknet_jax.ops import boxes as box_ops

OFFICIAL = (1145398, 622705)  # boxes and relations of Xu et al.'s VG-SGG.h5
OFFICIAL_COUNTS = {"train": 57723, "val": 5000, "test": 26446}


def available(collection: Collection) -> tuple[str, ...]:
    """train, val, and test where the files have one."""
    return tuple(name for name in SPLITS if name != "test" or name in collection.splits)


def stored_in(collection: Collection, split: str) -> str:
    """The files' split that holds it: a validation split that they lack is part of train."""
    return split if split in collection.splits or split == "test" else "train"


def choose(collection: Collection, split: str, config: ConfigDict) -> AnnotationTable:
    """The images of train, val or test; `config` is the tree's `data`.

    Where the files have no validation split, it is the first `val_images` (0: a tenth, at least
    one) of the training images with relations. Training leaves out relations of boxes that do not
    touch with `overlap_filter`.

    ValueError for a split that is empty or that the files do not have.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} must be one of {', '.join(SPLITS)}")
    part = stored_in(collection, split)
    if part not in collection.splits:
        raise ValueError(f"data.dir={config.dir!r} has no {split} split")
    table = collection.splits[part]
    table = table.select(_kept(table, config.images_with))
    if "val" not in collection.splits and split != "test":
        table = table.select(_carve(collection.splits["train"], table, split, config))
    if split == "train" and config.overlap_filter:
        table = drop_apart(table)
    if not len(table):
        beside = f" beside the data.val_images={config.val_images}" if split == "train" else ""
        raise ValueError(
            f"data.dir={config.dir!r}: no image with {config.images_with} in {split}{beside}"
        )
    _check_official(collection, table, split, config)
    return table


def _kept(table: AnnotationTable, images_with: str) -> np.ndarray:
    counts = table.relation_counts if images_with == "relations" else table.box_counts
    return np.flatnonzero(counts > 0)


def _carve(
    whole: AnnotationTable, table: AnnotationTable, split: str, config: ConfigDict
) -> np.ndarray:
    """Positions in `table` of its validation or its training part.

    The detector validates on the images of the relation model too, unless `val_list` is motifs:
    then on the first images with a box, of which the relation model validates on others.
    """
    shared = config.val_list == "shared"
    source = whole.select(_kept(whole, "relations")) if shared else table
    count = config.val_images or max(1, len(source) // 10)
    held_out = np.isin(table.rows, source.rows[:count])
    return np.flatnonzero(held_out if split == "val" else ~held_out)


def drop_apart(table: AnnotationTable) -> AnnotationTable:
    """Without relations whose boxes share no pixel, nor images that have none left."""
    table = compact(table)
    subjects, objects = table.boxes[table.ends].swapaxes(0, 1)
    table = table.with_relations(box_ops.intersection(subjects, objects, inclusive=True) > 0)
    return table.select(np.flatnonzero(table.relation_counts > 0))


def _check_official(
    collection: Collection, table: AnnotationTable, split: str, config: ConfigDict
) -> None:
    """ValueError where Visual Genome's official file does not give the published counts."""
    tables = collection.splits.values()
    boxes = sum(int(t.box_counts.sum()) for t in tables)
    relations = sum(int(t.relation_counts.sum()) for t in tables)
    usual = (config.images_with, config.val_images, config.overlap_filter)
    if (boxes, relations) == OFFICIAL and usual == ("relations", 5000, False):
        if len(table) != OFFICIAL_COUNTS[split]:
            raise ValueError(
                f"{config.dir}: {split} has {len(table)} images with relations, but the official "
                f"VG150 has {OFFICIAL_COUNTS[split]}; download its files again"
            )
