"""Counts against loops over relations, pictures against what they claim, and the real files."""

from __future__ import annotations

import collections
import dataclasses
import io
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import SHARED
from etils import epath
from graphs import annotation, collection
from matplotlib.colors import to_rgb
from PIL import Image
from reference import box_iou

from linknet_jax import config
from linknet_jax.data import plots, splits, statistics
from linknet_jax.data.collection import BACKGROUND, Collection, pack
from linknet_jax.data.files import load
from linknet_jax.data.formats import jsonl
from linknet_jax.data.stats import choose_all, describe, measure, stats
from linknet_jax.data.tally import class_counts, tally, triplets
from linknet_jax.types import Vocabulary


def _table(seed, images=12):
    """Crowded images with repeats and loops, some without boxes; shown reversed, not all."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 7, (images, 2))
    table = pack(annotation(rng, k, boxes=n, relations=2 * r) for k, (n, r) in enumerate(counts))
    return table.select(np.arange(images)[::-1][:-2])


def _settings(**changes):
    settings = config.get_default("predcls").data
    settings.update(val_images=0, **changes)
    return settings


def _on_disk(tmp_path, original):
    folder = epath.Path(tmp_path) / "data"
    jsonl.write(original, folder)
    return folder


@pytest.mark.parametrize("seed", range(5))
def test_tally_equals_loops(seed):
    table = _table(seed)
    several = duplicates = selves = apart = related = 0
    for a in table:
        predicates = collections.defaultdict(list)
        for s, o, p in a.relations.tolist():
            duplicates += p in predicates[s, o]
            predicates[s, o].append(p)
            selves += s == o
            apart += box_iou(a.boxes[s], a.boxes[o], True) == 0
        pairs = {pair: set(found) for pair, found in predicates.items() if pair[0] != pair[1]}
        related += len(pairs)
        several += sum(len(found) > 1 for found in pairs.values())
    got = tally(table)
    assert (got.images, got.boxes) == (len(table), sum(len(a.boxes) for a in table))
    assert got.relations == sum(len(a.relations) for a in table)
    assert got.pairs == sum(len([*itertools.permutations(a.labels, 2)]) for a in table)
    assert (got.related_pairs, got.pairs_with_several_predicates) == (related, several)
    assert got.related_share == related / got.pairs
    assert (got.duplicate_relations, got.self_relations) == (duplicates, selves)
    assert got.relations_apart == apart
    assert min(related, several, duplicates, selves, apart) > 0


def test_spread_by_hand():
    rng = np.random.default_rng(0)
    counts = [1] * 6 + [3] * 84 + [5] * 9 + [40]
    spread = tally(pack(annotation(rng, k, boxes=n) for k, n in enumerate(counts))).boxes_an_image
    assert dataclasses.astuple(spread) == (np.mean(counts), 3, 3, 5, 40)


def test_tally_of_nothing():
    values = dataclasses.asdict(tally(pack([])))
    assert not any(values.pop("boxes_an_image").values())
    assert not any(values.pop("relations_an_image").values()) and not any(values.values())


def test_class_counts_equal_loops():
    table, vocabulary = _table(3), collection().vocabulary
    objects, predicates = class_counts(table, vocabulary)
    seen = collections.Counter(x for a in table for x in a.labels.tolist())
    assert objects.tolist() == [seen[k] for k in range(len(vocabulary.objects))]
    seen = collections.Counter(x for a in table for x in a.relations[:, 2].tolist())
    assert predicates.tolist() == [seen[k] for k in range(len(vocabulary.predicates))]


def test_triplets_equal_sets():
    tables = {"train": _table(0, 8), "val": _table(1, 8), "test": _table(2, 9)}
    got, seen = triplets(tables, collection().vocabulary), set()
    for name, table in tables.items():
        found = statistics.triplets(table)
        new = found - seen
        hits = [sum((a.labels[s], p, a.labels[o]) in new for s, o, p in a.relations) for a in table]
        expected = len(found), len(new), sum(hits), sum(hit > 0 for hit in hits)
        assert dataclasses.astuple(got[name]) == expected
        seen |= found
    assert 0 < got["test"].new < got["test"].distinct


def test_used_splits_are_those_of_training():
    original, settings = collection(3), _settings(overlap_filter=True)
    del original.splits["val"]
    tables = choose_all(original, settings)
    found = measure(original, tables, settings)
    assert list(found.stored) == ["train", "test"] and list(found.used) == ["train", "val", "test"]
    for name, got in found.used.items():
        table = splits.choose(original, name, settings)
        assert (got.images, got.relations) == (len(table), table.relation_counts.sum())
    assert found.used["train"].relations_apart == 0 < found.stored["train"].relations_apart
    assert found.options["overlap_filter"]
    counts = [table.box_counts.max() for table in tables.values()]
    assert found.max_objects == max(counts) == 30


def test_prints_and_writes(tmp_path, capsys):
    original = collection()
    folder, out = _on_disk(tmp_path, original), epath.Path(tmp_path) / "deep" / "out"
    stats(folder, out)
    printed = capsys.readouterr().out
    settings = _settings(dir=str(folder))
    found = measure(original, choose_all(original, settings), settings)
    assert "\n".join(describe(found)) in printed
    assert "train: 4 images (2 with relations)" in printed
    assert "--config.data.max_objects=30 holds every image" in printed
    written = json.loads((out / "stats.json").read_text())
    assert written == json.loads(json.dumps(dataclasses.asdict(found)))
    for name in ("predicates", "objects", "images", "layout"):
        with Image.open(io.BytesIO((out / f"{name}.png").read_bytes())) as picture:
            assert min(picture.size) > 150 and len(np.unique(picture.convert("L"))) > 20


def test_classes_that_never_occur_are_named(tmp_path, capsys):
    rng = np.random.default_rng(0)
    vocabulary = Vocabulary((*collection().vocabulary.objects, "unicorn"), (BACKGROUND, *"abcde"))
    tables = {name: pack([annotation(rng, k) for k in range(20)]) for name in ("train", "test")}
    stats(_on_disk(tmp_path, Collection(vocabulary, tables)))
    printed = capsys.readouterr().out
    assert "Never in training: 1 of 6 objects: unicorn" in printed
    assert "Never in training: 2 of 5 predicates: d, e" in printed


@pytest.mark.parametrize("present", [15, 25, 35])
def test_long_vocabularies_are_shortened(present):
    rng = np.random.default_rng(0)
    names = tuple(f"thing {k}" for k in range(present + 5))
    vocabulary = Vocabulary((BACKGROUND, *names), (BACKGROUND, *"abc"))
    images = []
    for k in range(1, present + 1):  # thing k - 1 occurs k times
        a = annotation(rng, k, boxes=k)
        images.append(dataclasses.replace(a, labels=np.full(k, k, np.int32)))
    original = Collection(vocabulary, {"train": pack(images), "val": pack(images)})
    settings = _settings()
    lines = describe(measure(original, choose_all(original, settings), settings))
    shown = [line for line in lines if " %  thing" in line]
    kept = [k for k in range(present - 1, -1, -1) if k >= present - 20 or k < 10]
    assert [line.split("thing ")[1].split()[0] for line in shown] == [str(k) for k in kept]
    assert any("... 5 more" in line for line in lines) == (present == 35)
    assert any(f"5 of {present + 5} objects: thing" in line for line in lines)
    share = 100 * present / sum(range(present + 1))
    assert f"{present:>10}{share:>7.2f} %  thing {present - 1}" in shown[0]


def test_wrong_input_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        stats(epath.Path(tmp_path) / "absent")
    folder = _on_disk(tmp_path, collection())
    path = folder / "train.jsonl"
    path.write_text(path.read_text().replace('"width"', '"breadth"'))
    with pytest.raises(ValueError, match=r"train\.jsonl"):
        stats(folder)


def test_relative_positions_are_inside_where_boxes_overlap():
    table = pack(_table(4))
    rows = [(a.boxes[s], a.boxes[o]) for a in table for s, o, _ in a.relations]
    offsets = plots.relative_positions(table)
    inside = (np.abs(offsets) < 1).all(axis=1)
    assert inside.tolist() == [box_iou(s, o, False) > 0 for s, o in rows]
    assert 0 < inside.mean() < 1
    subject, object_ = np.array([[0, 0, 10, 10], [30, 20, 60, 80.0]])
    one = dataclasses.replace(
        annotation(np.random.default_rng(0), 0, boxes=2),
        boxes=np.stack([subject, object_]),
        relations=np.array([[0, 1, 1]], np.int32),
    )
    np.testing.assert_allclose(plots.relative_positions(pack([one])), [[-40 / 20, -45 / 35]])


def test_bars_that_make_up_half_are_strong():
    counts = {"most": 30, "cost $5 {": 15, "日本": 14, "few": 1, "none": 0}
    figure = plots.frequencies(counts, "predicates", "relations")
    assert figure.get_suptitle() == "1 of 5 predicates makes up half of the 60 relations"
    counts["most"] = 29
    figure = plots.frequencies(counts, "predicates", "relations")
    assert figure.get_suptitle() == "2 of 5 predicates make up half of the 59 relations"
    colours = [bar.get_facecolor()[:3] for bar in figure.axes[0].patches]
    assert [colour == to_rgb(plots.STRONG) for colour in colours] == [True] * 2 + [False] * 3
    assert [bar.get_x() + bar.get_width() for bar in figure.axes[0].patches] == [29, 15, 14, 1, 0.5]
    figure.savefig(io.BytesIO(), format="png")  # no name is read as a formula


def test_many_classes_go_into_columns():
    counts = {f"class {k}": 400 - k for k in range(400)}
    figure = plots.frequencies(counts, "object classes", "boxes")
    assert "the 150 most frequent are shown" in figure.get_suptitle()
    labels = [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]
    assert labels == list(counts)[:150]


def test_matplotlib_is_imported_for_plots_only():
    program = """
