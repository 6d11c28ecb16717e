"""Applies the rules of a source: checks every tensor, changes layouts, reports each one's fate."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from linknet_jax.models.pretrained.rules import Rule, Source


def collect(
    tensors: dict[str, np.ndarray], source: Source
) -> tuple[dict[str, dict], dict[str, str]]:
    """({collection: variables} in float32, {name: fate}); a fate starts with `used` or `ignored`.

    Raises one ValueError that names every tensor that is missing, misshaped, not floating point,
    not finite in float32, or a variance below 0.
    """
    variables, used, problems = {}, {}, {}
    for path, rule in flatten_dict(source.rules).items():
        if problem := _problem(tensors.get(rule.source), rule, variance=path[-1] == "var"):
            problems[rule.source] = problem
            continue
        value = rule.change(np.asarray(tensors[rule.source], np.float32))
        variables[path] = np.ascontiguousarray(value)
        fate = f"used as {'/'.join(path[1:])}" + (f", {rule.note}" if rule.note else "")
        used[rule.source] = f"{used[rule.source]}; {fate}" if rule.source in used else fate
    if problems:
        lines = "\n".join(f"  {name}: {problem}" for name, problem in problems.items())
        raise ValueError(f"these are not {source.kind} weights:\n{lines}\ntake {source.origin}")
    report = {name: used.get(name) or _ignored(name, source) for name in tensors}
    return unflatten_dict(variables), report


def _problem(value: np.ndarray | None, rule: Rule, variance: bool) -> str | None:
    if value is None:
        return f"missing; expected shape {rule.shape}"
    if value.shape != rule.shape:
        return f"shape {value.shape}; expected {rule.shape}"
    if not jnp.issubdtype(value.dtype, jnp.floating):
        return f"{value.dtype}; expected floating point"
    with np.errstate(over="ignore"):  # float64 that float32 does not hold becomes infinite
        finite = np.isfinite(value.astype(np.float32)).all()
    if not finite:
        return "holds values that are not finite in float32"
    return "holds negative variances" if variance and (value < 0).any() else None


def _ignored(name: str, source: Source) -> str:
    if name.endswith(".num_batches_tracked"):
        return "ignored: counts training steps, which batch norm at inference does not read"
    for start, reason in source.ignored.items():
        if name.startswith(start):
            return f"ignored: {reason}"
    return f"ignored: no part of {source.kind}"
