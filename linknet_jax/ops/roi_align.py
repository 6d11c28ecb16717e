"""RoIAlign as two small matrix products per RoI, in blocks of RoIs that share an image."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

METHODS = ("aligned", "motifs")


@functools.partial(jax.jit, static_argnames=("stride", "size", "sampling_ratio", "method", "block"))
def roi_align(
    features: Float[Array, "b h w c"],
    boxes: Float[Array, "r 4"],
    image_ids: Int[Array, " r"],
    *,
    stride: int,
    size: int = 7,
    sampling_ratio: int = 2,
    method: str = "aligned",
    block: int = 16,
    rows: Int[Array, "2"] | None = None,
) -> Float[Array, "r {size} {size} c"]:
    """Features of every RoI, read from its own image's map only (A1).

    `aligned` is ONNX RoiAlign-16 with half_pixel and avg, or torchvision's with aligned=True.
    `motifs` takes one sample a bin on the corner grid, 0 outside the map, and has no ratio.
    Boxes are pixels of the network input; one that is not finite gives zeros. Adjacent RoIs of
    one image are computed together, `block` at a time: any order is correct, grouped is fast.
    `rows` (first, end) limits the work to boxes[first:end]; the others give zeros.
    Reverse-mode derivatives only.

    Raises:
      ValueError: an unknown method, or a size, sampling ratio or block below 1.
    """
    _check(method, size=size, sampling_ratio=sampling_ratio, block=block)
    if not len(boxes):
        return jnp.zeros((0, size, size, features.shape[-1]), features.dtype)
    scaled = boxes.astype(jnp.promote_types(boxes.dtype, jnp.float32)) / stride
    aligned = functools.partial(_aligned_weights, size=size, sampling_ratio=sampling_ratio)
    weigh = aligned if method == "aligned" else functools.partial(_corner_weights, size=size)
    ids = jnp.clip(image_ids, 0, len(features) - 1).astype(jnp.int32)
    span = jnp.zeros_like(ids[0]) + jnp.asarray(
        (0, len(boxes)) if rows is None else rows, jnp.int32
    )
    pool = functools.partial(_pool, weigh)
    return _packed(pool, min(block, len(boxes)), features, scaled, ids, span)


def _check(method: str, **counts: int) -> None:
    if method not in METHODS:
        raise ValueError(f"roi_align method {method!r}: use one of {METHODS} (model.roi_align)")
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"roi_align {name} is {count}: it must be at least 1")


def _aligned_weights(low, high, length: int, *, size: int, sampling_ratio: int):
    """[k, size, length]: the mean of each bin's samples, at half-pixel centres."""
    samples = size * sampling_ratio
    points = _between(low, high, (jnp.arange(samples) + 0.5) / samples) - 0.5
    weights = _hats(points, length, margin=1)
    return weights.reshape(-1, size, sampling_ratio, length).mean(2)


def _corner_weights(low, high, length: int, *, size: int):
    """[k, size, length]: one sample a bin, the first and the last on the box's corners."""
    return _hats(_between(low, high, jnp.linspace(0, 1, size)), length, margin=0)


def _between(low, high, fractions):
    # This form is exact at both ends: a box that ends on the last row of the map stays inside.
    fractions = fractions.astype(low.dtype)
    return low[:, None] * (1 - fractions) + high[:, None] * fractions


def _hats(points, length: int, margin: int):
    """Linear interpolation as weights; points are clamped within `margin` of the map, else 0."""
    inside = (points >= -margin) & (points <= length - 1 + margin)
    clamped = jnp.clip(points, 0, length - 1)[..., None]
    hats = jnp.maximum(0, 1 - jnp.abs(clamped - jnp.arange(length, dtype=points.dtype)))
    return jnp.where(inside[..., None], hats, 0)


def _pool(weigh: Callable, image: Float[Array, "h w c"], boxes: Float[Array, "k 4"]):
    """[k, size, size, c]: a few RoIs of one image; boxes in units of the map."""
    height, width, _ = image.shape
    rows = weigh(boxes[:, 1], boxes[:, 3], height).astype(image.dtype)
    columns = weigh(boxes[:, 0], boxes[:, 2], width).astype(image.dtype)
    # One plain batched product [x, w] @ [w, c] per RoI and row: 1.5 times faster on a CPU than
    # a product per RoI, for which XLA transposes the rows.
    columns = jnp.repeat(columns[:, None], rows.shape[1], axis=1)
    return jnp.einsum("kyxw,kywc->kyxc", columns, jnp.einsum("kyh,hwc->kywc", rows, image))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _packed(pool: Callable, block: int, features, boxes, image_ids, span):
    """Pools every run of RoIs of one image; written with its transpose, as the trips vary."""

    def step(state):
        start, pooled = state
        first, mine = _run(image_ids, start, span[1], block)
        values = pool(features[image_ids[start]], _rows(boxes, first, block))
        return start + mine.sum(dtype=jnp.int32), _write(pooled, first, mine, values)

    shape = jax.eval_shape(pool, features[0], boxes).shape
    return _over_runs(step, span, lax.full_like(features, 0, shape=shape))


def _packed_fwd(pool, block, *operands):
    return _packed(pool, block, *operands), operands


def _packed_bwd(pool, block, saved, cotangent):
    features, boxes, image_ids, span = saved

    def step(state):
        start, (d_features, d_boxes) = state
        first, mine = _run(image_ids, start, span[1], block)
        image = image_ids[start]
        _, pull = jax.vjp(pool, features[image], _rows(boxes, first, block))
        d_image, d_block = pull(_only(mine, _rows(cotangent, first, block), 0))
        d_features = d_features.at[image].add(d_image.astype(d_features.dtype))
        d_boxes = _write(d_boxes, first, mine, d_block)
        return start + mine.sum(dtype=jnp.int32), (d_features, d_boxes)

    # Hundreds of blocks are summed: bfloat16 would lose them.
    total = jnp.zeros_like(features, jnp.promote_types(features.dtype, jnp.float32))
    d_features, d_boxes = _over_runs(step, span, (total, jnp.zeros_like(boxes)))
    return d_features.astype(features.dtype), d_boxes, None, None


_packed.defvjp(_packed_fwd, _packed_bwd)


def _over_runs(step: Callable, span: Int[Array, "2"], initial):
    return lax.while_loop(lambda state: state[0] < span[1], step, (span[0], initial))[1]


def _run(image_ids: Int[Array, " r"], start, end, block: int) -> tuple[Array, Bool[Array, " k"]]:
    """The block of rows that holds `start`, and which of them belong to the run it begins."""
    first = jnp.minimum(start, len(image_ids) - block)
    row = first + jnp.arange(block)
    same = (_rows(image_ids, first, block) == image_ids[start]) & (row < end)
    return first, jnp.cumprod(same | (row < start)).astype(bool) & (row >= start)


def _rows(array, first, block: int):
    return lax.dynamic_slice_in_dim(array, first, block)


def _only(mine, values, otherwise):
    return jnp.where(mine.reshape(-1, *[1] * (values.ndim - 1)), values, otherwise)


def _write(array, first, mine, values):
    values = _only(mine, values, _rows(array, first, len(values)))
    return lax.dynamic_update_slice_in_dim(array, values, first, 0)