import sys
from linknet_jax.data import stats
assert "matplotlib" not in sys.modules
from linknet_jax.data import plots
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("name", "images", "boxes", "relations"),
    [
        ("vg150_boxes", [18000, 5000], 167905, 159581),
        ("rs_mksgg", [5997, 1309], 101156, 110772),
        ("vrd", [655, 100], None, [5295, 776]),
    ],
)
def test_real_files(name, images, boxes, relations, capsys):
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"no data set in {folder} (set LINKNET_SHARED_DATA)")
    stats(epath.Path(folder))
    assert "zero-shot" in capsys.readouterr().out
    original, settings = load("custom", str(folder))[0], _settings(dir=str(folder))
    found = measure(original, choose_all(original, settings), settings)
    stored = list(found.stored.values())
    assert [x.images for x in stored] == images
    assert boxes in (None, sum(x.boxes for x in stored))
    counts = [x.relations for x in stored]
    assert relations in (counts, sum(counts))
    assert sum(found.predicates.values()) == found.used["train"].relations
    assert sum(found.objects.values()) == found.used["train"].boxes
    seen = statistics.triplets(splits.choose(original, "train", settings))
    assert found.triplets["train"].distinct == len(seen)
    if name == "rs_mksgg":
        assert found.max_objects == 466
