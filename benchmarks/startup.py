"""Time from process start to the first training step, with an empty and a warm compilation cache.

    python -m benchmarks.startup [--repeats 3] [--config FILE] [-- --config.KEY=VALUE ...]

Runs `python -m linknet_jax.main` in fresh processes, empty and warm in turn, and stops each after
its first step; the least of each figure counts. Times only warn.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence

ROOT = pathlib.Path(__file__).parents[1]
GOAL = 0.15  # of the time that compilation takes with an empty cache
FEW = ("train.steps=1", "data.train_images=32", "data.val_images=8", "data.test_images=8")
CHILD = "from benchmarks import startup; startup.watched()"
MARK, FIRST, BEGINS = "event ", "first step after", "; starts"
PHASES = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/backend_compile_duration": "compilation",  # or what reads the cache instead
    "/jax/compilation_cache/cache_retrieval_time_sec": "of it cache reads",
}


def watched() -> None:
    """The training command in this process; every event of JAX is printed as a line."""
    import jax

    def say(event: str, seconds: float, **_: object) -> None:
        if event in PHASES:
            print(MARK + json.dumps([event, seconds]), flush=True)

    jax.monitoring.register_event_duration_secs_listener(say)
    runpy.run_module("linknet_jax.main", run_name="__main__", alter_sys=True)


def lines_of(process: subprocess.Popen, begin: float) -> Iterator[tuple[float, str]]:
    """(seconds since `begin`, line) of what a process prints."""
    for line in process.stdout:
        yield time.monotonic() - begin, line.rstrip()


def summary(lines: Iterable[tuple[float, str]]) -> dict[str, float]:
    """Seconds of each phase up to the first step; ValueError where there was none."""
    found, said = dict.fromkeys(PHASES.values(), 0.0), []
    for seconds, line in lines:
        if line.startswith(MARK):
            event, duration = json.loads(line.removeprefix(MARK))
            found[PHASES[event]] += duration
            continue
        said.append(line)
        if line.endswith(BEGINS):
            found["to the state"] = seconds
        if line.startswith(FIRST):
            found["first step after"] = float(line.removeprefix(FIRST).split()[0])
            found["to the first step"] = seconds
            found["neither traced, lowered nor compiled"] = seconds - sum(
                found[phase] for phase in ("tracing", "lowering", "compilation")
            )
            return found
    raise ValueError("the run ended before its first step:\n" + "\n".join(said[-20:]))


def run(arguments: list[str]) -> dict[str, float]:
    """One fresh process, ended after its first step."""
    begin = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-u", "-c", CHILD, *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        try:
            return summary(lines_of(process, begin))
        finally:
            process.kill()


def measure(repeats: int, arguments: list[str]) -> tuple[dict, dict]:
    """(empty, warm), each the least of `repeats` runs in turn."""
    pairs = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            own = [f"--config.compilation_cache={folder}/cache"]
            pairs.append(
                [run([*arguments, *own, f"--workdir={folder}/{name}"]) for name in ("a", "b")]
            )
    colds, warms = zip(*pairs, strict=True)
    return least(colds), least(warms)


def least(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """The least of each figure."""
    return {name: min(run[name] for run in runs) for name in runs[0]}


def report(cold: dict[str, float], warm: dict[str, float]) -> None:
    print(f"{'seconds':38s} {'empty':>7s} {'warm':>7s}  warm / empty")
    for name, seconds in cold.items():
        ratio = f"{warm[name] / seconds:.3f}" if seconds > 0.05 else "-"
        print(f"{name:38s} {seconds:7.2f} {warm[name]:7.2f}  {ratio}")
    alone = warm["compilation"] / cold["compilation"]
    state = "met" if alone <= GOAL else "MISSED (times only warn)"
    print(f"compilation, warm / empty: {alone:.3f}; goal {GOAL} {state}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--config", default="configs/sgcls.py")
    parser.add_argument("more", nargs="*", metavar="--config.KEY=VALUE")
    flags = parser.parse_args()
    few = [f"--config.{setting}" for setting in FEW]
    cold, warm = measure(flags.repeats, [f"--config={flags.config}", *few, *flags.more])
    report(cold, warm)
    return 0


if __name__ == "__main__":
    sys.exit(main())
