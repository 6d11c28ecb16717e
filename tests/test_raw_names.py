"""Names as typed, aliases, and the choice of a box's class."""

from __future__ import annotations

import json

import numpy as np
import pytest
import raw_reference as reference
from conftest import SHARED
from etils import epath

from linknet_jax.data.raw.names import Names, clean, read_aliases
from linknet_jax.data.raw.vocabulary import box_labels, class_numbers, vg150


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("Man", "man"),
        ("  T-Shirt's ", "tshirts"),
        ("ON TOP OF", "on top of"),
        ("90°", "90 degree"),
        ("café ½", "cafe half"),
        ("Nike™…", "nike"),
        ("man .", "man "),  # spaces inside stay, as in the alias lists
        ("\tman", "\tman"),  # as in the original; no alias has a tabulator
        ("É", "É"),
        ("木", "木"),
        ("?!", ""),
    ],
)
def test_clean(typed, expected):
    assert clean(typed) == expected == reference.clean(typed)


def aliases(tmp_path, text):
    path = epath.Path(tmp_path) / "alias.txt"
    path.write_text(text)
    return read_aliases(path)


def test_aliases(tmp_path):
    lines = ["man,men,a man", "guy,guys", "men,gentlemen", "person,guys", "", "sky"]
    found = aliases(tmp_path, "\r\n".join(lines) + "\n")
    assert found.pop("gentlemen") == "man"  # men is explained before
    assert found.pop("guys") == "person"  # the last line holds
    assert found.pop("men") == found.pop("a man") == found.pop("man") == "man"
    assert found == {"guy": "guy", "person": "person", "sky": "sky"}
    expected = reference.aliases(lines)
    expected.pop("")
    assert aliases(tmp_path, "\n".join(lines)) == expected


def test_aliases_of_another_encoding(tmp_path):
    (tmp_path / "alias.txt").write_bytes("café,cafés".encode("latin-1"))
    with pytest.raises(ValueError, match=r"alias\.txt is no UTF-8"):
        read_aliases(epath.Path(tmp_path) / "alias.txt")


def test_numbers_follow_first_appearance():
    names = Names({"men": "man"})
    assert [names.number(n) for n in ("Dog", "men", "dog!", "MAN", "men")] == [0, 1, 0, 1, 1]
    assert names.spelled == ["dog", "man"] and names.explained == 1


def test_vg150():
    vocabulary = vg150()
    assert vocabulary.sizes == (151, 51)
    for names in (vocabulary.objects, vocabulary.predicates):
        assert names[0] == "__background__" and list(names[1:]) == sorted(set(names[1:]))


def test_vg150_is_the_official_vocabulary():
    path = SHARED / "vg150_boxes" / "VG-SGG-dicts.json"
    if not path.exists():
        pytest.skip(f"no {path} (set LINKNET_SHARED_DATA)")
    tables = json.loads(path.read_text())
    assert tables["label_to_idx"] == {n: i for i, n in enumerate(vg150().objects) if i}
    assert tables["predicate_to_idx"] == {n: i for i, n in enumerate(vg150().predicates) if i}


def test_labels_are_the_names_that_most_boxes_have():
    spelled, counts = ["man", "person", "thing", "dog"], np.array([2, 3, 9, 1])
    classes = class_numbers(spelled, ["__background__", "dog", "man", "person"])
    assert classes.tolist() == [2, 3, 0, 1]
    boxes, names = np.array([0, 0, 1, 2, 3, 3, 5]), np.array([1, 0, 0, 2, 0, 2, 3])
    assert box_labels(boxes, names, counts, classes, 7).tolist() == [3, 2, 0, 2, 0, 1, 0]


def test_equally_frequent_names():
    pairs = (np.array([0, 0]), np.array([0, 1]))
    assert box_labels(*pairs, np.array([6, 6]), np.array([5, 4]), 1).tolist() == [4]


def test_no_names():
    nothing = np.zeros(0, np.int64)
    classes = class_numbers([], ["__background__", "man"])
    assert box_labels(nothing, nothing, nothing, classes, 2).tolist() == [0, 0]
