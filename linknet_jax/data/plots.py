"""Pictures of a training split: how often classes occur, how full images are, where things lie."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from linknet_jax.data.collection import AnnotationTable, compact
from linknet_jax.types import Vocabulary

STRONG, LIGHT, ACCENT = "#1f5a85", "#a9c6dc", "#d1603d"
INK, GREY = "#2b2b2b", "#777777"
SHADES = LinearSegmentedColormap.from_list("shades", ["#f6f9fb", LIGHT, STRONG, "#0b2740"])
DPI = 120
COLUMN, LINE = 50, 0.17  # classes in a column of bars; inches of each
MOST = 150  # classes in one picture
BINS = 45
PANELS, ACROSS = 12, 4  # predicates of the layout
REACH, CELLS = 2.0, 50


def draw(
    objects: dict[str, int],
    predicates: dict[str, int],
    table: AnnotationTable,
    vocabulary: Vocabulary,
) -> dict[str, Figure]:
    """Figures by name; `objects` and `predicates` are counts in `table`, most frequent first."""
    table = compact(table)
    return {
        "predicates": frequencies(predicates, "predicates", "relations"),
        "objects": frequencies(objects, "object classes", "boxes"),
        "images": fullness(table),
        "layout": layout(predicates, table, vocabulary),
    }


def frequencies(counts: dict[str, int], kind: str, unit: str) -> Figure:
    """A bar for each class, in columns; those that together make up half are strong."""
    total = sum(counts.values())
    half = int(np.searchsorted(np.cumsum(list(counts.values())), total / 2)) + 1
    shown = list(counts.items())[:MOST]
    columns = math.ceil(len(shown) / COLUMN)
    length = math.ceil(len(shown) / columns)
    figure = _figure(max(7.0, 4.2 * columns), 1.2 + LINE * length)
    make = "make" if half > 1 else "makes"
    limit = f"; the {MOST} most frequent are shown" if len(counts) > MOST else ""
    _headline(
        figure,
        f"{half} of {len(counts)} {kind} {make} up half of the {total:,} {unit}{limit}",
    )
    for column, axes in enumerate(figure.subplots(1, columns, squeeze=False, sharex=True)[0]):
        first = column * length
        _bars(axes, shown[first : first + length], max(0, half - first), length)
        axes.set_xlabel(f"{unit} of the training split, logarithmic", color=INK, fontsize=8)
    return figure


def fullness(table: AnnotationTable) -> Figure:
    """Histograms of the boxes and of the relations of an image."""
    figure = _figure(9.5, 3.6)
    for axes, counts, unit in zip(
        figure.subplots(1, 2),
        (table.box_counts, table.relation_counts),
        ("boxes", "relations"),
        strict=True,
    ):
        _histogram(axes, counts, unit)
    return figure


def layout(
    predicates: dict[str, int], table: AnnotationTable, vocabulary: Vocabulary
) -> Figure:
    """Where the subject lies as seen from the object, for the most frequent predicates."""
    names = [name for name, count in predicates.items() if count][:PANELS]
    rows = math.ceil(len(names) / ACROSS)
    figure = _figure(9.5, 0.9 + 2.5 * rows)
    _headline(figure, "Where the subject's centre lies around the object's; darker is more often")
    offsets = relative_positions(table)
    grid = figure.subplots(rows, ACROSS, squeeze=False).ravel()
    for axes, name in zip(grid, names, strict=False):
        chosen = table.relations[:, 2] == vocabulary.predicates.index(name)
        _density(axes, offsets[chosen], f"{name}  ({predicates[name]:,})")
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    figure.supxlabel(
        "units: half the sum of the two boxes' widths and heights, so that boxes touch where the "
        "point is inside the square",
        fontsize=8,
        color=GREY,
    )
    return figure


def relative_positions(table: AnnotationTable) -> Float[np.ndarray, "r 2"]:
    """(right, down) of each relation's subject centre from its object's centre.

    In units of half the sum of the two boxes' sizes: boxes overlap where both are within (-1, 1).
    `table` must be compact.
    """
    ends = table.relations[:, :2] + table.box_start[table.relation_images][:, None]
    subject, object_ = table.boxes[ends[:, 0]], table.boxes[ends[:, 1]]
    shift = (subject[:, :2] + subject[:, 2:] - object_[:, :2] - object_[:, 2:]) / 2
    reach = (subject[:, 2:] - subject[:, :2] + object_[:, 2:] - object_[:, :2]) / 2
    return shift / reach


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")


def _headline(figure: Figure, text: str) -> None:
    figure.suptitle(text, x=0.01, ha="left", fontsize=11, color=INK, parse_math=False)


def _bars(axes: Axes, rows: list[tuple[str, int]], strong: int, length: int) -> None:
    names, counts = [name for name, _ in rows], np.array([count for _, count in rows])
    colours = [STRONG if k < strong else LIGHT for k in range(len(rows))]
    # A logarithmic bar has no zero to stand on: all begin at half an example.
    axes.barh(np.arange(len(rows)), np.maximum(counts - 0.5, 0), 0.78, left=0.5, color=colours)
    for k, count in enumerate(counts):
        axes.text(max(count, 0.5) * 1.15, k, f"{count:,}", va="center", fontsize=6.5, color=GREY)
    axes.set_xscale("log")
    axes.set_xlim(left=0.5)
    axes.margins(x=0.25)
    axes.set_ylim(length - 0.4, -0.6)
    axes.set_yticks(np.arange(len(rows)), names, fontsize=7.5, color=INK, parse_math=False)
    _quiet(axes)
    axes.spines["left"].set_visible(False)


def _histogram(axes: Axes, counts: Int[np.ndarray, "m"], unit: str) -> None:
    width = max(1, math.ceil((counts.max() + 1) / BINS))
    edges = np.arange(0, counts.max() + width + 1, width) - 0.5
    axes.hist(counts, edges, color=LIGHT, rwidth=0.86)
    middle, most = np.quantile(counts, [0.5, 0.99], method="inverted_cdf")
    for value, share in ((middle, "half"), (most, "99 %")):
        axes.axvline(value, color=ACCENT, linewidth=1)
    title = f"Half of the images have at most {middle} {unit}, 99 % {most}; one has {counts.max()}"
    axes.set_title(title, loc="left", fontsize=9.5, color=INK)
    axes.set_xlabel(f"{unit} of an image", fontsize=8, color=INK)
    axes.set_ylabel("training images", fontsize=8, color=INK)
    _quiet(axes)


def _density(axes: Axes, offsets: Float[np.ndarray, "q 2"], title: str) -> None:
    extent = [-REACH, REACH]
    cells, _, _ = np.histogram2d(*offsets.T[::-1], bins=CELLS, range=[extent, extent])
    axes.imshow(cells, cmap=SHADES, extent=(*extent, *extent[::-1]), interpolation="bilinear")
    axes.add_patch(Rectangle((-1, -1), 2, 2, fill=False, edgecolor=ACCENT, linewidth=0.9))
    axes.plot(0, 0, "+", color=ACCENT, markersize=5, markeredgewidth=0.9)
    axes.set_title(title, fontsize=9.5, color=INK, parse_math=False)
    axes.set_xticks([-1, 0, 1])
    axes.set_yticks([-1, 0, 1])
    _quiet(axes)


def _quiet(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color("#bbbbbb")
    axes.tick_params(axis="x", labelsize=7.5, colors=GREY, length=2, which="both")
    axes.tick_params(axis="y", labelsize=7.5, colors=GREY, length=0)
