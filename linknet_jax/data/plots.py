"""Pictures of a training split: how often classes occur, how full images are, where things lie."""

from __future__ import annotations

import math
import textwrap

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from linknet_jax.data.collection import AnnotationTable, compact
from linknet_jax.types import Vocabulary

STRONG, LIGHT, ACCENT = "#1f5a85", "#a9c6dc", "#d1603d"
INK, GREY = "#2b2b2b", "#777777"
SHADES = LinearSegmentedColormap.from_list("shades", ["#f6f9fb", LIGHT, STRONG, "#0b2740"])
DPI = 120
COLUMN, LINE = 60, 0.17  # classes in a column of bars; inches of each
MOST = 150  # classes in one picture
BINS = 80  # at most, of a histogram
PANELS, ACROSS = 12, 4  # predicates of the layout
REACH, CELLS = 1.7, (17, 41)  # half the side of a panel; least and most cells along it
LAYOUT_NOTE = (
    "Shade: where the subject's centre lies, as seen from the object's (+). "
    "Lengths are in half sums of the boxes' sizes: inside the square they overlap."
)


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
    for column, axes in enumerate(figure.subplots(1, columns, squeeze=False)[0]):
        first = column * length
        _bars(axes, shown[first : first + length], max(0, half - first))
        axes.set(xscale="log", xlim=(0.5, 3 * max(2, shown[0][1])), ylim=(length - 0.4, -0.6))
        axes.xaxis.set_major_formatter("{x:,.0f}")
    figure.supxlabel(f"{unit} of the training split, logarithmic", fontsize=8.5, color=GREY)
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


def layout(predicates: dict[str, int], table: AnnotationTable, vocabulary: Vocabulary) -> Figure:
    """Where the subject lies as seen from the object, for the most frequent predicates.

    `table` must be compact, as for `relative_positions`.
    """
    names = [name for name, count in predicates.items() if count][:PANELS]
    rows = math.ceil(len(names) / ACROSS)
    figure = _figure(9.5, 1.0 + 2.6 * rows)
    offsets = relative_positions(table)
    share = 100 * _inside(offsets).mean()
    _headline(figure, f"{share:.0f} % of the relations join boxes that overlap")
    grid = figure.subplots(rows, ACROSS, squeeze=False).ravel()
    for axes, name in zip(grid, names, strict=False):
        _density(axes, offsets[table.relations[:, 2] == vocabulary.predicates.index(name)], name)
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    _directions(grid[0])
    figure.supxlabel(LAYOUT_NOTE, fontsize=8.5, color=GREY)
    return figure


def relative_positions(table: AnnotationTable) -> Float[np.ndarray, "r 2"]:
    """(right, down) of each relation's subject centre from its object's centre.

    In units of half the sum of the two boxes' sizes: boxes overlap where both are within (-1, 1).
    `table` must be compact.
    """
    subject, object_ = table.boxes[table.ends].swapaxes(0, 1)
    shift = (subject[:, :2] + subject[:, 2:] - object_[:, :2] - object_[:, 2:]) / 2
    reach = (subject[:, 2:] - subject[:, :2] + object_[:, 2:] - object_[:, :2]) / 2
    return shift / reach


def _figure(width: float, height: float) -> Figure:
    engine = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08)
    return Figure(figsize=(width, height), dpi=DPI, layout=engine, facecolor="white")


def _headline(figure: Figure, text: str) -> None:
    figure.suptitle(text, x=0.01, ha="left", fontsize=11, color=INK, parse_math=False)


