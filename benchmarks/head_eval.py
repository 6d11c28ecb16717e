"""Evaluation of the whole head, without the trunk, at Visual Genome's object counts.

    python -m benchmarks.head_eval [--objects vg]

Ours packs batches of 16 images padded to 64 boxes; torch eager takes one image after the other,
exact shapes. Parity and the padded FLOPs are requirements (exit status 1); times only warn.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks.pairs import OBJECTS, PREDICATES, random_boxes
from benchmarks.roi_align import CHANNELS, SIDE, STRIDE
from benchmarks.timing import interleaved
from linknet_jax.config import get_config
from linknet_jax.models.layers import PACKED_FROM
from linknet_jax.models.linknet import LinkNet
from linknet_jax.models.trunks import VGG16
from linknet_jax.ops.packing import chunk_lengths
from linknet_jax.ops.pairs import all_pairs

BATCH, PADDED, GOAL = 16, 64, 1.5
PARITY, PADDING = 5e-5, 1.15  # error relative to the largest logit, at least 1; FLOP ratio
MEAN, SPREAD = 11.5, 6.5  # objects an image


class RowFlops(NamedTuple):
    """FLOPs of one object, of what is padded of it, of one unordered pair."""

    object: float
    padded: float
    pair: float


def row_flops(model: ConfigDict) -> RowFlops:
    """2 a multiply-add, matrix products only; the attention itself is too small to count."""
    pooled, fc, hidden = model.roi_size**2 * CHANNELS, model.fc_dim, model.hidden_dim
    align = 2 * CHANNELS * model.roi_size * SIDE * (SIDE + model.roi_size)
    region = 2 * fc * (pooled + fc) + 2 * fc * (pooled + fc) + 2 * fc * OBJECTS

    def stack(width: int) -> list[float]:  # W, U, H and fc of both modules, and fc1 between them
        halves = [w * (w // model.reduction) for w in (width, hidden)]
        return [2 * size for size in (*halves * 4, width * hidden)]

    layers = stack(fc + model.embed_dim + CHANNELS) + stack(model.embed_dim + hidden)
    packed = sum(layer for layer in layers if layer / 2 >= PACKED_FROM)
    padded = sum(layers) - packed + 2 * hidden * 2 * model.pooling_dim
    union = 2 * fc * (pooled + model.pooling_dim)
    predicates = 2 * 2 * (model.pooling_dim + model.layout_dim) * PREDICATES
    return RowFlops(align + region + packed, padded, align + union + predicates)


def packed_rows(valid: np.ndarray, chunk: int) -> np.ndarray:
    """Rows that ops.packing computes for each batch's number of valid ones."""
    last = chunk_lengths(chunk)[-1]
    return -(-valid // last) * last


def padding_ratio(counts: np.ndarray, model: ConfigDict) -> float:
    """Computed FLOPs over needed FLOPs of the whole head, relational embeddings included.

    `counts`: objects of every image; those after the last full batch do not count.
    """
    counts = counts[: counts.size // BATCH * BATCH]
    flops, batches = row_flops(model), counts.reshape(-1, BATCH)
    objects, pairs = batches.sum(1), (batches * (batches - 1) // 2).sum(1)
    needed = (flops.object + flops.padded) * objects.sum() + flops.pair * pairs.sum()
    computed = flops.object * packed_rows(objects, model.roi_chunk).sum()
    computed += flops.pair * packed_rows(pairs, model.roi_chunk).sum()
    return (computed + flops.padded * counts.size * PADDED) / needed


def lognormal_counts(images: int) -> np.ndarray:
    """Object counts with Visual Genome's published mean; the spread is assumed."""
    variance = np.log(1 + (SPREAD / MEAN) ** 2)
    rng = np.random.default_rng(0)
    draw = rng.lognormal(np.log(MEAN) - variance / 2, np.sqrt(variance), images)
    return np.clip(np.rint(draw), 2, PADDED).astype(int)


def real_counts() -> np.ndarray | None:
    """Box counts of VG150's images with at least two boxes; None where the data is absent."""
    shared = pathlib.Path(__file__).parents[2] / "shared" / "data"
    path = pathlib.Path(os.environ.get("LINKNET_SHARED_DATA", shared)) / "vg150_boxes/VG-SGG.h5"
    if not path.is_file():
        return None
    import h5py

    with h5py.File(path) as file:
        counts = file["img_to_last_box"][:] - file["img_to_first_box"][:] + 1
        counts = counts[file["img_to_first_box"][:] >= 0]
    return counts[counts >= 2]


def make_inputs(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normal maps [m, h, w, c], boxes [m, PADDED, 4] and their mask; 16 maps take turns."""
    rng = np.random.default_rng(1)
    maps = rng.normal(size=(BATCH, SIDE, SIDE, CHANNELS)).astype(np.float32)
    boxes = random_boxes(rng, counts.size * PADDED).reshape(-1, PADDED, 4)
    return maps, boxes, np.arange(PADDED) < counts[:, None]


def given_map(run: Callable, arguments: tuple, keywords: dict, context) -> jax.Array:
    """Interceptor: the trunk returns what it is given instead of convolving it."""
    trunk = isinstance(context.module, VGG16) and context.method_name == "__call__"
    return arguments[0] if trunk else run(*arguments, **keywords)


def jax_head(model_config: ConfigDict) -> tuple[dict, Callable]:
    """Random parameters, and the compiled (variables, maps, boxes, mask) to (O4, G2)."""
    model = LinkNet(nn.FrozenDict(model_config.to_dict()), OBJECTS, PREDICATES)

    def call(method, first, maps, boxes, mask):
        sizes = jnp.full((len(maps), 2), SIDE * STRIDE, jnp.float32)
        with nn.intercept_methods(given_map):
            return method(first, maps, sizes, boxes, mask, jax.vmap(all_pairs)(mask))

    def forward(variables, maps, boxes, mask):
        graph = call(model.apply, variables, maps, boxes, mask)
        return graph.O4, graph.G2

    maps, boxes, mask = make_inputs(np.array([4]))
    example = (maps[:1], boxes[:, :4], mask[:, :4])
    variables = jax.jit(lambda key: call(model.init, key, *example))(jax.random.key(0))
    return variables, jax.jit(forward)


def jax_run(variables: dict, forward: Callable, arrays: tuple) -> Callable[[], list]:
    """All batches, as a function without arguments: [(O4, G2)]."""
    maps, boxes, mask = jax.device_put(arrays)
    starts = range(0, len(boxes), BATCH)
    return lambda: [
        forward(variables, maps, boxes[s : s + BATCH], mask[s : s + BATCH]) for s in starts
    ]


def torch_run(variables: dict, arrays: tuple, ordered: bool) -> Callable[[], list]:
    """All images one by one, as a function without arguments: [{O4, G2}]."""
    import torch

    from benchmarks import torch_linknet as rival

    head = rival.Head(rival.to_torch(variables["params"]), ordered=ordered)
    maps = torch.from_numpy(arrays[0].transpose(0, 3, 1, 2).copy())
    images = [torch.from_numpy(b[m]) for b, m in zip(*arrays[1:], strict=True)]
    pairs = [rival.all_pairs(len(x)) for x in images]

    def run():
        work = enumerate(zip(images, pairs, strict=True))
        return [head(maps[k % BATCH, None], b, p) for k, (b, p) in work]

    return torch.no_grad()(run)


def parity(ours: list, theirs: list, mask: np.ndarray) -> float:
    """Largest error of O4 and G2 relative to the largest logit."""
    o4, g2 = (np.concatenate([np.asarray(part[k]) for part in ours]) for k in (0, 1))
    errors = []
    for k, (valid, image) in enumerate(zip(mask, theirs, strict=True)):
        wanted = valid[:, None] & valid & ~np.eye(valid.size, dtype=bool)
        for a, b in ((o4[k][valid], image["O4"]), (g2[k][wanted], image["G2"])):
            errors.append(abs(a - b.numpy()).max() / max(1.0, float(b.abs().max())))
    return max(errors)


def check_padding(everything: np.ndarray, timed: np.ndarray, model: ConfigDict) -> bool:
    """Prints the FLOP ratios; False where the head is padded too much over all images."""
    print(f"\ncomputed / needed FLOPs of the head, chunks of {model.roi_chunk}")
    for name, counts in (("all", everything), ("timed", timed)):
        print(f"{name:5s} {counts.size:6d} images {padding_ratio(counts, model):8.3f}")
    passed = padding_ratio(everything, model) <= PADDING
    print(f"all images: {'ok' if passed else 'FAILED'}, at most {PADDING}")
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sources = ("vg", "lognormal")  # vg: the real counts where the data is present, else lognormal
    parser.add_argument("--objects", choices=sources, default="vg")
    parser.add_argument("--images", type=int, default=64, help=f"a multiple of {BATCH}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--chunk", type=int, help="instead of the variant's model.roi_chunk")
    parser.add_argument("--unordered", action="store_true", help="also torch with our pair trick")
    flags = parser.parse_args()
    model = get_config("sgcls", "full_size").model
    model.roi_chunk = flags.chunk or model.roi_chunk
    everything = real_counts() if flags.objects == "vg" else None
    name = "lognormal counts" if everything is None else "real box counts"
    everything = lognormal_counts(6400) if everything is None else everything
    counts = np.random.default_rng(0).choice(everything, flags.images, replace=False)
    pairs = (counts * (counts - 1)).sum()
    print(f"{counts.size} images, {name}: {counts.sum()} boxes, at most {counts.max()} an image,")
    print(f"{pairs} ordered pairs; map {SIDE}x{SIDE}x{CHANNELS}, batches of {BATCH} padded to")
    print(f"{PADDED} boxes; interleaved, fastest of {flags.repeats}")
    passed = check_padding(everything, counts, model)
    return 0 if compare(counts, model, flags) and passed else 1


def compare(counts: np.ndarray, model: ConfigDict, flags: argparse.Namespace) -> bool:
    """Prints a line a rival; False where parity fails."""
    arrays = make_inputs(counts)
    variables, forward = jax_head(model)
    runs = {"jax": jax_run(variables, forward, arrays)}
    for name, ordered in (("torch", True), ("torch unordered", False)):
        if ordered or flags.unordered:
            runs[name] = torch_run(variables, arrays, ordered)
    ours, errors = runs["jax"](), {}
    for name in runs.keys() - {"jax"}:
        errors[name] = parity(ours, runs[name](), arrays[2])
        if not errors[name] <= PARITY:
            print(f"FAILED parity: {name} differs by {errors[name]:.1e} > {PARITY}")
            return False
    seconds = interleaved(runs, flags.repeats)
    rate = {name: counts.size / s for name, s in seconds.items()}
    print(f"\njax {rate['jax']:.2f} images/s\nrival            images/s  jax x rival   parity")
    for name in sorted(errors):
        ratio = rate["jax"] / rate[name]
        verdict = f"goal {GOAL} " + ("met" if ratio >= GOAL else "MISSED (times only warn)")
        verdict = verdict if name == "torch" else "no goal"
        print(f"{name:16s} {rate[name]:8.2f} {ratio:12.2f}  {errors[name]:7.1e}  {verdict}")
    return True


if __name__ == "__main__":
    sys.exit(main())
