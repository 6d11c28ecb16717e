"""The VG-SGG.h5 layout: decoding, its variants, consistency, damage, round trips."""

from __future__ import annotations

import json
import random

import h5py
import numpy as np
import pytest
from conftest import SHARED
from etils import epath
from graphs import annotation, assert_same, collection
from test_formats import WRONG, check, places, replaced

from linknet_jax.data.collection import BACKGROUND, Collection, compact, pack, raise_errors
from linknet_jax.data.formats import vg_boxes, vg_writer
from linknet_jax.data.formats import visual_genome as vg
from linknet_jax.data.photographs import Photographs
from linknet_jax.types import Vocabulary

NONE = Photographs([])
NAMES = {"label": ("man", "hat"), "predicate": ("wearing", "on", "near")}
# Rows of the h5; (boxes cx cy w h, labels, relations) of an image.
IMAGES = [
    ([(10, 10, 7, 6), (0, 0, 1, 1)], [1, 2], [(0, 1, 3), (0, 1, 1)]),
    ([], [], []),
    ([(5, 5, 2, 3)], [2], []),
    ([(256, 512, 512, 1024), (100, 300, 31, 20), (9, 9, 2, 2)], [2, 1, 1], [(2, 1, 2)]),
]


def dicts(**changes):
    tables = {}
    for kind, names in NAMES.items():
        tables[f"{kind}_to_idx"] = {name: k for k, name in enumerate(names, 1)}
        tables[f"idx_to_{kind}"] = {str(k): name for k, name in enumerate(names, 1)}
    return tables | changes


def stored(images=IMAGES):
    """The arrays of the official layout, int32 and (n, 1)."""
    result = {"labels": [], "boxes_1024": [], "predicates": [], "relationships": []}
    ends = {f"img_to_{end}_{kind}": [] for end in ("first", "last") for kind in ("box", "rel")}
    for boxes, labels, relations in images:
        first = len(result["labels"])
        for kind, start, new in (
            ("box", first, boxes),
            ("rel", len(result["predicates"]), relations),
        ):
            ends[f"img_to_first_{kind}"].append(start if new else -1)
            ends[f"img_to_last_{kind}"].append(start + len(new) - 1 if new else -1)
        result["boxes_1024"] += boxes
        result["labels"] += [[x] for x in labels]
        result["predicates"] += [[p] for _, _, p in relations]
        result["relationships"] += [(first + s, first + o) for s, o, _ in relations]
    result |= ends | {"split": [0] * (len(images) - 1) + [2]}
    result = {name: np.array(x, np.int32) for name, x in result.items()}
    return result | {"boxes_512": np.maximum(result["boxes_1024"] // 2, [0, 0, 1, 1])}


def entries(count=4, **changes):
    return [{"image_id": 7 + k, "width": 512, "height": 1024, **changes} for k in range(count)]


def save(folder, arrays, images, tables=None, names=(vg.H5[0], vg.DICTS[0])):
    with h5py.File(folder / names[0], "w") as h5:
        for name, values in arrays.items():
            h5.create_dataset(name, data=values)
    (folder / names[1]).write_text(json.dumps(dicts() if tables is None else tables))
    (folder / vg.IMAGES).write_text(json.dumps(images))
    return epath.Path(folder)


def read(*arguments, **names):
    return vg.read(save(*arguments, **names), NONE)


def test_decoding_by_the_table():
    """Truncation towards zero moves odd sizes by a pixel, except at 0."""
    rows = np.int32([(10, 10, 7, 6), (0, 0, 1, 1), (3, 3, 7, 7), (5, 5, 2, 3)])
    expected = [(6, 7, 13, 13), (0, 0, 1, 1), (0, 0, 7, 7), (4, 3, 6, 6)]
    np.testing.assert_array_equal(vg_boxes.decode(rows), expected)
    floats = vg_boxes.decode(rows.astype(np.float32))
    np.testing.assert_array_equal(floats[:2], [(6.5, 7, 13.5, 13), (-0.5, -0.5, 0.5, 0.5)])
    assert floats.dtype == vg_boxes.decode(rows).dtype == np.float64


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.int64, np.uint16])
def test_decoding_equals_a_loop(kind):
    rows = np.random.default_rng(0).integers(0, 1025, (2000, 4)).astype(kind)
    for (cx, cy, w, h), box in zip(rows.tolist(), vg_boxes.decode(rows), strict=True):
        x1, y1 = int(cx - w / 2), int(cy - h / 2)  # int() cuts off
        assert box.tolist() == [x1, y1, x1 + w, y1 + h]


