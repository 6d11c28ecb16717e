"""RoIAlign against onnxruntime (C++) and torch grid_sample at the paper's size.

    python -m benchmarks.roi_align [--rois 64,256,1024,4032] [--grad]

Parity and memory are requirements (exit status 1); times only warn, as machines are shared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from benchmarks.timing import interleaved
from linknet_jax.ops.roi_align import roi_align

STRIDE, SIDE, CHANNELS, SIZE, RATIO = 16, 37, 512, 7, 2
PARITY, MEMORY = 5e-5, 32e6


class Rival(NamedTuple):
    """The largest accepted ratio of our time to the rival's, and the axes that make it RHWC."""

    goal: float
    layout: tuple[int, ...]


RIVALS = {
    "onnxruntime": Rival(1.6, (0, 2, 3, 1)),
    "torch": Rival(1 / 1.7, (1, 2, 3, 0)),
    "torch gradient": Rival(1 / 2.5, (0, 2, 3, 1)),
}


def onnx_roi_align(stride: int) -> Callable[..., np.ndarray]:
    """onnxruntime's RoiAlign-16 (half_pixel, avg): (features NCHW, boxes, int64 ids) -> RCHW."""
    import onnxruntime
    from onnx import TensorProto, helper

    float32, int64 = TensorProto.FLOAT, TensorProto.INT64
    inputs = [
        helper.make_tensor_value_info("features", float32, ["b", "c", "h", "w"]),
        helper.make_tensor_value_info("boxes", float32, ["r", 4]),
        helper.make_tensor_value_info("ids", int64, ["r"]),
    ]
    names = [x.name for x in inputs]
    output = helper.make_tensor_value_info("pooled", float32, ["r", "c", SIZE, SIZE])
    node = helper.make_node(
        "RoiAlign",
        names,
        ["pooled"],
        coordinate_transformation_mode="half_pixel",
        mode="avg",
        output_height=SIZE,
        output_width=SIZE,
        sampling_ratio=RATIO,
        spatial_scale=1 / stride,
    )
    opsets = [helper.make_opsetid("", 16)]
    graph = helper.make_graph([node], "roi_align", inputs, [output])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return lambda *arrays: session.run(None, dict(zip(names, arrays, strict=True)))[0]


def torch_roi_align(features, boxes):
    """RoIAlign of one image as torch users write it without torchvision: grid_sample, then mean."""
    import torch
    from torch.nn import functional

    samples = SIZE * RATIO
    fractions = (torch.arange(samples) + 0.5) / samples
    corners = boxes / STRIDE
    points = corners[:, :2, None] + (corners[:, 2:] - corners[:, :2])[..., None] * fractions
    # grid_sample's own clamping to the border is RoIAlign's within the image.
    x, y = (points * 2 / SIDE - 1).unbind(1)
    grid = torch.stack(
        [x[:, None, :].expand(-1, samples, -1), y[:, :, None].expand(-1, -1, samples)], -1
    )
    flat = grid.reshape(1, -1, samples, 2)
    sampled = functional.grid_sample(features, flat, padding_mode="border", align_corners=False)
    return functional.avg_pool2d(sampled, RATIO).reshape(CHANNELS, -1, SIZE, SIZE)


