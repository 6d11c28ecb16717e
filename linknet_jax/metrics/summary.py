"""From the sums of a split to the numbers that are reported (docs/evaluation.md)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from linknet_jax.metrics.mean import Mean

Sums = dict[str, np.ndarray]


def shapes(num_predicates: int, num_ks: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every sum; an axis of 2 is (with, without the graph constraint)."""
    return {
        "images": (3,),  # scored, skipped without relations, scored without predictions
        "recall": (2, num_ks),
        "zero_shot": (2, num_ks),
        "zero_shot_images": (),
        "predicate_recall": (2, num_ks, num_predicates),
        "predicate_images": (num_predicates,),
        "relations": (num_predicates,),
        "pair_hits": (num_ks,),
        "objects": (2,),  # correct, all
    }


def recalls(sums: Sums, ks: tuple[int, ...]) -> dict[str, float | None]:
    """R, ng-R, mR, ng-mR, zR, ng-zR and F1 at every K; None where no image counts."""
    per_predicate = _recall_by_predicate(sums).mean(axis=-1)
    images, unseen_images = sums["images"][0], float(sums["zero_shot_images"])
    result = {}
    for i, k in enumerate(ks):
        for j, prefix in enumerate(("", "ng-")):
            mean = float(per_predicate[j, i]) if images else None
            result[f"{prefix}R@{k}"] = Mean(sums["recall"][j, i], images).compute()
            result[f"{prefix}mR@{k}"] = mean
            result[f"{prefix}zR@{k}"] = Mean(sums["zero_shot"][j, i], unseen_images).compute()
        result[f"F1@{k}"] = _harmonic_mean(result[f"R@{k}"], result[f"mR@{k}"])
    return result


def pair_accuracy(sums: Sums, ks: tuple[int, ...]) -> dict[str, float | None]:
    """A@K: hits among the first K predictions on annotated pairs, over all relations."""
    relations = sums["relations"].sum()
    hits = zip(ks, sums["pair_hits"], strict=True)
    return {f"A@{k}": Mean(hit, relations).compute() for k, hit in hits}


def object_accuracy(sums: Sums) -> float | None:
    """Share of the objects of the scored images whose class is right."""
    return Mean(*sums["objects"]).compute()


def per_predicate(sums: Sums, ks: tuple[int, ...], names: tuple[str, ...]) -> dict[str, dict]:
    """Recalls, relations and images of every predicate; the first of `names` is the absent one."""
    keys = [f"{prefix}recall@{k}" for prefix in ("", "ng-") for k in ks]
    values = _recall_by_predicate(sums).reshape(len(keys), -1).T.tolist()
    result = {}
    for p, name in enumerate(names[1:], 1):
        images = int(sums["predicate_images"][p])
        row = values[p - 1] if images else [None] * len(keys)
        count = {"count": int(sums["relations"][p]), "images": images}
        result[name] = dict(zip(keys, row, strict=True)) | count
    return result


def counts(sums: Sums) -> dict[str, int]:
    """What the means are taken over, and what was left out."""
    scored, skipped, empty = sums["images"]
    return {
        "images": int(scored),
        "skipped_without_relations": int(skipped),
        "without_predictions": int(empty),
        "relations": int(sums["relations"].sum()),
        "absent_predicates": int((sums["predicate_images"][1:] == 0).sum()),
        "zero_shot_images": int(sums["zero_shot_images"]),
    }


def _recall_by_predicate(sums: Sums) -> Float[np.ndarray, "2 k p"]:
    """Mean over the images that have the predicate; 0 where none has."""
    return (sums["predicate_recall"] / np.maximum(sums["predicate_images"], 1))[..., 1:]


def _harmonic_mean(a: float | None, b: float | None) -> float | None:
    if a is None or b is None:
        return None
    return 2 * a * b / (a + b) if a + b else 0.0
