"""The confusion matrix of a report, as SVG."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from linknet_jax.data.plots import GREY, INK, SHADES
from linknet_jax.report.confusion import Confusion, confusion
from linknet_jax.report.labels import room, shorten
from linknet_jax.report.svg import inline

MAX_PREDICATES = 50
SIDE, CELLS = 3.2, (0.165, 0.42)  # inches of a small matrix; of the side of a cell
SCALE = 0.62  # inches below the matrix
POINTS = 7.5


def confusion_matrix(diagnosis: dict, name: str) -> str:
    """Shares of the annotated relations of each predicate, at most MAX_PREDICATES.

    `diagnosis` is what `SceneGraphMetrics.diagnosis` returns; `name` is as for `svg.inline`.
    """
    shown = confusion(diagnosis, MAX_PREDICATES)
    counts = [f"{count:,}" for count in shown.counts.tolist()]
    rows, columns = ([shorten(text) for text in names] for names in (shown.rows, shown.columns))
    cell = float(np.clip(SIDE / len(rows), *CELLS))
    left, top, right = room(rows, POINTS), room(columns, POINTS), room(counts, POINTS)
    width, height = cell * len(columns), cell * len(rows)
    size = np.array([left + width + right, top + height + SCALE])
    figure = Figure(size, facecolor="none")
    axes = figure.add_axes(np.array([left, SCALE, width, height]) / [*size, *size])
    image = _cells(axes, shown)
    _names(axes, rows, columns, counts)
    _colour_bar(figure, image, np.array([left, 0.36, min(2.4, width), 0.09]) / [*size, *size])
    return inline(figure, name, "Confusion matrix of predicates")


def _cells(axes: Axes, shown: Confusion) -> AxesImage:
    image = axes.imshow(
        shown.shares, cmap=SHADES, norm=PowerNorm(0.6, 0, 1), aspect="auto", interpolation="none"
    )
    axes.set_xticks(np.arange(1, len(shown.columns)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(shown.rows)) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8)
    axes.axvline(len(shown.rows) - 0.5, color="white", linewidth=4)
    axes.spines[:].set_visible(False)
    return image


def _names(axes: Axes, rows: list[str], columns: list[str], counts: list[str]) -> None:
    text = {"fontsize": POINTS, "color": INK, "parse_math": False}
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(rows)), rows, **text)
    upright = {"rotation": 90, "rotation_mode": "anchor", "ha": "left", "va": "center"}
    axes.set_xticks(range(len(columns)), columns, **upright, **text)
    axes.tick_params(which="both", length=0, pad=4)
    for row, count in enumerate(counts):
        place = (len(columns) - 0.2, row)
        axes.text(*place, count, va="center", fontsize=POINTS - 0.5, color=GREY)


def _colour_bar(figure: Figure, image: AxesImage, place: np.ndarray) -> None:
    axes = figure.add_axes(place)
    bar = figure.colorbar(image, axes, orientation="horizontal", ticks=[0, 0.1, 0.4, 1])
    bar.set_ticklabels(["0", "10", "40", "100 %"], fontsize=POINTS, color=GREY)
    bar.outline.set_visible(False)
    axes.tick_params(length=0)
