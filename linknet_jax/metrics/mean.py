"""A mean kept as (total, count), so that parts of a split merge exactly."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Mean:
    """Sum of values and how many there were; batches and processes may differ in size.

    Attributes:
      total: sum of the values.
      count: how many values, or the sum of their weights.
    """

    total: float = 0.0
    count: float = 0.0

    def add(self, total: float, count: float = 1.0) -> Mean:
        """With `count` further values that sum to `total`."""
        return Mean(self.total + total, self.count + count)

    def merge(self, other: Mean) -> Mean:
        """Of the values of both."""
        return self.add(other.total, other.count)

    def compute(self) -> float | None:
        """The mean, or None of nothing: never NaN, which JSON does not have."""
        return float(self.total / self.count) if self.count else None