def make_inputs(rois: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A normal map [1, h, w, c], `rois` random boxes inside the image, and their image ids."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(1, SIDE, SIDE, CHANNELS)).astype(np.float32)
    corners = np.sort(rng.uniform(0, SIDE * STRIDE, (rois, 2, 2)), axis=1)
    return features, corners.reshape(rois, 4).astype(np.float32), np.zeros(rois, np.int32)


def forward_runs(features, boxes, ids) -> tuple[jax.stages.Compiled, dict[str, Callable]]:
    """Our compiled function, and ours and the rivals as functions without arguments."""
    import torch

    nchw, ids64 = features.transpose(0, 3, 1, 2).copy(), ids.astype(np.int64)
    tensors = torch.from_numpy(nchw), torch.from_numpy(boxes)
    session = onnx_roi_align(STRIDE)
    inputs = jax.device_put((features, boxes, ids))
    compiled = roi_align.lower(*inputs, stride=STRIDE).compile()
    return compiled, {
        "jax": lambda: compiled(*inputs),
        "onnxruntime": lambda: session(nchw, boxes, ids64),
        "torch": torch.no_grad()(lambda: torch_roi_align(*tensors)),
    }


def gradient_runs(features, boxes, ids) -> tuple[jax.stages.Compiled, dict[str, Callable]]:
    """Forward and backward; the result is the gradient of the map."""
    import torch

    rng = np.random.default_rng(1)
    upstream = rng.normal(size=(len(boxes), SIZE, SIZE, CHANNELS)).astype(np.float32)
    nchw = torch.from_numpy(features.transpose(0, 3, 1, 2).copy()).requires_grad_()
    torch_boxes = torch.from_numpy(boxes)
    torch_upstream = torch.from_numpy(upstream.transpose(3, 0, 1, 2).copy())

    def ours(features, boxes, ids, upstream):
        pooled, pull = jax.vjp(lambda x: roi_align(x, boxes, ids, stride=STRIDE), features)
        return pooled, *pull(upstream)

    def rival():
        pooled = torch_roi_align(nchw, torch_boxes)
        return torch.autograd.grad(pooled, nchw, torch_upstream)[0]

    inputs = jax.device_put((features, boxes, ids, upstream))
    compiled = jax.jit(ours).lower(*inputs).compile()
    return compiled, {"jax": lambda: compiled(*inputs)[1], "torch gradient": rival}


def compare(rois: int, grad: bool, repeats: int) -> bool:
    """Prints one line a rival; False where parity or memory fails."""
    compiled, runs = (gradient_runs if grad else forward_runs)(*make_inputs(rois))
    temporary = compiled.memory_analysis().temp_size_in_bytes
    ours, passed = np.asarray(runs["jax"]()), temporary <= MEMORY
    errors = {}
    for name in RIVALS.keys() & runs.keys():
        theirs = np.asarray(runs[name]()).transpose(RIVALS[name].layout)
        errors[name] = abs(ours - theirs).max() / max(1.0, abs(theirs).max() if grad else 1.0)
        if not errors[name] <= PARITY:
            print(f"FAILED parity: {name} at {rois} RoIs differs by {errors[name]:.1e} > {PARITY}")
            return False
    seconds = interleaved(runs, repeats)
    for name, error in sorted(errors.items()):
        ratio = seconds["jax"] / seconds[name]
        verdict = "met" if ratio <= RIVALS[name].goal else "MISSED (times only warn)"
        print(
            f"{rois:6d} {name:15s} {1e3 * seconds['jax']:9.1f} {1e3 * seconds[name]:9.1f}"
            f" {ratio:6.2f} {RIVALS[name].goal:6.2f}  {verdict:24s} {error:7.1e}"
            f" {temporary / 1e6:8.1f} {'ok' if passed else 'FAILED, over 32 MB'}"
        )
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rois", default="64,256,1024,4032", help="counts, comma separated")
    parser.add_argument("--grad", action="store_true", help="forward and backward, against torch")
    parser.add_argument("--repeats", type=int, default=5)
    flags = parser.parse_args()
    print(f"map {SIDE}x{SIDE}x{CHANNELS} float32, {SIZE}x{SIZE} bins, {RATIO}x{RATIO} samples;")
    print(f"interleaved, fastest of {flags.repeats}; ratio = jax / rival, goal = at most\n")
    print("  RoIs rival              jax ms  rival ms  ratio   goal  time goal", end=" " * 16)
    print("parity   temp MB")
    counts = [int(x) for x in flags.rois.split(",")]
    passed = [compare(rois, flags.grad, flags.repeats) for rois in counts]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
