"""Kills a training run again and again, until it ends; its result must be the undisturbed one's.

    python -m benchmarks.kills DIR [--kills 200] [--processes 1] [--seed 0]

Each kill (-9) falls at a moment uniform over the time of an undisturbed run, start-up included; of
several processes it hits a random one. Then the same command starts again. A run that ended is
compared bit by bit: logged losses, last checkpoint, results.json; the next starts afresh, until
there were enough kills. Started again in the same DIR, this program goes on.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np

from benchmarks import runs

SETTINGS = {
    "model.visual": False,
    "model.predcls_l": "gt",
    "model.use_rem": False,
    "model.use_gcem": False,
    "train.steps": 30,
    "train.eval_every": 6,
    "checkpoint.every": 2,
}
LIMIT = 300  # seconds after which a run hangs


class Trial:
    """What the runs of one number of processes share."""

    def __init__(self, folder: pathlib.Path, processes: int, kills: int, seed: int):
        self.folder, self.processes, self.kills, self.seed = folder, processes, kills, seed
        self.record, self.cache = folder / "kills.jsonl", folder / "cache"
        self.undisturbed = folder / "undisturbed"
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, workdir: pathlib.Path) -> subprocess.Popen:
        arguments = runs.flags("predcls", workdir, self.cache, SETTINGS)
        return runs.start(self.processes, 1, arguments, log_of(workdir), fast=True)

    def events(self) -> list[dict]:
        """All kills so far, and the ends of runs."""
        return list(map(json.loads, self.record.open())) if self.record.exists() else []

    def note(self, **event: object) -> None:
        with self.record.open("a") as file:
            file.write(json.dumps(event) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    trial = Trial(options.folder.absolute(), options.processes, options.kills, options.seed)
    seconds = undisturbed_seconds(trial)
    expected = outcome(trial.undisturbed)
    wrong: list[str] = []
    while not wrong and (count_kills(trial) < trial.kills or under_way(trial)):
        wrong = until_it_ends(trial, seconds, expected)
    report(trial, seconds, wrong)
    return 1 if wrong else 0


def undisturbed_seconds(trial: Trial) -> float:
    """Trains without disturbance, the second time from a warm compilation cache, which counts."""
    timing = trial.folder / "seconds.json"
    if not timing.exists():
        for _ in range(2):
            shutil.rmtree(trial.undisturbed, ignore_errors=True)
            begin = time.monotonic()
            if trial.start(trial.undisturbed).wait():
                sys.exit(log_of(trial.undisturbed).read_text())
        timing.write_text(json.dumps(time.monotonic() - begin))
    return json.loads(timing.read_text())


def count_kills(trial: Trial) -> int:
    return sum(event["event"] == "kill" for event in trial.events())


def under_way(trial: Trial) -> bool:
    """Whether the last run was killed and has not ended since."""
    return [event["event"] for event in trial.events()][-1:] == ["kill"]


def until_it_ends(trial: Trial, seconds: float, expected: dict) -> list[str]:
    """One run, killed at random moments; what differs from the undisturbed one in the end."""
    ended = sum(event["event"] == "end" for event in trial.events())
    workdir = trial.folder / f"run{ended}"
    status = None
    while status is None:
        draw = np.random.default_rng([trial.seed, len(trial.events())])
        enough = count_kills(trial) >= trial.kills
        status = attempt(trial, workdir, LIMIT if enough else draw.uniform(0, seconds), draw)
    if status:
        return [f"exit status {status} without a kill, {log_of(workdir)}"]
    found = outcome(workdir)
    wrong = [f"{workdir}: {name}" for name in expected if found[name] != expected[name]]
    trial.note(event="end", run=ended, equal=not wrong)
    if not wrong:
        shutil.rmtree(workdir)
    return wrong


def attempt(trial: Trial, workdir: pathlib.Path, delay: float, draw: np.random.Generator):
    """The command once more, killed after `delay` seconds; its status where it ended before."""
    resumed = max(runs.steps(workdir), default=0)
    process = trial.start(workdir)
    try:
        return process.wait(delay)
    except subprocess.TimeoutExpired:
        if delay == LIMIT:
            process.kill()
            return f"none after {LIMIT} s"
    # A launcher that has started nobody yet is killed itself.
    victims = children(process.pid) if trial.processes > 1 else []
    victims = victims or [process.pid]
    victim = int(draw.integers(len(victims)))
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.kill(victims[victim], signal.SIGKILL)
    begin = time.monotonic()
    phase = phase_of(workdir)  # of the moment: the others go on for a while
    process.wait(LIMIT)
    survived = round(time.monotonic() - begin, 2)
    trial.note(
        event="kill", delay=round(delay, 2), victim=victim, phase=phase, resumed=resumed,
        survived=survived,
    )  # fmt: skip
    return None


def children(pid: int) -> list[int]:
    """The processes that a process started, in this order."""
    return [int(x) for x in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def log_of(workdir: pathlib.Path) -> pathlib.Path:
    return workdir.with_suffix(".txt")


def phase_of(workdir: pathlib.Path) -> str:
    """What a run is doing, as its output and its workdir show."""
    said = log_of(workdir).read_text()
    trained = [line["step"] for line in runs.lines(workdir, "train")]
    validated = [line["step"] for line in runs.lines(workdir, "val")]
    if list((workdir / "checkpoints").glob("*tmp*")):
        return "saving"
    if "written to" in said:
        return "drawing"
    if "images, " not in said:
        return "starting"
    if SETTINGS["train.steps"] in runs.steps(workdir):
        return "last evaluation"
    if "step " not in said.partition("images, ")[2].partition("\n")[2]:
        return "compiling"
    last = trained[-1]
    if last % SETTINGS["train.eval_every"] == 0 and validated[-1:] != [last]:
        return "evaluating"
    return "training"


def outcome(workdir: pathlib.Path) -> dict[str, object]:
    """All of a finished run that must not depend on kills."""
    steps = runs.steps(workdir)
    return {
        "train lines": distinct(runs.lines(workdir, "train")),
        "val lines": distinct(runs.lines(workdir, "val")),
        "checkpoints": steps,
        "state": {path: x.tobytes() for path, x in runs.state(workdir, steps[-1]).items()},
        "results.json": (workdir / "results.json").read_bytes(),
        "left behind": sorted(p.name for p in workdir.rglob("*") if "tmp" in p.name
                              or p.name.endswith(".partial")),
    }  # fmt: skip


def distinct(lines: list[dict]) -> set[str]:
    """A step that was done twice must have had the same losses."""
    return {json.dumps(line, sort_keys=True) for line in lines}


def report(trial: Trial, seconds: float, wrong: list[str]) -> None:
    kills = [event for event in trial.events() if event["event"] == "kill"]
    ends = [event for event in trial.events() if event["event"] == "end"]
    phases = collections.Counter(event["phase"] for event in kills)
    resumed = collections.Counter(event["resumed"] for event in kills)
    print(f"{trial.processes} processes, {seconds:.1f} s undisturbed, seed {trial.seed}")
    print(f"{len(kills)} kills: " + ", ".join(f"{n} {name}" for name, n in phases.most_common()))
    print("started after step: " + ", ".join(f"{s} ({n})" for s, n in sorted(resumed.items())))
    if trial.processes > 1 and kills:
        longest = max(event["survived"] for event in kills)
        print(f"the others ended at most {longest:.1f} s after the kill")
    equal = sum(event["equal"] for event in ends)
    print(f"{equal} of {len(ends)} runs ended with the bits of the undisturbed one")
    print("\n".join(["FAILED", *wrong] if wrong else ["passed"]))


if __name__ == "__main__":
    sys.exit(main())
