"""Non-maximum suppression against onnxruntime, TensorFlow and a plain torch loop.

    python -m benchmarks.nms [--repeats 20]

Identical indices and memory are requirements (exit status 1); times only warn, as machines are
shared. TensorFlow and torch are measured where they are installed.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from benchmarks.timing import interleaved
from linknet_jax.ops.nms import class_nms, nms

GOAL = 2.5  # times onnxruntime
MEMORY, CLASS_MEMORY = 2e6, 16e6  # bytes of temporaries for one image
SIDE, CLASSES = 592, 150


class Case(NamedTuple):
    """`layout` says where the boxes lie; without a goal the ratio is only reported."""

    layout: str
    count: int
    limit: int
    threshold: float
    goal: float | None = None
    classes: int = 1

    def __str__(self) -> str:
        rows = f"{self.count} x {self.classes}" if self.classes > 1 else str(self.count)
        return f"{rows} -> {self.limit} @{self.threshold:g} {self.layout}"


CASES = (
    Case("random", 6000, 1000, 0.7, GOAL),
    Case("random", 6000, 1000, 0.5),
    Case("random", 2000, 300, 0.7, GOAL),
    Case("random", 12000, 2000, 0.7, GOAL),
    Case("clustered", 6000, 1000, 0.7, GOAL),
    Case("random", 300, 300, 0.3, GOAL, CLASSES),
)


def make_inputs(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [n, 4] and scores [classes, n]; clustered ones surround 40 objects, as proposals do."""
    rng = np.random.default_rng(0)
    objects = case.count if case.layout == "random" else 40
    corners = rng.uniform(0, SIDE - 92, (objects, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(10, 200, (objects, 2))], axis=1)
    if case.layout == "clustered":
        boxes = boxes[rng.integers(0, objects, case.count)]
        boxes += rng.normal(0, 0.1, boxes.shape) * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    scores = rng.random((case.classes, case.count))
    return boxes.clip(0, SIDE - 1).astype(np.float32), scores.astype(np.float32)


def onnx_nms() -> Callable[..., np.ndarray]:
    """onnxruntime's NonMaxSuppression-11: (boxes [n, 4], scores [classes, n], limit, threshold) to
    rows (class, index). Its boxes are half-open; equal scores go by index."""
    import onnxruntime
    from onnx import TensorProto, helper

    float32, int64 = TensorProto.FLOAT, TensorProto.INT64
    inputs = [
        helper.make_tensor_value_info("boxes", float32, [1, "n", 4]),
        helper.make_tensor_value_info("scores", float32, [1, "c", "n"]),
        helper.make_tensor_value_info("limit", int64, [1]),
        helper.make_tensor_value_info("threshold", float32, [1]),
    ]
    names = [x.name for x in inputs]
    output = helper.make_tensor_value_info("selected", int64, ["k", 3])
    node = helper.make_node("NonMaxSuppression", names, ["selected"])
    graph = helper.make_graph([node], "nms", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )

    def run(boxes, scores, limit, threshold):
        numbers = np.array([limit], np.int64), np.array([threshold], np.float32)
        arrays = (boxes[None], scores[None], *numbers)
        return session.run(None, dict(zip(names, arrays, strict=True)))[0][:, 1:]

    return run


def torch_nms(boxes, scores, limit: int, threshold: float):
    """The usual loop without torchvision: take the best box, drop what overlaps it, repeat."""
    import torch

    order = scores.sort(descending=True, stable=True).indices
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    kept = []
    while len(order) and len(kept) < limit:
        best, order = order[0], order[1:]
        kept.append(best)
        low = torch.maximum(boxes[best, :2], boxes[order, :2])
        high = torch.minimum(boxes[best, 2:], boxes[order, 2:])
        shared = (high - low).clamp(min=0).prod(1)
        order = order[shared / (areas[best] + areas[order] - shared) <= threshold]
    return torch.stack(kept)


