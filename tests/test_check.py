"""What `check` prints and returns."""

from __future__ import annotations

import io

import damage
import numpy as np
import pytest
from conftest import SHARED
from etils import epath
from PIL import Image

from linknet_jax.data import check as module
from linknet_jax.data import files
from linknet_jax.data.collection import Finding


def run(folder, capsys, **options):
    """(exit status, printed lines)."""
    files._load.cache_clear()
    status = module.check(epath.Path(folder), **options)
    return status, capsys.readouterr().out.splitlines()


def store(folder, layout="jsonl", change=None, names=None):
    world = damage.World(layout)
    for scene in world.scenes:
        if change:
            change(scene)
    world.files = damage.LAYOUTS[layout](world.splits)
    kept = {k: v for k, v in world.photographs.items() if names is None or k in names}
    damage.store(folder, world.files, kept)
    return world


@pytest.mark.parametrize("layout", damage.LAYOUTS)
def test_nothing_is_wrong(tmp_path, capsys, layout):
    store(tmp_path, layout)
    assert run(tmp_path, capsys) == (0, [
        "3 object classes, 2 predicates",
        "train: 4 images (4 with relations), 12 boxes, 9 relations; at most 3 boxes an image",
        "test: 2 images (2 with relations), 6 boxes, 4 relations; at most 3 boxes an image",
        "0 errors, 0 warnings",
    ])  # fmt: skip


def test_warnings(tmp_path, capsys):
    store(tmp_path, change=lambda scene: scene.relations.append([1, 1, 1]))
    status, lines = run(tmp_path, capsys)
    assert status == 1 and lines[-1] == "0 errors, 6 warnings"
    assert sum(line.startswith("warning: ") and "with itself" in line for line in lines) == 6


def test_errors_come_first_and_decide(tmp_path, capsys):
    def change(scene):
        scene.relations.append([1, 1, 1])
        if scene.image_id == 4:
            scene.boxes[1] = [5, 5, 5, 9]

    store(tmp_path, change=change)
    status, lines = run(tmp_path, capsys)
    assert status == 2 and lines[-1] == "1 errors, 5 warnings"
    findings = [line for line in lines if line.startswith(("error", "warning"))]
    assert findings[0].startswith(f"error: {tmp_path}/train.jsonl, image 4: object 1")
    assert all(line.startswith("warning: ") for line in findings[1:])
    assert "train: 3 images" in lines[1]


@pytest.mark.parametrize("count", [5, 6, 9])
def test_findings_of_a_kind_are_shortened(count):
    """Numbers and names differ within a kind; file, severity and words do not."""
    text = "class {} of 'n{}' is wrong"
    found = [Finding("error", "a", f"image {k}", text.format(k, k)) for k in range(count)]
    found.append(Finding("warning", "a", "", "class 3 is wrong"))
    found.append(Finding("error", "b", "", "class 1 is wrong"))
    shortened, whole = module.report(found, False), module.report(found, True)
    assert whole[:-1] == [str(f) for f in (*found[:count], found[-1], found[-2])]
    assert whole[-1] == shortened[-1] == f"{count + 1} errors, 1 warnings"
    more = [line for line in shortened if "more of this kind" in line]
    assert len(shortened) == 5 + 3 + len(more)
    assert more == [f"  ... {count - 5} more of this kind (--all lists them)"] * (count > 5)


def test_missing_photographs_are_one_kind(tmp_path, capsys):
    store(tmp_path, names=("1.jpg",))
    (tmp_path / "test.jsonl").unlink()
    (tmp_path / "train.jsonl").write_text("".join(
        f'{{"image_id": {k}, "width": 64, "height": 48, "objects": [], "relations": []}}\n'
        for k in range(1, 11)
    ))  # fmt: skip
    status, lines = run(tmp_path, capsys)
    assert status == 2 and lines[-1] == "9 errors, 1 warnings"
    assert sum("there is no such photograph" in line for line in lines) == 5
    assert "  ... 4 more of this kind (--all lists them)" in lines
    _, lines = run(tmp_path, capsys, every=True)
    assert sum("there is no such photograph" in line for line in lines) == 9


