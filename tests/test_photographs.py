"""Photographs by name, in one folder or several, never outside of them."""

from __future__ import annotations

import numpy as np
import pytest
from etils import epath

from linknet_jax.data.photographs import Photographs, photograph_name, photographs_of
from linknet_jax.types import Annotation


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return epath.Path(folder)


def test_names():
    empty = np.zeros((0, 4)), np.zeros(0, np.int32), np.zeros((0, 3), np.int32)
    assert photograph_name(Annotation(17, 4, 3, *empty)) == "17.jpg"
    assert photograph_name(Annotation("a b", 4, 3, *empty)) == "a b.jpg"
    assert photograph_name(Annotation(17, 4, 3, *empty, "val/x.png")) == "val/x.png"


def test_the_first_folder_that_has_it(tmp_path):
    one = touch(tmp_path / "one", "1.jpg", "both.jpg")
    two = touch(tmp_path / "two", "2.jpg", "both.jpg", "deep/er/ü 日.png")
    photographs = Photographs([one, two])
    assert photographs.find("1.jpg") == one / "1.jpg"
    assert photographs.find("2.jpg") == two / "2.jpg"
    assert photographs.find("both.jpg") == one / "both.jpg"
    assert photographs.find("deep/er/ü 日.png") == two / "deep/er/ü 日.png"
    assert photographs.find("3.jpg") is None and photographs.find("none/1.jpg") is None
    assert str(photographs) == f"{one}, {two}"
    assert Photographs([]).find("1.jpg") is None and str(Photographs([])) == "no folder"


def test_never_outside_the_folders(tmp_path):
    touch(tmp_path, "secret.jpg", "in/x.jpg", "in/sub/y.jpg")
    photographs = Photographs([epath.Path(tmp_path / "in")])
    assert photographs.find("sub/../x.jpg") is None
    for name in ("../secret.jpg", str(tmp_path / "secret.jpg"), "sub/../../secret.jpg", "..", ""):
        assert photographs.find(name) is None, name
    assert photographs.find("sub/y.jpg") is not None


def test_usual_folders_beside_the_files(tmp_path):
    touch(tmp_path, "VG_100K/1.jpg", "VG_100K_2/2.jpg", "3.jpg", "others/4.jpg")
    photographs = photographs_of(epath.Path(tmp_path))
    assert all(photographs.find(f"{k}.jpg") is not None for k in (1, 2, 3))
    assert photographs.find("4.jpg") is None
    assert photographs_of(epath.Path(tmp_path / "absent")).folders == ()


def test_named_folders(tmp_path):
    one, two = touch(tmp_path / "one", "1.jpg"), touch(tmp_path / "two", "2.jpg")
    photographs = photographs_of(epath.Path(tmp_path), f"{one}, {two},")
    assert photographs.folders == (one, two)
    with pytest.raises(ValueError, match=r"data.images=.*no folder \S*/three, \S*/four; name the"):
        photographs_of(epath.Path(tmp_path), f"{tmp_path}/three,{one},{tmp_path}/four")