@pytest.mark.parametrize("frame", [9, 12])
def test_every_whole_box_is_stored_exactly(frame):
    low = np.array([(a, b) for a in range(frame) for b in range(a + 1, frame + 1)])
    x, y = np.repeat(low, len(low), axis=0), np.tile(low, (len(low), 1))
    boxes = np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1).astype(np.float64)
    rows = vg_boxes.encode(boxes, np.full(len(boxes), frame), frame)
    np.testing.assert_array_equal(vg_boxes.decode(rows), boxes)
    assert rows.dtype == np.int32 and (rows >= 0).all()
    # In an image of half the size, where every coordinate is a multiple of one half.
    rows = vg_boxes.encode(boxes / 2, np.full(len(boxes), frame / 2), frame)
    np.testing.assert_array_equal(vg_boxes.decode(rows) / 2, boxes / 2)


def test_other_boxes_grow_to_whole_numbers_inside_the_frame():
    rng = np.random.default_rng(1)
    sides = rng.integers(100, 3000, 500)
    boxes = np.sort(rng.random((500, 2, 2)), axis=1).reshape(500, 4) * sides[:, None]
    back = vg_boxes.decode(vg_boxes.encode(boxes, sides, 1024)) * (sides / 1024)[:, None]
    assert (np.abs(back - boxes) <= 1.001 * sides[:, None] / 1024).all()
    assert (back >= 0).all() and (back <= sides[:, None] + 1e-9).all()


def test_official_variant(tmp_path):
    result = read(tmp_path, stored(), entries())
    assert not result.findings and result.relative
    assert result.vocabulary.objects == (BACKGROUND, "man", "hat")
    assert result.vocabulary.predicates == (BACKGROUND, "wearing", "on", "near")
    assert list(result.splits) == ["train", "test"]
    train, test = result.splits["train"], result.splits["test"]
    assert [a.image_id for a in train] == [7, 8, 9] and [a.image_id for a in test] == [10]
    np.testing.assert_array_equal(train[0].boxes, [(6, 7, 13, 13), (0, 0, 1, 1)])
    np.testing.assert_array_equal(train[0].relations, [(0, 1, 3), (0, 1, 1)])
    assert train[1].boxes.shape == (0, 4) and train[1].relations.shape == (0, 3)
    np.testing.assert_array_equal(train[2].boxes, [(4, 3, 6, 6)])
    assert len(train[2].relations) == 0 and train[2].labels.tolist() == [2]
    np.testing.assert_array_equal(test[0].relations, [(2, 1, 2)])  # counted within the image
    assert (test[0].width, test[0].height, test[0].labels.tolist()) == (512, 1024, [2, 1, 1])


def test_boxes_are_in_pixels_of_the_longer_side(tmp_path):
    arrays = stored()
    result = read(tmp_path, arrays, entries(width=256, height=128))
    np.testing.assert_array_equal(
        result.splits["train"][0].boxes, np.array([(6, 7, 13, 13), (0, 0, 1, 1)]) / 4
    )
    del arrays["boxes_1024"]
    result = read(tmp_path, arrays, entries(width=256, height=128))
    assert result.splits["train"][0].boxes[0].tolist() == [1.5, 1.5, 3, 3]  # (5, 5, 3, 3) / 2


def test_variant_with_attributes(tmp_path):
    count = len(stored()["labels"])
    more = {"attributes": np.zeros((count, 10), int), "active_object_mask": np.ones((count, 1))}
    names = (vg.H5[1], vg.DICTS[1])
    assert not vg.recognises(epath.Path(tmp_path))
    tables = dicts(attribute_to_idx={"red": 1}, attribute_count={"red": 3})
    result = read(tmp_path, stored() | more, entries(), tables, names=names)
    assert vg.recognises(epath.Path(tmp_path))
    (tmp_path / "plain").mkdir()
    assert_same(result, read(tmp_path / "plain", stored(), entries()))


