"""Word vectors of the object names as the start of K0 and K1 (A24)."""

from __future__ import annotations

import numpy as np
from etils import epath
from jaxtyping import Float

SPREAD = 0.4  # GloVe's standard deviation per dimension


def load_word_vectors(path: str, num_objects: int, dim: int) -> Float[np.ndarray, "c dim"]:
    """float32 [C_obj, dim] from a .npy of shape [C_obj - 1, d], rows in the vocabulary's order.

    Projected to its principal directions, zeros where there are fewer than `dim`, then scaled to
    `SPREAD`; the background's row is drawn from a normal of the same spread.

    Raises:
      ValueError: a file that is missing, unreadable, or has another shape.
    """
    vectors = _read(path)
    if vectors.ndim != 2 or len(vectors) != num_objects - 1 or not np.isfinite(vectors).all():
        raise ValueError(
            f"{path}: shape {vectors.shape}, needed one finite row for each of the "
            f"{num_objects - 1} object classes; mend --config.model.word_vectors"
        )
    directions = np.linalg.svd(vectors.astype(np.float64), full_matrices=False)[2][:dim]
    table = np.random.default_rng(0).normal(0, SPREAD, (num_objects, dim))
    projected = vectors @ directions.T
    table[1:] = 0
    table[1:, : projected.shape[1]] = projected * (SPREAD / max(projected.std(), 1e-12))
    return table.astype(np.float32)


def _read(path: str) -> np.ndarray:
    try:
        with epath.Path(path).open("rb") as file:
            return np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(
            f"{path}: no readable .npy file ({error}); mend --config.model.word_vectors"
        ) from error
