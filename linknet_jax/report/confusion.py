"""Which predicates are taken for which, read from a diagnosis (docs/evaluation.md)."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int

NO_PAIR, OTHER = "(none)", "(other)"


@dataclasses.dataclass(frozen=True)
class Confusion:
    """Annotated predicates against predicted ones, most frequent first.

    Attributes:
      rows: annotated predicates.
      columns: the same, then OTHER where not all are shown, then NO_PAIR: the pair is not among
        the best predictions.
      counts: annotated relations of each row.
      shares: of the row's relations; every row sums to 1.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: Int[np.ndarray, "r"]
    shares: Float[np.ndarray, "r c"]


def confusion(diagnosis: dict, most: int) -> Confusion:
    """The `most` predicates that are annotated most often; empty if none is annotated."""
    table = np.asarray(diagnosis["confusion"])[1:]
    order = np.argsort(-table.sum(axis=1), kind="stable")
    order = order[table.sum(axis=1)[order] > 0]
    shown, rest = order[:most], np.setdiff1d(np.arange(len(table)), order[:most])
    names = tuple(diagnosis["predicates"][k + 1] for k in shown)
    parts = [table[:, 1 + shown], table[:, 1 + rest].sum(axis=1)[:, None], table[:, :1]]
    columns = (*names, OTHER, NO_PAIR)
    if not len(rest):
        del parts[1]
        columns = (*names, NO_PAIR)
    chosen = np.concatenate(parts, axis=1)[shown]
    counts = chosen.sum(axis=1)
    return Confusion(names, columns, counts, chosen / counts[:, None])


def mistakes(diagnosis: dict, most: int = 10) -> list[tuple[str, str, int, float]]:
    """The largest cells off the diagonal: (annotated, predicted, relations, share of its row)."""
    table = np.asarray(diagnosis["confusion"])[1:, 1:]
    totals = np.asarray(diagnosis["confusion"])[1:].sum(axis=1)
    wrong = np.where(np.eye(len(table), dtype=bool), 0, table)
    names = diagnosis["predicates"][1:]
    cells = [divmod(int(k), len(table)) for k in np.argsort(-wrong, axis=None, kind="stable")]
    return [
        (names[i], names[j], int(wrong[i, j]), wrong[i, j] / totals[i])
        for i, j in cells[:most]
        if wrong[i, j]
    ]


def calibration_error(calibration: dict) -> tuple[float, float, float] | None:
    """(mean score, share that is right, expected calibration error); None without predictions."""
    count = np.array(calibration["count"], float)
    if not count.sum():
        return None
    score = np.array([x or 0 for x in calibration["score"]]) * count
    correct = np.array(calibration["correct"], float)
    total = count.sum()
    return score.sum() / total, correct.sum() / total, np.abs(score - correct).sum() / total
