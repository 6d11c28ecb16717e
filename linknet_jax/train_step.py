"""The training step: exact gradients of the global batch, one optimizer update, donated state."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, PyTree
from ml_collections import ConfigDict

from linknet_jax import parallel
from linknet_jax import state as states
from linknet_jax.state import TrainState
from linknet_jax.tasks import Task
from linknet_jax.types import Batch

Step = Callable[[TrainState, Batch], tuple[TrainState, dict]]


def compile_train_step(task: Task, mesh: Mesh) -> Step:
    """The jitted step: every device differentiates its own images, one sum joins the gradients."""
    config, split, same = task.config, PartitionSpec(parallel.AXIS), PartitionSpec()
    optimizer = states.create_optimizer(config.train)
    schedule = states.create_schedule(config.train)

    def gradients(params, constants, step, batch):
        return local_gradients(task, params, constants, step, batch)

    shared = jax.shard_map(
        gradients, mesh=mesh, in_specs=(same, same, same, split), out_specs=same, check_vma=False
    )

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict]:
        grads, constants, losses = shared(state.params, state.constants, state.step, batch)
        rate = schedule(state.step) * state.control.lr_scale
        norm = optax.tree.norm(grads)
        values = {"loss": sum(losses.values()), **losses, "grad_norm": norm, "lr": rate}
        finite = jnp.isfinite(values["loss"]) & jnp.isfinite(norm) & (state.bad_step < 0)
        new = apply_gradients(state, grads, constants, optimizer, rate, config)
        new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
        bad = jnp.where(finite | (state.bad_step >= 0), state.bad_step, state.step + 1)
        return new.replace(step=state.step + 1, bad_step=bad), values

    placed = (parallel.replicated(mesh), parallel.split_images(mesh))
    return jax.jit(train_step, donate_argnums=0, in_shardings=placed, out_shardings=placed[0])


def local_gradients(
    task: Task, params: dict, constants: dict, step: Array, batch: Batch
) -> tuple[dict, dict, dict]:
    """(gradients, constants, losses) of the global batch, from one device's images.

    Losses are sums divided by global counts, which are known beforehand: the value depends neither
    on padding, nor on accumulation, nor on the number of devices.
    """
    config = task.config
    key = jax.random.fold_in(jax.random.key(config.seed), step)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch.image_index)
    examples = task.prepare({"params": params, **constants}, batch, keys)
    weights = task.weights()
    counts = jax.lax.psum(task.counts(*examples), parallel.AXIS)
    counts = jax.tree.map(lambda count: jnp.maximum(count, 1), counts)
    trained, frozen = states.split_params(params, config)

    def loss(trained, constants, part):
        variables = {"params": states.join_params(trained, frozen), **constants}
        sums, updates = task.losses(variables, *part)
        terms = {name: weights[name] * sums[name] / counts[name] for name in weights}
        return sum(terms.values()), (terms, {**constants, **updates})

    differentiate = jax.grad(loss, has_aux=True)
    if config.train.accumulation == 1:  # a loop of one trip costs XLA's CPU convolutions 20-fold
        grads, (terms, constants) = differentiate(trained, constants, examples)
    else:
        parts = split_parts(examples, config.train.accumulation)
        grads, terms, constants = accumulate(differentiate, trained, constants, parts, counts)
    # The rest never moves: a mean over three devices would round it.
    running = {name: x for name, x in constants.items() if name == "batch_stats"}
    constants = {**constants, **jax.lax.pmean(running, parallel.AXIS)}
    return jax.lax.psum(grads, parallel.AXIS), constants, jax.lax.psum(terms, parallel.AXIS)


def split_parts(tree: PyTree, parts: int) -> PyTree:
    """Leading axis [b] to [parts, b / parts]."""
    return jax.tree.map(lambda x: x.reshape(parts, len(x) // parts, *x.shape[1:]), tree)


def accumulate(
    differentiate: Callable, trained: dict, constants: dict, parts: PyTree, terms: dict
) -> tuple[dict, dict, dict]:
    """Sums gradients and loss terms over the parts; running statistics pass from part to part."""

    def body(carry, part):
        grads, terms, constants = carry
        new_grads, (new_terms, constants) = differentiate(trained, constants, part)
        return (*jax.tree.map(jnp.add, (grads, terms), (new_grads, new_terms)), constants), None

    zeros = jax.tree.map(jnp.zeros_like, (trained, terms))
    return jax.lax.scan(body, (*zeros, constants), parts)[0]


def apply_gradients(
    state: TrainState,
    grads: dict,
    constants: dict,
    optimizer: optax.GradientTransformation,
    rate: Array,
    config: ConfigDict,
) -> TrainState:
    """One optimizer step on the trained parameters."""
    trained, frozen = states.split_params(state.params, config)
    directions, opt_state = optimizer.update(grads, state.opt_state, trained)
    trained = {
        path: x - rate * states.rate_ratio(path, config.train) * directions[path]
        for path, x in trained.items()
    }
    # Early averages would otherwise be mostly the initial weights.
    decay = jnp.minimum(config.train.ema, (1 + state.step) / (10 + state.step))
    averaged = trained if config.train.ema else {}
    ema = jax.tree.map(lambda a, x: decay * a + (1 - decay) * x, state.ema, averaged)
    params = states.join_params(trained, frozen)
    return state.replace(params=params, constants=constants, opt_state=opt_state, ema=ema)
