"""The right half of a picture: objects and predicates as plates, joined by arrows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from linknet_jax.drawing import text
from linknet_jax.drawing.colours import GREY, INK, VERDICTS, WHITE
from linknet_jax.drawing.layout import arrange, edge_of, rows
from linknet_jax.drawing.plates import LONGEST, Thing, around, middle_of, plate, plate_size
from linknet_jax.drawing.push import Places, Sizes
from linknet_jax.drawing.shapes import Drawing, Group, Line, Point, Rectangle, Shape, Text
from linknet_jax.drawing.truth import Judged
from linknet_jax.report.labels import shorten
from linknet_jax.scene_graph import SceneGraph

NODE, PREDICATE, SMALL = 14.0, 12.5, 12.0  # sizes of letters
MARGIN, HEADING, ROW_GAP = 12.0, 26.0, 8.0  # around a part; for a line above it; between plates
LEAST, WIDE = (300.0, 60.0), 560.0  # of the panel; rows without relations are WIDE at most
ROUND, TIP = 9.0, 4.0  # corners of predicates; free pixels before a plate, twice
LONE = "without a relation"
KINDS = ("right", "wrong", "missed")


def panel(graph: SceneGraph, judged: Judged, things: Sequence[Thing]) -> Drawing:
    """The relations as arrows subject - predicate - object; objects without any stand below."""
    tied = sorted({x for r in judged.relations for x in (r.subject, r.object)})
    woven, size = _woven(graph, things, tied, judged) if tied else ((), (0.0, 0.0))
    lone = [i for i in range(len(things)) if i not in tied]
    listed, extent = _rows(things, lone, max(size[0], WIDE)) if lone else ((), (0.0, 0.0))
    legend, length = _legend(judged)
    top = MARGIN + (HEADING if legend else 0)
    bottom = top + (size[1] + 2 * MARGIN if woven else 0)
    groups = (Group(woven, (MARGIN, top)), Group(listed, (MARGIN, bottom)))
    wide = max(LEAST[0], size[0] + 2 * MARGIN, extent[0] + 2 * MARGIN, length)
    high = max(LEAST[1], bottom + extent[1] + (MARGIN if listed else 0))
    return Drawing((wide, high), (*legend, *groups), f"Scene graph of {graph.image_id}")


def _woven(
    graph: SceneGraph, things: Sequence[Thing], tied: list[int], judged: Judged
) -> tuple[tuple[Group, ...], Point]:
    """Plates and arrows of what has relations, and how much room they take."""
    words = [shorten(r.predicate, LONGEST) for r in judged.relations]
    sizes = [plate_size(things[i].name, NODE) for i in tied]
    sizes = np.array(sizes + [plate_size(x, PREDICATE) for x in words])
    row_of = {number: row for row, number in enumerate(tied)}
    ends = np.array([(row_of[r.subject], row_of[r.object]) for r in judged.relations])
    middles = len(tied) + np.arange(len(ends))
    links = np.concatenate([np.stack([x, middles], axis=-1) for x in ends.T])
    places = arrange(sizes, links, _hints(graph, things, tied, ends))
    arrows = [_arrow(k, (*x, middles[k]), places, sizes, judged) for k, x in enumerate(ends)]
    marks = [_word(k, words[k], places[m], judged.verdicts[k]) for k, m in enumerate(middles)]
    nodes = [_node(i, things[i], places[row_of[i]], NODE) for i in tied]
    return (*arrows, *marks, *nodes), tuple((places + sizes / 2).max(axis=0).tolist())


def _hints(
    graph: SceneGraph, things: Sequence[Thing], tied: list[int], ends: Int[np.ndarray, "m 2"]
) -> Float[np.ndarray, "n 2"]:
    """Where things are in the photograph, in 0 to 1; predicates between their ends."""
    boxes = [middle_of(things[i].box) for i in tied]
    middles = np.clip(np.array(boxes) / graph.size, 0, 1)
    return np.concatenate([middles, middles[ends].mean(axis=1)])


def _arrow(
    number: int, rows: tuple[int, int, int], places: Places, sizes: Sizes, judged: Judged
) -> Group:
    """From the subject's plate through the predicate's middle to the object's plate."""
    subject, object_, middle = rows
    verdict = judged.verdicts[number]
    joint = tuple(places[middle].tolist())
    start = edge_of(places[subject], sizes[subject], joint)
    end = edge_of(places[object_], sizes[object_] + TIP, joint)
    way_out = edge_of(places[middle], sizes[middle], end)
    style = (VERDICTS[verdict], 1.5, verdict == "missed")
    lines = (Line(start, joint, *style), Line(way_out, end, *style, arrow=True))
    return Group(lines, kind="relation", number=number)


def _word(number: int, words: str, place: Float[np.ndarray, "2"], verdict: str) -> Group:
    middle, colour = tuple(place.tolist()), VERDICTS[verdict]
    missed = verdict == "missed"
    box = around(middle, plate_size(words, PREDICATE))
    frame = Rectangle(box, WHITE, colour, 1.2, 0.0 if missed else ROUND, missed)
    inside = Text(middle, words, PREDICATE, INK if verdict == "unknown" else colour)
    return Group((frame, inside), kind="relation", number=number)


def _node(number: int, thing: Thing, place: Float[np.ndarray, "2"], size: float) -> Group:
    return Group(plate(thing, tuple(place.tolist()), size), kind="object", number=number)


def _rows(
    things: Sequence[Thing], lone: list[int], width: float
) -> tuple[tuple[Shape, ...], Point]:
    """Things without a relation, and how much room they take."""
    sizes = np.array([plate_size(things[i].name, SMALL) for i in lone])
    corners = rows(sizes, width, ROW_GAP) + np.array([0.0, HEADING])
    middles = corners + sizes / 2
    groups = [_node(i, things[i], x, SMALL) for i, x in zip(lone, middles, strict=True)]
    length = text.width(LONE, SMALL)
    head = Text((length / 2, 8.0), LONE, SMALL, GREY)
    extent = (corners + sizes).max(axis=0).tolist()
    return (head, *groups), (max(extent[0], length), extent[1])


def _legend(judged: Judged) -> tuple[tuple[Shape, ...], float]:
    """How many relations are right, wrong and missed, in their colours, and its length."""
    shapes, x, y = [], MARGIN, MARGIN + 4
    for kind in () if set(judged.verdicts) <= {"unknown"} else KINDS:
        words = f"{judged.verdicts.count(kind)} {kind}"
        length = text.width(words, SMALL)
        line = Line((x, y), (x + 26, y), VERDICTS[kind], 2.0, kind == "missed", arrow=True)
        shapes += [line, Text((x + 32 + length / 2, y), words, SMALL, VERDICTS[kind])]
        x += 32 + length + 20
    return tuple(shapes), x
