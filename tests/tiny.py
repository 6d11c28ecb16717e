"""A LinkNet small enough to compile in seconds, and batches with garbage in their padding."""

from __future__ import annotations

import functools

import jax
import numpy as np

from linknet_jax import tasks
from linknet_jax.config import get_default
from linknet_jax.ops.pairs import all_pairs
from linknet_jax.state import create_state
from linknet_jax.types import Batch

OBJECTS, PREDICATES, SIDE, STRIDE = 5, 4, 32, 8
SIZES = {
    "model.fc_dim": 12,
    "model.embed_dim": 6,
    "model.hidden_dim": 10,
    "model.pooling_dim": 8,
    "model.layout_dim": 5,
    "model.roi_size": 3,
    "model.roi_chunk": 4,
    "model.dropout": 0.0,
    "data.image_size": SIDE,
    "data.max_detections": 6,
    "sampling.pairs": 7,
    "sampling.related": 2,
    "rpn.scales": (1.0, 2.0),
    "rpn.width": 8,
    "rpn.before": 40,
    "rpn.proposals": 9,
    "rpn.train_before": 50,
    "rpn.train_proposals": 14,
    "rpn.sampled": 12,
    "rpn.sampled_positive": 5,
    "detector.sampled": 10,
    "detector.sampled_foreground": 4,
}
FAST = {"xla_backend_optimization_level": 0}  # compiles take longer than runs here
MOMENTS = {"layout_mean": np.array([0.1, -0.2, 0.3, 0.0]), "layout_std": np.array([1.5, 2, 1, 0.5])}


def create_task(name: str = "sgcls", **overrides):
    """The task of that name with tiny sizes; overrides are keyed `section__leaf`."""
    config = get_default(name)
    config.update_from_flattened_dict(SIZES)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in overrides.items()})
    return tasks.create_task(config, OBJECTS, PREDICATES)


def on_host(function):
    """Compiles it; results are NumPy, on which every slice is not another compilation."""
    compiled = jax.jit(function, compiler_options=FAST)
    return lambda *arguments: jax.device_get(compiled(*arguments))


def shapes(name: str = "sgcls", **overrides) -> dict:
    """Shapes of all variables."""
    task = create_task(name, **overrides)
    state = jax.eval_shape(
        lambda key: create_state(task.config, task, key, MOMENTS, {}), jax.random.key(0)
    )
    return {"params": state.params, **state.constants}


@functools.lru_cache
def variables(name: str = "sgcls", **overrides) -> dict:
    """Random variables, none of them zero or one: every one of them matters to the outputs."""
    rng = np.random.default_rng(0)

    def draw(path, shape):
        leaf, size = path[-1].key, shape.shape
        if leaf in MOMENTS:
            return np.float32(MOMENTS[leaf])
        if leaf in ("scale", "var"):
            return rng.uniform(0.5, 1.5, size).astype(np.float32)
        fan_in = np.prod(size[:-1]) if len(size) > 1 else 10
        return (rng.normal(size=size) * fan_in**-0.5).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes(name, **overrides))


def calm(variables: dict) -> dict:
    """A detector that moves its boxes a little, and of all classes finds some."""
    factors = {("rpn", "deltas"): 0.1, ("object_head", "box_deltas"): 0.1,
               ("object_head", "box_head"): 3}  # fmt: skip
    return jax.tree_util.tree_map_with_path(
        lambda path, x: x * np.float32(factors.get(tuple(key.key for key in path[1:3]), 1)),
        variables,
    )


@functools.lru_cache
def loss_function(name: str = "sgcls", **overrides):
    """(variables, batch, pair_mask, keys) to ((sum of the losses, (terms, updates)), gradients)."""
    task = create_task(name, **overrides)

    def total(params, constants, batch, pair_mask, keys):
        terms, updates = task.losses({"params": params, **constants}, batch, pair_mask, keys)
        return sum(terms.values()), (terms, updates)

    def split(variables, *rest):
        constants = {k: v for k, v in variables.items() if k != "params"}
        return jax.value_and_grad(total, has_aux=True)(variables["params"], constants, *rest)

    return on_host(split)


@functools.lru_cache
def graph_function(name: str = "sgcls", train: bool = False, **overrides):
    """(variables, batch, keys) to the LinkNetOutput of all pairs and the updated statistics."""
    task = create_task(name, **overrides)

    def forward(variables, batch, keys=None):
        masks = jax.vmap(all_pairs)(batch.box_mask)
        return task.forward(variables, batch, masks, keys, train)

    return on_host(forward)


@functools.lru_cache
def predict_function(name: str = "sgcls", **overrides):
    """(variables, batch) to the Prediction."""
    return on_host(create_task(name, **overrides).predict)


def scene(count: int, seed: int) -> dict:
    """One unpadded image."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, SIDE - 8, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(2, 20, (count, 2))], axis=-1)
    predicates = rng.integers(0, PREDICATES, (count, count)) * (rng.random((count, count)) < 0.6)
    return {
        "images": rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8),
        "image_sizes": np.float32([SIDE, SIDE - rng.integers(0, 14)]),
        "boxes": np.minimum(boxes, SIDE).astype(np.float32),
        "labels": rng.integers(1, OBJECTS, count).astype(np.int32),
        "predicates": (predicates * ~np.eye(count, dtype=bool)).astype(np.int32),
        "image_index": np.int32(100 + seed),
    }


def make_batch(scenes: list[dict], n: int, garbage: int = 0) -> Batch:
    """Scenes padded to n boxes; the padding holds NaN boxes and random labels."""
    rng, b = np.random.default_rng(garbage), len(scenes)
    boxes = rng.choice(np.float32([np.nan, np.inf, -1e30, 7]), (b, n, 4))
    labels = rng.integers(-3, OBJECTS + 9, (b, n)).astype(np.int32)
    predicates = rng.integers(-2, PREDICATES + 7, (b, n, n)).astype(np.int32)
    mask = np.zeros((b, n), bool)
    for i, image in enumerate(scenes):
        count = len(image["labels"])
        boxes[i, :count], labels[i, :count] = image["boxes"], image["labels"]
        predicates[i, :count, :count] = image["predicates"]
        mask[i, :count] = True
    names = ("images", "image_sizes", "image_index")
    stacked = {name: np.stack([scene[name] for scene in scenes]) for name in names}
    return Batch(
        boxes=boxes, labels=labels, predicates=predicates, box_mask=mask,
        example_mask=np.ones(b, bool), **stacked,
    )  # fmt: skip


def all_pair_masks(batch: Batch) -> np.ndarray:
    """Every ordered pair of valid boxes, [b, n, n]."""
    valid = batch.box_mask
    return valid[:, :, None] & valid[:, None, :] & ~np.eye(valid.shape[1], dtype=bool)


@functools.lru_cache
def sample_function():
    """(batch, keys) to the pairs drawn for training."""
    return on_host(create_task().sample)


def keys_of(batch: Batch) -> jax.Array:
    """One key an image."""
    return jax.vmap(jax.random.key)(np.arange(len(batch.images)))


def close(a, b):
    """Asserts that two trees agree: integers exactly, floats to 1e-4."""

    def compare(x, y):
        if np.issubdtype(x.dtype, np.floating):
            return np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)
        return np.testing.assert_array_equal(x, y)

    jax.tree.map(compare, a, b)
