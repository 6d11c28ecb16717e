"""The training command as a user starts it, small, in a few processes; and what it left."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping

import jax
import numpy as np

from linknet_jax.checkpoints import Checkpoints

ROOT = pathlib.Path(__file__).parents[1]
LAUNCHER = str(ROOT / "launch" / "local_processes.py")
SCENES = {
    "data.train_images": 16,
    "data.val_images": 8,
    "data.test_images": 8,
    "eval.batch_size": 8,
    "eval.report": False,
    "model.embed_dim": 8,
    "model.hidden_dim": 8,
    "model.pooling_dim": 8,
    "model.layout_dim": 4,
    "model.fc_dim": 12,
    "model.roi_size": 3,
    "model.roi_chunk": 16,
    "model.num_rem": 1,
    "sampling.pairs": 16,
    "sampling.related": 8,
    "train.batch_size": 8,
    "train.log_every": 1,
    "train.warmup": 0,
    "train.schedule": "constant",
}
LEFT_OUT = ("group", "time_", "images_per_second", "flops_", "peak_memory", "utilisation")


def start(
    processes: int, devices: int, arguments: list[str], log: pathlib.Path, fast: bool = False
) -> subprocess.Popen:
    """Starts `linknet_jax.main`, alone or through the launcher; its output goes to `log`.

    Each process has `devices` CPU devices. `fast` compiles without optimization.
    """
    program = [sys.executable, "-m", "linknet_jax.main", *arguments]
    if processes > 1:
        program = [sys.executable, LAUNCHER, str(processes), "--", *program]
    options = [f"--xla_force_host_platform_device_count={devices}"]
    options += ["--xla_backend_optimization_level=0"] * fast
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": " ".join(options),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",  # small programs are cached as well
    }
    with log.open("w") as file:
        return subprocess.Popen(
            program, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT
        )


def flags(
    task: str, workdir: pathlib.Path, cache: pathlib.Path, settings: Mapping[str, object]
) -> list[str]:
    """Arguments that train `task` on the smallest scenes with `settings`, or go on with it."""
    values = SCENES | settings | {"compilation_cache": cache}
    config = ["--config", str(ROOT / "configs" / f"{task}.py"), "--workdir", str(workdir)]
    return config + [f"--config.{key}={value}" for key, value in values.items()]


def lines(workdir: pathlib.Path, group: str) -> list[dict]:
    """Lines of metrics.jsonl, "train" or "val", without the times that no two runs share."""
    path = workdir / "metrics.jsonl"
    found = map(json.loads, path.read_text().splitlines() if path.exists() else [])
    return [
        {name: x for name, x in line.items() if not name.startswith(LEFT_OUT)}
        for line in found
        if line["group"] == group
    ]


def steps(workdir: pathlib.Path) -> list[int]:
    """Steps of the complete checkpoints."""
    return sorted(int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdecimal())


def state(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint by its path: parameters, optimizer, what steers the run."""
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with Checkpoints(workdir) as saved:
        stored = saved.read(step, ("params", "constants", "train", "ema"), here)
    leaves = jax.tree_util.tree_leaves_with_path(stored)
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in leaves}


def differing(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> list[str]:
    """Paths of arrays that only one of two states has, or that differ in a bit."""
    return [
        path
        for path in sorted(a.keys() | b.keys())
        if path not in a or path not in b or a[path].tobytes() != b[path].tobytes()
    ]
