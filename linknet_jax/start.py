"""What a fresh run takes from other checkpoints: the same path is the same thing in every model."""

from __future__ import annotations

import jax
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict
from jax.sharding import Sharding
from ml_collections import ConfigDict

from linknet_jax.checkpoints import Checkpoints, vocabulary_of
from linknet_jax.types import Vocabulary
from linknet_jax.validation import check_same_vocabulary

Flat = dict[tuple[str, ...], np.ndarray]  # variables by (collection, module, .., name)
COPIES = {"object_features": ("object_head",), "union_features": ("edge_head",)}  # METHOD.md 1.1
OF_CLASSES = {"box_head", "box_deltas"}  # a start of other classes goes without
DETECTOR = {"trunk", "rpn", "box_features", "box_head", "box_deltas"}


def load(
    config: ConfigDict, wanted: dict, sharding: Sharding, vocabulary: Vocabulary | None = None
) -> Flat:
    """What `config.start` names and the model (`wanted`: its variables' shapes) has a place for.

    LinkNet's two copies of fc6 and fc7 start as the detector's, where they are not given and have
    its shape. ValueError for other class names than `vocabulary`, for a shape that differs, for a
    checkpoint without anything of use, where a frozen detector is not given, and where the
    relations were trained on another one.
    """
    shapes = flatten_dict(wanted)
    detector, relations = (
        _read(config, name, shapes, sharding, vocabulary) for name in ("detector", "relations")
    )
    _check_same_detector(config, detector, relations)
    given = detector | relations
    _check_complete(config, given, shapes)
    return given | {path: x for path, x in _copies(given, shapes).items() if path not in given}


def _read(
    config: ConfigDict,
    name: str,
    shapes: dict,
    sharding: Sharding,
    vocabulary: Vocabulary | None,
) -> Flat:
    folder = config.start[name]
    if not folder:
        return {}
    stored, names = _variables(epath.Path(folder), sharding)
    if names and vocabulary:
        check_same_vocabulary(names, vocabulary, config.data.name)
    used = {path: x for path, x in stored.items() if path in shapes}
    if not used:
        raise ValueError(
            f"--config.start.{name}={folder}: nothing in it has a place in this model, whose "
            f"trunk is {config.model.trunk}; set --config.model.trunk to that of the checkpoint"
        )
    foreign = {path for path, x in used.items() if OF_CLASSES & {*path} and not names
               and x.shape != shapes[path].shape}  # fmt: skip
    used = {path: x for path, x in used.items() if path not in foreign}
    wrong = [
        f"  {'/'.join(path)}: stored {x.shape}, needed {shapes[path].shape}"
        for path, x in sorted(used.items())
        if x.shape != shapes[path].shape
    ]
    # Deeper trunks hold the same paths as shallower ones, and more.
    trunks = [{path for path in paths if path[1] == "trunk"} for paths in (stored, shapes)]
    if trunks[0]:
        missing = sorted(trunks[0] ^ trunks[1])
        wrong += [f"  {'/'.join(path)}: only in one of the two trunks" for path in missing]
    if wrong:
        raise ValueError(
            f"--config.start.{name}={folder} has another architecture; set the sizes of this run "
            "to those of that one:\n" + "\n".join(wrong[:20])
        )
    if jax.process_index() == 0:
        print(f"starts with {len(used)} of {len(stored)} arrays of {folder}")
    return used


def _variables(folder: epath.Path, sharding: Sharding) -> tuple[Flat, Vocabulary | None]:
    """The variables of the best checkpoint of a folder by path, and its classes, if it has any."""
    with Checkpoints(folder) as saved:
        about = saved.about(saved.resolve("latest"))
    run = about.get("config", {})
    if run.get("train", {}).get("ema"):
        raise ValueError(
            f"{folder} was trained with train.ema: take the averaged weights out of it with "
            "`python -m linknet_jax.strip` and start from those"
        )
    with Checkpoints(folder, run.get("eval", {}).get("metric", "")) as saved:
        items = saved.read(saved.best(), ("params", "constants"), sharding)
    flat = flatten_dict({"params": items["params"], **items.get("constants", {})})
    names = vocabulary_of(about) if "vocabulary" in about else None
    return {path: np.asarray(x) for path, x in flat.items()}, names


def _check_same_detector(config: ConfigDict, detector: Flat, relations: Flat) -> None:
    if config.train.end_to_end:
        return
    for path in sorted(detector.keys() & relations.keys()):
        if not np.array_equal(detector[path], relations[path]):
            raise ValueError(
                f"{'/'.join(path)} differs between --config.start.detector="
                f"{config.start.detector} and --config.start.relations={config.start.relations}: "
                "train the relations on that detector (--config.start.detector="
                f"{config.start.detector} --config.model.freeze_trunk=True "
                "--config.model.freeze_box_head=True), or set --config.train.end_to_end=True"
            )


def _check_complete(config: ConfigDict, given: Flat, shapes: dict) -> None:
    """A frozen detector that was never trained finds nothing, however long one trains on it."""
    if config.task != "sgdet" or config.data.detections or config.train.end_to_end:
        return
    missing = sorted(path for path in shapes if DETECTOR & {*path} and path not in given)
    if missing:
        raise ValueError(
            f"SGDet stands on a trained detector, but {'/'.join(missing[0])} and "
            f"{len(missing) - 1} more of its arrays are not given: set --config.start.detector to "
            "the folder of a run of configs/detector.py"
        )


def _copies(given: Flat, shapes: dict) -> Flat:
    """The detector's fc6 and fc7 as LinkNet's two copies."""
    copies = {}
    for name, head in COPIES.items():
        for path in shapes:
            source = ("params", "object_head", "box_features", *path[3:])
            if path[:3] == ("params", *head, name) and source in given:
                if given[source].shape == shapes[path].shape:
                    copies[path] = given[source]
    return copies
