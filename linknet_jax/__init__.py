"""LinkNet (relational embedding for scene graphs, NeurIPS 2018) in JAX and Flax."""

__version__ = "0.1.0"
