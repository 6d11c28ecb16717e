"""The curves of a report, as SVG."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from linknet_jax.data.plots import ACCENT, GREY, INK, LIGHT, STRONG
from linknet_jax.report.labels import shorten
from linknet_jax.report.svg import inline

COLOURS = (STRONG, ACCENT, GREY, "#6a9a3f", "#8a6bb1")  # the model, then the baselines
CONSTRAINTS = (("", "-", "graph constraint"), ("ng-", "--", "no constraint (ng)"))
APART = 0.045  # labels of points that are closer, in shares of the axes, would cover each other


def recall_curve(curves: Sequence[tuple[str, dict]], name: str) -> str:
    """R@K against mR@K of every method, percent; K beside the points of the first.

    `curves` are names of methods with the `curve` of their metrics; `name` is as for `svg.inline`.
    """
    figure = _figure(4.7, 4.0)
    axes = figure.add_subplot()
    coloured = list(zip(curves, itertools.cycle(COLOURS), strict=False))
    for (_, curve), colour in reversed(coloured):
        for prefix, dashes, _ in CONSTRAINTS:
            line = 100 * np.array([curve[f"{prefix}R"], curve[f"{prefix}mR"]], float)
            axes.plot(*line, dashes, **_marker(colour, filled=not prefix), linewidth=1.6)
    first = curves[0][1]
    for prefix, _, _ in CONSTRAINTS:
        line = 100 * np.array([first[f"{prefix}R"], first[f"{prefix}mR"]], float)
        _name_points(axes, first["K"], line, above=bool(prefix))
    axes.set_xlabel("R@K, percent", fontsize=9, color=INK)
    axes.set_ylabel("mR@K, percent", fontsize=9, color=INK)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    _quiet(axes)
    _legend(axes, [method for method, _ in curves])
    return inline(figure, name, "R@K against mR@K")


def calibration_plot(calibration: dict, name: str) -> str:
    """Share of the predictions that are right in every bin of scores, and their number.

    `calibration` is that of `SceneGraphMetrics.diagnosis`; `name` is as for `svg.inline`.
    """
    figure = _figure(4.7, 4.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
    count = np.array(calibration["count"])
    some = np.flatnonzero(count)
    score = 100 * np.array([calibration["score"][k] for k in some])
    _reliability(upper, score, 100 * np.array(calibration["correct"])[some] / count[some])
    _numbers(lower, 100 * np.array(calibration["edges"]), count)
    return inline(figure, name, "Share of right predictions by score")


def _reliability(axes: Axes, score: Float[np.ndarray, "b"], share: Float[np.ndarray, "b"]) -> None:
    axes.plot([0, 100], [0, 100], "--", color="#bbbbbb", linewidth=1)
    axes.text(98, 4, "dashed: calibrated", ha="right", fontsize=8, color=GREY)
    axes.vlines(score, score, share, color=to_rgba(ACCENT, 0.55), linewidth=2.4)
    axes.plot(score, share, "-o", color=STRONG, linewidth=1.6, markersize=5)
    axes.set(xlim=(0, 100), ylim=(0, 102))
    axes.set_ylabel("right, percent", fontsize=9, color=INK)
    _quiet(axes)


def _numbers(axes: Axes, edges: Float[np.ndarray, "b+1"], count: Float[np.ndarray, "b"]) -> None:
    axes.bar(edges[:-1], count, np.diff(edges) - 0.8, align="edge", color=LIGHT)
    for middle, number in zip((edges[:-1] + edges[1:]) / 2, count.tolist(), strict=True):
        axes.annotate(
            _brief(number), (middle, number), (0, 2), textcoords="offset points",
            ha="center", fontsize=7.5, color=GREY,
        )  # fmt: skip
    axes.set_yticks([])
    axes.margins(y=0.3)
    axes.set_ylabel("predictions", fontsize=9, color=INK)
    axes.set_xlabel("score of the triplet, percent", fontsize=9, color=INK)
    _quiet(axes)
    axes.spines["left"].set_visible(False)


def _figure(width: float, height: float) -> Figure:
    engine = ConstrainedLayoutEngine(h_pad=0.06, w_pad=0.06)
    return Figure((width, height), layout=engine, facecolor="none")


def _marker(colour: str, filled: bool) -> dict:
    face = colour if filled else "white"
    return {"color": colour, "marker": "o", "markersize": 4.5, "markerfacecolor": face}


def _name_points(axes: Axes, ks: list[int], line: Float[np.ndarray, "2 k"], above: bool) -> None:
    """The largest K first; a label that would cover another one is left out."""
    offset, side = ((-6, 3), "right") if above else ((5, -9), "left")
    places = line / np.maximum(line.max(axis=1, keepdims=True), 1e-9)
    last = np.full(2, np.inf)
    for k, point, place in reversed(list(zip(ks, line.T, places.T, strict=True))):
        if np.abs(place - last).max() > APART:
            last = place
            axes.annotate(
                str(k), point, offset, textcoords="offset points", ha=side, fontsize=8,
                color=STRONG,
            )  # fmt: skip


def _legend(axes: Axes, methods: list[str]) -> None:
    handles = [
        Line2D([], [], **_marker(colour, filled=True), label=shorten(method))
        for method, colour in zip(methods, itertools.cycle(COLOURS), strict=False)
    ] + [
        Line2D([], [], **_marker(INK, filled=not prefix), linestyle=dashes, label=label)
        for prefix, dashes, label in CONSTRAINTS
    ]
    legend = axes.legend(
        handles=handles, loc="upper left", frameon=False, fontsize=8.5, labelcolor=INK,
        handlelength=2.6,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)


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