def _bars(axes: Axes, rows: list[tuple[str, int]], strong: int) -> None:
    """On a logarithmic axis, which has no zero: bars begin at half an example."""
    places, counts = np.arange(len(rows)), np.array([count for _, count in rows])
    colours = [STRONG if k < strong else LIGHT for k in range(len(rows))]
    axes.barh(places, np.maximum(counts - 0.5, 0), 0.78, left=0.5, color=colours)
    for place, count in zip(places, counts, strict=True):
        at = (max(count, 0.5), place)
        axes.annotate(
            f"{count:,}",
            at,
            (3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            color=GREY,
        )
    axes.set_yticks(places, [name for name, _ in rows], parse_math=False)
    _quiet(axes)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.tick_params(axis="x", which="minor", length=0)
    axes.spines["left"].set_visible(False)


def _histogram(axes: Axes, counts: Int[np.ndarray, "m"], unit: str) -> None:
    half, most = np.quantile(counts, [0.5, 0.99], method="inverted_cdf").tolist()
    end = min(counts.max(), math.ceil(1.3 * most))
    width = math.ceil((end + 1) / BINS)
    edges = np.arange(0, end + width + 1, width) - 0.5
    axes.hist(counts, edges, color=LIGHT, rwidth=0.86)
    for value, share in ((half, "half"), (most, "99 %")):
        axes.axvline(value, color=ACCENT, linewidth=1)
        axes.annotate(
            f"{share}: {value:,}", (value, 1), (4, -8), xycoords=axes.get_xaxis_transform(),
            textcoords="offset points", fontsize=8, color=ACCENT,
        )  # fmt: skip
    beyond = int((counts > edges[-1]).sum())
    more = f" (beyond: {beyond:,} of {len(counts):,} images)" if beyond else ""
    title = f"Half of the images have at most {half:,} {unit}, the fullest {counts.max():,}"
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    step = f", {width} a bar" if width > 1 else ""
    axes.set_xlabel(f"{unit} of an image{step}{more}", fontsize=8.5, color=GREY)
    axes.set_ylabel("training images", fontsize=8.5, color=GREY)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.margins(y=0.12)
    _quiet(axes)


def _density(axes: Axes, offsets: Float[np.ndarray, "q 2"], name: str) -> None:
    extent = [-REACH, REACH]
    bins = int(np.clip(0.5 * len(offsets) ** 0.5, *CELLS)) // 2 * 2 + 1  # odd: one is in the middle
    cells, _, _ = np.histogram2d(*offsets.T[::-1], bins=bins, range=[extent, extent])
    axes.imshow(
        cells, cmap=SHADES, norm=PowerNorm(0.6, vmin=0, vmax=max(cells.max(), 1)),
        extent=(*extent, *extent[::-1]), interpolation="bicubic",
    )  # fmt: skip
    axes.add_patch(Rectangle((-1, -1), 2, 2, fill=False, edgecolor=ACCENT, linewidth=0.9))
    axes.plot(0, 0, "+", color=ACCENT, markersize=6, markeredgewidth=0.9)
    title = textwrap.shorten(name, 36, placeholder=" ...")
    axes.set_title(title, pad=17, fontsize=9.5, color=INK, parse_math=False)
    share = 100 * _inside(offsets).mean()
    axes.text(
        0.5, 1.02, f"{len(offsets):,} relations, {share:.0f} % overlap", ha="center",
        transform=axes.transAxes, fontsize=7.5, color=GREY,
    )  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _directions(axes: Axes) -> None:
    edge = 0.93 * REACH
    for word, place in (("above", (0, -edge)), ("below", (0, edge))):
        axes.text(*place, word, ha="center", va="center", fontsize=7.5, color=GREY)
    for word, place in (("left", (-edge, 0)), ("right", (edge, 0))):
        axes.text(*place, word, ha="center", va="center", fontsize=7.5, color=GREY, rotation=90)


def _inside(offsets: Float[np.ndarray, "q 2"]) -> Bool[np.ndarray, "q"]:
    return (np.abs(offsets) < 1).all(axis=1)


def _quiet(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color("#bbbbbb")
    axes.tick_params(axis="x", labelsize=8, colors=GREY, length=3, color="#bbbbbb")
    axes.tick_params(axis="y", labelsize=8, colors=GREY, length=0)
