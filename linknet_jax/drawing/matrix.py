"""The relational embedding beside the true relations (the paper's Figure 2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from linknet_jax.drawing import text
from linknet_jax.drawing.colours import GREY, INK, MARK, PALE, shade
from linknet_jax.drawing.plates import LONGEST
from linknet_jax.drawing.shapes import Drawing, Group, Rectangle, Shape, Text
from linknet_jax.report.labels import shorten

CELLS, SIDE = (17.0, 34.0), 340.0  # least and most pixels of a cell; of a matrix between
SIZE, TITLE, MARGIN, PAD, KEY = 11.5, 14.0, 20.0, 6.0, 150.0
TITLES = ("Annotated relations", "Relational embedding")
POWER = 0.6  # of the share of the largest weight: small weights stay visible


def draw(
    embedding: Float[np.ndarray, "n n"], truth: Float[np.ndarray, "n n"], names: Sequence[str]
) -> Drawing:
    """Two matrices with a row for every object; true relations are framed in the embedding.

    Args:
      embedding: how much each object (row) takes from every other (column), at least 0.
      truth: 1 where the row's object is the subject of a relation with the column's, else 0.
      names: of the objects.

    Raises:
      ValueError: for other shapes or values.
    """
    _check(embedding, truth, names)
    words = [f"{shorten(x, LONGEST)} {i}" for i, x in enumerate(names)]
    cell = float(np.clip(SIDE / len(words), *CELLS))
    room = max(text.width(x, SIZE) for x in words) + PAD
    side = max(cell * len(words), text.width(max(TITLES, key=len), TITLE))
    largest = float(embedding.max())
    strengths = (truth, (embedding / (largest or 1.0)) ** POWER)
    top = 2 * MARGIN + TITLE + room
    lefts = [MARGIN + room, 3 * MARGIN + 2 * room + side]
    bottom = top + cell * len(words)
    shapes: list[Shape] = [
        Group((*_cells(x, cell), *_names(words, cell, room)), (left, top))
        for x, left in zip(strengths, lefts, strict=True)
    ]
    shapes += [
        Text((left + text.width(x, TITLE) / 2, MARGIN), x, TITLE, INK)
        for x, left in zip(TITLES, lefts, strict=True)
    ]
    shapes += [Group(_frames(truth, cell), (lefts[1], top))]
    shapes += [Group(_key(largest), (lefts[1], bottom + MARGIN))]
    size = (max(lefts[1] + side, lefts[1] + KEY) + MARGIN, bottom + 3.2 * MARGIN)
    return Drawing(size, tuple(shapes), "; ".join(TITLES))


def _check(embedding: np.ndarray, truth: np.ndarray, names: Sequence[str]) -> None:
    shape = (len(names), len(names))
    if not names or embedding.shape != shape or truth.shape != shape:
        raise ValueError(
            f"{len(names)} names, an embedding of {embedding.shape} and a truth of {truth.shape}: "
            "both must have a row and a column for every name, and there must be a name"
        )
    wrong = embedding[~(np.isfinite(embedding) & (embedding >= 0))]
    if wrong.size:
        raise ValueError(f"weight {wrong[0]} of the embedding: give finite ones of at least 0")
    wrong = truth[~np.isin(truth, (0, 1))]
    if wrong.size:
        raise ValueError(f"value {wrong[0]} of the truth: give 1 where a relation is, else 0")


def _cells(strengths: Float[np.ndarray, "n n"], cell: float) -> list[Rectangle]:
    """On a pale ground, which the gaps show."""
    side = cell * len(strengths)
    ground = Rectangle((-1.0, -1.0, side, side), PALE)
    return [ground] + [
        Rectangle(_box(row, column, cell), shade(float(x)))
        for (row, column), x in np.ndenumerate(strengths)
    ]


def _frames(truth: Float[np.ndarray, "n n"], cell: float) -> tuple[Rectangle, ...]:
    boxes = [_box(row, column, cell, 1.0) for row, column in np.argwhere(truth)]
    return tuple(Rectangle(x, None, MARK, 1.6) for x in boxes)


def _box(row: int, column: int, cell: float, inset: float = 0.0) -> tuple:
    x, y = float(column * cell) + inset, float(row * cell) + inset
    return x, y, x + cell - 1 - 2 * inset, y + cell - 1 - 2 * inset


def _names(words: Sequence[str], cell: float, room: float) -> list[Text]:
    """To the left of the rows, and upright above the columns."""
    lengths = [text.width(x, SIZE) for x in words]
    middles = [(k + 0.5) * cell for k in range(len(words))]
    rows = [
        Text((-PAD - length / 2, middle), word, SIZE, INK)
        for word, length, middle in zip(words, lengths, middles, strict=True)
    ]
    columns = [
        Text((middle, -PAD - length / 2), word, SIZE, INK, turned=True)
        for word, length, middle in zip(words, lengths, middles, strict=True)
    ]
    return rows + columns


def _key(largest: float) -> tuple[Shape, ...]:
    """Which shade is which weight."""
    step = KEY / 40
    bar = [
        Rectangle((k * step, 0.0, (k + 1) * step, 8.0), shade((k / 39) ** POWER)) for k in range(40)
    ]
    frame = Rectangle((0.0, 0.0, KEY, 8.0), None, PALE, 1.0)
    ends = [(text.width("0", SIZE) / 2, "0"), (KEY - 8.0, f"{largest:.2f}")]
    return (*bar, frame, *(Text((x, 20.0), word, SIZE, GREY) for x, word in ends))
