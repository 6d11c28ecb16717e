"""LinkNet (relational embedding for scene graphs, NeurIPS 2018) in JAX and Flax."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from linknet_jax.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["Predictor"]


def __getattr__(name: str) -> type:
    """`Predictor` is imported when it is asked for: commands without a model start without JAX."""
    if name == "Predictor":
        from linknet_jax.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
