"""One training step of SGCls at the paper's size against torch eager; reported only.

    python -m benchmarks.train_step [--quick]

VGG16 at 592 px and the detector's box head are frozen, 1 image, SGD with momentum, no dropout (so
that losses can be compared; K2 is linear for the same reason). Parity decides the exit status.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks.pairs import OBJECTS, PREDICATES, random_boxes
from benchmarks.timing import interleaved
from linknet_jax import parallel
from linknet_jax.config import get_config
from linknet_jax.state import FROZEN, SLOW, create_state
from linknet_jax.tasks import TASKS, SceneGraphClassification
from linknet_jax.train_step import compile_train_step
from linknet_jax.types import Batch

PARITY = 1e-5  # of the losses, relative; the second step sees the first one's update
SIZES = ((16, 64), (64, 256))  # boxes, sampled pairs


def create_config(n: int, pairs: int) -> ConfigDict:
    """The paper's size with one image a batch and nothing random in the forward pass."""
    config = get_config("sgcls", "full_size")
    config.update_from_flattened_dict(
        {
            "model.freeze_trunk": True,
            "model.freeze_box_head": True,
            "model.detector_dropout": False,
            "model.dropout": 0.0,
            "model.layout_head": "linear",
            "data.max_objects": n,
            "sampling.pairs": pairs,
            "train.batch_size": 1,
            "train.lr": 1e-5,
            # Computed, but without effect: torch's fp32 norm is 1 % low on 100 million elements.
            "train.clip": 1e9,
        }
    )
    return config


def make_batch(n: int, side: int) -> Batch:
    """A noise image with n random boxes and labels, and a relation for every tenth pair."""
    rng = np.random.default_rng(0)
    related = (rng.random((1, n, n)) < 0.1) & ~np.eye(n, dtype=bool)
    return Batch(
        images=rng.integers(0, 256, (1, side, side, 3), np.uint8),
        image_sizes=np.full((1, 2), side, np.float32),
        boxes=random_boxes(rng, n)[None],
        box_mask=np.ones((1, n), bool),
        labels=rng.integers(1, OBJECTS, (1, n), np.int32),
        predicates=np.where(related, rng.integers(1, PREDICATES, related.shape, np.int32), 0),
        image_index=np.zeros(1, np.int32),
        example_mask=np.ones(1, bool),
    )


def sampled_pairs(task: SceneGraphClassification, batch: Batch, step: int) -> np.ndarray:
    """[m, 2]: the ordered pairs that our training step draws at `step`."""
    key = jax.random.fold_in(jax.random.key(task.config.seed), step)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.asarray(batch.image_index))
    return np.argwhere(np.asarray(task.sample(jax.tree.map(jnp.asarray, batch), keys))[0])


def jax_run(task: SceneGraphClassification, batch: Batch) -> tuple[dict, Callable, float]:
    """Parameters (until the first step), a step that returns its loss, temporary bytes."""
    mesh = parallel.create_mesh()
    create = jax.jit(
        lambda key: create_state(task.config, task, key, {}, {}),
        out_shardings=parallel.replicated(mesh),
    )
    state, batch = create(jax.random.key(0)), parallel.to_devices(batch, mesh)
    compiled = compile_train_step(task, mesh).lower(state, batch).compile()
    holder = [state]

    def run() -> float:
        holder[0], values = compiled(holder[0], batch)
        return float(values["loss"])

    return state.params, run, compiled.memory_analysis().temp_size_in_bytes


def torch_run(params: dict, batch: Batch, pairs: list[np.ndarray], config: ConfigDict) -> Callable:
    """The rival's step, which returns its loss; its k-th call trains on `pairs[k]`."""
    import torch
    from torch.nn import functional

    from benchmarks import torch_linknet as rival

    weights = rival.to_torch(params)
    optimizer = create_optimizer(weights, config)
    head = rival.Head(weights, layout_relu=False)
    image = torch.from_numpy(batch.images.transpose(0, 3, 1, 2).copy())
    boxes, labels = torch.from_numpy(batch.boxes[0]), torch.from_numpy(batch.labels[0]).long()
    predicates = torch.from_numpy(batch.predicates[0]).long()
    present = functional.one_hot(labels, OBJECTS).amax(0)[None, 1:].float()
    draws = map(torch.from_numpy, pairs)

    def run() -> float:
        pairs = next(draws)
        with torch.no_grad():
            features = rival.trunk(weights, image)
        logits = head(features, boxes, pairs, labels)
        loss = functional.cross_entropy(logits["O4"], labels)
        loss = loss + functional.cross_entropy(logits["G2"], predicates[tuple(pairs.T)])
        loss = loss + functional.binary_cross_entropy_with_logits(logits["context"], present)
        loss.backward()
        trained = [x for group in optimizer.param_groups for x in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, config.train.clip)
        optimizer.step()
        optimizer.zero_grad()  # here, as the gradients' memory is the other side's meanwhile
        return loss.item()

    return run


def create_optimizer(weights: dict, config: ConfigDict):
    """torch's SGD on what our configuration trains, fc6 and fc7 at their own rate."""
    import torch

    rates: dict[float, list] = {}
    frozen = set().union(*FROZEN.values())
    for path, x in weights.items():
        parts = set(path.split("/"))
        if not frozen & parts:
            rate = config.train.lr * (config.train.fc_lr_ratio if SLOW & parts else 1)
            rates.setdefault(rate, []).append(x.requires_grad_())
    groups = [{"params": x, "lr": rate} for rate, x in rates.items()]
    options = {"momentum": config.train.momentum, "weight_decay": config.train.weight_decay}
    return torch.optim.SGD(groups, **options)


def compare(n: int, limit: int, repeats: int) -> bool:
    """Prints a line; False where the losses differ."""
    config = create_config(n, limit)
    task, batch = TASKS["sgcls"](config, OBJECTS, PREDICATES), make_batch(n, config.data.image_size)
    pairs = [sampled_pairs(task, batch, step) for step in range(repeats + 3)]
    params, ours, temporary = jax_run(task, batch)
    rival = torch_run(params, batch, pairs, config)
    losses = [(ours(), rival()) for _ in range(2)]
    error = max(abs(a - b) / max(1.0, abs(b)) for a, b in losses)
    if not error <= PARITY:
        print(f"FAILED parity: losses {losses} differ by {error:.1e} > {PARITY}")
        return False
    seconds = interleaved({"jax": ours, "torch": rival}, repeats)
    ratio = seconds["torch"] / seconds["jax"]
    print(
        f"{n:4d} {len(pairs[0]):6d} {1e3 * seconds['jax']:9.0f} {1e3 * seconds['torch']:9.0f}"
        f" {ratio:12.2f}  {losses[1][0]:.5f} {losses[1][1]:.5f}"
        f"  {error:7.1e} {temporary / 1e6:8.0f}"
    )
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only the smaller size")
    parser.add_argument("--repeats", type=int, default=5)
    flags = parser.parse_args()
    print(f"VGG16, 592 px, 1 image, SGD; interleaved, fastest of {flags.repeats}; losses: 2nd step")
    print("   N  pairs    jax ms  torch ms  torch / jax  jax loss, torch    parity  temp MB")
    sizes = SIZES[:1] if flags.quick else SIZES
    return 0 if all([compare(*size, flags.repeats) for size in sizes]) else 1


if __name__ == "__main__":
    sys.exit(main())