def test_variant_of_remote_sensing(tmp_path):
    """Float boxes, flat labels and predicates, string ids, one resolution, int8 splits."""
    arrays = stored()
    arrays["boxes_1024"] = arrays["boxes_1024"].astype(np.float32) + 0.25
    arrays |= {name: arrays[name][:, 0] for name in ("labels", "predicates")}
    arrays |= {"split": arrays["split"].astype(np.int8), "attribute": np.zeros(0, np.int32)}
    del arrays["boxes_512"]
    images = [{**x, "image_id": str(x["image_id"])} for x in entries()]
    tables = dicts()
    tables["label_to_idx"]["__background__"] = tables["predicate_to_idx"]["__background__"] = 0
    result = read(tmp_path, arrays, images, tables)
    assert result.splits["train"][0].image_id == "7" and result.vocabulary.sizes == (3, 4)
    assert result.splits["train"][0].boxes[0].tolist() == [6.625, 7.125, 13.875, 13.375]
    raise_errors(result.findings)


def test_four_entries_without_a_row(tmp_path):
    images = entries()
    four = [{"image_id": k, "width": 9, "height": 9} for k in (1592, 1722, 4616, 4617)]
    with_four = [four[0], images[0], *four[1:3], *images[1:], four[3]]
    expected = read(tmp_path, stored(), images)
    assert_same(read(tmp_path, stored(), with_four), expected)
    # An own data set may use these numbers.
    own = [{**x, "image_id": y["image_id"]} for x, y in zip(images, four, strict=True)]
    ids = [a.image_id for t in read(tmp_path, stored(), own).splits.values() for a in t]
    assert ids == [1592, 1722, 4616, 4617]


@pytest.mark.parametrize("count", [0, 3, 5, 8])
def test_other_number_of_images_is_refused(tmp_path, count):
    match = rf"image_data.json has {count} images, but the h5 has 4 rows.*shifted"
    with pytest.raises(ValueError, match=match):
        read(tmp_path, stored(), entries(count))


def wrong_arrays():
    def change(name, new):
        return lambda arrays: arrays | {name: new(arrays[name])}

    def element(name, row, value):
        def new(array):
            array = array.copy()
            array[row] = value
            return array

        return change(name, new)

    for name in vg.NEEDED:
        yield f"short {name}", change(name, lambda x: x[:-1]), r"shape|rows"
        yield f"float {name}", change(name, lambda x: x + 0.5), rf"{name} has dtype float"
        yield f"scalar {name}", change(name, lambda x: 3), r"has shape"
        yield f"text {name}", change(name, lambda x: np.full(x.shape, b"a")), rf"{name} has dtype"
    big = 2**32 + 1
    yield "wrapped label", change("labels", lambda x: np.int64(x) + 2**32), "labels has .* 32 bits"
    yield "wrapped end", change("relationships", lambda x: np.int64(x) + big - 1), "32 bits"
    yield "transposed boxes", change("boxes_1024", np.transpose), "boxes has shape"
    yield "split 1.5", change("split", lambda x: x + 3), r"split has \[3, 5\]; 0 is train"
    yield "label 3", element("labels", 0, 3), r"image 7.*object 0, class 3 must be 1 .. 2"
    yield "label 0", element("labels", 1, 0), r"image 7.*object 1, class 0 must be 1 .. 2"
    yield "predicate 4", element("predicates", 2, 4), r"image 10.*predicate 4.* must be 1 .. 3"
    yield "flat box", element("boxes_1024", 2, (5, 5, 0, 3)), r"image 9.*object 0.*is empty"
    yield (
        "other image's box",
        element("relationships", 0, (0, 2)),
        r"image 7.*\[0, 2\], but .* 2",
    )
    yield (
        "reversed",
        element("img_to_last_box", 0, -1),
        r"image 7, row 0.*range of its boxes leaves",
    )
    yield "shared", element("img_to_first_box", 2, 1), r"image 7, row 0.*boxes leaves the .* too"
    yield (
        "beyond",
        element("img_to_last_rel", 3, 9),
        r"image 10, row 3.*range of its relations leaves",
    )
    yield "nan", change("boxes_1024", lambda x: x * np.nan), r"image 7.*must be finite"


@pytest.mark.parametrize("case", list(wrong_arrays()), ids=lambda case: case[0])
def test_wrong_arrays_are_errors(tmp_path, case):
    _, change, match = case
    with pytest.raises(ValueError, match=match) as error:
        raise_errors(read(tmp_path, change(stored()), entries()).findings)
    assert "VG-SGG.h5" in str(error.value)


