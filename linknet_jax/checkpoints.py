"""Checkpoints of a run: saved while training goes on, latest and best kept, restored anywhere."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import jax
from etils import epath
from jax.sharding import Sharding
from ml_collections import ConfigDict
from orbax.checkpoint import v1 as ocp

from linknet_jax.types import Vocabulary

policies = ocp.training.preservation_policies


class Checkpoints:
    """The folder `WORKDIR/checkpoints`, one sub-folder a step."""

    def __init__(self, workdir: epath.Path, metric: str = "", keep: int = 0):
        """`metric` names the entry of a save's metrics that decides which one is best.

        With `keep`, how many of the latest steps stay, checkpoints may be written. Without, nothing
        in the workdir changes, not even what another process writes; ValueError if it has none.
        """
        self.folder = epath.Path(workdir).absolute() / "checkpoints"
        if not keep and not self.folder.is_dir():
            raise ValueError(f"{workdir} holds no checkpoints; train first, or mend --workdir")
        if keep and epath.Path(workdir).is_file():
            raise ValueError(f"--workdir {workdir} is a file; name a folder")
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics[metric],
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        if keep:
            _check_writable(self.folder)
        try:
            self._saved = ocp.training.Checkpointer(
                self.folder,
                save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
                preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), best]),
                cleanup_tmp_directories=keep > 0,
            )
        except json.JSONDecodeError as error:  # it reads all metrics, and says not whose
            raise self._damaged(_unreadable_metrics(self.folder), "its metrics") from error
        self._metric = metric

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *error: object) -> None:
        with self._writing():
            self._saved.close()

    @property
    def latest(self) -> int | None:
        """The last complete step, None in a fresh workdir."""
        return self._saved.latest.step if self._saved.latest else None

    def best(self) -> int | None:
        """The step with the highest metric, the last of equals; the latest without any."""
        scored = [c for c in self._saved.checkpoints if c.metrics and self._metric in c.metrics]
        if not scored and any(c.metrics for c in self._saved.checkpoints):
            raise ValueError(
                f"eval.metric={self._metric!r} was not measured in training; set it back, or take "
                "--config.eval.step=latest"
            )
        if not scored:
            return self.latest
        return max(scored, key=lambda c: (c.metrics[self._metric], c.step)).step

    def resolve(self, step: str) -> int:
        """`best`, `latest` or a number as a step that exists; ValueError with what there is."""
        steps = [c.step for c in self._saved.checkpoints]
        if not steps:
            raise ValueError(f"{self.folder} holds no checkpoint; train first, or mend --workdir")
        if step in ("best", "latest"):
            return self.best() if step == "best" else self.latest
        if not step.isdecimal() or int(step) not in steps:
            raise ValueError(f"eval.step={step!r} is none of best, latest, {sorted(steps)}")
        return int(step)

    def save(self, step: int, items: dict[str, Any], metrics: dict | None, about: dict) -> None:
        """Starts writing `items`; returns when they are copied. `about`: config, vocabulary."""
        with self._writing():
            self._saved.save_checkpointables_async(
                step, items, metrics=metrics, custom_metadata=about, force=True
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A failed write surfaces in the next save or in the end, in Orbax's words."""
        try:
            yield
        except Exception as error:
            raise OSError(
                f"a checkpoint could not be written to {self.folder}: {error}; free space there or "
                "mend its permissions, then run the same command: it goes on from the last "
                "complete checkpoint"
            ) from error

    def about(self, step: int) -> dict:
        """What `save` was told about the run; ValueError if the checkpoint is damaged."""
        stored = self._read(self._saved.checkpointables_metadata, step).custom_metadata
        if not stored:
            raise self._damaged(step, "its description is missing")
        return stored

    def restore(self, step: int, shapes: dict[str, Any]) -> dict[str, Any]:
        """The named items, on any topology: each array where the sharding of its shape says.

        ValueError lists arrays that differ.
        """
        stored = self._read(self._saved.checkpointables_metadata, step).metadata
        for name, item in shapes.items():
            if stored.get(name) is None:
                raise self._damaged(step, f"{name!r} cannot be read")
            _compare(self.folder / str(step), name, stored[name], item)
        return self._read(self._saved.load_checkpointables, step, shapes)

    def read(self, step: int, names: tuple[str, ...], sharding: Sharding) -> dict[str, Any]:
        """Those of the named items that the step has, whole, whatever is in them."""
        stored = self._read(self._saved.checkpointables_metadata, step).metadata
        target = {
            name: jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), stored[name]
            )
            for name in names
            if stored.get(name) is not None
        }
        return self._read(self._saved.load_checkpointables, step, target)

    def _read(self, read: Callable, step: int, *arguments: Any) -> Any:
        """Damage surfaces in Orbax as errors of a dozen types."""
        try:
            return read(step, *arguments)
        except Exception as error:
            raise self._damaged(step, f"{type(error).__name__} while reading") from error

    def _damaged(self, step: int, reason: str) -> ValueError:
        return ValueError(
            f"checkpoint {self.folder / str(step)} is damaged: {reason}; copy it again, or move "
            "this folder away to go on from the checkpoint before it"
        )


def _check_writable(folder: epath.Path) -> None:
    """Orbax waits minutes for a folder that it cannot create."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".writable_{jax.process_index()}"
    probe.write_text("")
    probe.unlink()


def _unreadable_metrics(folder: epath.Path) -> str:
    """Names of the steps whose metrics are no JSON."""
    steps = []
    for path in folder.glob("*/metrics/metrics"):
        try:
            json.loads(path.read_text())
        except ValueError:
            steps.append(path.parent.parent.name)
    return ", ".join(steps)


def _compare(folder: epath.Path, name: str, stored: Any, wanted: Any) -> None:
    """Orbax's own message about a mismatch names neither path nor shape."""
    has, needs = (_shapes(tree) for tree in (stored, wanted))
    wrong = [
        f"  {name}/{path}: stored {has.get(path, 'nothing')}, needed {needs.get(path, 'nothing')}"
        for path in sorted(has.keys() | needs.keys())
        if has.get(path) != needs.get(path)
    ]
    if wrong:
        raise ValueError(
            f"checkpoint {folder} has another architecture; use its own configuration or another "
            "--workdir:\n" + "\n".join(wrong[:20] + (["  ..."] if len(wrong) > 20 else []))
        )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(x.shape)
        for path, x in leaves
        if hasattr(x, "shape")
    }


def stored_run(workdir: epath.Path, defaults: Callable[[str], ConfigDict]) -> ConfigDict:
    """The configuration that a workdir was trained with."""
    with Checkpoints(workdir) as saved:
        about = saved.about(saved.resolve("latest"))
    if "config" not in about:
        raise ValueError(
            f"{workdir} holds imported weights, no run: train from them with "
            f"--config.start.detector={workdir} in another --workdir"
        )
    config = defaults(about["config"]["task"])
    config.update(_like(about["config"], config.to_dict()))
    return config


def vocabulary_of(about: dict) -> Vocabulary:
    """The class names a checkpoint was trained with."""
    names = about["vocabulary"]
    return Vocabulary(tuple(names["objects"]), tuple(names["predicates"]))


def _like(stored: Any, default: Any) -> Any:
    """JSON has no tuples: gives values back the type that the default tree has."""
    if isinstance(stored, dict):
        return {k: _like(v, default[k]) for k, v in stored.items() if k in default}
    return tuple(stored) if isinstance(default, tuple) else stored
