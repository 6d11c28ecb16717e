"""Large JSON files: which are refused for their depth, and that strings do not count."""

from __future__ import annotations

import json
import random

import pytest
from etils import epath

from linknet_jax.data import json_stream
from linknet_jax.data.formats import coco
from linknet_jax.data.photographs import Photographs


@pytest.fixture(autouse=True)
def limited_memory():
    """The tests go to 1,000 levels, at which ijson alone needs megabytes."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (4 * 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, before)


def load(tmp_path, content):
    path = epath.Path(tmp_path) / "x.json"
    path.write_bytes(content)
    return list(json_stream.items(path, "item"))


@pytest.mark.parametrize("brackets", ["[]", "{}"])
@pytest.mark.parametrize("depth", [99, 100, 150, 1000])
@pytest.mark.parametrize("before", [0, 65_000, 200_000])
def test_depth(tmp_path, brackets, depth, before):
    opening, end = ("[", "]") if brackets == "[]" else ('{"a":', "}")
    deep = opening * depth + "1" + end * depth
    content = f"[{'[1],' * (before // 4)}{deep}]".encode()
    if depth < 100:
        assert len(load(tmp_path, content)) == before // 4 + 1
        return
    with pytest.raises(json_stream.DamagedError, match=r"x\.json is damaged .* byte \d+ of \d+: it"
                       " is nested deeper than 100 levels"):  # fmt: skip
        load(tmp_path, content)


@pytest.mark.parametrize("seed", range(5))
def test_brackets_in_strings_are_no_depth(tmp_path, seed):
    """Quotes, backslashes and brackets fall on all sides of the 64 KiB blocks."""
    rng = random.Random(seed)
    texts = ["".join(rng.choices('[{"\\ü]', [9, 9, 3, 3, 2, 1], k=rng.randrange(900)))
             for _ in range(300)]  # fmt: skip
    values = [{"text": [text, {text: "]"}], "x": [[["\\"]]]} for text in texts]
    for ascii_only in (True, False):
        content = json.dumps(values, ensure_ascii=ascii_only).encode()
        assert len(content) > 3 * 2**16 and load(tmp_path, content) == values


def test_a_long_string_of_brackets(tmp_path):
    assert load(tmp_path, b'["' + b"[" * 500_000 + b'"]') == ["[" * 500_000]


def test_coco_tells_the_depth(tmp_path):
    deep = '{"categories": ' + "[" * 500
    (tmp_path / "train.json").write_text(deep)
    folder = epath.Path(tmp_path)
    with pytest.raises(ValueError, match=r"train\.json is no JSON file: it is nested deeper than"):
        coco.read(folder, Photographs([]))