def our_run(case: Case, boxes, scores) -> tuple[jax.stages.Compiled, Callable[[], np.ndarray]]:
    """Our compiled function, and it as a function without arguments that gives rows."""
    one, threshold = case.classes == 1, np.float32(case.threshold)
    if one:
        inputs = boxes, scores[0], np.ones(len(boxes), bool), threshold
    else:
        own = np.repeat(boxes[:, None], case.classes, axis=1)
        inputs = own, scores.T, np.ones(scores.T.shape, bool), threshold
    function = jax.jit(nms if one else class_nms, static_argnums=(4, 5))
    inputs = jax.device_put(inputs)
    compiled = function.lower(*inputs, case.limit, False).compile()

    def run():
        result = jax.device_get(compiled(*inputs))
        return _rows([result[0][result[1]]]) if one else np.argwhere(result.T)

    return compiled, run


def rival_runs(case: Case, boxes, scores) -> dict[str, Callable[[], np.ndarray]]:
    """The installed rivals as functions without arguments that give rows (class, index)."""
    runs = {"onnxruntime": functools.partial(onnx_nms(), boxes, scores, case.limit, case.threshold)}
    loops = {}
    if importlib.util.find_spec("tensorflow"):
        import tensorflow as tf

        loops["tensorflow"] = tf.image.non_max_suppression, tf.constant
    if importlib.util.find_spec("torch"):
        import torch

        loops["torch loop"] = torch_nms, torch.from_numpy
    for name, (select, convert) in loops.items():
        runs[name] = functools.partial(_by_class, select, case, convert(boxes), convert(scores))
    return runs


def _by_class(select: Callable, case: Case, boxes, scores) -> np.ndarray:
    return _rows([np.asarray(select(boxes, x, case.limit, case.threshold)) for x in scores])


def _rows(indices: list) -> np.ndarray:
    return np.concatenate([np.stack([np.full(len(x), c), x], 1) for c, x in enumerate(indices)])


def compare(case: Case, repeats: int) -> bool:
    """Prints one line a rival; False where indices differ or memory is above what is allowed."""
    inputs = make_inputs(case)
    compiled, ours = our_run(case, *inputs)
    rivals, found = rival_runs(case, *inputs), ours()
    for name, rival in rivals.items():
        if not same_rows(case, found, rival()):
            print(f"FAILED: {name} keeps other boxes at {case}")
            return False
    temporary = compiled.memory_analysis().temp_size_in_bytes
    passed = temporary <= (MEMORY if case.classes == 1 else CLASS_MEMORY)
    for name, rival in rivals.items():
        # In pairs: torch's threads spin on after its turn and would slow the next.
        seconds = interleaved({"jax": ours, name: rival}, repeats)
        ratio, goal = seconds["jax"] / seconds[name], case.goal if name == "onnxruntime" else None
        verdict = "" if goal is None else "met" if ratio <= goal else "MISSED (times only warn)"
        print(
            f"{case!s:32s} {name:12s} {1e3 * seconds['jax']:8.2f} {1e3 * seconds[name]:9.2f}"
            f" {ratio:6.2f} {goal or '':>5} {temporary / 1e6:8.2f}"
            f" {'ok' if passed else 'FAILED':6s}  {verdict}"
        )
    return passed


def same_rows(case: Case, ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Same indices in the same order; of many classes, the same boxes of each class."""
    if case.classes > 1:
        theirs = theirs[np.lexsort(theirs.T[::-1])]
    return np.array_equal(ours, theirs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    flags = parser.parse_args()
    print(f"half-open boxes in {SIDE}x{SIDE} px; pairs in turn, fastest of {flags.repeats};")
    print("ratio = jax / rival, goal = at most; indices are identical where a time is printed\n")
    print("boxes -> kept @IoU layout        rival          jax ms  rival ms  ratio  goal  temp MB")
    passed = [compare(case, flags.repeats) for case in CASES]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main())
