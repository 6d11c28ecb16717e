"""A small data set to be damaged, and what its batches must be: slowly, by hand."""

from __future__ import annotations

import io
import re
from itertools import islice

import numpy as np
from etils import epath
from layouts import LAYOUTS, OBJECTS, PREDICATES, scenes, store
from PIL import Image

from linknet_jax import data
from linknet_jax.config import get_config
from linknet_jax.data import files, threads
from linknet_jax.data.check import check

SIDE = 32  # of the network input
PADDING = (124, 116, 103)
LOADS = None  # the damage does no harm: all batches are as without it
INTERNAL = r"KeyError|TypeError|IndexError|AttributeError|NoneType|Traceback|object at 0x"


def settings(folder, visual=True):
    config = get_config("predcls", "custom")
    config.data.update({"dir": str(folder), "image_size": SIDE, "max_objects": 4, "flip": False})
    config.model.visual = visual
    return config


def loaded(folder, visual=True, tensorflow=True):
    """(split, data set, batches) of the first training steps and of the whole evaluation.

    Without `tensorflow` the threads of the synthetic scenes make them: equal and ten times faster.
    """
    config = settings(folder, visual)
    for split in data.available_splits(config):
        dataset = data.build(config, split)
        if visual and not tensorflow:
            dataset = data.Dataset(dataset._source, threads, config.data)
        if split == "train":
            yield split, dataset, list(islice(dataset.train_batches(2, seed=1), 3))
        else:
            yield split, dataset, list(dataset.evaluation_batches(2))


UPRIGHT = {  # of EXIF: rows and columns to how it is looked at
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


def pixels(content):
    """Upright RGB of a file's bytes."""
    with Image.open(io.BytesIO(content)) as image:
        array = np.asarray(image)
        if image.mode.startswith("I;16"):
            array = np.stack([array // 256] * 3, axis=-1).astype(np.uint8)
        else:
            array = np.asarray(image.convert("RGB"))
        return UPRIGHT[image.getexif().get(0x0112, 1)](array)


def check_row(batch, row, scene, split, visual, vocabulary):
    """One image of a batch against its scene; of several predicates of a pair any will do.

    Classes are compared by name.
    """
    longer = max(scene.width, scene.height)
    height, width = scene.height, scene.width
    if visual:  # its shape counts, where boxes are parts of the longer side
        content = pixels(scene.photograph)
        height, width = content.shape[:2]
    covered = [max(1, n * SIDE // max(width, height)) for n in (height, width)]
    np.testing.assert_allclose(batch.image_sizes[row], covered, atol=1)
    if visual:
        canvas = np.empty((max(height, width),) * 2 + (3,), np.uint8)
        canvas[:] = PADDING
        canvas[:height, :width] = content
        expected = Image.fromarray(canvas).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        difference = np.abs(np.int32(batch.images[row]) - np.int32(np.asarray(expected)))
        assert difference.max() <= 1, f"pixels of {scene.name}"
    assert batch.box_mask[row].tolist() == [k < len(scene.boxes) for k in range(4)]
    for k, (box, label) in enumerate(zip(scene.boxes, scene.labels, strict=True)):
        limits = [n * longer / max(width, height) for n in (width, height)] * 2
        box = [min(max(v, 0), n) for v, n in zip(box, limits, strict=True)] \
            if split == "train" else box  # fmt: skip
        np.testing.assert_allclose(batch.boxes[row, k], np.array(box) * SIDE / longer, rtol=1e-5)
        assert vocabulary.objects[batch.labels[row, k]] == OBJECTS[label - 1]
    for a in range(4):
        for b in range(4):
            known = {PREDICATES[p - 1] for s, o, p in scene.relations if (s, o) == (a, b) != (b, a)}
            name = vocabulary.predicates[batch.predicates[row, a, b]]
            assert name in (known or {"__background__"}), (scene.name, a, b)


def check_all(folder, splits, visual=True, tensorflow=True):
    """Loads everything; every image of every batch must be a scene of its split, and itself."""
    for split, dataset, batches in loaded(folder, visual, tensorflow):
        part = "test" if split == "test" else "train"
        known = {(type(s.image_id), s.image_id): s for s in splits[part]}
        ids, seen = [a.image_id for a in dataset.annotations], []
        for batch in batches:
            for row in np.flatnonzero(batch.example_mask):
                image_id = ids[batch.image_index[row]]
                scene = known[type(image_id), image_id]
                check_row(batch, row, scene, split, visual, dataset.vocabulary)
                seen.append(image_id)
        assert seen and set(seen) == set(ids)


class World:
    """An undamaged data set; the cases change its parts before it is stored."""

    def __init__(self, layout):
        self.layout, self.splits = layout, scenes(layout)
        self.scenes = [s for part in self.splits.values() for s in part]
        self.files = LAYOUTS[layout](self.splits)
        self.photographs = {s.name: s.photograph for s in self.scenes}

    def rename(self, name):
        """The second image's photograph."""
        scene = self.scenes[1]
        self.photographs[name] = self.photographs.pop(scene.name)
        scene.name, scene.image_id = name, name if self.layout == "vrd" else scene.image_id
        self.files = LAYOUTS[self.layout](self.splits)

    def show(self, content):
        """Another photograph for the second image, which batches must show if it is used."""
        self.photographs["2.jpg"] = self.scenes[1].photograph = content


def outcome(folder, capsys, splits, **how):
    """(exit status of check and what it prints, message of the loading); asserts good batches."""
    files._load.cache_clear()  # folders are read and listed once a process
    status = check(epath.Path(folder), every=True)
    printed = capsys.readouterr().out
    try:
        check_all(folder, splits, **how)
        message = ""
    except ValueError as error:
        message = str(error)
    for text in (printed, message):
        assert not re.search(INTERNAL, text), text
        assert all(line.isprintable() for line in text.splitlines()), text
    assert status in (0, 1, 2) and (status == 2) == ("error" in re.findall(r"^\w+", printed, re.M))
    return status, printed, message


def verify(tmp_path, capsys, world, expected, **how):
    """`expected`: LOADS, or a pattern of what check and loading say, or [pattern of a warning]."""
    tmp_path.mkdir(exist_ok=True)
    store(tmp_path, world.files, world.photographs)
    judge(tmp_path, capsys, world, expected, **how)


def judge(folder, capsys, world, expected, tensorflow=False, **how):
    if isinstance(expected, list):
        files._load.cache_clear()
        assert check(epath.Path(folder)) == 1
        assert re.search(f"warning: [^\n]*{expected[0]}", capsys.readouterr().out)
        return
    status, printed, message = outcome(folder, capsys, world.splits, tensorflow=tensorflow, **how)
    if expected is LOADS:
        assert status < 2 and not message, (printed, message)
        return
    assert status == 2 and message, (printed, message)
    for text in (printed, message):
        assert re.search(expected, text, re.DOTALL), text
