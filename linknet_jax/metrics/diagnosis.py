"""What predicates are taken for each other, and whether scores can be believed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from linknet_jax.metrics.matching import Match, first_ranks
from linknet_jax.metrics.sums import Sums
from linknet_jax.types import FREE_PREDICTIONS

BINS = 10


def shapes(num_predicates: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every sum."""
    return {
        "confusion": (num_predicates, num_predicates),  # annotated, predicted
        "bin_predictions": (BINS,),
        "bin_correct": (BINS,),
        "bin_scores": (BINS,),
    }


def add(sums: Sums, relations: np.ndarray, best: Match, scores: Float[np.ndarray, "m"]) -> None:
    """Adds an image: of every annotated pair, its best prediction among the first 100.

    A prediction is of the pair if both classes and boxes agree. Scores outside 0 .. 1 are no
    probabilities, and not counted as such.
    """
    ranks = first_ranks(best.near)
    covered = ranks < FREE_PREDICTIONS
    predicted = np.zeros(len(ranks), int)
    predicted[covered] = best.predicates[ranks[covered]]
    np.add.at(sums["confusion"], (relations[:, 2], predicted), 1)
    columns = np.unique(ranks[covered])
    scores = np.asarray(scores, np.float32)[columns].astype(np.float64)
    columns, scores = (x[(scores >= 0) & (scores <= 1)] for x in (columns, scores))
    bins = np.clip((scores * BINS).astype(int), 0, BINS - 1)
    correct = best.hits[:, columns].any(axis=0)
    np.add.at(sums["bin_predictions"], bins, 1)
    np.add.at(sums["bin_correct"], bins, correct)
    sums.add_fractions("bin_scores", np.bincount(bins, scores, BINS))


def compute(sums: Sums, predicates: Sequence[str]) -> dict:
    """`confusion` (rows annotated, columns predicted, 0: none or another) and `calibration`."""
    counts, totals = sums["bin_predictions"], sums.fractions("bin_scores")
    means = [float(x / n) if n else None for x, n in zip(totals, counts.tolist(), strict=True)]
    return {
        "predicates": ["(none)", *predicates[1:]],
        "confusion": sums["confusion"].tolist(),
        "calibration": {
            "edges": np.linspace(0, 1, BINS + 1).round(6).tolist(),
            "count": counts.tolist(),
            "correct": sums["bin_correct"].tolist(),
            "score": means,
        },
    }
