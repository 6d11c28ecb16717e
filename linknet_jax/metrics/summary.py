"""From the sums of a split to the numbers that are reported (docs/evaluation.md).

`ks` maps each K to its column in the sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from linknet_jax.metrics.sums import Sums
from linknet_jax.types import FREE_PREDICTIONS

PREFIXES = ("", "ng-")  # with and without the graph constraint
GROUPS = ("head", "body", "tail")


def shapes(num_predicates: int, num_ks: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every sum; an axis of 2 is (with, without the graph constraint)."""
    return {
        "images": (3,),  # scored, skipped without relations, without predictions
        "recall": (2, num_ks),
        "zero_shot": (2, num_ks),
        "zero_shot_images": (1,),
        "predicate_recall": (2, num_ks, num_predicates),
        "predicate_images": (num_predicates,),
        "relations": (num_predicates,),
        "pooled_hits": (2, num_ks),
        "pair_hits": (num_ks,),
        "objects": (2,),  # correct, all
    }


def recalls(sums: Sums, ks: Mapping[int, int]) -> dict[str, float | None]:
    """R, ng-R, mR, ng-mR, zR, ng-zR and F1 at every K; None where no image counts.

    Without the graph constraint 100 candidates are kept: None beyond.
    """
    images, unseen_images = sums["images"][0], sums["zero_shot_images"][0]
    recall, unseen = sums.fractions("recall"), sums.fractions("zero_shot")
    by_predicate = _recall_by_predicate(sums)
    result = {}
    for k, i in ks.items():
        for j, prefix in enumerate(PREFIXES):
            kept = _is_kept(j, k)
            result[f"{prefix}R@{k}"] = _mean(recall[j, i], images) if kept else None
            result[f"{prefix}mR@{k}"] = (
                float(by_predicate[j, i].mean()) if images and kept else None
            )
            result[f"{prefix}zR@{k}"] = _mean(unseen[j, i], unseen_images) if kept else None
        result[f"F1@{k}"] = _harmonic_mean(result[f"R@{k}"], result[f"mR@{k}"])
    return result


def pair_accuracy(sums: Sums, ks: Mapping[int, int]) -> dict[str, float | None]:
    """A@K: hits among the first K predictions on annotated pairs, over all relations."""
    relations = sums["relations"].sum()
    return {f"A@{k}": _mean(sums["pair_hits"][i], relations) for k, i in ks.items()}


def pooled(sums: Sums, ks: Mapping[int, int]) -> dict[str, float | None]:
    """Recall over all relations of the split, matched one to one: VRD's k = 1 and k = 70."""
    relations = sums["relations"].sum()
    return {
        f"{prefix}pooled-R@{k}": (
            _mean(sums["pooled_hits"][j, i], relations) if _is_kept(j, k) else None
        )
        for k, i in ks.items()
        for j, prefix in enumerate(PREFIXES)
    }


def groups(counts: Int[np.ndarray, "p"]) -> dict[str, Int[np.ndarray, "q"]]:
    """Thirds of the predicates 1 .. p - 1, the most frequent first; ties by position."""
    order = 1 + np.argsort(-np.asarray(counts)[1:], kind="stable")
    return dict(zip(GROUPS, np.array_split(order, len(GROUPS)), strict=True))


def group_recalls(
    sums: Sums, ks: Mapping[int, int], members: Mapping[str, Int[np.ndarray, "q"]]
) -> dict[str, float | None]:
    """Mean recall over the predicates of each group; an absent one counts as 0, as in mR."""
    by_predicate, images = _recall_by_predicate(sums), sums["images"][0]
    return {
        f"{group}-mR@{k}": (
            float(by_predicate[0, i, rows - 1].mean()) if images and len(rows) else None
        )
        for group, rows in members.items()
        for k, i in ks.items()
    }


def object_accuracy(sums: Sums) -> float | None:
    """Share of the objects of the scored images whose class is right."""
    return _mean(*sums["objects"])


def per_predicate(
    sums: Sums,
    ks: Mapping[int, int],
    names: Sequence[str],
    members: Mapping[str, Int[np.ndarray, "q"]],
) -> dict[str, dict]:
    """Recalls, relations, images and group of every predicate; names[0] is the absent one."""
    values = _recall_by_predicate(sums)
    group = {int(p): name for name, rows in members.items() for p in rows}
    result = {}
    for p, name in enumerate(names[1:], 1):
        images = int(sums["predicate_images"][p])
        row = {
            f"{prefix}recall@{k}": (
                float(values[j, i, p - 1]) if images and _is_kept(j, k) else None
            )
            for j, prefix in enumerate(PREFIXES)
            for k, i in ks.items()
        }
        counts = {"count": int(sums["relations"][p]), "images": images, "group": group[p]}
        result[name] = row | counts
    return result


def curve(sums: Sums, ks: Mapping[int, int]) -> dict[str, list]:
    """R, mR, ng-R and ng-mR over a fixed row of K."""
    values = recalls(sums, ks)
    kinds = {kind: [values[f"{kind}@{k}"] for k in ks] for kind in ("R", "mR", "ng-R", "ng-mR")}
    return {"K": list(ks), **kinds}


def counts(sums: Sums) -> dict[str, int]:
    """What the means are taken over, and what was left out."""
    scored, skipped, empty = sums["images"].tolist()
    return {
        "images": scored,
        "skipped_without_relations": skipped,
        "without_predictions": empty,
        "relations": int(sums["relations"].sum()),
        "absent_predicates": int((sums["predicate_images"][1:] == 0).sum()),
        "zero_shot_images": int(sums["zero_shot_images"][0]),
    }


def _is_kept(ranking: int, k: int) -> bool:
    """Whether the best k predictions are known: all under the graph constraint, else 100."""
    return ranking == 0 or k <= FREE_PREDICTIONS


def _recall_by_predicate(sums: Sums) -> Float[np.ndarray, "2 k p"]:
    """Mean over the images that have the predicate; 0 where none has."""
    images = np.maximum(sums["predicate_images"], 1)
    return (sums.fractions("predicate_recall") / images)[..., 1:]


def _mean(total: float, count: int) -> float | None:
    """None of nothing: JSON has no NaN."""
    return float(total / count) if count else None


def _harmonic_mean(a: float | None, b: float | None) -> float | None:
    if a is None or b is None:
        return None
    return 2 * a * b / (a + b) if a + b else 0.0
