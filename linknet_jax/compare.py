"""Two evaluations side by side: `python -m linknet_jax.compare WORKDIR_A WORKDIR_B`.

Metrics in percent with their difference, then the recall of every predicate, largest gain first.
A side is a workdir, its results.json, or the metrics.json of `python -m linknet_jax.score`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from etils import epath

from linknet_jax.command import exit_status
from linknet_jax.metrics.table import align, percent

MEAN = "mR, F1, groups"
# What must be the same for two numbers to mean the same, and the metrics that it concerns.
PROTOCOL = {
    "iou_threshold": "",
    "iou_convention": "",
    "frame": "",
    "missing": "",
    "split": "",
    "predicates": MEAN,
    "groups": "head, body, tail",
    "graph_constraint": "",
    "images_scored": "",
    "zero_shot_triplets": "zR, ng-zR",
    "predictions_kept": "",
}
SIDES = ("A", "B")
Key = tuple[str, str]  # split, task


def compare(a: epath.Path, b: epath.Path, k: int = 100) -> str:
    """The text of the comparison of every split and task that both have; gain is B - A.

    `k` is that of the recalls per predicate. ValueError for a file that is missing or wrong and
    where nothing is in both.
    """
    sides = _read(a), _read(b)
    pairs = _pairs(*sides)
    if not pairs:
        held = " and ".join(
            f"{path} has {_listed(s)}" for path, s in zip((a, b), sides, strict=True)
        )
        raise ValueError(f"no split and task in common: {held}; evaluate one of them again")
    lines = [f"{name}: {path}" for name, path in zip(SIDES, (a, b), strict=True)]
    for name, side, used in zip(SIDES, sides, zip(*pairs, strict=True), strict=True):
        alone = [key for key in side if key not in used]
        lines += [f"only in {name}: {_listed(alone)}"] if alone else []
    for one, other in pairs:
        title = " and ".join(dict.fromkeys([_listed([one]), _listed([other])]))
        lines += ["", f"{title}, percent", *_section(sides[0][one], sides[1][other], k)]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Prints the comparison; returns the exit status, 2 with a message for wrong inputs."""
    parser = argparse.ArgumentParser(
        prog="python -m linknet_jax.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in SIDES:
        text = "a workdir, its results.json, or a metrics.json"
        parser.add_argument(name.lower(), metavar=f"WORKDIR_{name}", type=epath.Path, help=text)
    parser.add_argument("--k", type=int, default=100, help="recall@K per predicate (default 100)")
    arguments = parser.parse_args(argv)
    return exit_status(lambda: print(compare(arguments.a, arguments.b, arguments.k)))


def _read(path: epath.Path) -> dict[Key, dict]:
    """The model's metrics in a file or a workdir."""
    file = path / "results.json" if path.is_dir() else path
    if not file.exists():
        raise ValueError(
            f"{file} is missing; `python -m linknet_jax.main --mode eval --workdir DIR` writes it"
        )
    try:
        content = json.loads(file.read_text(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON file: {error}; evaluate again") from error
    if isinstance(content, dict) and "tasks" in content:
        return dict(_results(file, content))
    _check_metrics(file, "", content)
    return {tuple(str(content["protocol"].get(key)) for key in ("split", "task")): content}


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}, which JSON does not have")


def _results(file: epath.Path, content: dict) -> Iterator[tuple[Key, dict]]:
    splits = content.get("splits", {})
    if not isinstance(splits, dict):
        raise _wrong(file, "splits", splits, "an object of splits")
    parts = {f"splits.{split}.": (split, part) for split, part in splits.items()}
    for where, (split, part) in {"": (str(content.get("split", "test")), content), **parts}.items():
        tasks = part.get("tasks") if isinstance(part, dict) else None
        if not isinstance(tasks, dict):
            raise _wrong(file, f"{where}tasks", tasks, "an object of tasks")
        for task, metrics in tasks.items():
            _check_metrics(file, f"{where}tasks.{task}", metrics)
            yield (split, task), metrics


def _check_metrics(file: epath.Path, where: str, metrics: Any) -> None:
    if not isinstance(metrics, dict):
        raise _wrong(file, where, metrics, "an object of metrics")
    for key in ("protocol", "per_predicate"):
        if not isinstance(metrics.get(key), dict):
            raise _wrong(file, f"{where} {key}".strip(), metrics.get(key), "an object")
    for name, row in {"": metrics, **metrics["per_predicate"]}.items():
        place = f"{where} {name}".strip()
        if not isinstance(row, dict) or (name and type(row.get("count")) is not int):
            raise _wrong(file, place, row, "an object with recalls and a count")
        for key, value in row.items():
            if "@" in key and not _is_fraction(value):
                raise _wrong(file, f"{place} {key}".strip(), value, "from 0 to 1, or null")


def _wrong(file: epath.Path, where: str, value: Any, form: str) -> ValueError:
    place = f"{file}, {where}" if where else f"{file}"
    return ValueError(f"{place}: must be {form}, got {value!r:.60}; evaluate again")


def _pairs(a: dict[Key, dict], b: dict[Key, dict]) -> list[tuple[Key, Key]]:
    """What is compared with what: the same split and task; of files of one task, only the task."""
    common = [(key, key) for key in a if key in b]
    if not common and len(a) == len(b) == 1:
        one, other = *a, *b
        return [(one, other)] if one[1] == other[1] else []
    return common


def _listed(keys: Iterable[Key]) -> str:
    return ", ".join(f"{split} {task}" for split, task in keys) or "nothing"


def _section(a: dict, b: dict, k: int) -> list[str]:
    return [*_disagreements(a, b), *_metric_rows(a, b), "", *_predicate_rows(a, b, k)]


def _disagreements(a: dict, b: dict) -> Iterator[str]:
    for key, concerns in PROTOCOL.items():
        values = [x["protocol"].get(key, "not stated") for x in (a, b)]
        if values[0] != values[1]:
            shown = [v if isinstance(v, str) else json.dumps(v) for v in values]
            metrics = f" ({concerns})" if concerns else ""
            yield f"not comparable{metrics}: {key} is {shown[0]} in A and {shown[1]} in B"
    names = a["per_predicate"], b["per_predicate"]
    for side, own, other in zip(SIDES, names, names[::-1], strict=True):
        if alone := [name for name in own if name not in other]:
            yield f"not comparable ({MEAN}): predicates only in {side}: {', '.join(alone)}"


def _metric_rows(a: dict, b: dict) -> list[str]:
    rows = [["", *SIDES, "B - A"]]
    for key in a:
        values = a[key], b.get(key)
        if key in b and all(map(_is_fraction, values)) and values != (None, None):
            rows.append([key, *map(percent, values), _signed(_gain(*values))])
    return align(rows, left=1)


def _predicate_rows(a: dict, b: dict, k: int) -> list[str]:
    """The paper's Table 3 (right): the largest gain first, then the more frequent predicate."""
    rows_a, rows_b = a["per_predicate"], b["per_predicate"]
    names = [name for name in rows_a if name in rows_b]
    known = {n for name in names for n in _ks(rows_a[name]) & _ks(rows_b[name])}
    if not known:
        return ["no predicate has a recall@K in both"]
    key, note = f"recall@{k}", ""
    if k not in known:
        key, note = f"recall@{max(known)}", f" ({key} is not in both; the largest K that is)"
    found = [(name, rows_a[name].get(key), rows_b[name].get(key)) for name in names]
    found.sort(key=lambda x: (-_gain(x[1], x[2], -math.inf), -rows_a[x[0]]["count"]))
    table = [["predicate", "group", "count", *SIDES, "gain"]]
    for name, *values in found:
        about = (_both(rows_a[name], rows_b[name], field) for field in ("group", "count"))
        table.append([name, *about, *map(percent, values), _signed(_gain(*values))])
    return [f"{key} of each predicate{note}", *align(table, left=2)]


def _ks(row: dict) -> set[int]:
    return {int(key[7:]) for key in row if key.startswith("recall@") and key[7:].isdecimal()}


def _both(a: dict, b: dict, key: str) -> str:
    return " / ".join(dict.fromkeys(str(row.get(key, "-")) for row in (a, b)))


def _gain(a: float | None, b: float | None, otherwise: float | None = None) -> float | None:
    return otherwise if a is None or b is None else b - a


def _signed(gain: float | None) -> str:
    return "-" if gain is None else f"{100 * gain:+z.2f}"


def _is_fraction(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= value <= 1)


if __name__ == "__main__":
    sys.exit(main())
