"""Packed annotations against the lists that they were packed from."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from graphs import annotation

from linknet_jax.data.collection import Finding, compact, pack, raise_errors, runs, starts
from linknet_jax.types import Annotation


def images(count=6):
    rng = np.random.default_rng(0)
    found = [annotation(rng, k, f"{k}.png" * (k % 2), k % 4, 3 * (k % 3)) for k in range(count)]
    return [*found, annotation(rng, "last", boxes=7, relations=0)]


def assert_images(table, expected):
    assert len(table) == len(expected)
    for got, wanted in zip(table, expected, strict=True):
        for key in ("image_id", "width", "height", "file_name"):
            assert getattr(got, key) == getattr(wanted, key)
        for key in ("boxes", "labels", "relations"):
            np.testing.assert_array_equal(getattr(got, key), getattr(wanted, key), strict=True)
    assert table.box_counts.tolist() == [len(a.boxes) for a in expected]
    assert table.relation_counts.tolist() == [len(a.relations) for a in expected]


def test_a_table_is_a_sequence_of_its_images():
    expected = images()
    table = pack(iter(expected))
    assert_images(table, expected)
    assert table[-1].image_id == "last" and isinstance(table[0], Annotation)
    with pytest.raises(IndexError):
        table[len(expected)]
    assert_images(pack([]), [])


def test_selections_share_the_arrays():
    expected = images()
    table = pack(expected)
    part = table.select(np.array([5, 1, 6, 0, 1]))
    assert_images(part, [expected[k] for k in (5, 1, 6, 0, 1)])
    assert part.boxes is table.boxes
    assert_images(part.select(np.array([2, 0])), [expected[6], expected[5]])
    assert_images(table.select(np.flatnonzero(table.box_counts > 9)), [])


def test_compact_keeps_what_is_shown():
    expected = images()
    table = pack(expected)
    assert compact(table) is table
    chosen = [5, 1, 6, 0, 3]
    small = compact(table.select(np.array(chosen)))
    assert_images(small, [expected[k] for k in chosen])
    assert len(small.boxes) == sum(len(expected[k].boxes) for k in chosen)
    assert len(small.image_ids) == 5 and compact(small) is small
    assert_images(compact(table.select(np.array([], int))), [])


def test_images_of_boxes_and_relations():
    expected = images()
    table = pack(expected)
    boxes = [k for k, a in enumerate(expected) for _ in a.boxes]
    relations = [k for k, a in enumerate(expected) for _ in a.relations]
    assert table.box_images.tolist() == boxes and table.relation_images.tolist() == relations


def test_other_boxes_and_fewer_relations():
    expected = images()
    table = pack(expected).select(np.array([5, 4, 2]))
    moved = dataclasses.replace(table, boxes=table.boxes + 1)
    np.testing.assert_array_equal(moved[1].boxes, expected[4].boxes)  # image 4 has no box
    np.testing.assert_array_equal(moved[0].boxes, expected[5].boxes + 1)
    kept = np.arange(len(table.relations)) % 3 > 0
    fewer, start = table.with_relations(kept), 0
    rows = {}
    for k, a in enumerate(expected):
        rows[k] = [r.tolist() for j, r in enumerate(a.relations, start) if kept[j]]
        start += len(a.relations)
    assert [a.relations.tolist() for a in fewer] == [rows[k] for k in (5, 4, 2)]
    assert any(rows[k] for k in (5, 4, 2))


def test_runs_and_starts():
    assert starts([2, 0, 3]).tolist() == [0, 2, 2, 5] and starts([]).tolist() == [0]
    assert runs(np.array([7, 1, 3]), np.array([2, 0, 3])).tolist() == [7, 8, 3, 4, 5]
    assert runs(np.array([], int), np.array([], int)).tolist() == []


def test_errors_are_raised_and_warnings_are_not():
    warning = Finding("warning", "a.h5", "image 3", "odd")
    raise_errors([warning])
    errors = [Finding("error", "a.h5", f"image {k}", "wrong") for k in range(12)]
    with pytest.raises(ValueError, match=r"12 problems in the data.*check") as error:
        raise_errors([warning, *errors])
    lines = [line.strip() for line in str(error.value).splitlines()[1:]]
    assert lines == [*(f"a.h5, image {k}: wrong" for k in range(10)), "... and 2 more"]
    assert str(Finding("error", "a.h5", "", "wrong")) == "error: a.h5: wrong"
