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
    """The jitted step: every device differentiates its own images, one sum joins the gradients.

    States go in and come out as `parallel.placed` places them.
    """
    config = task.config
    optimizer = states.create_optimizer(config.train)
    schedule = states.create_schedule(config.train)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict]:
        grads, constants, losses = global_gradients(task, mesh, state, batch)
        rate = schedule(state.step) * state.control.lr_scale
        norm = optax.tree.norm(grads)
        values = {"loss": sum(losses.values()), **losses, "grad_norm": norm, "lr": rate}
        finite = jnp.isfinite(values["loss"]) & jnp.isfinite(norm) & (state.bad_step < 0)
        new = apply_gradients(state, grads, constants, optimizer, rate, config)
        new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
        new = jax.lax.with_sharding_constraint(new, parallel.shardings(parallel.placed(new, mesh)))
        bad = jnp.where(finite | (state.bad_step >= 0), state.bad_step, state.step + 1)
        return new.replace(step=state.step + 1, bad_step=bad), values

    return jax.jit(train_step, donate_argnums=0)


def global_gradients(
    task: Task, mesh: Mesh, state: TrainState, batch: Batch
) -> tuple[dict, dict, dict]:
    """(gradients, constants, losses) of the global batch; gradients of split parameters are split.

    Every device holds all parameters while it differentiates, the split ones no longer.
    """
    split, same = PartitionSpec(parallel.AXES), PartitionSpec()
    trained = states.split_params(state.params, task.config)[0]
    specs = {path: parallel.split_spec(x.shape, mesh) for path, x in trained.items()}

    def local(params, constants, step, batch):
        grads, constants, terms = local_gradients(task, params, constants, step, batch)
        grads = {path: _sum(x, parallel.split_axis(x.shape, mesh)) for path, x in grads.items()}
        return grads, constants, jax.lax.psum(terms, parallel.AXES)

    shared = jax.shard_map(
        local, mesh=mesh, in_specs=(same, same, same, split), out_specs=(specs, same, same),
        check_vma=False,
    )  # fmt: skip
    return shared(state.params, state.constants, state.step, batch)


def _sum(gradient: Array, axis: int | None) -> Array:
    """Of all devices; where the parameter is split along `axis`, this device's part of it."""
    if axis is None:
        return jax.lax.psum(gradient, parallel.AXES)
    over_images, over_parts = parallel.AXES
    part = jax.lax.psum_scatter(gradient, over_parts, scatter_dimension=axis, tiled=True)
    return jax.lax.psum(part, over_images)


def local_gradients(
    task: Task, params: dict, constants: dict, step: Array, batch: Batch
) -> tuple[dict, dict, dict]:
    """One device's terms of the gradients and losses of the global batch; constants of all.

    Losses are sums divided by global counts, which are known beforehand: the value depends neither
    on padding, nor on accumulation, nor on the number of devices.
    """
    config = task.config
    key = jax.random.fold_in(jax.random.key(config.seed), step)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch.image_index)
    examples = task.prepare({"params": params, **constants}, batch, keys)
    weights = task.weights()
    counts = jax.lax.psum(task.counts(*examples), parallel.AXES)
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
    constants = {**constants, **jax.lax.pmean(running, parallel.AXES)}
    return grads, constants, terms


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
