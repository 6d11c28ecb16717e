"""A checkpoint as a file that jax and numpy alone can run."""
