"""Named integer sums that merge by addition: no order of images or processes changes a bit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

UNIT = 2.0**-42  # of fractions: an error of 1.2e-13 each, room for two million images


class Sums:
    """Arrays of int64 that share one vector.

    Fractions are counted in units of UNIT, so that adding them never rounds.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]):
        self._shapes = dict(shapes)
        ends = np.cumsum([np.prod(shape, dtype=int) for shape in self._shapes.values()])
        self._vector = np.zeros(ends[-1], np.int64)
        parts = np.split(self._vector, ends[:-1])
        self._arrays = {
            name: part.reshape(shape)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }

    def __getitem__(self, name: str) -> Int[np.ndarray, "..."]:
        """The sums of this name."""
        return self._arrays[name]

    def add(self, name: str, values: Int[np.ndarray, "..."]) -> None:
        """Adds whole numbers, each to its own sum."""
        self._arrays[name] += np.asarray(values, np.int64)

    def add_fractions(self, name: str, values: Float[np.ndarray, "..."]) -> None:
        """Adds real numbers, each to its own sum."""
        self._arrays[name] += np.rint(values / UNIT).astype(np.int64)

    def fractions(self, name: str) -> Float[np.ndarray, "..."]:
        """Sums of what `add_fractions` added."""
        return self._arrays[name] * UNIT

    def state(self) -> Int[np.ndarray, "s"]:
        """All sums as one vector; the sum of the vectors of processes is theirs together.

        Gather its bytes, `state().view(np.uint32)`: JAX would cut the integers to 32 bits.
        """
        return self._vector.copy()

    def from_state(self, state: Int[np.ndarray, "s"]) -> Sums:
        """Sums of the same names with the given numbers; ValueError if they are none such."""
        if state.dtype != np.int64 or state.shape != self._vector.shape:
            raise ValueError(
                f"state is {state.dtype}{list(state.shape)}, but these sums are "
                f"int64{list(self._vector.shape)}; pass what `state` of the same settings returned"
            )
        result = Sums(self._shapes)
        result._vector[:] = state
        return result
