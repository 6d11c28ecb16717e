"""Everything that training changes: parameters, optimizer, averages, and what steers the run."""

from __future__ import annotations

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

BOX_HEAD = {"box_features", "box_head", "box_deltas", "rpn"}
FROZEN = {"freeze_trunk": {"trunk"}, "freeze_box_head": BOX_HEAD}
SLOW = {"object_features", "union_features"}  # both trained fc6/fc7 copies (A30)


@flax.struct.dataclass
class Control:
    """What the run learned from its evaluations; plain scalars.

    Attributes:
      lr_scale: product of the plateau schedule's decays.
      best: best metric so far.
      stale, cooldown: evaluations without progress, and that do not count, for plateau.
      idle: evaluations without progress, for early stopping.
    """

    lr_scale: Float[Array, ""]
    best: Float[Array, ""]
    stale: Int[Array, ""]
    cooldown: Int[Array, ""]
    idle: Int[Array, ""]

    @classmethod
    def create(cls) -> Control:
        """Before the first evaluation."""
        floats, count = [np.float32(1), np.float32(-1)], np.int32(0)
        return cls(*floats, count, count, count)


@flax.struct.dataclass
class TrainState:
    """What a training step reads and replaces.

    Attributes:
      step: steps done.
      params: parameters, float32.
      constants: the other variables: `constants` of the training split, `batch_stats` if any.
      opt_state: optax state of the trained parameters.
      ema: averaged trained parameters; empty without EMA.
      control: see Control.
      bad_step: first step with a non-finite loss or gradient, after which nothing moves; else -1.
    """

    step: Int[Array, ""]
    params: dict
    constants: dict
    opt_state: optax.OptState
    ema: dict
    control: Control
    bad_step: Int[Array, ""]


def split_params(params: dict, config: ConfigDict) -> tuple[dict, dict]:
    """(trained, frozen) parameters, each a flat dict keyed by path."""
    flags = () if config.train.end_to_end else [flag for flag in FROZEN if config.model[flag]]
    names = set().union(*[FROZEN[flag] for flag in flags])
    flat = flatten_dict(params)
    frozen = {path: x for path, x in flat.items() if names & set(path)}
    return {path: x for path, x in flat.items() if path not in frozen}, frozen


def join_params(trained: dict, frozen: dict) -> dict:
    """Inverse of split_params."""
    return unflatten_dict({**frozen, **trained})


def create_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Gradient to direction; the learning rate is applied by the step (A30).

    SGD decays every parameter, as torch does; AdamW only matrices and kernels.
    """
    clip = optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()
    if config.optimizer == "sgd":
        decay = optax.add_decayed_weights(config.weight_decay)
        return optax.chain(clip, decay, optax.trace(config.momentum))
    decay = optax.add_decayed_weights(
        config.weight_decay, mask=lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree)
    )
    return optax.chain(clip, optax.scale_by_adam(), decay)


def create_schedule(config: ConfigDict) -> Callable[[Int[Array, ""]], Float[Array, ""]]:
    """Learning rate of a step: linear warm-up times the named schedule."""
    shapes = {
        "constant": optax.constant_schedule(config.lr),
        "plateau": optax.constant_schedule(config.lr),  # decays through Control.lr_scale
        "cosine": optax.cosine_decay_schedule(config.lr, config.steps),
        "step": optax.piecewise_constant_schedule(
            config.lr, {int(part * config.steps): config.decay for part in config.milestones}
        ),
    }
    shape = shapes[config.schedule]
    return lambda step: shape(step) * jnp.minimum(1, (step + 1) / max(config.warmup, 1))


def rate_ratio(path: tuple[str, ...], config: ConfigDict) -> float:
    """A parameter's learning rate, relative to the schedule's."""
    return config.fc_lr_ratio if SLOW & set(path) else 1.0


def update_control(control: Control, metric: float, config: ConfigDict) -> Control:
    """After an evaluation: torch's ReduceLROnPlateau(max, absolute threshold), and early stop."""
    metric = np.float32(metric)
    better = metric > control.best + np.float32(config.threshold)
    cooldown = max(int(control.cooldown) - 1, 0)
    stale = 0 if better or control.cooldown > 0 else int(control.stale) + 1
    scale = np.float32(control.lr_scale)
    if config.schedule == "plateau" and stale > config.patience:
        scale, stale, cooldown = np.float32(scale * config.decay), 0, config.cooldown
    return Control(
        lr_scale=scale,
        best=max(np.float32(control.best), metric) if better else np.float32(control.best),
        stale=np.int32(stale),
        cooldown=np.int32(cooldown),
        idle=np.int32(0 if better else control.idle + 1),
    )


def create_state(
    config: ConfigDict, task, key: Array, constants: dict, tables: dict, given: dict | None = None
) -> TrainState:
    """A fresh state.

    `constants` replaces the model's constants by name; `tables` sets parameters by their last name
    (the frequency bias, word vectors), both measured on the training split. `given` replaces
    variables by their whole path (`start.load`), and has the last word.
    """
    variables = dict(task.init(key))
    params = _overwrite(variables.pop("params"), tables)
    variables = _overwrite(variables, constants)
    whole = flatten_dict({"params": params, **variables}) | (given or {})
    variables = unflatten_dict(whole)
    params = variables.pop("params")
    trained, _ = split_params(params, config)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        constants=variables,
        opt_state=create_optimizer(config.train).init(trained),
        ema=jax.tree.map(jnp.copy, trained) if config.train.ema else {},
        control=jax.tree.map(jnp.asarray, Control.create()),
        bad_step=jnp.full((), -1, jnp.int32),
    )


def _overwrite(tree: dict, values: dict) -> dict:
    flat = {path: values.get(path[-1], x) for path, x in flatten_dict(tree).items()}
    return unflatten_dict({path: jnp.asarray(x, jnp.float32) for path, x in flat.items()})


def eval_params(state_params: dict, ema: dict, config: ConfigDict) -> dict:
    """The parameters to evaluate: the averaged ones with EMA on."""
    if not config.train.ema:
        return state_params
    return join_params(ema, split_params(state_params, config)[1])
