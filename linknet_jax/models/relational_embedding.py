"""Relational embedding (paper section 3.3.1): attention over the objects of one image."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from linknet_jax.models.layers import Linear

MASKED = -1e30


def similarity(
    q: Float[Array, "b n k"], k: Float[Array, "b n k"], kind: str
) -> Float[Array, "b n n"]:
    """`dot`, `euclidean` -|q-k|^2 or `euclidean_root` -|q-k| (A14), in float32."""
    q, k = q.astype(jnp.float32), k.astype(jnp.float32)
    dot = jnp.einsum("bik,bjk->bij", q, k, precision="highest")
    if kind == "dot":
        return dot
    squared = (q**2).sum(-1)[:, :, None] + (k**2).sum(-1)[:, None, :] - 2 * dot
    return -squared if kind == "euclidean" else -jnp.sqrt(jnp.maximum(squared, 1e-12))


def row_operation(
    scores: Float[Array, "b n n"], mask: Bool[Array, "b n"], kind: str
) -> Float[Array, "b n n"]:
    """`softmax` over, or `sigmoid` of, the valid columns of each row; 0 in padded columns."""
    columns = mask[:, None, :]
    if kind == "sigmoid":
        return jnp.where(columns, jax.nn.sigmoid(scores), 0)
    rows = jax.nn.softmax(jnp.where(columns, scores, MASKED), axis=-1)
    return jnp.where(columns, rows, 0)


class RelationalEmbedding(nn.Module):
    """Y = X + fc(R (X H)) with R = rowop(sim(X W, X U)) within each image (eqs. 1 and 2)."""

    reduction: int = 2
    row_op: str = "softmax"
    similarity: str = "dot"
    attention_scale: str = "none"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "b n"]
    ) -> tuple[Float[Array, "b n d"], Float[Array, "b n n"]]:
        """Returns the embedding and R; padded rows of the embedding are zeros."""
        width = x.shape[-1] // self.reduction
        x = jnp.where(mask[..., None], x, 0)
        w, u, h = (Linear(width, dtype=self.dtype, name=name)(x, mask) for name in ("W", "U", "H"))
        scores = similarity(w, u, self.similarity)
        if self.attention_scale == "rsqrt_dim":
            scores = scores * width**-0.5
        r = row_operation(scores, mask, self.row_op)
        message = jnp.einsum("bij,bjk->bik", r.astype(self.dtype), h)
        y = x + Linear(x.shape[-1], dtype=self.dtype, name="fc")(message, mask)
        return jnp.where(mask[..., None], y, 0), r


class RelationalStack(nn.Module):
    """`num_rem` relational embeddings, an fc to `hidden` after the first (eqs. 1-5, A15).

    With one module the fc's output is the result; with more, fc's stand between the modules and
    the last module's residual output is the result. `use_rem=False` leaves the fc's alone.
    """

    hidden: int
    num_rem: int = 2
    use_rem: bool = True
    embedding: dict | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "b n"]
    ) -> tuple[Float[Array, "b n hidden"], list[Float[Array, "b n n"]]]:
        """Returns the contextual features and the relational embedding matrices R1, R2, ..."""
        matrices = []
        for index in range(self.num_rem):
            if self.use_rem:
                rem = RelationalEmbedding(
                    **(self.embedding or {}), dtype=self.dtype, name=f"rem{index + 1}"
                )
                x, r = rem(x, mask)
                matrices.append(r)
            if index == 0 or index < self.num_rem - 1:
                x = Linear(self.hidden, dtype=self.dtype, name=f"fc{index + 1}")(x, mask)
        return x, matrices
