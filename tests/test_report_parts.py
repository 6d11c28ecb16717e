"""Published rows, confusion and its matrix, labels and SVG, each alone."""

from __future__ import annotations

import collections
import re

import fake_results
import numpy as np
import pytest
from matplotlib.figure import Figure

from linknet_jax.report import published
from linknet_jax.report.confusion import calibration_error, confusion, mistakes
from linknet_jax.report.heatmap import POINTS, confusion_matrix
from linknet_jax.report.labels import EM, shorten
from linknet_jax.report.svg import inline


@pytest.mark.parametrize(
    ("task", "method", "kind", "values"),
    [
        ("predcls", "LinkNet", "R", (61.8, 67.0, 68.5)),
        ("sgcls", "LinkNet", "R", (38.3, 41.0, 41.7)),
        ("sgdet", "LinkNet", "R", (22.3, 27.4, 30.1)),
        ("sgdet", "MotifNet, released checkpoint", "R", (21.93, 27.34, 30.28)),
        ("sgdet", "linknet-pytorch", "R", (13.6, 20.5, 25.0)),
        ("sgcls", "MotifNet", "R", (32.9, 35.8, 36.5)),
        ("predcls", "IMP", "R", (None, 44.8, 53.0)),
        ("sgdet", "RelDN, VGG16", "R", (21.1, 28.3, 32.7)),
        ("predcls", "KERN, VGG16", "mR", (None, 17.7, 19.2)),
        ("sgcls", "VCTree, VGG16 (VCTree)", "mR", (8.2, 10.1, 10.8)),
        ("predcls", "IMP, X-101-FPN (SGB)", "zR", (12.17, 17.66, 20.25)),
        ("sgdet", "MOTIFS, X-101-FPN (SGB)", "ng-R", (27.04, 36.58, 43.43)),
    ],
)
def test_published_figures(task, method, kind, values):
    (row,) = [row for row in published.rows(task) if row.method == method]
    assert row.recalls[kind] == values


def test_published_rows_are_whole():
    everything = [row for task in ("predcls", "sgcls", "sgdet") for row in published.rows(task)]
    assert collections.Counter(r.task for r in everything) == {
        "predcls": 22,
        "sgcls": 22,
        "sgdet": 23,
    }
    assert {row.split for row in everything} == {"test", "val", "val (inferred)"}
    assert {(r.task, r.verified) for r in everything if r.method == "FREQ"} == {
        ("predcls", False), ("sgcls", False), ("sgdet", True),
    }  # fmt: skip
    for row in everything:
        assert row.recalls and row.source and row.url.startswith("https://")
        for values in row.recalls.values():
            known = [x for x in values if x is not None]
            assert len(values) == 3 and known == sorted(known) and 0 <= known[-1] <= 100


def test_confusion_counts_what_is_not_shown():
    table = [[0, 0, 0, 0], [1, 6, 2, 1], [0, 0, 0, 0], [5, 3, 8, 4]]
    diagnosis = {"predicates": ["(none)", "on", "in", "of"], "confusion": table}
    shown = confusion(diagnosis, 50)
    assert shown.rows == ("of", "on") and shown.columns == ("of", "on", "(other)", "(none)")
    assert shown.counts.tolist() == [20, 10]
    np.testing.assert_allclose(shown.shares, [[0.2, 0.15, 0.4, 0.25], [0.1, 0.6, 0.2, 0.1]])
    first = confusion(diagnosis, 1)
    assert first.columns == ("of", "(other)", "(none)")
    np.testing.assert_allclose(first.shares, [[0.2, 0.55, 0.25]])
    assert mistakes(diagnosis, 2) == [("of", "in", 8, 0.4), ("of", "on", 3, 0.15)]


@pytest.mark.parametrize("number", [1, 3])
def test_labels_of_few_predicates_are_not_cut(number):
    drawn = confusion_matrix(fake_results.diagnosis(("on", "has", "of")[:number], images=2), "few")
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', drawn)[1])
    ((middle, text),) = re.findall(r'x="([\d.]+)"[^>]*>(100 %[^<]*)<', drawn)
    assert float(middle) + 0.5 * 72 * EM * POINTS * len(text) < width


def test_calibration_error_is_the_mean_gap():
    bins = {"count": [10, 0, 30], "correct": [2, 0, 15], "score": [0.1, None, 0.9]}
    expected = ((10 * 0.1 + 30 * 0.9) / 40, 17 / 40, (1 + 12) / 40)
    assert calibration_error(bins) == pytest.approx(expected)
    assert calibration_error({"count": [0], "correct": [0], "score": [None]}) is None


def test_shorten_counts_east_asian_letters_twice():
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 6) == "abcdef…"
    assert shorten("あいう", 6) == "あいう" and shorten("あいうえ", 6) == "あいう…"


def test_ids_of_two_figures_do_not_meet():
    def drawn(name):
        figure = Figure()
        axes = figure.add_subplot(title='id="p1" url(#p1)')
        axes.plot([0, 1], marker="o")
        return inline(figure, name, "a plot")

    first, second = drawn("a"), drawn("b")
    ids = [set(re.findall(r' id="([^"]*)"', svg)) for svg in (first, second)]
    assert ids[0] and not ids[0] & ids[1]
    assert first == drawn("a")
    assert '>id="p1" url(#p1)</text>' in first
