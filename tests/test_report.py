"""The page against what went into it: numbers, names, figures, and nothing from elsewhere."""

from __future__ import annotations

import collections
import html
import html.parser
import itertools
import re
import warnings

import fake_results
import numpy as np
import pytest
from etils import epath
from PIL import Image

from linknet_jax.data.raw.vocabulary import vg150
from linknet_jax.report import tables
from linknet_jax.report.labels import shorten
from linknet_jax.report.page import Example, render, write_report

VG = vg150().predicates[1:]
ODD = (
    "<script>alert(1)</script>", "の上に乗っている", "عَلَى", "a$b$_c^", 'say "id=x" url(#y) & <b>',
    "a very long predicate name that never seems to end, in many words", "null\x00byte\ud800", "on",
)  # fmt: skip
SECTIONS = "results published predicates curve confusion calibration images protocol".split()
VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(html.parser.HTMLParser):
    """Elements as (tag, attributes), text cells of every table row; fails on wrong nesting."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.rows = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute stands twice: {attrs}"
        self.elements.append((tag, dict(attrs)))
        self.open += [tag] if tag not in VOID else []
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        assert self.open.count("svg"), f"<{tag}/> outside of svg"
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def row(self, *start):
        """The first row whose first cells begin like this."""
        return next(
            [cell.strip() for cell in row]
            for row in self.rows
            if len(row) >= len(start)
            and all(x.strip().startswith(y) for x, y in zip(row, start, strict=False))
        )


def _diagnoses(names, splits=("test", "val"), tasks=("predcls", "sgcls")):
    return {
        split: {task: fake_results.diagnosis(names, i, 5000) for i, task in enumerate(tasks)}
        for split in splits
    }


def _picture(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (6, 12, 3), np.uint8))


def _examples():
    return [
        Example(task, kind, f"{task} {k} <i>", _picture(k))
        for k, (task, kind) in enumerate(itertools.product(("sgcls", "predcls"), ("worst", "best")))
    ]


@pytest.fixture(scope="module")
def full():
    results = fake_results.results(VG)
    results["ceiling"] = {"predcls": fake_results.metrics(VG, 3, level=1.4)}
    return results


@pytest.fixture(scope="module")
def text(full):
    return render(full, _diagnoses(VG), _examples(), "LinkNet & VG150")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_every_section_and_figure_is_there(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert [name for name in ids if name in SECTIONS] == SECTIONS
    assert len(ids) == len(set(ids))
    links = {a["href"][1:] for tag, a in page.elements if tag == "a" and a["href"][0] == "#"}
    assert links == set(SECTIONS)
    labels = collections.Counter(a["aria-label"] for tag, a in page.elements if tag == "svg")
    assert set(labels.values()) == {4} and len(labels) == 3  # two tasks on two splits
    pictures = [a for tag, a in page.elements if tag == "img"]
    assert [a["alt"] for a in pictures] == [
        "PredCls, test, highest recall: predcls 3 <i>",
        "PredCls, test, lowest recall: predcls 2 <i>",
        "SGCls, test, highest recall: sgcls 1 <i>",
        "SGCls, test, lowest recall: sgcls 0 <i>",
    ]
    assert all(a["src"].startswith("data:image/jpeg;base64,") for a in pictures)
    assert {(a["width"], a["height"]) for a in pictures} == {("12", "6")}


def test_without_pictures_there_is_no_section(full):
    text = render(full, {}, [], "no pictures")
    assert 'id="images"' not in text and 'href="#images"' not in text


def test_the_model_has_the_name_given(full):
    text = render(full, {}, [], "named", "pred<1>.jsonl")
    heads = next(row for row in Page(text).rows if "FREQ" in row)
    assert heads[1:] == ["pred<1>.jsonl", "FREQ", "FREQ+OVERLAP", "ceiling"]
    assert text.count(">pred&lt;1&gt;.jsonl</text>") == 4 and "this model" not in text
    row = Page(render(full, {}, [], "", "FREQ")).row("R ")
    assert row[1] == f"{100 * full['tasks']['predcls']['R@20']:.2f}"


def test_nothing_comes_from_the_network(text, page):
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "iframe", "object")
        for name, value in attributes.items():
            assert tag == "a" or "://" not in (value or ""), (tag, name, value)
    assert not re.search(r"url\((?!#)|@import|xmlns", text)
    assert "default-src 'none'" in text


def test_references_inside_figures_have_targets(page):
    ids = {a["id"] for _, a in page.elements if "id" in a}
    values = [v for _, a in page.elements for v in a.values() if v]
    used = [name for value in values for name in re.findall(r"url\(#([^)]*)\)", value)]
    used += [a["href"][1:] for tag, a in page.elements if tag == "use"]
    assert used and set(used) <= ids


def test_numbers_are_those_given(full, page):
    methods = [full["tasks"], *full["baselines"].values(), full["ceiling"]]
    for kind in fake_results.ALL:
        expected = [
            f"{100 * m['predcls'][f'{kind}@{k}']:.2f}" for m in methods for k in fake_results.KS
        ]
        assert page.row(f"{kind} ")[1:] == expected
    assert page.row("object accuracy")[1:] == ["65.43"] * 3
    heads = next(row for row in page.rows if "this model" in row)
    assert heads[1:] == ["this model", "FREQ", "FREQ+OVERLAP", "ceiling"]
    own = [f"{100 * full['splits']['val']['tasks']['sgcls'][f'R@{k}']:.2f}" for k in (20, 50, 100)]
    assert any(
        [cell.strip() for cell in row[:5]] == ["This evaluation", "val", *own] for row in page.rows
    )


def test_predicates_stand_by_frequency_with_their_bars(full, page):
    shown = full["tasks"]["predcls"]["per_predicate"]
    rows = [row for row in page.rows if row[0] in shown and len(row) == 9]
    assert len(rows) == 100
    counts = [shown[row[0]]["count"] for row in rows[:50]]
    assert counts == sorted(counts, reverse=True)
    on = shown["on"]
    assert rows[0][:3] == ["on", on["group"], f"{on['count']:,}"]
    assert rows[0][3:5] == [f"{100 * on[f'{p}recall@100']:.2f}" for p in ("", "ng-")]
    widths = [a["style"] for tag, a in page.elements if tag in ("i", "b") and "style" in a]
    assert widths[:2] == [f"width:{rows[0][k]}%" for k in (4, 3)]


def test_published_rows_stand_open_beside_vg150(page):
    assert page.row("LinkNet", "val (inferred)")[2:5] == ["61.8", "67.0", "68.5"]
    assert page.row("MotifNet, released")[1:5] == ["val", "61.15", "66.33", "67.78"]
    assert page.row("Transformer, X-101-FPN")[8:11] == ["12.77", "16.30", "17.63"]
    assert page.row("LinkNet", "val")[-1] == "verified"
    assert page.row("MotifNet-NoContext")[-1] == "from memory"
    assert page.row("VRD")[2] == tables.NONE


def test_published_rows_are_closed_beside_another_vocabulary():
    text = render(fake_results.results(ODD), {}, [], "other")
    closed = re.search(r"<details>\s*<summary>Show VG150.*?</details>", text, re.DOTALL)
    assert "cannot be compared" in closed[0] and "61.15" in closed[0]
    assert "61.15" not in text.replace(closed[0], "")
    assert "This evaluation" not in text


def test_names_are_escaped_in_every_script():
    results = {
        "split": "custom",
        "tasks": {"sgdet": fake_results.metrics(ODD, 1, "sgdet", "custom")},
    }
    diagnoses = {"custom": {"sgdet": fake_results.diagnosis(ODD, 1)}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = render(results, diagnoses, [], "<b>title</b>")
    page = Page(text.encode(errors="replace").decode())
    assert "<script" not in text and "<b>title" not in text
    cells = {row[0] for row in page.rows}
    assert set(ODD[:6]) <= cells
    drawn = text[text.index('id="confusion"') :]
    drawn = drawn[: drawn.index("</svg>")]
    for name in ODD[:5]:
        assert drawn.count(f">{html.escape(name, quote=False)}</text>") == 2
    assert f">{shorten(ODD[5])}</text>" in drawn and "null\ufffdbyte\ufffd" in drawn


def test_what_the_score_command_has_is_enough():
    metrics = fake_results.metrics(VG, 2, "sgdet")
    page = Page(render({"split": "test", "tasks": {"sgdet": metrics}}, {}, [], "file"))
    assert page.row("mAP@50")[1] == "28.14"
    assert page.row("A ")[1:] == [tables.NONE] * 3
    assert page.row("missing")[1] == "zero"


def test_without_images_there_are_dashes_and_no_figures():
    results = fake_results.results(VG, test=0)
    text = render(results, {"test": {"predcls": fake_results.diagnosis(VG, images=0)}}, [], "")
    page = Page(text)
    assert page.row("mR ")[1:] == [tables.NONE] * 9
    assert [a["aria-label"] for tag, a in page.elements if tag == "svg"] == ["R@K against mR@K"] * 2
    assert "No predictions on annotated pairs" in text


def test_protocol_has_one_value_where_all_agree(page, full):
    assert page.row("iou threshold") == ["iou threshold", "0.5"]
    assert page.row("images") == ["images", "26,446", "26,446", "5,000", "5,000"]
    blocks = tables.blocks_of(full, "model")
    assert [(b.split, b.task) for b in blocks] == [
        (split, task) for split in ("test", "val") for task in ("predcls", "sgcls")
    ]


def test_a_split_is_shown_once():
    metrics = fake_results.metrics(VG, split="val")
    results = {"split": "val", "tasks": {"predcls": metrics}}
    assert len(tables.blocks_of(results | {"splits": {"val": results}}, "model")) == 1
    with pytest.raises(ValueError, match="results have no task"):
        tables.blocks_of({"split": "val", "tasks": {}}, "model")


def test_the_same_input_gives_the_same_bytes(tmp_path, full):
    paths = [epath.Path(tmp_path) / name for name in ("a.html", "b.html")]
    for path in paths:
        write_report(path, full, _diagnoses(VG), _examples(), "title")
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_nothing_is_left_when_it_fails(tmp_path, full, monkeypatch):
    path = epath.Path(tmp_path) / "report.html"
    with pytest.raises(AttributeError):
        write_report(path, full, {}, [Example("predcls", "best", "", None)], "title")
    assert not list(tmp_path.iterdir())
    path.write_text("before")
    monkeypatch.setattr(type(path), "replace", _refuse)
    with pytest.raises(OSError, match="refused"):
        write_report(path, full, {}, [], "title")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "before"


def _refuse(self, target):
    raise OSError("refused")


def test_at_most_fifty_predicates_are_drawn():
    names = [f"predicate {k}" for k in range(150)]
    results = {"split": "val", "tasks": {"sgcls": fake_results.metrics(names, 0, "sgcls", "val")}}
    text = render(results, {"val": {"sgcls": fake_results.diagnosis(names)}}, [], "wide")
    assert len(re.findall(r">predicate \d+</text>", text)) == 100
    assert text.count(">(other)</text>") == 1


def test_the_page_says_what_was_evaluated(text, full):
    parts = (full, full["splits"]["val"])
    counts = [part["tasks"]["predcls"]["counts"] for part in parts]
    test, val = (f"({c['images']:,} images, {c['relations']:,} relations)" for c in counts)
    assert (
        f"The checkpoint of step 18,000, scored in PredCls and SGCls on the test split {test} "
        f"and the val split {val}."
    ) in text
    assert "IoU of 0.5 in pixels of the original image, their end pixels counted" in text
    assert f"Graph constraint by metric: {fake_results.GRAPH_CONSTRAINT}." in text
    assert "Mean recall runs over the 50 predicates of the vocabulary." in text
