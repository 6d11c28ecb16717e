"""Each rule of the packed annotations alone, and what stays of a table with several faults."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from linknet_jax.data.collection import pack
from linknet_jax.data.inspection import inspect
from linknet_jax.types import Annotation, Vocabulary

VOCABULARY = Vocabulary(("background", "a", "b"), ("background", "on"))
NAN, INF = np.nan, np.inf


def image(name="x", **changes):
    good = Annotation(
        image_id=name,
        width=60,
        height=40,
        boxes=np.array([(0, 0, 60, 40), (5, 5, 9, 9), (59, 39, 60, 40.0)]),
        labels=np.array([1, 2, 1], np.int32),
        relations=np.array([(0, 1, 1), (2, 0, 1)], np.int32),
    )
    return dataclasses.replace(good, **changes)


def boxes(row, new):
    changed = image().boxes.copy()
    changed[row] = new
    return {"boxes": changed}


def faults(**changes):
    """(images that stay, "severity: message") of one image between two good ones."""
    table = pack([image("first"), image(**changes), image("last")])
    kept, found = inspect(table, VOCABULARY, "f.json")
    assert all((x.file, x.where) == ("f.json", "image 'x'") for x in found)
    return [a.image_id for a in kept], [f"{x.severity}: {x.message}" for x in found]


def test_nothing_is_found_in_good_images():
    assert faults() == (["first", "x", "last"], [])


ERRORS = {
    "not a number": (boxes(1, (5, NAN, 9, 9)), r"object 1, box \[5.0, nan, 9.0, 9.0\] must be fin"),
    "infinite": (boxes(0, (0, 0, INF, 9)), "object 0, box .* must be finite"),
    "no width": (boxes(1, (5, 5, 5, 9)), r"object 1, box .* is empty: x2 must be above x1"),
    "reversed": (boxes(1, (5, 9, 9, 5)), "object 1, box .* is empty"),
    "right of it": (boxes(2, (60, 3, 70, 9)), "object 2, box .* outside the image of 60 x 40 pix"),
    "below": (boxes(2, (6, 40, 70, 90)), "object 2, box .* lies outside"),
    "left of it": (boxes(2, (-9, 3, 0, 9)), "object 2, box .* lies outside"),
    "background": ({"labels": np.array([1, 0, 1], np.int32)}, "object 1, class 0 must be 1 .. 2"),
    "class": ({"labels": np.array([1, 2, 3], np.int32)}, "object 2, class 3 must be 1 .. 2"),
    "absent": ({"relations": np.int32([(0, 1, 0)])}, "relation 0 .*predicate 0,? .*must be 1 .. 1"),
    "predicate": ({"relations": np.int32([(0, 1, 1), (0, 1, 2)])}, "relation 1 .*predicate 2"),
    "dangling": ({"relations": np.int32([(0, 3, 1)])}, r"relation 0 .*0, 3.* has 3 "),
    "negative": ({"relations": np.int32([(-1, 0, 1)])}, r"relation 0 .*-1, 0"),
    "no area": ({"width": 0}, "width 0 and height 40 must be at least 1"),
}


@pytest.mark.parametrize("fault", ERRORS)
def test_errors_remove_their_image(fault):
    changes, message = ERRORS[fault]
    kept, found = faults(**changes)
    assert kept == ["first", "last"]

    assert any(re.search(f"error: {message}", x) for x in found), found
    assert all(x.startswith("error") for x in found)


WARNINGS = {
    "outside": (boxes(1, (-1.5, 5, 9, 9)), "object 1.* reaches 1.5 pixels outside"),
    "below": (boxes(1, (5, 5, 9, 43)), "object 1.* reaches 3.0 pixels"),
    "itself": ({"relations": np.int32([(0, 1, 1), (1, 1, 1)])}, "relation 1 joins object 1 with "),
    "twice": ({"relations": np.int32([(0, 1, 1), (1, 0, 1), (0, 1, 1)])}, "relation 0 .*more than"),
}


@pytest.mark.parametrize("fault", WARNINGS)
def test_warnings_do_not(fault):
    changes, message = WARNINGS[fault]
    kept, found = faults(**changes)
    assert kept == ["first", "x", "last"] and len(found) == 1

    assert re.search(f"warning: {message}", found[0]), found


def test_a_pixel_outside_is_not_worth_mentioning():
    assert faults(**boxes(1, (-1, -1, 61, 41)))[1] == []


def test_relations_of_several_predicates_are_no_repetition():
    vocabulary = Vocabulary(VOCABULARY.objects, ("background", "on", "in"))
    table = pack([image(relations=np.int32([(0, 1, 1), (0, 1, 2), (1, 0, 1)])), image("y")])
    assert inspect(table, vocabulary, "f")[1] == []


def test_boxes_outside_may_be_a_warning():
    table = pack([image(**boxes(2, (70, 3, 80, 9))), image("y", **boxes(1, (5, NAN, 9, 9)))])
    kept, found = inspect(table, VOCABULARY, "f", outside="warning")
    assert [a.image_id for a in kept] == ["x"]
    assert any(x.severity == "warning" and "lies outside" in x.message for x in found)


def test_ids_are_unique():
    twice = [image(5), image("5"), image(5), image("y")]
    kept, found = inspect(pack(twice), VOCABULARY, "f")
    assert [a.image_id for a in kept] == [5, "5", "y"]
    assert [(x.where, x.severity) for x in found] == [("image 5", "error")]


def test_only_the_shown_images_are_inspected():
    table = pack([image("bad", width=0), image("y"), image("x", **boxes(0, (3, 3, 3, 9)))])
    kept, found = inspect(table.select(np.array([2, 1])), VOCABULARY, "f")
    assert [a.image_id for a in kept] == ["y"] and [x.where for x in found] == ["image 'x'"]
    kept, found = inspect(table.select(np.array([], int)), VOCABULARY, "f")
    assert len(kept) == 0 and found == []


def test_every_fault_is_reported():
    wrong = image(
        boxes=np.array([(0, 0, NAN, 1), (5, 5, 5, 9), (70, 3, 80, 9)]),
        labels=np.int32([9, 1, 1]),
        relations=np.int32([(0, 9, 1), (0, 1, 7)]),
    )
    found = inspect(pack([wrong]), VOCABULARY, "f")[1]
    assert len(found) == 6 and {x.severity for x in found} == {"error"}
