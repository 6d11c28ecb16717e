"""Every layout to every other one."""

from __future__ import annotations

import itertools
import os
import re

import numpy as np
import pytest
from conftest import SHARED
from etils import epath
from graphs import as_facts, assert_same, collection

from linknet_jax.data.collection import Collection, pack
from linknet_jax.data.convert import convert
from linknet_jax.data.files import FORMATS, load

LOSSLESS = ("visual_genome", "coco", "jsonl")


@pytest.mark.parametrize("path", [*itertools.permutations(LOSSLESS)], ids="-".join)
def test_round_trip(tmp_path, capsys, path):
    original = collection()
    folder = epath.Path(tmp_path) / "start"
    FORMATS[path[0]].write(original, folder)
    for step, layout in enumerate((*path[1:], path[0])):
        target = epath.Path(tmp_path) / f"{step}"
        convert(folder, target, layout)
        assert f"nothing was lost in the layout {layout}" in capsys.readouterr().out
        assert_same(original, load("custom", str(target))[0])
        folder = target


@pytest.mark.parametrize("layout", LOSSLESS)
def test_relations_survive_vrd(tmp_path, capsys, layout):
    original = collection()
    start, there, back = (epath.Path(tmp_path) / name for name in ("start", "there", "back"))
    FORMATS[layout].write(original, start)
    convert(start, there, "vrd")
    printed = capsys.readouterr().out
    related = [len(np.unique(a.relations[:, :2])) for t in original.splits.values() for a in t]
    boxes = sum(t.box_counts.sum() for t in original.splits.values())
    assert f"{boxes - sum(related)} objects without a relation were left out" in printed
    convert(there, back, layout)
    assert "nothing was lost" in capsys.readouterr().out
    again = load("custom", str(back))[0]
    assert again.vocabulary == original.vocabulary
    for split, table in original.splits.items():
        assert as_facts(again.splits[split]) == as_facts(table)
        sizes = [[(a.width, a.height) for a in t] for t in (again.splits[split], table)]
        assert sizes[0] == sizes[1]


def test_report(tmp_path, capsys):
    FORMATS["jsonl"].write(collection(), epath.Path(tmp_path) / "a")
    convert(epath.Path(tmp_path) / "a", epath.Path(tmp_path) / "b", "coco")
    first, *splits = capsys.readouterr().out.splitlines()
    assert first == "5 object classes, 3 predicates"
    tables = collection().splits
    for (name, table), line in zip(tables.items(), splits, strict=False):
        counts = (len(table), table.box_counts.sum(), table.relation_counts.sum())
        assert re.sub(r" \(.*?\)|;.*", "", line) == (
            "{}: {} images, {} boxes, {} relations".format(name, *counts)
        )


def test_wrong_arguments(tmp_path):
    source, target = epath.Path(tmp_path) / "a", epath.Path(tmp_path) / "b"
    FORMATS["jsonl"].write(collection(), source)
    with pytest.raises(ValueError, match="'yolo' must be one of visual_genome, "):
        convert(source, target, "yolo")
    with pytest.raises(ValueError, match="a is not an empty folder"):
        convert(source, source, "coco")
    with pytest.raises(ValueError, match="nowhere"):
        convert(source.parent / "nowhere", target, "coco")
    target.mkdir()
    with pytest.raises(ValueError, match="b"):
        convert(target, source.parent / "c", "coco")


def test_errors_stop_the_conversion(tmp_path):
    source, target = epath.Path(tmp_path) / "a", epath.Path(tmp_path) / "b"
    FORMATS["jsonl"].write(collection(), source)
    with (source / "val.jsonl").open("a") as file:
        file.write("oops\n")
    with pytest.raises(ValueError, match=r"1 problems.*\n.*val\.jsonl, line 3: is no JSON"):
        convert(source, target, "coco")
    assert not target.exists()


@pytest.mark.parametrize("name", ["vg150_boxes", "rs_mksgg", "vrd"])
def test_real_files(tmp_path, name):
    """A sample of the real images through all layouts and back."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"no {SHARED / name} (set LINKNET_SHARED_DATA)")
    whole = load("custom", os.fspath(SHARED / name))[0]
    sample = {k: pack(t[i] for i in range(0, len(t), 40)) for k, t in whole.splits.items()}
    original = Collection(whole.vocabulary, sample)
    folder = epath.Path(tmp_path) / "start"
    FORMATS["coco"].write(original, folder)
    for step, layout in enumerate(("jsonl", "visual_genome", "jsonl", "coco")):
        convert(folder, folder := epath.Path(tmp_path) / f"{step}", layout)
        assert_same(original, load("custom", str(folder))[0])
    FORMATS["vrd"].write(original, folder := epath.Path(tmp_path) / "vrd")
    again = load("custom", str(folder))[0]
    for split, table in again.splits.items():
        np.testing.assert_array_equal(table.relation_counts, sample[split].relation_counts)
