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
    ks = ks_of(next(iter(results["tasks"].values()), {}))
    header = [f"{kind}@{k}" for kind in KINDS for k in ks]
    rows = [["", "", *header]]
    for task in results["tasks"]:
        for name, metrics in methods.items():
            if task in metrics:
                rows.append([task, name, *(percent(metrics[task].get(key)) for key in header)])
    return "\n".join([_title(results), *align(rows, left=2), *_fewer_images(methods, model)])


def objects_table(results: dict) -> str:
    """The detector's scores, and those of perfect boxes where they are known."""
    keys = ("AP@50", "mAP@50", "AP")
    rows = [["", *keys]]
    for name in ("tasks", "ceiling"):
        for task, metrics in results.get(name, {}).items():
            label = task if name == "tasks" else "perfect boxes, classes without context"
            rows.append([label, *(percent(metrics[key]) for key in keys)])
    return "\n".join([_title(results), *align(rows, left=1)])


def _fewer_images(methods: dict[str, dict], model: str) -> list[str]:
    """Methods scored on other images than the model, as `missing` = skip can bring about."""
    images = {
        (task, name): metrics["counts"]["images"]
        for name, tasks in methods.items()
        for task, metrics in tasks.items()
    }
    return [
        f"{task} {name}: scored on {count} images, {model} on {images[task, model]}"
        for (task, name), count in images.items()
        if count != images[task, model]
    ]


def predicate_table(metrics: dict) -> str:
    """Recall of every predicate in percent, the most frequent in the scored images first."""
    ks = ks_of(metrics)
    keys = [f"{prefix}recall@{k}" for prefix in ("", "ng-") for k in ks]
    by_count = sorted(metrics["per_predicate"].items(), key=lambda item: -item[1]["count"])
    header = ["predicate", "count", *(f"{kind}@{k}" for kind in KINDS[:2] for k in ks)]
    rows = [[name, str(row["count"]), *(percent(row[k]) for k in keys)] for name, row in by_count]
    return "\n".join(align([header, *rows], left=1))


def ks_of(metrics: dict) -> list[int]:
    """Every K that was scored."""
    return sorted(int(key[2:]) for key in metrics if key.startswith("R@"))


def _title(results: dict) -> str:
    step = "" if results.get("step") is None else f", step {results['step']}"
    return f"{results.get('split', 'test')} split{step}, percent"


def percent(value: float | None) -> str:
    """A fraction with two decimals, "-" for None."""
    return "-" if value is None else f"{100 * value:.2f}"


def align(rows: list[list[str]], left: int) -> list[str]:
    """Lines with columns of equal width; the first `left` of them start at the left."""
    columns = [
        [f"{cell:{'<' if i < left else '>'}{max(map(len, column))}}" for cell in column]
        for i, column in enumerate(zip(*rows, strict=True))
    ]
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]
