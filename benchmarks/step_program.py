"""What XLA says of a compiled training step: bytes that devices exchange, FLOPs, memory.

    python -m benchmarks.step_program sgcls full_size [--devices 8] [--fsdp 1] [--batch 1]
        [--set KEY=VALUE ...]

Compiled for fake CPU devices from shapes alone: no data, no parameters. The full size takes a
minute or two.
"""

from __future__ import annotations

import argparse
import math
import re
import sys

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh
from jax.stages import Lowered
from ml_collections import ConfigDict

from linknet_jax import parallel, tasks
from linknet_jax import state as states
from linknet_jax.config import get_config
from linknet_jax.settings import override
from linknet_jax.train_step import compile_train_step
from linknet_jax.types import Batch

CLASSES = (151, 51)  # of VG150, background included
BYTES = {"f64": 8, "s64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "u8": 1, "pred": 1}
COLLECTIVE = re.compile(
    r"= (.+?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)


def exchanged(hlo: str) -> dict[str, int]:
    """Bytes that come out of each kind of collective of a program, on one device.

    ValueError for an element type that is not listed.
    """
    found: dict[str, int] = {}
    for result, kind in COLLECTIVE.findall(hlo):
        for dtype, sides in re.findall(r"(\w+)\[([\d,]*)\]", result):
            if dtype not in BYTES:
                raise ValueError(f"{kind} of {dtype}: add its size to step_program.BYTES")
            size = BYTES[dtype] * math.prod(int(side) for side in sides.split(",") if side)
            found[kind] = found.get(kind, 0) + size
    return found


def batch_shapes(config: ConfigDict, images: int, mesh: Mesh) -> Batch:
    """Shapes of a global batch of photographs."""
    side, n = config.data.image_size, config.data.max_objects
    shapes = {
        "images": ((side, side, 3), jnp.uint8), "image_sizes": ((2,), jnp.float32),
        "boxes": ((n, 4), jnp.float32), "box_mask": ((n,), bool), "labels": ((n,), jnp.int32),
        "predicates": ((n, n), jnp.int32), "image_index": ((), jnp.int32),
        "example_mask": ((), bool),
    }  # fmt: skip
    split = parallel.split_images(mesh)
    return Batch(
        **{
            name: jax.ShapeDtypeStruct((images, *shape), dtype, sharding=split)
            for name, (shape, dtype) in shapes.items()
        }
    )


def state_shapes(config: ConfigDict) -> states.TrainState:
    """Shapes of everything that training changes."""
    task = tasks.create_task(config, *CLASSES)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(lambda key: states.create_state(config, task, key, {}, {}), key)


def trained_parameters(config: ConfigDict, state: states.TrainState) -> int:
    """How many numbers the gradients hold."""
    return sum(x.size for x in states.split_params(state.params, config)[0].values())


def lowered_step(config: ConfigDict, images: int, mesh: Mesh) -> Lowered:
    """The step of `images` images a device, to be compiled."""
    task = tasks.create_task(config, *CLASSES)
    state = parallel.placed(state_shapes(config), mesh)
    batch = batch_shapes(config, images * mesh.size, mesh)
    return compile_train_step(task, mesh).lower(state, batch)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task")
    parser.add_argument("variant", nargs="?", default="")
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--fsdp", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1, help="images a device")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    flags = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", flags.devices)
    config = get_config(flags.task, flags.variant)
    config = override(config, [f"--config.{setting}" for setting in flags.set])
    mesh = parallel.create_mesh(flags.fsdp)
    state = state_shapes(config)
    trained = trained_parameters(config, state)
    total = sum(x.size for x in flatten_dict(state.params).values())
    print(f"{total:,} parameters, {trained:,} trained: {4 * trained:,} bytes of gradients")
    step = lowered_step(config, flags.batch, mesh).compile()
    for kind, size in exchanged(step.as_text()).items():
        print(f"{kind}: {size:,} bytes come out, {size - 4 * trained:+,} against the gradients")
    memory, cost = step.memory_analysis(), step.cost_analysis() or {}
    print(f"{cost.get('flops', 0) / 1e9:.1f} GFLOP a device, at least (loops count once)")
    for name in ("argument", "output", "alias", "temp"):
        print(f"{name}: {getattr(memory, f'{name}_size_in_bytes'):,} bytes a device")
    return 0


if __name__ == "__main__":
    sys.exit(main())
