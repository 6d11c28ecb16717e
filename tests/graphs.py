"""Collections with everything that a layout must hold, and what it means that two are equal."""

from __future__ import annotations

import numpy as np

from linknet_jax.data.collection import BACKGROUND, Collection, pack
from linknet_jax.types import Annotation, Vocabulary

OBJECTS = (BACKGROUND, "zebra", "Äpfel", "man", 'a "hat"', "日本")
PREDICATES = (BACKGROUND, "on", "above", "wearing")


def annotation(rng, image_id, file_name="", boxes=4, relations=5):
    """Boxes of any float64 numbers; relations with repeats, several predicates and loops."""
    width, height = (int(v) for v in rng.integers(200, 1000, 2))
    corners = np.sort(rng.random((boxes, 2, 2)), axis=1) * [width, height]
    rows = [rng.integers(0, boxes, relations), rng.integers(0, boxes, relations)] if boxes else []
    rows = np.column_stack([*rows, rng.integers(1, len(PREDICATES), relations)]) if boxes else []
    rows = np.array(rows, np.int32).reshape(-1, 3)
    return Annotation(
        image_id=image_id,
        width=width,
        height=height,
        boxes=corners.reshape(-1, 4),
        labels=rng.integers(1, len(OBJECTS), boxes).astype(np.int32),
        relations=np.concatenate([rows, rows[:2]]),
        file_name=file_name,
    )


def collection(seed=0):
    """Three splits with integer and string ids, images without relations and without boxes."""
    rng = np.random.default_rng(seed)
    splits = {
        "train": [annotation(rng, k, relations=k % 7) for k in (7, 3, 2**40, 14)],
        "val": [annotation(rng, "b/ü 1", "folder/b 1.png"), annotation(rng, "empty", boxes=0)],
        "test": [
            annotation(rng, 5, "x.jpg", boxes=30, relations=90),
            annotation(rng, "5", "5.png"),
        ],
    }
    return Collection(Vocabulary(OBJECTS, PREDICATES), {k: pack(v) for k, v in splits.items()})


def assert_same(a: Collection, b: Collection):
    """Bit for bit, types of the ids included."""
    assert a.vocabulary == b.vocabulary
    assert list(a.splits) == list(b.splits)
    for name, expected in a.splits.items():
        assert len(expected) == len(b.splits[name])
        for x, y in zip(expected, b.splits[name], strict=True):
            keys = ("image_id", "width", "height", "file_name")
            for key in keys:
                assert (got := getattr(y, key)) == getattr(x, key) and type(got) in (int, str)
            for key in ("boxes", "labels", "relations"):
                np.testing.assert_array_equal(getattr(y, key), getattr(x, key), strict=True)


def as_facts(table):
    """For every image, its relations as sorted (label, box, predicate, label, box)."""
    facts = []
    for a in table:
        ends = [(int(label), *box) for label, box in zip(a.labels, a.boxes.tolist(), strict=True)]
        facts.append(sorted((ends[s], int(p), ends[o]) for s, o, p in a.relations))
    return facts
