"""Every layout under systematic damage: a clear finding, a ValueError or a correct load."""

from __future__ import annotations

import copy
import json
import random

import numpy as np
import pytest
from etils import epath
from graphs import collection

from linknet_jax.data.collection import Collection, pack
from linknet_jax.data.formats import coco, jsonl, vrd
from linknet_jax.data.photographs import photographs_of

WRONG = [None, True, -1, 0, 1.5, 2**40, 2**70, 10**400, float("nan"), float("inf"), "", "x", "日本"]
WRONG += ["__background__", [], {}, [[]], {"id": 1}, [1, 2, 3, 4], [4, 3, 2, 1], ...]
FILES = {"coco": coco, "jsonl": jsonl, "vrd": vrd}


def places(value, path=()):
    """Paths to all parts of a JSON value."""
    yield path
    children = enumerate(value) if isinstance(value, list) else ()
    for key, child in value.items() if isinstance(value, dict) else children:
        yield from places(child, (*path, key))


def replaced(value, path, wrong):
    """A copy with another part at `path`; ... removes it."""
    if not path:
        return None if wrong is ... else wrong
    result = copy.deepcopy(value)
    parent = result
    for key in path[:-1]:
        parent = parent[key]
    if wrong is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = wrong
    return result


def check(result):
    """No image of a loaded table has anything out of range."""
    for table in result.splits.values():
        assert len({(type(a.image_id), a.image_id) for a in table}) == len(table)
        for a in table:
            assert a.width > 0 and a.height > 0 and np.isfinite(a.boxes).all()
            assert a.boxes.shape == (len(a.labels), 4)
            assert (a.boxes[:, 2:] > a.boxes[:, :2]).all()
            assert ((a.labels > 0) & (a.labels < result.vocabulary.sizes[0])).all()
            assert (
                (a.relations >= 0) & (a.relations[:, :2].max(initial=0) < max(1, len(a.labels)))
            ).all()
            predicates = a.relations[:, 2]
            assert ((predicates > 0) & (predicates < result.vocabulary.sizes[1])).all()
    for finding in result.findings:
        assert finding.file and finding.message and str(finding).isprintable()


def small(seed):
    """Two images a split."""
    whole = collection(seed)
    splits = {k: pack([t[0], t[1]]) for k, t in whole.splits.items()}
    return Collection(whole.vocabulary, splits)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("layout", FILES)
def test_damaged_values(tmp_path, layout, seed):
    rng = random.Random(f"{layout}{seed}")
    module, folder = FILES[layout], epath.Path(tmp_path)
    module.write(small(seed), folder)
    paths = sorted(p for p in folder.iterdir())
    for _ in range(60):
        path = rng.choice(paths)
        text = path.read_text()
        lines = text.splitlines() if path.suffix == ".jsonl" else [text]
        number = rng.randrange(len(lines))
        value = json.loads(lines[number])
        wrong = replaced(value, rng.choice(list(places(value))), rng.choice(WRONG))
        lines[number] = json.dumps(wrong)
        path.write_text("\n".join(lines))
        try:
            check(module.read(folder, photographs_of(folder)))
        except ValueError as error:
            assert path.name in str(error), error
        path.write_text(text)


@pytest.mark.parametrize("layout", FILES)
def test_damaged_bytes(tmp_path, layout):
    rng = random.Random(layout)
    module, folder = FILES[layout], epath.Path(tmp_path)
    module.write(small(9), folder)
    paths = sorted(p for p in folder.iterdir())
    for _ in range(80):
        path = rng.choice(paths)
        data = path.read_bytes()
        start = rng.randrange(len(data))
        noise = rng.randbytes(rng.randrange(4))
        path.write_bytes(data[:start] + noise + data[start + rng.choice([1, 30, len(data)]) :])
        try:
            check(module.read(folder, photographs_of(folder)))
        except ValueError as error:
            assert path.name in str(error), error
        path.write_bytes(data)
