"""Which foreign tensor becomes which variable of ours, in what layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

POOLED = 7  # bins of a pooled region along each side, in every code base that is imported


class Rule(NamedTuple):
    """One variable, made of one foreign tensor.

    Attributes:
      source: the foreign name.
      shape: the shape that it must have there.
      change: foreign layout to ours; the value is float32.
      note: what the report says of the change.
    """

    source: str
    shape: tuple[int, ...]
    change: Callable[[np.ndarray], np.ndarray] = np.asarray
    note: str = ""


class Source(NamedTuple):
    """How a kind of file is imported.

    Attributes:
      kind: its name in messages.
      origin: where a file of this kind comes from.
      rules: {collection: tree of variables} with a Rule for every leaf.
      settings: overrides of the configuration that the weights imply.
      ignored: reasons by the first letters of the names that are left out.
    """

    kind: str
    origin: str
    rules: dict[str, dict]
    settings: dict[str, Any]
    ignored: dict[str, str]


def convolution(name: str, outputs: int, inputs: int, side: int) -> dict[str, Rule]:
    """Kernel and bias of a convolution."""
    shape = (outputs, inputs, side, side)
    return {
        "kernel": Rule(f"{name}.weight", shape, hwio, "transposed from OIHW to HWIO"),
        "bias": Rule(f"{name}.bias", (outputs,)),
    }


def linear(name: str, outputs: int, inputs: int) -> dict[str, Rule]:
    """Kernel and bias of a fully connected layer."""
    note = "transposed from [out, in] to [in, out]"
    return {
        "kernel": Rule(f"{name}.weight", (outputs, inputs), np.transpose, note),
        "bias": Rule(f"{name}.bias", (outputs,)),
    }


def on_region(name: str, outputs: int, channels: int) -> dict[str, Rule]:
    """A fully connected layer on a pooled region: ours is flattened with the channel last."""

    def change(x):
        x = x.reshape(outputs, channels, POOLED, POOLED)
        return x.transpose(2, 3, 1, 0).reshape(-1, outputs)

    note = "transposed from [out, (channel, y, x)] to [(y, x, channel), out]"
    kernel = Rule(f"{name}.weight", (outputs, channels * POOLED**2), change, note)
    return {"kernel": kernel, "bias": Rule(f"{name}.bias", (outputs,))}


def norm(name: str, features: int) -> dict[str, Rule]:
    """Scale and bias of a batch norm."""
    return {"scale": Rule(f"{name}.weight", (features,)), "bias": Rule(f"{name}.bias", (features,))}


def moments(name: str, features: int) -> dict[str, Rule]:
    """Running mean and variance of a batch norm."""
    return {
        "mean": Rule(f"{name}.running_mean", (features,)),
        "var": Rule(f"{name}.running_var", (features,)),
    }


def of_module(shapes: dict, name: Callable[[tuple[str, ...]], str]) -> dict[str, dict]:
    """Rules for the variables of a module of convolutions; `name` gives the foreign name."""
    rules = {}
    for path, x in flatten_dict(shapes).items():
        rules[path] = Rule(name(path), x.shape)
        if path[-1] == "kernel":
            side, _, inputs, outputs = x.shape
            rules[path] = convolution("", outputs, inputs, side)["kernel"]._replace(
                source=name(path)
            )
    return unflatten_dict(rules)


def hwio(x: np.ndarray) -> np.ndarray:
    """A kernel from OIHW to HWIO."""
    return x.transpose(2, 3, 1, 0)


def shapes_of(module: Any, *inputs: jax.ShapeDtypeStruct) -> dict:
    """Shapes of the variables of a Flax module, by collection."""
    return jax.eval_shape(module.init, jax.random.key(0), *inputs)


def matrix(tensors: dict[str, np.ndarray], name: str, default: tuple[int, int]) -> tuple[int, int]:
    """The shape of a weight matrix, which tells sizes; `default` if it is missing or misshaped."""
    shape = tensors[name].shape if name in tensors else ()
    return shape if len(shape) == 2 and all(shape) else default
