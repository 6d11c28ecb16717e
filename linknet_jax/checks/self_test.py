"""A tiny model from end to end: whether this installation computes, learns and saves."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from linknet_jax import parallel
from linknet_jax.checkpoints import Checkpoints
from linknet_jax.config import get_default
from linknet_jax.ops.pairs import all_pairs
from linknet_jax.ops.roi_align import roi_align
from linknet_jax.tasks import SceneGraphClassification, create_task
from linknet_jax.types import Batch

SIZES = {
    "data.image_size": 32,
    "model.fc_dim": 16,
    "model.embed_dim": 8,
    "model.hidden_dim": 8,
    "model.pooling_dim": 8,
    "model.layout_dim": 4,
    "model.roi_size": 3,
    "model.roi_chunk": 4,
    "model.num_rem": 1,
    "model.dropout": 0.0,
}
CLASSES = (5, 4)  # objects, predicates
COUNT = 3  # boxes


def parts() -> dict[str, Callable[[], str]]:
    """What is tested, by name; each returns what it found or raises."""
    return {
        "RoIAlign": check_roi_align,
        "forward": check_forward,
        "backward": check_backward,
        "checkpoint": check_checkpoint,
    }


def check_roi_align() -> str:
    """The mean of four samples, against NumPy."""
    ramp = np.add.outer(10 * np.arange(4.0), np.arange(4.0)).astype(np.float32)
    box, image = jnp.asarray([[1.0, 1, 3, 3]]), jnp.zeros(1, jnp.int32)
    found = roi_align(jnp.asarray(ramp)[None, ..., None], box, image, stride=1, size=1).item()
    wanted = ramp[1:3, 1:3].mean()  # two samples a side, on cells 1 and 2
    return _agree(abs(found - wanted) < 0.1, f"{found:.2f}, by hand {wanted:.2f}")  # TPU: bfloat16


def check_forward() -> str:
    """Every pair of boxes is ranked, with a probability."""
    task, batch = _task(), _batch()
    found = jax.device_get(_compiled(task.predict)(_variables(), batch))
    scores = found.scores[0, : found.count[0]]
    right = len(scores) == COUNT * (COUNT - 1) and ((scores > 0) & (scores < 1)).all()
    return _agree(right, f"{len(scores)} pairs ranked, the best with {scores.max():.3f}")


def check_backward() -> str:
    """A step against the gradient lowers the loss."""
    batch, keys = _batch(), jax.vmap(jax.random.key)(jnp.arange(1))
    task, (params, constants) = _task(), _split(_variables())

    def loss(params: dict) -> jax.Array:
        pairs = jax.vmap(all_pairs)(batch.box_mask)
        return sum(task.losses({"params": params, **constants}, batch, pairs, keys)[0].values())

    value = _compiled(jax.value_and_grad(loss))
    before, slope = value(params)
    steepness = sum(jnp.vdot(x, x) for x in jax.tree.leaves(slope))
    rate = 0.01 * before / steepness  # 1% less, were it straight
    after, _ = value(jax.tree.map(lambda x, d: x - rate * d, params, slope))
    return _agree(after < before, f"a step lowers the loss from {before:.4f} to {after:.4f}")


def check_checkpoint() -> str:
    """What is saved is restored to the bit."""
    params, _ = _split(_variables())
    mesh = parallel.create_mesh(devices=jax.local_devices()[:1])
    with tempfile.TemporaryDirectory() as folder:
        with Checkpoints(epath.Path(folder), keep=1) as saved:
            saved.save(1, {"params": params}, None, {"about": "self-test"})
        with Checkpoints(epath.Path(folder)) as saved:
            found = saved.restore(1, {"params": parallel.placed(params, mesh)})["params"]
    same = jax.tree.map(np.array_equal, params, found)
    return _agree(all(jax.tree.leaves(same)), f"{len(jax.tree.leaves(params))} arrays restored")


def _agree(right: bool, text: str) -> str:
    if not right:
        raise ValueError(text)
    return text


def _task() -> SceneGraphClassification:
    config = get_default("sgcls")
    config.update_from_flattened_dict(SIZES)
    return create_task(config, *CLASSES)


def _compiled(function: Callable) -> Callable:
    """Compiled as fast as can be: this runs once."""
    hurry = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(function, compiler_options=hurry)


@functools.cache
def _variables() -> dict:
    """Random parameters, drawn without compiling the initialisers; constants are 1."""
    rng, shapes = np.random.default_rng(0), jax.eval_shape(_task().init, jax.random.key(0))

    def draw(x: jax.ShapeDtypeStruct) -> np.ndarray:
        return (rng.normal(size=x.shape) * np.prod(x.shape[:-1]) ** -0.5).astype(np.float32)

    ones = jax.tree.map(lambda x: np.ones(x.shape, np.float32), shapes)
    return jax.tree.map(jnp.asarray, ones | {"params": jax.tree.map(draw, shapes["params"])})


def _split(variables: dict) -> tuple[dict, dict]:
    rest = {name: x for name, x in variables.items() if name != "params"}
    return variables["params"], rest


def _batch() -> Batch:
    """One image of noise with three boxes, the first related to the second."""
    side, rng = SIZES["data.image_size"], np.random.default_rng(0)
    corner = np.arange(COUNT)[:, None] * [4.0, 3.0]
    predicates = np.zeros((1, COUNT, COUNT), np.int32)
    predicates[0, 0, 1] = 1
    return Batch(
        images=rng.integers(0, 256, (1, side, side, 3)).astype(np.uint8),
        image_sizes=np.full((1, 2), side, np.float32),
        boxes=np.concatenate([corner, corner + 12], axis=-1)[None].astype(np.float32),
        box_mask=np.ones((1, COUNT), bool),
        labels=np.array([[1, 2, 3]], np.int32),
        predicates=predicates,
        image_index=np.zeros(1, np.int32),
        example_mask=np.ones(1, bool),
    )
