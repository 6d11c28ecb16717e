"""Pictures of scene graphs: nothing covers anything, colours mean something, text is only text."""

import base64
import hashlib
import itertools
import re
from html import unescape
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from linknet_jax.drawing import files, html, matrix, photograph, picture, png, svg
from linknet_jax.drawing import graph as graph_panel
from linknet_jax.drawing.colours import GHOST, RIGHT, WRONG, class_colour, letters_on
from linknet_jax.drawing.free import free_place
from linknet_jax.drawing.layout import arrange
from linknet_jax.drawing.plates import things_of
from linknet_jax.drawing.shapes import Line, Rectangle, Text
from linknet_jax.drawing.truth import judge
from linknet_jax.scene_graph import Object, Relation, SceneGraph

NAMES = ("person", "shirt", "street", "traffic light", "dog", "tree", "sky", "人物", "motorcycle")
EVIL = ("<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "a\x00b\ud800&amp;")


def random_graph(seed, objects=30, relations=40, size=(640, 480)):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 0.9, (objects, 2)) * size
    ends = np.minimum(corners + rng.uniform(0.02, 0.6, (objects, 2)) * size, size)
    boxes = np.concatenate([corners, ends], axis=1).tolist()
    things = [Object(tuple(box), str(rng.choice(NAMES)), 0.9) for box in boxes]
    pairs = rng.permutation(list(itertools.permutations(range(objects), 2)))[:relations].tolist()
    scores = np.linspace(1, 0.1, len(pairs)).tolist()
    tied = [Relation(s, "on the top of", o, x) for (s, o), x in zip(pairs, scores, strict=True)]
    return SceneGraph(f"image {seed}", size, tuple(things), tuple(tied))


def panels(graph, truth=None):
    judged = judge(graph, truth)
    things = things_of(graph, judged)
    return photograph.panel(graph, None, things), graph_panel.panel(graph, judged, things)


def plates(drawing):
    """Boxes of the filled rectangles that carry a text."""
    shapes = [(x, shift) for x, shift in png.flat(drawing.shapes)]
    for (plate, shift), (text, _) in itertools.pairwise(shapes):
        if isinstance(plate, Rectangle) and isinstance(text, Text):
            yield np.add(plate.box, (*shift, *shift))


def count_overlaps(boxes):
    pairs = itertools.combinations(boxes, 2)
    return sum(bool((a[:2] < b[2:]).all() and (b[:2] < a[2:]).all()) for a, b in pairs)


@pytest.mark.parametrize(
    "seed, size",
    [(0, (640, 480)), (1, (640, 480)), (2, (150, 2000)), (3, (1, 1)), (4, (20000, 20))],
)
def test_no_name_covers_another_at_30_objects(seed, size):
    left, right = panels(random_graph(seed, size=size))
    for drawing, expected in ((left, 30), (right, 70)):
        found = list(plates(drawing))
        assert len(found) == expected and count_overlaps(found) == 0
        low, high = np.min(found, axis=0)[:2], np.max(found, axis=0)[2:]
        assert (low >= 0).all() and (high <= np.array(drawing.size) + 1e-6).all()


def test_names_of_boxes_in_one_place_do_not_cover_each_other():
    graph = random_graph(0)
    same = tuple(x._replace(box=(5.0, 5.0, 9.0, 9.0)) for x in graph.objects)
    for drawing in panels(SceneGraph("same", (640, 480), same, graph.relations)):
        assert count_overlaps(list(plates(drawing))) == 0


def test_a_full_area_passes_its_lower_side_only():
    assert free_place((10, 10), [(0, 0)], [(0, 0, 100, 50)], (0, 0, 100, 50)) == (0.0, 52.0)
    assert free_place((10, 10), [(0, 0), (90, 0)], [(0, 0, 50, 50)], (0, 0, 100, 50)) == (90, 0)


def test_linked_plates_are_nearer_than_others():
    links = np.array([(k, k + 1) for k in range(9)])
    places = arrange(np.full((10, 2), (60, 20)), links, np.zeros((10, 2)))
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1)
    assert distances[links[:, 0], links[:, 1]].max() < distances[0, 9] / 2


