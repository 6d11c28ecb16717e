"""The figures of the report, as SVG."""

from __future__ import annotations

import unicodedata

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from linknet_jax.data.plots import ACCENT, GREY, INK, LIGHT, SHADES, STRONG
from linknet_jax.report.confusion import Confusion, confusion
from linknet_jax.report.svg import inline

LINES = (STRONG, ACCENT, GREY, "#6a9a3f", "#8a6bb1")  # the model, then the baselines
KINDS = (("", "-", "o"), ("ng-", "--", "o"))  # with and without the graph constraint
MOST = 50  # predicates in a confusion matrix
COLUMNS = 30  # of text, in a label; East Asian letters take two
EM = 0.62 / 72  # inches of a column of text, a point high, in a wide typeface
SMALL = 7.5  # points


def recall_curve(curves: dict[str, dict], name: str) -> str:
    """R@K against mR@K of every method, percent; K beside the points of the first.

    `curves` are the `curve` entries of the metrics; `name` is as for `svg.inline`.
    """
    figure = _figure(5.4, 4.5)
    axes = figure.add_subplot()
    for colour, (method, curve) in reversed(list(zip(LINES, curves.items(), strict=False))):
        for prefix, dashes, marker in KINDS:
            x, y = (100 * np.array(curve[prefix + kind], float) for kind in ("R", "mR"))
            face = "white" if prefix else colour
            axes.plot(
                x, y, dashes, marker=marker, color=colour, markerfacecolor=face,
                linewidth=1.6, markersize=4.5, markeredgewidth=1.2,
            )  # fmt: skip
            if method == next(iter(curves)):
                _name_points(axes, curve["K"], x, y, above=bool(prefix))
    axes.set_xlabel("R@K, percent", fontsize=9, color=INK)
    axes.set_ylabel("mR@K, percent", fontsize=9, color=INK)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    _quiet(axes)
    _legend(figure, list(curves))
    return inline(figure, name, "R@K against mR@K")


def confusion_matrix(diagnosis: dict, name: str) -> str:
    """Shares of the annotated relations of each predicate; at most MOST predicates."""
    shown = confusion(diagnosis, MOST)
    rows = [shorten(text) for text in shown.rows]
    columns = [shorten(text) for text in shown.columns]
    cell = float(np.clip(3.2 / max(len(rows), 1), 0.165, 0.42))
    left, top = (_inches([*rows, "m"]), _inches(columns))
    right, bottom = _inches([f"{shown.counts.max(initial=0):,}"]), 0.62
    width, height = cell * len(columns), cell * len(rows)
    figure = Figure((left + width + right, top + height + bottom), facecolor="none")
    size = np.array([figure.get_figwidth(), figure.get_figheight()] * 2)
    axes = figure.add_axes(np.array([left, bottom, width, height]) / size)
    image = _heat(axes, shown)
    axes.set_yticks(range(len(rows)), rows, fontsize=SMALL, color=INK, parse_math=False)
    axes.set_xticks(
        range(len(columns)), columns, rotation=90, rotation_mode="anchor", ha="left", va="center",
        fontsize=SMALL, color=INK, parse_math=False,
    )  # fmt: skip
    for row, count in enumerate(shown.counts.tolist()):
        place = (len(columns) - 0.2, row)
        axes.text(*place, f"{count:,}", va="center", fontsize=SMALL - 0.5, color=GREY)
    bar = figure.add_axes(np.array([left, 0.36, min(2.4, width), 0.09]) / size)
    scale = figure.colorbar(image, bar, orientation="horizontal", ticks=[0, 0.5, 1])
    scale.set_ticklabels(["0", "50", "100 % of the row"], fontsize=SMALL, color=GREY)
    scale.outline.set_visible(False)
    bar.tick_params(length=0)
    return inline(figure, name, "Confusion matrix of predicates")


