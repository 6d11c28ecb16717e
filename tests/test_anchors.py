"""The anchor grid against METHOD.md's numbers and a loop."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linknet_jax.ops import boxes as box_ops
from linknet_jax.ops.anchors import anchor_grid, anchor_sizes, inside, on_photograph

RATIOS = (0.23232838, 0.63365731, 1.28478321, 3.15089189)
SCALES = (2.22152954, 4.12315647, 7.21692515, 12.60263013, 22.7102731)
MOTIFS = dict(stride=16, base=16, ratios=RATIOS, scales=SCALES)
SMALL = dict(stride=8, base=10, ratios=(0.5, 2.0), scales=(1.0, 2.0, 3.5))


def test_sizes_of_neural_motifs():
    sizes = anchor_sizes(16, RATIOS, SCALES)
    first = [[73.74, 17.13], [136.87, 31.80], [239.56, 55.66], [418.34, 97.19], [753.86, 175.14]]
    np.testing.assert_allclose(sizes[:5], first, atol=0.005)
    assert sizes.shape == (20, 2)
    assert sizes[15].round().tolist() == [20, 63] and sizes[19].round().tolist() == [205, 645]
    np.testing.assert_allclose(sizes.prod(1), np.tile(np.square(16 * np.array(SCALES)), 4))


def slow_grid(height, width, stride, base, ratios, scales):
    rows = []
    for row in range(height):
        for column in range(width):
            x, y = (base - 1) / 2 + stride * column, (base - 1) / 2 + stride * row
            for ratio in ratios:
                for scale in scales:
                    w = scale * (base * base / ratio) ** 0.5
                    h = scale * (base * base / ratio) ** 0.5 * ratio
                    rows.append(
                        [x - (w - 1) / 2, y - (h - 1) / 2, x + (w - 1) / 2, y + (h - 1) / 2]
                    )
    return np.array(rows, np.float32).reshape(-1, 4)


@pytest.mark.parametrize(
    ("height", "width", "options"),
    [(37, 37, MOTIFS), (3, 5, MOTIFS), (5, 3, SMALL), (1, 1, SMALL), (0, 4, SMALL)],
)
def test_grid_is_the_loop(height, width, options):
    grid = anchor_grid(height, width, **options)
    assert grid.dtype == jnp.float32
    np.testing.assert_allclose(grid, slow_grid(height, width, **options), rtol=1e-6, atol=1e-5)


def test_grid_of_neural_motifs():
    grid = np.asarray(anchor_grid(37, 37, **MOTIFS))
    assert grid.shape == (27380, 4)
    cells = grid.reshape(37, 37, 20, 4)
    centre = [[[7.5 + 16 * x, 7.5 + 16 * y] for x in range(37)] for y in range(37)]
    centre = np.repeat(np.array(centre)[:, :, None], 20, axis=2)
    np.testing.assert_allclose((cells[..., :2] + cells[..., 2:]) / 2, centre, atol=1e-3)
    sizes = np.broadcast_to(anchor_sizes(16, RATIOS, SCALES), (37, 37, 20, 2))
    np.testing.assert_allclose(box_ops.size(cells, inclusive=True), sizes, atol=1e-3)


def test_square_anchor_of_the_first_cell_is_the_base_box():
    first = anchor_grid(1, 2, stride=16, base=16, ratios=(1.0,), scales=(1.0,))
    np.testing.assert_array_equal(first, [[0, 0, 15, 15], [16, 0, 31, 15]])


@pytest.mark.parametrize("size", [(592, 592), (592, 444), (333, 592), (30, 592), (5, 592)])
def test_inside_is_the_loop(size):
    grid = anchor_grid(37, 37, **MOTIFS)
    expected = [
        x1 >= 0 and y1 >= 0 and x2 < size[1] and y2 < size[0]
        for x1, y1, x2, y2 in np.asarray(grid).tolist()
    ]
    result = inside(grid, jnp.asarray(size, jnp.float32))
    np.testing.assert_array_equal(result, expected)
    assert result.any() == (size[0] > 30)


def test_inside_edges():
    boxes = jnp.asarray(
        [[0.0, 0, 9, 9], [0, 0, 9, 9.5], [0, 0, 10, 9], [-0.5, 0, 5, 5], [0, 0, 9, 10]]
    )
    np.testing.assert_array_equal(inside(boxes, jnp.asarray([10.0, 10])), [1, 1, 0, 0, 0])


@pytest.mark.parametrize("size", [(48, 80), (47.9, 64), (32, 79), (16, 16), (3, 80), (500, 500)])
def test_on_photograph_is_the_loop(size):
    rows, columns = max(int(size[0] // 16), 1), max(int(size[1] // 16), 1)
    expected = [r < rows and c < columns for r in range(3) for c in range(5) for _ in range(2)]
    result = on_photograph(3, 5, 16, 2, jnp.asarray(size, jnp.float32))
    np.testing.assert_array_equal(result, expected)


def test_masks_are_batched_by_vmap_and_compile_once():
    grid = anchor_grid(6, 8, **SMALL)
    traces = []

    @jax.jit
    def masks(sizes):
        traces.append(1)
        return jax.vmap(lambda x: (inside(grid, x), on_photograph(6, 8, 8, 6, x)))(sizes)

    for sizes in ([[48.0, 64], [30, 64]], [[48.0, 20], [9, 9]]):
        batched = masks(jnp.asarray(sizes))
        for index, size in enumerate(jnp.asarray(sizes)):
            np.testing.assert_array_equal(batched[0][index], inside(grid, size))
            np.testing.assert_array_equal(batched[1][index], on_photograph(6, 8, 8, 6, size))
    assert len(traces) == 1
