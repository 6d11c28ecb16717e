"""Results as text: fixed-width tables in percent."""

from __future__ import annotations

KINDS = ("R", "ng-R", "mR")


def results_table(results: dict, model: str = "LinkNet") -> str:
    """Tasks x recalls with the rows of the baselines and the ceiling (docs/evaluation.md).

    `results` has "tasks" {task: metrics} and may have "baselines" {name: {task: metrics}},
    "ceiling" {task: metrics}, "split" and "step". What does not apply is shown as "-".
    """
    methods = {model: results["tasks"], **results.get("baselines", {})}
    if results.get("ceiling"):
        methods["ceiling"] = results["ceiling"]
    ks = _ks(next(iter(results["tasks"].values()), {}))
    header = [f"{kind}@{k}" for kind in KINDS for k in ks]
    rows = [["", "", *header]]
    for task in results["tasks"]:
        for name, metrics in methods.items():
            if task in metrics:
                rows.append([task, name, *(_percent(metrics[task].get(key)) for key in header)])
    return "\n".join([_title(results), *_align(rows, left=2)])


def predicate_table(metrics: dict) -> str:
    """Recall of every predicate in percent, the most frequent in the scored images first."""
    ks = _ks(metrics)
    keys = [f"{prefix}recall@{k}" for prefix in ("", "ng-") for k in ks]
    by_count = sorted(metrics["per_predicate"].items(), key=lambda item: -item[1]["count"])
    header = ["predicate", "count", *(f"{kind}@{k}" for kind in KINDS[:2] for k in ks)]
    rows = [[name, str(row["count"]), *(_percent(row[k]) for k in keys)] for name, row in by_count]
    return "\n".join(_align([header, *rows], left=1))


def _ks(metrics: dict) -> list[int]:
    return sorted(int(key[2:]) for key in metrics if key.startswith("R@"))


def _title(results: dict) -> str:
    step = "" if results.get("step") is None else f", step {results['step']}"
    return f"{results.get('split', 'test')} split{step}, percent"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _align(rows: list[list[str]], left: int) -> list[str]:
    """Columns of equal width; the first `left` of them start at the left."""
    columns = [
        [f"{cell:{'<' if i < left else '>'}{max(map(len, column))}}" for cell in column]
        for i, column in enumerate(zip(*rows, strict=True))
    ]
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]
