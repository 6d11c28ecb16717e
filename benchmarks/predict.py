"""Latency, throughput, memory and start of prediction, from JPEG files in memory to graphs.

    python -m benchmarks.predict [CHECKPOINT] [--boxes 12] [--seconds 20]

Without CHECKPOINT: an untrained model of the default configuration. Photographs are noise of 200 to
1600 pixels a side, with random boxes where the task needs them; decoding them is part of every
number. A program that is compiled again for one of 500 photographs of mixed sizes, or a start of
the command that takes longer than the goal, is exit status 1. Each batch size has a process of its
own, whose peak memory is reported.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor

import jax
import numpy as np
from etils import epath
from PIL import Image

from linknet_jax import Predictor
from linknet_jax.config import get_config
from linknet_jax.data.raw.vocabulary import vg150
from linknet_jax.state import create_state
from linknet_jax.tasks import create_task

SIZES, PHOTOGRAPHS, GOAL, STARTS = (1, 8, 32), 500, 6.0, 3
TINY = 8  # photographs of noise are scaled from so many pixels


def load(checkpoint: str, size: int) -> Predictor:
    """Of a run, or untrained."""
    if checkpoint:
        return Predictor.from_checkpoint(checkpoint, batch_size=size)
    config, names = get_config("sgcls"), vg150()
    task = create_task(config, *names.sizes)
    moments = {"layout_mean": np.zeros(4, np.float32), "layout_std": np.ones(4, np.float32)}
    create = jax.jit(lambda key: create_state(config, task, key, moments, {}))
    state = create(jax.random.key(0))
    return Predictor(config, names, {"params": state.params, **state.constants}, batch_size=size)


def photographs(count: int, boxes: int, seed: int = 0) -> tuple[list[bytes], list[np.ndarray]]:
    """JPEG files of mixed sizes, and boxes of each."""
    rng = np.random.default_rng(seed)
    files, corners = [], []
    for width, height in rng.integers(200, 1600, (count, 2)).tolist():
        noise = Image.fromarray(rng.integers(0, 256, (TINY, TINY, 3), np.uint8))
        file = io.BytesIO()
        noise.resize((width, height)).save(file, "JPEG")
        files.append(file.getvalue())
        ends = np.sort(rng.random((boxes, 2, 2)), axis=1) * (width, height)
        corners.append(ends.reshape(boxes, 4))
    return files, corners


def timed(predictor: Predictor, size: int, boxes: int, seconds: float) -> dict[str, float]:
    """Milliseconds of the first call and of warm ones; photographs a second."""
    files, corners = photographs(4 * size + 16, boxes)
    given = predictor.tasks[0] != "sgdet"
    times, begun, k = [], time.perf_counter(), 0
    while len(times) < 4 or time.perf_counter() - begun < seconds:
        rows = [(k + i) % len(files) for i in range(size)]
        k += size
        asked = [files[i] for i in rows], [corners[i] for i in rows]
        if size == 1:
            asked = tuple(x[0] for x in asked)
        start = time.perf_counter()
        predictor(*asked[: 1 + given])
        times.append(time.perf_counter() - start)
    first, *warm = np.array(times) * 1000
    p50, p95 = np.percentile(warm, (50, 95))
    return {"first": first, "p50": p50, "p95": p95, "rate": 1000 * size / p50, "calls": len(warm)}


def one_size(checkpoint: str, size: int, boxes: int, seconds: float) -> dict[str, float]:
    """`timed` with the process's own seconds of loading and GiB of peak memory."""
    start = time.perf_counter()
    predictor = load(checkpoint, size)
    loaded = time.perf_counter() - start
    result = timed(predictor, size, fitting(predictor, boxes), seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return result | {"load": loaded, "memory": peak}


def fitting(predictor: Predictor, boxes: int) -> int:
    """At most the checkpoint's N: more are a larger program."""
    return min(boxes, predictor.config.data.max_objects)


def recompilations(predictor: Predictor, boxes: int) -> int:
    """Programs that mixed sizes and numbers of boxes add: alone, in lists, and in short lists."""
    boxes = fitting(predictor, boxes)
    files, corners = photographs(PHOTOGRAPHS, boxes, 1)
    corners = [x[: k % (boxes + 1)] for k, x in enumerate(corners)]
    given = predictor.tasks[0] != "sgdet"
    compiled = predictor._compiled[predictor.tasks[0]]

    def ask(first: int, last: int) -> None:
        asked = files[first:last], corners[first:last]
        if last - first == 1:
            asked = tuple(x[0] for x in asked)
        predictor(*asked[: 1 + given])

    ask(0, 1)
    ask(0, 2)
    before, place, lengths = compiled._cache_size(), 0, (1, 8, 3, 17, 1, 2)
    for k in range(PHOTOGRAPHS):
        if place == PHOTOGRAPHS:
            break
        last = min(PHOTOGRAPHS, place + lengths[k % len(lengths)])
        ask(place, last)
        place = last
    assert place == PHOTOGRAPHS
    return compiled._cache_size() - before


def start(checkpoint: str, boxes: int, given: bool) -> tuple[float, float]:
    """Seconds of `linknet predict` on a photograph: (wall, of a processor), the best of a few.

    With the compilation cache that the first of them fills.
    """
    (file,), (corners,) = photographs(1, boxes)
    with tempfile.TemporaryDirectory() as folder:
        path = epath.Path(folder)
        (path / "photograph.jpg").write_bytes(file)
        line = {"image_id": "photograph", "objects": [{"box": x} for x in corners.tolist()]}
        (path / "boxes.jsonl").write_text(json.dumps(line))
        call = [sys.executable, "-m", "linknet_jax.predict", checkpoint, path / "photograph.jpg"]
        call += ["--boxes", path / "boxes.jsonl"] if given else []
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(path / "cache")}
        seconds = []
        for k in range(STARTS + 1):
            used, begun = _used(), time.perf_counter()
            command = [*map(str, call), "--format", "json", "--output", str(path / str(k))]
            subprocess.run(command, check=True, capture_output=True, env=environment)
            seconds.append((time.perf_counter() - begun, _used() - used))
    return min(seconds[1:])


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    """Prints the tables; exit status 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", nargs="?", default="")
    parser.add_argument("--boxes", type=int, default=12, help="of a photograph (default: 12, or N)")
    parser.add_argument("--seconds", type=float, default=20, help="for each batch size")
    a = parser.parse_args()
    print("batch   load s  first call s   p50 ms   p95 ms  images/s  peak GiB  calls")
    for size in SIZES:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            x = pool.submit(one_size, a.checkpoint, size, a.boxes, a.seconds).result()
        print(
            f"{size:>5} {x['load']:>8.1f} {x['first'] / 1000:>13.1f} {x['p50']:>8.0f} "
            f"{x['p95']:>8.0f} {x['rate']:>9.1f} {x['memory']:>9.2f} {x['calls']:>6}"
        )
    predictor = load(a.checkpoint, 8)
    again = recompilations(predictor, a.boxes)
    print(f"recompilations over {PHOTOGRAPHS} photographs of mixed sizes: {again} (goal 0)")
    if not a.checkpoint:
        return int(again > 0)
    wall, used = start(a.checkpoint, a.boxes, predictor.tasks[0] != "sgdet")
    print(f"command on one photograph, warm cache: {wall:.1f} s, {used:.1f} s CPU (goal {GOAL} s)")
    return int(again > 0 or wall > GOAL)


if __name__ == "__main__":
    sys.exit(main())