def calibration_plot(calibration: dict, name: str) -> str:
    """Share of the predictions that are right in every bin of scores, and their number."""
    figure = _figure(5.4, 4.5)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
    edges, count = np.array(calibration["edges"]), np.array(calibration["count"])
    some = count > 0
    score = 100 * np.array([calibration["score"][k] for k in np.flatnonzero(some)])
    share = 100 * np.array(calibration["correct"])[some] / count[some]
    upper.plot([0, 100], [0, 100], "--", color="#bbbbbb", linewidth=1)
    upper.text(97, 92, "calibrated", ha="right", fontsize=8, color=GREY, rotation=0)
    upper.vlines(score, score, share, color=to_rgba(ACCENT, 0.55), linewidth=2.4)
    upper.plot(score, share, "-o", color=STRONG, linewidth=1.6, markersize=5)
    upper.set(xlim=(0, 100), ylim=(0, 102))
    upper.set_ylabel("right, percent", fontsize=9, color=INK)
    lower.bar(100 * edges[:-1], count, 100 * np.diff(edges) - 0.8, align="edge", color=LIGHT)
    for left, number in zip(100 * edges[:-1], count.tolist(), strict=True):
        lower.annotate(
            _brief(number), (left + 5, number), (0, 2), textcoords="offset points",
            ha="center", fontsize=SMALL, color=GREY,
        )  # fmt: skip
    lower.set_yticks([])
    lower.margins(y=0.3)
    lower.set_ylabel("predictions", fontsize=9, color=INK)
    lower.set_xlabel("score of the triplet, percent", fontsize=9, color=INK)
    for axes in (upper, lower):
        _quiet(axes)
    lower.spines["left"].set_visible(False)
    return inline(figure, name, "Share of right predictions by score")


def shorten(text: str, columns: int = COLUMNS) -> str:
    """At most so many columns of text, of printable characters."""
    shown, width = "", 0
    for letter in text:
        width += _columns(letter)
        if width > columns:
            return shown.rstrip() + "…"
        shown += letter if letter.isprintable() else "\ufffd"
    return shown


def _columns(text: str) -> int:
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)


def _inches(labels: list[str]) -> float:
    """Room for labels whose typeface only the browser knows."""
    return 0.15 + SMALL * EM * max(map(_columns, labels))


def _figure(width: float, height: float) -> Figure:
    engine = ConstrainedLayoutEngine(h_pad=0.06, w_pad=0.06)
    return Figure((width, height), layout=engine, facecolor="none")


def _name_points(axes: Axes, ks, x, y, above: bool) -> None:
    for k, *place in zip(ks, x, y, strict=True):
        offset, side = ((-5, 4), "right") if above else ((5, -9), "left")
        axes.annotate(
            str(k), place, offset, textcoords="offset points", ha=side, fontsize=8, color=STRONG
        )


def _legend(figure: Figure, methods: list[str]) -> None:
    shown = list(zip(LINES, map(shorten, methods), strict=False))
    handles = [Line2D([], [], color=c, marker="o", markersize=4.5, label=m) for c, m in shown]
    for label, (_, dashes, marker) in zip(("graph constraint", "none (ng)"), KINDS, strict=True):
        face = INK if dashes == "-" else "white"
        handles.append(
            Line2D([], [], color=INK, linestyle=dashes, marker=marker, markersize=4.5,
                   markerfacecolor=face, label=label)
        )  # fmt: skip
    figure.legend(
        handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8,
        labelcolor=INK, handlelength=2.2, columnspacing=1.6,
    )  # fmt: skip


def _heat(axes: Axes, shown: Confusion):
    image = axes.imshow(
        shown.shares, cmap=SHADES, vmin=0, vmax=1, aspect="auto", interpolation="none"
    )
    axes.xaxis.tick_top()
    axes.tick_params(length=0, pad=4)
    axes.set_xticks(np.arange(1, len(shown.columns)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(shown.rows)) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8)
    axes.tick_params(which="minor", length=0)
    axes.axvline(len(shown.rows) - 0.5, color="white", linewidth=4)
    axes.spines[:].set_visible(False)
    return image


def _brief(number: int) -> str:
    """1234 is 1.2k."""
    for size, unit in ((10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.{0 if number >= 10 * size else 1}f}{unit}"
    return str(number)


def _quiet(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color("#bbbbbb")
    axes.tick_params(labelsize=8.5, colors=GREY, length=3, color="#bbbbbb")
    axes.grid(color="#eeeeee", linewidth=0.8)
    axes.set_axisbelow(True)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True))