@pytest.mark.parametrize("count", [0, 1, 5])
def test_small_graphs(count):
    graph = random_graph(0, objects=count, relations=min(count, 3))
    drawing = picture.draw(graph, Image.new("RGB", (64, 48), "red"))
    assert png.render(drawing).size == tuple(int(np.ceil(2 * x)) for x in drawing.size)
    ElementTree.fromstring(svg.render(drawing))


def test_class_colours_are_of_the_name_and_readable():
    assert class_colour("person") == "#7b145c" and class_colour("shirt") != class_colour("dog")
    colours = {class_colour(f"class {k}") for k in range(1000)}
    assert len(colours) > 40
    dark = {x for x in colours if letters_on(x) == "#ffffff"}
    assert colours > dark > set()


def truth_and_graph():
    """Of four annotated relations one is found, one has a wrong predicate, two are missed."""
    boxes = [(0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10), (60, 0, 70, 10)]
    labels = ["man", "hat", "dog", "sky"]
    things = tuple(Object(b, x, 1.0) for b, x in zip(boxes, labels, strict=True))
    tied = [(0, "wear", 1), (0, "near", 2), (2, "below", 3), (1, "on", 0)]
    truth = SceneGraph("a", (80, 40), things, tuple(Relation(*x, 1.0) for x in tied))
    found = (things[0]._replace(box=(0, 0, 10, 8)), things[1], things[2])
    said = [Relation(0, "wear", 1, 0.9), Relation(0, "on", 2, 0.5)]
    return truth, SceneGraph("a", (80, 40), found, tuple(said))


def test_verdicts():
    truth, graph = truth_and_graph()
    judged = judge(graph, truth)
    assert judged.verdicts == ["right", "wrong", "missed", "missed", "missed"]
    assert [x.label for x in judged.ghosts] == ["sky"]
    assert [x[:3] for x in judged.relations[2:]] == [(0, "near", 2), (2, "below", 3), (1, "on", 0)]
    assert judge(graph, None).verdicts == ["unknown"] * 2
    assert judge(truth, truth).verdicts == ["right"] * 4


def test_boxes_that_overlap_by_less_than_half_are_wrong():
    truth, graph = truth_and_graph()
    for high, verdict in ((5, "right"), (4.9, "wrong")):
        first = graph.objects[0]._replace(box=(0, 0, 10, high))
        moved = SceneGraph("a", (80, 40), (first, *graph.objects[1:]), graph.relations)
        assert judge(moved, truth).verdicts[0] == verdict


def test_an_annotated_relation_is_found_once():
    truth, graph = truth_and_graph()
    twice = (*graph.objects, graph.objects[1])
    said = (Relation(0, "wear", 3, 0.4), graph.relations[0])
    judged = judge(SceneGraph("a", (80, 40), twice, said), truth)
    assert judged.verdicts[:2] == ["right", "wrong"]


def test_colours_of_edges():
    truth, graph = truth_and_graph()
    _, right = panels(graph, truth)
    relations = [x for group in right.shapes[-2].shapes if group.kind == "relation"
                 for x in group.shapes if isinstance(x, Line)]  # fmt: skip
    colours = [x.colour for x in relations]
    assert [colours.count(x) for x in (RIGHT, WRONG, GHOST)] == [2, 2, 6]
    assert all(x.dashed == (x.colour == GHOST) for x in relations)


def evil_graph():
    boxes = [(0, 0, 20, 20), (30, 0, 60, 20), (30, 25, 60, 40)]
    things = [Object(box, label, 1.0) for box, label in zip(boxes, EVIL, strict=True)]
    tied = [Relation(k, label, (k + 1) % 3, 0.5) for k, label in enumerate(EVIL)]
    return SceneGraph("".join(EVIL), (80, 40), tuple(things), tuple(tied))


