"""The numbers of a report as rows of text, in percent."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from linknet_jax.data.raw.vocabulary import vg150
from linknet_jax.metrics.table import ks_of, percent
from linknet_jax.report import published

CEILING, NONE = "ceiling", "\N{EN DASH}"
UNSHOWN = ("task", "split", "images_scored", "images_skipped")  # in the heading or the counts
TASK_TITLES = {"predcls": "PredCls", "sgcls": "SGCls", "sgdet": "SGDet"}
RECALLS = {
    "R": "recall, with the graph constraint",
    "ng-R": "recall without it",
    "mR": "mean recall of the predicates",
    "ng-mR": "the same, unconstrained",
    "F1": "harmonic mean of R and mR",
    "zR": "recall of triplets unseen in training",
    "ng-zR": "the same, unconstrained",
    "A": "accuracy, annotated pairs given",
    "pooled-R": "recall over all relations at once",
    "ng-pooled-R": "the same, unconstrained",
    "head-mR": "mean recall of frequent predicates",
    "body-mR": "of those in between",
    "tail-mR": "of rare predicates",
}
SINGLE = {
    "object_accuracy": ("object accuracy", "share of boxes with the right class"),
    "mAP@50": ("mAP@50", "precision of the boxes, IoU 0.5"),
    "AP": ("AP", "precision of the boxes, IoU 0.5 to 0.95"),
}


@dataclasses.dataclass(frozen=True)
class Block:
    """One task on one split; `methods` are names and metrics, the model's first."""

    split: str
    task: str
    methods: tuple[tuple[str, dict], ...]

    @property
    def metrics(self) -> dict:
        """The model's."""
        return self.methods[0][1]

    @property
    def title(self) -> str:
        """For a heading."""
        return f"{TASK_TITLES[self.task]}, {self.split}"

    @property
    def ks(self) -> list[int]:
        """Every K that was scored."""
        return ks_of(self.metrics)


def blocks_of(results: dict, model: str) -> list[Block]:
    """Every task of every split of a results.json, the split of the top level first.

    `model` is the name of what was evaluated.

    Raises:
      ValueError: if there is no task.
    """
    splits = {results["split"]: results}
    for split, part in results.get("splits", {}).items():
        splits.setdefault(split, part)
    found = [
        Block(split, task, ((model, metrics), *_others(part, task)))
        for split, part in splits.items()
        for task, metrics in part["tasks"].items()
    ]
    if not found:
        raise ValueError('results have no task; expected {"split": ..., "tasks": {TASK: metrics}}')
    return found


def _others(part: dict, task: str) -> list[tuple[str, dict]]:
    methods = {**part.get("baselines", {}), CEILING: part.get("ceiling", {})}
    return [(name, tasks[task]) for name, tasks in methods.items() if task in tasks]


def _cell(value: float | None) -> str:
    return NONE if value is None else percent(value)


def recall_rows(block: Block) -> list[tuple[str, str, list[list[str]]]]:
    """(symbol, meaning, a list of values at every K for every method)."""
    return [
        (name, text, [[_cell(m[f"{name}@{k}"]) for k in block.ks] for _, m in block.methods])
        for name, text in RECALLS.items()
    ]


def single_rows(block: Block) -> list[tuple[str, str, list[str]]]:
    """Metrics without K that apply: (name, meaning, value of every method)."""
    return [
        (*texts, [_cell(m[key]) for _, m in block.methods])
        for key, texts in SINGLE.items()
        if any(m[key] is not None for _, m in block.methods)
    ]


def protocol_rows(blocks: Sequence[Block]) -> list[tuple[str, list[str]]]:
    """What was counted and how; a single value where it is the same for all blocks."""
    parts = [{**b.metrics["protocol"], **b.metrics["counts"]} for b in blocks]
    rows = []
    for key in (key for key in parts[0] if key not in UNSHOWN):
        values = [_words(part[key]) for part in parts]
        rows.append((key.replace("_", " "), values if len(set(values)) > 1 else values[:1]))
    return rows


def _words(value) -> str:
    if value is None:
        return NONE
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_words(x)}" for key, x in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def predicate_rows(blocks: Sequence[Block]) -> list[dict]:
    """Rows for the tasks of one split, the most frequent predicate first; widths in percent."""
    first = blocks[0].metrics["per_predicate"]
    return [
        {
            "name": name,
            "group": row["group"],
            "count": f"{row['count']:,}",
            "bars": [_bars(b.metrics["per_predicate"][name], max(b.ks)) for b in blocks],
        }
        for name, row in sorted(first.items(), key=lambda item: -item[1]["count"])
    ]


def _bars(row: dict, k: int) -> list[tuple[str, str]]:
    """(text, width) with and without the graph constraint."""
    values = [row[f"{prefix}recall@{k}"] for prefix in ("", "ng-")]
    return [(_cell(x), f"{100 * (x or 0):.2f}") for x in values]


def is_vg150(blocks: Sequence[Block]) -> bool:
    """Whether the predicates are those of the published rows."""
    names = set(vg150().predicates[1:])
    return all(set(b.metrics["per_predicate"]) == names for b in blocks)


def published_tables(blocks: Sequence[Block]) -> list[dict]:
    """For every task the model's own rows and the published ones; values in published.METRICS."""
    return [
        {
            "title": TASK_TITLES[task],
            "own": [(b.split, _own(b.metrics)) for b in blocks if b.task == task],
            "rows": [(row, _theirs(row)) for row in published.rows(task)],
        }
        for task in dict.fromkeys(b.task for b in blocks)
    ]


def _own(metrics: dict) -> list[list[str]]:
    return [[_cell(metrics.get(f"{name}@{k}")) for k in published.KS] for name in published.METRICS]


def _theirs(row: published.Published) -> list[list[str]]:
    known = [x for values in row.recalls.values() for x in values if x is not None]
    coarse = all(x == round(x, 1) for x in known)
    missing = (None,) * len(published.KS)
    return [
        [_as_published(x, coarse) for x in row.recalls.get(name, missing)]
        for name in published.METRICS
    ]


def _as_published(value: float | None, coarse: bool) -> str:
    """With as many decimals as the source has, a space as wide as a digit instead of the second."""
    if value is None:
        return NONE
    return f"{value:.1f}\u2007" if coarse else f"{value:.2f}"
