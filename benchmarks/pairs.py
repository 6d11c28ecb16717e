"""The pair head (unions, fc6, fc7, eqs. 12-14) at the paper's size against torch eager.

    python -m benchmarks.pairs [--n 64]

Every ordered pair of one image's n boxes. Parity and memory are requirements (exit status 1);
times only warn, as machines are shared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.roi_align import CHANNELS, SIDE, STRIDE
from benchmarks.timing import interleaved
from linknet_jax.config import get_config
from linknet_jax.models.roi_heads import EdgeHead
from linknet_jax.ops import boxes as box_ops
from linknet_jax.ops.packing import packed_map
from linknet_jax.ops.pairs import upper_triangle

OBJECTS, PREDICATES = 151, 51
PARITY, MEMORY = 5e-5, 128e6  # error relative to the largest logit, at least 1; bytes
GOALS = {  # the smallest accepted ratio of the other's time to ours
    "jax ordered": 1.7,
    "torch": 2.0,
    "torch, C++ RoIAlign": 1.4,
    "torch, C++, unordered": 0.0,
}


def random_boxes(rng: np.random.Generator, n: int) -> np.ndarray:
    """[n, 4] inside the 592 pixel image, 24 to 300 pixels wide and high."""
    size = rng.uniform(24, 300, (n, 2))
    low = rng.uniform(0, SIDE * STRIDE - size)
    return np.concatenate([low, low + size], axis=1).astype(np.float32)


def make_inputs(n: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A normal map [1, h, w, c], boxes [1, n, 4] and E1 [1, n, 2, width]."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(1, SIDE, SIDE, CHANNELS)).astype(np.float32)
    e1 = rng.normal(size=(1, n, 2, width)).astype(np.float32)
    return features, random_boxes(rng, n)[None], e1


def pair_indices(n: int, ordered: bool) -> tuple[jax.Array, jax.Array]:
    """(i, j) of every ordered pair, or of those with i < j."""
    return jnp.nonzero(~np.eye(n, dtype=bool), size=n * (n - 1)) if ordered else upper_triangle(n)


def pair_head(head: EdgeHead, chunk: int, ordered: bool) -> Callable[..., jax.Array]:
    """(params, features, boxes, E1) to G2 [n, n, p], packed as in LinkNet."""

    def run(params, features, boxes, e1):
        n = boxes.shape[1]
        i, j = pair_indices(n, ordered)
        none = jnp.zeros(i.size, jnp.int32)
        rows = {"images": none, "i": i, "j": j, "valid": none == 0}
        operands = {"features": features, "boxes": boxes, "E1": e1}
        operands["layout"] = box_ops.relative_layout(boxes[:, :, None], boxes[:, None])
        operands["labels"] = jnp.zeros((1, n), jnp.int32)

        def apply(inputs, rows):
            return head.apply({"params": inputs[0]}, inputs[1], rows)

        both = packed_map(apply, chunk, (params, operands), rows, jnp.asarray(i.size))
        g2 = jnp.zeros((n, n, PREDICATES)).at[i, j].set(both[:, 0])
        return g2 if ordered else g2.at[j, i].set(both[:, 1])

    return run


def jax_runs(n: int, chunk: int) -> tuple[dict, tuple, dict[str, Callable], float]:
    """Parameters, inputs, our two ways as functions without arguments, temporary bytes."""
    config = get_config("sgcls", "full_size").model
    head = EdgeHead(nn.FrozenDict(config.to_dict()), OBJECTS, PREDICATES, STRIDE, False)
    arrays = make_inputs(n, config.pooling_dim)
    row = {name: jnp.zeros(1, jnp.int32) for name in ("images", "i", "j", "valid")}
    example = {"features": arrays[0], "boxes": arrays[1], "E1": arrays[2]}
    example |= {"layout": jnp.zeros((1, n, n, 4)), "labels": jnp.zeros((1, n), jnp.int32)}
    params = jax.jit(head.init)(jax.random.key(0), example, row)["params"]
    inputs = (params, *jax.device_put(arrays))
    compiled = {
        name: jax.jit(pair_head(head, chunk, ordered)).lower(*inputs).compile()
        for name, ordered in (("jax", False), ("jax ordered", True))
    }
    runs = {name: lambda run=run: run(*inputs) for name, run in compiled.items()}
    return params, arrays, runs, compiled["jax"].memory_analysis().temp_size_in_bytes


def torch_runs(params: dict, arrays: tuple) -> dict[str, Callable]:
    """The rivals, functions without arguments that give G2 of all ordered pairs, row-major."""
    import torch

    from benchmarks import torch_linknet as rival

    weights = rival.to_torch({"edge_head": params})
    features, boxes, e1 = (torch.from_numpy(x) for x in arrays)
    features = features.permute(0, 3, 1, 2).contiguous()
    pairs = rival.all_pairs(boxes.shape[1])
    heads = {
        "torch": rival.Head(weights),
        "torch, C++ RoIAlign": rival.Head(weights, rival.compiled_pool()),
        "torch, C++, unordered": rival.Head(weights, rival.compiled_pool(), ordered=False),
    }
    return {
        name: torch.no_grad()(lambda head=head: head.pairs(features, boxes[0], e1[0], pairs))
        for name, head in heads.items()
    }


def check(ours: np.ndarray, runs: dict[str, Callable]) -> dict[str, float]:
    """Relative errors of the rivals; SystemExit at the first beyond PARITY."""
    off_diagonal, errors = ~np.eye(len(ours), dtype=bool), {}
    for name, run in runs.items():
        theirs = np.asarray(run())
        theirs = theirs[off_diagonal] if theirs.ndim == 3 else theirs
        error = abs(ours[off_diagonal] - theirs).max() / max(1.0, abs(theirs).max())
        if not error <= PARITY:
            raise SystemExit(f"FAILED parity: {name} differs by {error:.1e} > {PARITY}")
        errors[name] = error
    return errors


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=64, help="boxes of the image")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--chunk", type=int, help="instead of the variant's model.roi_chunk")
    flags = parser.parse_args()
    chunk = flags.chunk or get_config("sgcls", "full_size").model.roi_chunk
    params, arrays, runs, temporary = jax_runs(flags.n, chunk)
    runs |= torch_runs(params, arrays)
    errors = check(np.asarray(runs["jax"]()), runs)
    seconds = interleaved(runs, flags.repeats)
    print(f"{flags.n} boxes, {flags.n * (flags.n - 1)} ordered pairs, fc 25088-4096-4096 float32;")
    print(f"interleaved, fastest of {flags.repeats}, chunks of {chunk}")
    print(f"jax (packed, unordered): {seconds['jax']:.2f} s\n")
    print("rival                        s   x jax   goal  time goal                  parity")
    for name, goal in GOALS.items():
        ratio = seconds[name] / seconds["jax"]
        verdict = "met" if ratio >= goal else "MISSED (times only warn)"
        print(
            f"{name:24s} {seconds[name]:6.2f}  {ratio:6.2f} {f'{goal:6.2f}' if goal else '     -'}"
            f"  {verdict if goal else 'none':25s} {errors[name]:7.1e}"
        )
    passed = temporary <= MEMORY
    print(
        f"\nXLA temporaries {temporary / 1e6:.1f} MB, {'ok' if passed else 'FAILED, over 128 MB'}"
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
