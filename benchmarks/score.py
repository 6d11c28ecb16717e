"""Scoring Visual Genome's test split from files, and the recalls against the published algorithm.

    python -m benchmarks.score [--images 26446] [--folder DIR]

Synthetic graphs of Visual Genome's sizes with 100 predictions of each protocol. The command runs
in a process of its own, on one core; its peak memory is that process's. The rival is the loop over
ground-truth relations of neural-motifs and its heirs, written anew from its definition, on the
same arrays in memory; both give the same R@K and ng-R@K, which is checked.
"""

from __future__ import annotations

import argparse
import functools
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
from etils import epath

from benchmarks.timing import interleaved
from linknet_jax.data.formats.jsonl import record_of
from linknet_jax.data.formats.lines import line_writer
from linknet_jax.data.formats.prediction_lines import prediction_record
from linknet_jax.data.raw.vocabulary import vg150
from linknet_jax.metrics.scene_graph import SceneGraphMetrics
from linknet_jax.ops.boxes import iou
from linknet_jax.types import Annotation, Prediction

KS, KEPT, GOAL, SECONDS, GIB = (20, 50, 100), 100, 3.0, 180, 1.0
IN_MEMORY = 3000  # images of the comparison


def images(count: int) -> Iterator[tuple[Annotation, Prediction]]:
    """Graphs with 11.6 boxes and 6.9 relations on average, a part of them found."""
    rng, (objects, predicates) = np.random.default_rng(0), vg150().sizes
    for image in range(count):
        n, r = np.clip(rng.poisson((11.6, 6.9)), (2, 1), (62, 40))
        corners = np.sort(rng.random((n, 2, 2)) * (800, 600), axis=1)
        boxes = (corners + np.array([[0, 0], [5, 5]])).reshape(n, 4).round(1)
        labels = rng.integers(1, objects, n).astype(np.int32)
        pairs = _pairs(rng, n)[:r]
        relations = np.column_stack([pairs, rng.integers(1, predicates, len(pairs))])
        truth = Annotation(image, 800, 600, boxes, labels, relations.astype(np.int32))
        yield truth, _prediction(rng, truth, predicates)


def _pairs(rng, n: int) -> np.ndarray:
    return rng.permutation(np.argwhere(~np.eye(n, dtype=bool)))


def _prediction(rng, truth: Annotation, predicates: int) -> Prediction:
    pairs = _pairs(rng, len(truth.boxes))
    known = np.concatenate([truth.relations[::2, :2], pairs])
    kinds = np.concatenate([truth.relations[::2, 2], rng.integers(1, predicates, len(pairs))])
    _, first = np.unique(known, axis=0, return_index=True)
    best = rng.permutation(np.sort(first)[:KEPT])
    flat = rng.permutation(len(pairs) * (predicates - 1))[:KEPT]
    free = pairs[flat // (predicates - 1)], 1 + flat % (predicates - 1)
    scores = [-np.sort(-rng.random(len(x)).astype(np.float32)) for x in (best, flat)]
    return Prediction(
        truth.labels, np.ones(len(truth.labels), np.float32),
        known[best], kinds[best], scores[0], len(best), *free, scores[1], len(flat),
    )  # fmt: skip


def ours(graphs: list) -> list[float]:
    """Every metric of the evaluator; returns R and ng-R."""
    metrics = SceneGraphMetrics(vg150().sizes[1], KS, "sgcls")
    for truth, prediction in graphs:
        metrics.update(truth, truth.boxes, prediction)
    result = metrics.compute(vg150())
    return [result[f"{prefix}R@{k}"] for prefix in ("", "ng-") for k in KS]


def published(graphs: list) -> list[float]:
    """R and ng-R alone, a loop over the ground-truth relations of every image."""
    return _published(graphs, lambda rows: functools.reduce(np.union1d, rows))


def with_sets(graphs: list) -> list[float]:
    """The same with Python's sets in place of `np.union1d`."""
    return _published(graphs, lambda rows: set().union(*rows))


def _published(graphs: list, union: Callable) -> list[float]:
    recalls = []
    for truth, p in graphs:
        row = []
        for pairs, predicates in ((p.pairs, p.predicates), (p.free_pairs, p.free_predicates)):
            found = _found_by(truth, p.labels, pairs, predicates)
            row += [len(union(found[:k])) / len(truth.relations) for k in KS]
        recalls.append(row)
    return np.mean(recalls, axis=0).tolist()


def _found_by(truth: Annotation, labels, pairs, predicates) -> list[list[int]]:
    """For every prediction the relations that it finds."""
    predicted = np.column_stack([labels[pairs[:, 0]], predicates, labels[pairs[:, 1]]])
    boxes = np.column_stack([truth.boxes[pairs[:, 0]], truth.boxes[pairs[:, 1]]])
    found: list[list[int]] = [[] for _ in pairs]
    for row, (s, o, p) in enumerate(truth.relations):
        triplet = np.array([truth.labels[s], p, truth.labels[o]])
        same = np.flatnonzero((predicted == triplet).all(axis=1))
        if len(same):
            near = iou(truth.boxes[s][None], boxes[same, :4], True)[0] >= 0.5
            near &= iou(truth.boxes[o][None], boxes[same, 4:], True)[0] >= 0.5
            for k in same[near]:
                found[k].append(row)
    return found


def command(folder: pathlib.Path, count: int) -> tuple[float, float]:
    """(seconds, GiB) of the command on files of so many images."""
    truth, predictions = folder / "truth.jsonl.gz", folder / "predictions.jsonl.gz"
    with line_writer(epath.Path(truth)) as one, line_writer(epath.Path(predictions)) as two:
        for annotation, prediction in images(count):
            one(record_of(annotation, vg150()))
            two(prediction_record(annotation.image_id, annotation.boxes, prediction, vg150()))
    for path in (truth, predictions):
        print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB compressed")
    call = [sys.executable, "-m", "linknet_jax.score", "--task", "sgcls", "--ground_truth", truth,
            "--predictions", predictions, "--output", folder / "metrics.json"]  # fmt: skip
    core = min(os.sched_getaffinity(0))
    start = time.perf_counter()
    with (folder / "log.txt").open("w") as log:
        subprocess.run(
            call, check=True, stdout=log, stderr=log,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return time.perf_counter() - start, peak


def main() -> int:
    """Prints times, memory and the ratio; exit status 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=26446)
    parser.add_argument("--folder", type=pathlib.Path, help="keeps the files")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        seconds, peak = command(folder, arguments.images)
    print(f"command: {arguments.images} images in {seconds:.0f} s on one core, {peak:.2f} GiB")
    graphs = list(images(min(IN_MEMORY, arguments.images)))
    rivals = {f.__name__: functools.partial(f, graphs) for f in (ours, published, with_sets)}
    for name in ("published", "with_sets"):
        np.testing.assert_allclose(rivals["ours"](), rivals[name](), atol=1e-12)
    best = interleaved(rivals, 3)
    ratio = best["published"] / best["ours"]
    print(f"in memory, {len(graphs)} images, time of rival / ours, which counts every metric:")
    print(f"  published algorithm, R and ng-R alone: {ratio:.2f} (goal {GOAL})")
    print(f"  with sets in place of np.union1d: {best['with_sets'] / best['ours']:.2f}")
    return 0 if seconds < SECONDS and peak < GIB and ratio >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
