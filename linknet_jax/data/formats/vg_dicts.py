"""VG-SGG-dicts.json: the numbers of the classes, and how often training shows each predicate."""

from __future__ import annotations

import numpy as np
from etils import epath
from jaxtyping import Int

from linknet_jax.data.collection import BACKGROUND
from linknet_jax.data.formats.values import integer_problem, read_json, shown
from linknet_jax.types import Vocabulary

TRAINING = "training_predicate_count"


def read_vocabulary(path: epath.Path) -> Vocabulary:
    """The classes of a VG-SGG-dicts.json; ValueError where its numbers have gaps or disagree."""
    tables = read_json(path, dict)
    return Vocabulary(*(_names(tables, key, path) for key in ("label", "predicate")))


def read_training_counts(path: epath.Path, vocabulary: Vocabulary) -> Int[np.ndarray, "p"] | None:
    """Relations of each predicate in training, 0 for the background; None where the file has none.

    Its `predicate_count` is of all splits in most releases, and no substitute. ValueError where a
    predicate is not counted.
    """
    counts = read_json(path, dict).get(TRAINING)
    if counts is None:
        return None
    for name in vocabulary.predicates[1:]:
        if not isinstance(counts, dict) or integer_problem(counts.get(name)):
            raise ValueError(
                f"{path}: {TRAINING} must give the number of relations of every predicate, "
                f"{name!r} has none; mend it or leave {TRAINING} out"
            )
    return np.array([0, *(counts[name] for name in vocabulary.predicates[1:])], np.int64)


def training_dicts(vocabulary: Vocabulary, counts: Int[np.ndarray, "p"]) -> dict:
    """The classes with the relations of each predicate in training."""
    training = dict(zip(vocabulary.predicates[1:], counts[1:].tolist(), strict=True))
    return class_dicts(vocabulary) | {TRAINING: training}


def class_dicts(vocabulary: Vocabulary) -> dict:
    """Names to numbers and back, without the background."""
    result = {}
    for key, names in (("label", vocabulary.objects), ("predicate", vocabulary.predicates)):
        result[f"{key}_to_idx"] = {name: k for k, name in enumerate(names) if k}
        result[f"idx_to_{key}"] = {str(k): name for k, name in enumerate(names) if k}
    return result


def _names(tables: dict, key: str, path: epath.Path) -> tuple[str, ...]:
    """Names in the order of their indices, which must be 1 .. C without a gap."""
    index = tables.get(f"{key}_to_idx")
    if not isinstance(index, dict) or not all(type(v) is int for v in index.values()):
        raise ValueError(f"{path}: {key}_to_idx must map names to integers, got {shown(index)}")
    numbers = sorted(index.values())
    first = int(BACKGROUND not in index)  # some files list it
    if numbers != list(range(first, first + len(numbers))) or index.get(BACKGROUND, 0) != 0:
        raise ValueError(
            f"{path}: {key}_to_idx must number its names 1 .. {len(index)} without gap or "
            f"repetition (0 is {BACKGROUND}), got {numbers[:10]} ..."
        )
    names = {v: name for name, v in index.items() if v}
    back = tables.get(f"idx_to_{key}", {})
    if not isinstance(back, dict):
        raise ValueError(f"{path}: idx_to_{key} must map numbers to names, got {shown(back)}")
    forth = {str(v): name for v, name in names.items()}
    back = {k: name for k, name in back.items() if k != "0"}
    wrong = sorted(k for k in back.keys() | forth.keys() if back.get(k) != forth.get(k))
    if back and wrong:
        raise ValueError(
            f"{path}: {key}_to_idx and idx_to_{key} disagree on index {wrong[0]}: "
            f"{forth.get(wrong[0])!r} and {shown(back.get(wrong[0]))}; take both from one release"
        )
    return (BACKGROUND, *(names[k] for k in sorted(names)))