def test_no_photographs_at_all(tmp_path, capsys):
    store(tmp_path, names=())
    status, lines = run(tmp_path, capsys)
    assert (
        status == 1 and "none of the 6 photographs is in" in lines[-2] and "--images" in lines[-2]
    )
    assert run(tmp_path, capsys, pixels=False)[0] == 0


def test_photographs_elsewhere(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    world = store(tmp_path / "a", names=())
    for number, (name, content) in enumerate(world.photographs.items()):
        folder = tmp_path / "bc"[number % 2]
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    both = f"{tmp_path}/b, {tmp_path}/c"
    assert run(tmp_path / "a", capsys, images=both)[0] == 0
    status, lines = run(tmp_path / "a", capsys, images=f"{tmp_path}/b")
    assert status == 2 and lines[-1] == "3 errors, 0 warnings"
    status, lines = run(tmp_path / "a", capsys, images=f"{tmp_path}/x")
    assert status == 2 and "no folder" in lines[0] and len(lines) == 1


@pytest.mark.parametrize(
    ("size", "relative", "expected"),
    [
        ((64, 48), False, 0),
        ((128, 96), False, 2),
        ((128, 96), True, 1),
        ((48, 64), True, 1),
        ((64, 49), False, 2),
        ((64, 49), True, 1),
        ((64, 9), True, 1),
    ],
)
def test_sizes_of_photographs(tmp_path, capsys, size, relative, expected):
    """Boxes of visual_genome are parts of the longer side and fit every photograph."""
    store(tmp_path, "visual_genome" if relative else "jsonl")
    Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(file := io.BytesIO(), "PNG")
    (tmp_path / "images" / "1.jpg").write_bytes(file.getvalue())
    status, lines = run(tmp_path, capsys)
    assert status == expected
    if expected:
        assert "image 1, '1.jpg'" in lines[3] and f"{size[0]} x {size[1]} pixels" in lines[3]
        assert "64 x 48" in lines[3]
        assert ("boxes are scaled to fit" in lines[3]) == (expected == 1)


def test_unreadable_photographs_and_no_pixels(tmp_path, capsys):
    store(tmp_path)
    (tmp_path / "images" / "5.jpg").write_bytes(b"no photograph")
    status, lines = run(tmp_path, capsys)
    assert status == 2 and "image 5, '5.jpg'" in lines[3] and "cannot decode" in lines[3]
    assert run(tmp_path, capsys, pixels=False)[0] == 0


def test_folders_that_cannot_be_read(tmp_path, capsys):
    for folder, text in ((tmp_path / "gone", "is no folder"), (tmp_path, "known layout")):
        status, lines = run(folder, capsys)
        assert status == 2 and len(lines) == 1 and lines[0].startswith("error: ")
        assert text in lines[0] and str(folder) in lines[0]


def test_a_split_without_relations(tmp_path, capsys):
    store(tmp_path, change=lambda s: s.relations.clear() if s.image_id in (5, 6) else None)
    status, lines = run(tmp_path, capsys)
    assert status == 1 and lines[-2].endswith("split test: has no image with relations")


REAL = {
    "vg150_boxes": (150, 50, (18_000, 5_000), 167_905, 159_581),
    "rs_mksgg": (30, 52, (5_997, 1_309), 101_156, 110_772),
    "vrd": (100, 70, (655, 100), 5_331, 6_071),
}


@pytest.mark.parametrize("name", REAL)
def test_real_folders(capsys, name):
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"no data in {folder} (set LINKNET_SHARED_DATA)")
    status, lines = run(folder, capsys)
    objects, predicates, images, boxes, relations = REAL[name]
    assert status == 1 and lines[-1].startswith("0 errors, ")
    assert lines[0] == f"{objects} object classes, {predicates} predicates"
    rows = [line.replace(",", "").split() for line in lines[1:3]]
    assert [row[0] for row in rows] == ["train:", "test:"]
    assert tuple(int(row[1]) for row in rows) == images
    totals = [sum(int(row[k]) for row in rows) for k in (6, 8)]
    assert totals == [boxes, relations]
