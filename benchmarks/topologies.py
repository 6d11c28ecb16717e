"""Trains on 1x1, 1x8, 2x4, 4x2 processes x devices, and reads every checkpoint on every other.

    python -m benchmarks.topologies DIR

First the same run on each topology, and on 1x8 with the large parameters split over 4 devices:
losses within float32 tolerance of 1x1, evaluations equal. Then each run's last checkpoint is
evaluated on every topology, with results equal to the run's own, and each resumes another's run
before its end. Started again in the same DIR, this program goes on.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import sys
from typing import NamedTuple

from benchmarks import runs


class Topology(NamedTuple):
    """So many processes with so many CPU devices each; `fsdp` devices share large parameters."""

    processes: int
    devices: int
    fsdp: int = 1


TOPOLOGIES = {
    "1x1": Topology(1, 1),
    "1x8": Topology(1, 8),
    "2x4": Topology(2, 4),
    "4x2": Topology(4, 2),
    "1x8 fsdp 4": Topology(1, 8, 4),
}
FIRST, LAST = 40, 50  # checkpoints
SETTINGS = {
    "data.image_size": 64,
    "data.train_images": 64,
    "data.val_images": 16,
    "data.test_images": 16,
    "eval.batch_size": 16,
    "model.fc_dim": 96,  # the kernels of fc6 are large enough to be split
    "model.roi_chunk": 32,
    "model.hidden_dim": 16,
    "model.pooling_dim": 32,
    "train.batch_size": 16,
    # Small steps: large ones, and Adam's of tiny gradients, let rounding grow 10-fold in 5 steps.
    "train.optimizer": "sgd",
    "train.lr": 2e-4,
    "train.steps": LAST,
    "train.eval_every": 25,
    "checkpoint.every": FIRST,
}
TOLERANCE = 1e-5  # of a loss, relative


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    trained = {name: train(folder, name) for name in TOPOLOGIES}
    good = all([compare(name, trained["1x1"], workdir) for name, workdir in trained.items()])
    print(f"\nsaved by: read by; evaluation equal, loss of steps {FIRST + 1} to {LAST}: relative")
    print(" " * 12 + "".join(f"{name:>20s}" for name in TOPOLOGIES), flush=True)
    for saver, workdir in trained.items():
        cells = [known(folder, workdir, reader) for reader in TOPOLOGIES]
        good &= all(fits for fits, _ in cells)
        print(f"{saver:12s}" + "".join(f"{text:>20s}" for _, text in cells), flush=True)
    print("passed" if good else "FAILED")
    return 0 if good else 1


def train(folder: pathlib.Path, name: str) -> pathlib.Path:
    """The workdir of the undisturbed run on a topology; one that has results is kept."""
    workdir = folder / name.replace(" ", "_")
    if not (workdir / "results.json").exists():
        shutil.rmtree(workdir, ignore_errors=True)
        run(folder, workdir, name)
    return workdir


def run(folder: pathlib.Path, workdir: pathlib.Path, name: str) -> str:
    """Trains on a topology, from the workdir's last checkpoint if it has one."""
    settings = SETTINGS | {"train.fsdp": TOPOLOGIES[name].fsdp}
    return command(name, workdir, runs.flags("sgcls", workdir, folder / "cache", settings))


def evaluate(folder: pathlib.Path, workdir: pathlib.Path, name: str) -> None:
    """Evaluates the best checkpoint of a workdir, which says itself how it was trained."""
    cache = f"--config.compilation_cache={folder / 'cache'}"
    command(name, workdir, ["--mode=eval", "--workdir", str(workdir), cache])


def command(name: str, workdir: pathlib.Path, arguments: list[str]) -> str:
    """Runs it on a topology; what it printed. Ends the program where it fails."""
    topology, log = TOPOLOGIES[name], workdir.with_suffix(".txt")
    status = runs.start(topology.processes, topology.devices, arguments, log).wait()
    if status:
        sys.exit(f"FAILED: {name}, status {status}\n{log.read_text()[-4000:]}")
    return log.read_text()


def compare(name: str, expected: pathlib.Path, workdir: pathlib.Path) -> bool:
    """Prints how far a run's losses and evaluations are from another's."""
    difference = largest_difference(expected, workdir)
    first = largest_difference(expected, workdir, last=1)
    same = equal_results(expected, workdir) and runs.lines(expected, "val") == runs.lines(
        workdir, "val"
    )
    print(
        f"{name:12s} step 1 {first:.1e}, steps 1 to {LAST} {difference:.1e} relative; "
        f"evaluations {'equal' if same else 'DIFFER'}",
        flush=True,
    )
    return same and difference <= TOLERANCE


def largest_difference(a: pathlib.Path, b: pathlib.Path, first: int = 1, last: int = LAST) -> float:
    """Largest relative difference of the total loss of the steps from `first` to `last`."""
    losses = [{x["step"]: x["loss"] for x in runs.lines(w, "train")} for w in (a, b)]
    return max(
        abs(losses[0][step] - losses[1][step]) / abs(losses[0][step])
        for step in range(first, last + 1)
    )


def equal_results(a: pathlib.Path, b: pathlib.Path) -> bool:
    """Whether two evaluations agree in every byte."""
    return (a / "results.json").read_bytes() == (b / "results.json").read_bytes()


def known(folder: pathlib.Path, saved: pathlib.Path, reader: str) -> tuple[bool, str]:
    """A cell of the table, from the file of those that are done if it is there."""
    path = folder / "cells" / f"{saved.name} {reader}.json"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(cell(folder, saved, reader)))
    return tuple(json.loads(path.read_text()))


def cell(folder: pathlib.Path, saved: pathlib.Path, reader: str) -> tuple[bool, str]:
    """(passed, what the table shows): `reader` evaluates a copy of a run, then trains its end."""
    copy = folder / "copy"
    copied(saved, copy)
    evaluate(folder, copy, reader)
    same = equal_results(saved, copy)
    copied(saved, copy)
    shutil.rmtree(copy / "checkpoints" / str(LAST))
    resumed = f"resumes after step {FIRST}" in run(folder, copy, reader)
    difference = largest_difference(saved, copy, FIRST + 1)
    passed = same and resumed and difference <= TOLERANCE
    marks = ("" if same else "DIFFERS ") + ("" if resumed else "AFRESH ")
    return passed, marks + f"{'equal ' if same else ''}{difference:.0e}"


def copied(source: pathlib.Path, target: pathlib.Path) -> None:
    """The checkpoints of a run, and nothing else of it."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source / "checkpoints", target / "checkpoints")


if __name__ == "__main__":
    sys.exit(main())