def test_only_the_wrong_image_is_left_out(tmp_path):
    arrays = stored()
    arrays["img_to_last_box"][0] = 99
    arrays["labels"][2] = 7
    result = read(tmp_path, arrays, entries())
    assert [a.image_id for a in result.splits["train"]] == [8]
    np.testing.assert_array_equal(result.splits["test"][0].relations, [(2, 1, 2)])
    assert {f.severity for f in result.findings} == {"error"} and len(result.findings) == 2


WRONG_DICTS = [
    (dicts(label_to_idx={"man": 1, "hat": 1}), "without gap or repetition"),
    (dicts(label_to_idx={"man": 0, "hat": 0}), "without gap or repetition"),
    (dicts(label_to_idx={"man": 1, "hat": 3}), "without gap"),
    (dicts(label_to_idx={"man": 1, "__background__": 2}), "__background__"),
    (dicts(label_to_idx=["man"]), "must map names to integers"),
    (dicts(predicate_to_idx={"on": 1.0}), "predicate_to_idx must map names to integers"),
    (dicts(idx_to_label={"1": "hat", "2": "man"}), "disagree on index 1: 'man' and 'hat'"),
    (dicts(idx_to_label={"one": "man", "2": "hat"}), "disagree on index 1: 'man' and None"),
    (dicts(idx_to_label=["man", "hat"]), "idx_to_label must map"),
    ({}, "label_to_idx must map"),
    ([], r"must hold a JSON object, got \[\]"),
]


@pytest.mark.parametrize(("tables", "match"), WRONG_DICTS)
def test_wrong_class_lists(tmp_path, tables, match):
    with pytest.raises(ValueError, match=rf"VG-SGG-dicts.json.*{match}"):
        read(tmp_path, stored(), entries(), tables)


@pytest.mark.parametrize(
    "changes",
    [{"image_id": None}, {"image_id": 1.5}, {"width": "9"}, {"height": 2**40}, {"width": True},
     {"file_name": 3}, {"file_name": None}],
)  # fmt: skip
def test_wrong_entries(tmp_path, changes):
    images = entries()
    images[2] |= changes
    result = read(tmp_path, stored(), images)
    assert not result.splits and len(result.findings) == 1
    assert "image_data.json, entry 2" in str(result.findings[0])


def test_wrong_sizes_and_repeated_ids_concern_their_images(tmp_path):
    images = entries()
    images[0]["width"], images[2]["image_id"] = 0, 8
    result = read(tmp_path, stored(), images)
    assert [a.image_id for a in result.splits["train"]] == [8]
    messages = "\n".join(map(str, result.findings))
    assert "image 7: width 0" in messages and "image 8: the image id stands twice" in messages


def test_missing_and_damaged_files(tmp_path):
    folder = save(tmp_path, stored(), entries())
    for name in (vg.H5[0], vg.DICTS[0], vg.IMAGES):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(ValueError, match=f"{name} is no .* file: .*; copy it again"):
            vg.read(folder, NONE)
        (tmp_path / name).unlink()
        with pytest.raises(ValueError, match=name):
            vg.read(folder, NONE)
        (tmp_path / name).write_bytes(data)
    with h5py.File(tmp_path / vg.H5[0], "a") as h5:
        del h5["labels"], h5["split"], h5["boxes_512"], h5["boxes_1024"]
        h5.create_group("labels")
    with pytest.raises(ValueError, match=r"VG-SGG.h5"):
        vg.read(folder, NONE)
    with h5py.File(tmp_path / vg.H5[0], "a") as h5:
        del h5["labels"]
    with pytest.raises(ValueError, match=r"no dataset labels, split, boxes_1024; has \['img_to"):
        vg.read(folder, NONE)


def small(seed):
    """Two images a split."""
    whole = collection(seed)
    splits = {k: pack([t[0], t[1]]) for k, t in whole.splits.items()}
    return Collection(whole.vocabulary, splits)


@pytest.mark.parametrize("seed", range(3))
def test_damaged_values(tmp_path, seed):
    """120 wrong values in every place of both JSON files, 60 in the arrays."""
    rng, folder = random.Random(seed), epath.Path(tmp_path)
    vg.write(small(seed), folder)
    for number in range(40):
        path = folder / rng.choice([vg.DICTS[0], vg.IMAGES])
        text = path.read_text()
        value = json.loads(text)
        place = rng.choice(list(places(value)))
        path.write_text(json.dumps(replaced(value, place, rng.choice(WRONG))))
        assert_sound(folder, path, (seed, number, place))
        path.write_text(text)
    arrays = vg_writer._stored(small(seed).splits)
    for _ in range(20):
        name = rng.choice(sorted(arrays))
        array = arrays[name].copy()
        with np.errstate(invalid="ignore"):
            array.flat[rng.randrange(array.size)] = rng.choice([-1, -7, 0, 3, 10**5, 2**31 - 1])
        with h5py.File(tmp_path / vg.H5[0], "a") as h5:
            before = h5[name][...]
            h5[name][...] = array
        assert_sound(folder, folder / vg.H5[0], name)
        with h5py.File(tmp_path / vg.H5[0], "a") as h5:
            h5[name][...] = before


