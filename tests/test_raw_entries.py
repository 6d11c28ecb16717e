"""Entries of large JSON files, and what is said about damaged ones."""

from __future__ import annotations

import json

import pytest
from etils import epath

from linknet_jax.data.raw.entries import entries


def file(tmp_path, content):
    (tmp_path / "objects.json").write_bytes(content)
    return epath.Path(tmp_path) / "objects.json"


def listing(count):
    return json.dumps([{"image_id": 7 * i, "objects": ["e" * 30]} for i in range(count)]).encode()


def test_all_entries_in_order(tmp_path):
    found = list(entries(file(tmp_path, listing(3000))))
    assert [i for i, _ in found] == [7 * i for i in range(3000)]
    assert found[5][1] == {"image_id": 35, "objects": ["e" * 30]}


@pytest.mark.parametrize("end", [1, 30, 100, 40_000, -1])
def test_truncated_anywhere(tmp_path, end):
    content = listing(1000)
    path = file(tmp_path, content[:end])
    complete = content[:end].count(b"]}")
    message = rf"objects\.json is damaged at .* byte {len(content[:end])} of "
    with pytest.raises(ValueError, match=message + rf".*after {complete} complete.*premature EOF"):
        list(entries(path))


@pytest.mark.parametrize("at", [0, 40, 5_000, 49_999])
def test_a_damaged_byte(tmp_path, at):
    content = bytearray(listing(1000))
    content[at] = 0
    with pytest.raises(ValueError, match=r"objects\.json is damaged.*complete images.*download"):
        list(entries(file(tmp_path, bytes(content))))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "byte 0 of 0, after 0 complete images: .*EOF"),
        (b"\x1f\x8b\x08", "damaged"),
        (b'\xef\xbb\xbf[{"image_id": 1}]', "damaged"),
        (b'[{"image_id": 1, "a": "\xff"}]', "UTF8"),
        (b'[{"image_id": NaN}]', "invalid char"),
        (b'[{"image_id": 99999999999999999999}]', "integer overflow"),
        (b'[{"image_id": 1}] [', "after 1 complete images.*trailing garbage"),
        (b"{}", "holds no images: it must be a JSON list"),
        (b"[]", "holds no images"),
        (b"null", "holds no images"),
        (b"[[1]]", r"entry 0: \[1\] must be the JSON object of an image"),
        (b'[{"id": 1}]', "entry 0: image_id None must be an integer"),
        (b'[{"image_id": 1}, {"image_id": "2"}]', "entry 1: image_id '2' must be an integer"),
        (b'[{"image_id": true}]', "image_id True"),
        (b'[{"image_id": 3}, {"image_id": 3}]', "entry 1: image 3 stands twice"),
    ],
)
def test_wrong_files(tmp_path, content, message):
    with pytest.raises(ValueError, match=rf"objects\.json.*{message}"):
        list(entries(file(tmp_path, content)))


def test_a_missing_file(tmp_path):
    with pytest.raises(ValueError, match=r"objects\.json is missing; put Visual Genome's"):
        next(entries(epath.Path(tmp_path) / "objects.json"))
