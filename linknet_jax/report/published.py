"""What papers and repositories report for VG150 (docs/evaluation.md)."""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json

KS = (20, 50, 100)
METRICS = ("R", "ng-R", "mR", "zR")


@dataclasses.dataclass(frozen=True)
class Published:
    """One method's recalls in one task.

    Attributes:
      method: its name, with the backbone or the measuring project where that matters.
      task: predcls | sgcls | sgdet.
      split: test | val | val (inferred), the last where the source does not say.
      source, url: where the numbers stand.
      verified: read there; otherwise from memory.
      recalls: percent at each of KS by metric, one of METRICS; None where not published.
    """

    method: str
    task: str
    split: str
    source: str
    url: str
    verified: bool
    recalls: dict[str, tuple[float | None, ...]]


@functools.cache
def rows(task: str) -> tuple[Published, ...]:
    """The published rows of a task, LinkNet's first."""
    file = importlib.resources.files("linknet_jax.report") / "published.json"
    stored = json.loads(file.read_text(encoding="utf-8"))
    return tuple(_row(r, stored["sources"]) for r in stored["rows"] if r["task"] == task)


def _row(stored: dict, sources: dict[str, dict[str, str]]) -> Published:
    source = sources[stored["source"]]
    return Published(
        **{name: stored[name] for name in ("method", "task", "split", "verified")},
        source=source["text"],
        url=source["url"],
        recalls={name: tuple(stored[name]) for name in METRICS if name in stored},
    )