def test_text_stays_text(tmp_path):
    graph = evil_graph()
    for suffix in ("svg", "html", "png"):
        files.save(graph, None, tmp_path / f"a.{suffix}", truth=graph)
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    assert {x.tag.partition("}")[2] for x in root.iter()} <= {
        "svg", "g", "rect", "line", "polygon", "text",
    }  # fmt: skip
    page = (tmp_path / "a.html").read_text("utf-8")
    assert page.count("<script") == 1 and "<img" not in page and "\x00" not in page
    assert "&lt;script&gt;alert(1)" in page


class Tags(HTMLParser):
    """Every attribute of a page, as a browser reads it."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [(tag, key, value) for key, value in attrs]


def test_page_needs_nothing_and_runs_nothing_else():
    graph = random_graph(0, objects=5, relations=6)
    views = [html.View(graph, Image.new("RGB", (3000, 20), "blue")), html.View(evil_graph())]
    page = html.render(views, "Two")
    policy = unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])
    script = re.search(r"<script>(.*)</script>", page, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert f"script-src 'sha256-{digest}'" in policy
    tags = Tags()
    tags.feed(page)
    assert not [key for _, key, _ in tags.found if key.startswith("on")]
    links = {x[:23] for _, key, x in tags.found if key in ("href", "src", "action")}
    assert links == {"data:image/jpeg;base64,"}
    assert page.count('<section class="graph"') == 2
    for relation in range(6):
        assert (
            f'<li data-relation="{relation}"' in page and f'<g data-relation="{relation}"' in page
        )


def test_embedded_photographs_are_small():
    uri = svg.data_uri(Image.effect_noise((3000, 1500), 50))
    assert uri.startswith("data:image/jpeg;base64,") and len(uri) < 1_000_000


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "CMYK", "1"])
def test_photographs_of_any_mode(mode):
    drawing = picture.draw(random_graph(0, 2, 1), Image.new(mode, (64, 48)))
    assert png.render(drawing).mode == "RGB" and "data:image/jpeg" in svg.render(drawing)


@pytest.mark.parametrize("name", ["a.pdf", "a", "a.png.txt"])
def test_other_suffixes_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"\.png, \.svg, \.html"):
        files.save(random_graph(0, 2, 1), None, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_the_same_picture_twice(tmp_path):
    graph, image = random_graph(3, 12, 14), Image.new("RGB", (64, 48), "green")
    for suffix in files.SUFFIXES:
        for k in range(2):
            files.save(graph, image, tmp_path / f"{k}{suffix}", random_graph(3, 12, 9))
        assert (tmp_path / f"0{suffix}").read_bytes() == (tmp_path / f"1{suffix}").read_bytes()


def test_matrix():
    embedding, truth = np.array([[0.0, 0.5], [0.1, 0.2]]), np.array([[0, 1], [0, 0]])
    drawing = matrix.draw(embedding, truth, ["man", "<hat>"])
    shapes = [x for x, _ in png.flat(drawing.shapes)]
    fills = [x.fill for x in shapes if isinstance(x, Rectangle)]
    assert fills.count("#1f5a85") == 3  # the true cell, the largest weight, the end of the key
    assert sum(x.stroke == "#d1603d" for x in shapes if isinstance(x, Rectangle)) == 1
    assert [x.text for x in shapes if isinstance(x, Text) and x.turned] == ["man 0", "<hat> 1"] * 2
    assert png.render(drawing).size and "&lt;hat&gt; 1" in svg.render(drawing)


@pytest.mark.parametrize(
    "embedding, truth, names, said",
    [
        (np.ones((2, 3)), np.ones((2, 2)), "ab", "a row and a column"),
        (np.ones((2, 2)), np.ones((2, 2)), "", "there must be a name"),
        (np.full((2, 2), -1.0), np.ones((2, 2)), "ab", "at least 0"),
        (np.full((2, 2), np.nan), np.ones((2, 2)), "ab", "finite"),
        (np.ones((2, 2)), np.full((2, 2), 2), "ab", "else 0"),
    ],
)
def test_matrices_that_do_not_fit(embedding, truth, names, said):
    with pytest.raises(ValueError, match=said):
        matrix.draw(embedding, truth, list(names))