def assert_sound(folder, path, what):
    try:
        check(vg.read(folder, NONE))
    except ValueError as error:
        assert path.name in str(error), (what, error)


def test_damaged_bytes(tmp_path):
    rng, folder = random.Random(0), epath.Path(tmp_path)
    vg.write(small(5), folder)
    path = folder / vg.H5[0]
    data = path.read_bytes()
    for number in range(60):
        start = rng.randrange(len(data))
        cut = data[:start] + rng.randbytes(rng.randrange(4))
        path.write_bytes(cut + data[start + rng.choice([1, 3, 30, len(data)]) :])
        assert_sound(folder, path, number)


def test_written_files_hold_everything(tmp_path):
    original = collection()
    original.splits = {k: original.splits[k] for k in ("train", "val", "test")}
    assert vg.write(original, epath.Path(tmp_path)) == []
    result = vg.read(epath.Path(tmp_path), NONE)
    assert_same(result, original)
    assert not result.relative  # exact pixels: their photographs must have the stated size
    tables = json.loads((tmp_path / vg.DICTS[0]).read_text())
    labels = np.concatenate([t.labels for t in original.splits.values()])
    assert tables["object_count"]["man"] == (labels == 3).sum()
    with h5py.File(tmp_path / vg.H5[0]) as h5:
        assert h5["labels"].shape == (len(labels), 1) and h5["boxes_512"].dtype == np.int32


def test_what_came_from_whole_numbers_is_written_as_such(tmp_path):
    first = read(tmp_path, stored(), entries(width=300, height=200))
    (tmp_path / "again").mkdir()
    vg.write(first, epath.Path(tmp_path / "again"))
    with h5py.File(tmp_path / "again" / vg.H5[0]) as h5:
        assert vg_writer.EXACT not in h5
    assert_same(vg.read(epath.Path(tmp_path / "again"), NONE), first)


def test_splits_are_written_without_what_they_do_not_show(tmp_path):
    original = collection()
    original.splits["train"] = original.splits["train"].select(np.array([3, 1]))
    vg.write(original, epath.Path(tmp_path))
    assert_same(vg.read(epath.Path(tmp_path), NONE), original)


@pytest.mark.parametrize("boxes", [0, 3])
def test_data_without_relations_or_boxes(tmp_path, boxes):
    image = annotation(np.random.default_rng(0), "x", boxes=boxes, relations=0)
    vocabulary = Vocabulary((BACKGROUND, *"abcde"), (BACKGROUND, "on"))
    original = Collection(vocabulary, {"train": pack([image])})
    vg.write(original, epath.Path(tmp_path))
    assert_same(vg.read(epath.Path(tmp_path), NONE), original)


COUNTS = {
    "vg150_boxes": {"train": (18000, 131533, 125022), "test": (5000, 36372, 34559)},
    "rs_mksgg": {"train": (5997, 83341, 90157), "test": (1309, 17815, 20615)},
}


@pytest.mark.parametrize(("name", "sizes"), [("vg150_boxes", (151, 51)), ("rs_mksgg", (31, 53))])
def test_public_files(tmp_path, name, sizes):
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"no {folder} (set LINKNET_SHARED_DATA)")
    result = vg.read(epath.Path(folder), NONE)
    raise_errors(result.findings)
    assert result.vocabulary.sizes == sizes
    found = {
        k: (len(t), int(t.box_counts.sum()), int(t.relation_counts.sum()))
        for k, t in result.splits.items()
    }
    assert found == COUNTS[name]
    vg.write(result, epath.Path(tmp_path))
    again = vg.read(epath.Path(tmp_path), NONE)
    for k, table in result.splits.items():
        for key in ("image_ids", "sizes", "boxes", "labels", "relations", "box_start"):
            left, right = (getattr(compact(t), key) for t in (table, again.splits[k]))
            np.testing.assert_array_equal(left, right)
