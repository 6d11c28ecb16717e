"""Word vectors: geometry kept, shape checked."""

import numpy as np
import pytest

from linknet_jax.data.word_vectors import SPREAD, load_word_vectors


def test_projection_keeps_cosines(tmp_path):
    vectors = np.random.default_rng(1).normal(size=(9, 30)).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    table = load_word_vectors(str(tmp_path / "v.npy"), 10, 20)
    assert table.shape == (10, 20) and table.dtype == np.float32

    def cosine(x):
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        return unit @ unit.T

    np.testing.assert_allclose(cosine(table[1:]), cosine(vectors), atol=1e-5)
    np.testing.assert_allclose(table[1:, :9].std(), SPREAD, rtol=1e-5)
    assert np.all(table[1:, 9:] == 0) and np.any(table[0] != 0)


@pytest.mark.parametrize("shape", [(8, 30), (9,), (10, 30)])
def test_wrong_shape_is_named(tmp_path, shape):
    np.save(tmp_path / "v.npy", np.ones(shape))
    with pytest.raises(ValueError, match=r"needed one finite row for each of the 9"):
        load_word_vectors(str(tmp_path / "v.npy"), 10, 20)


def test_missing_or_unreadable_file(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.npy: no readable"):
        load_word_vectors(str(tmp_path / "nowhere.npy"), 10, 20)
    (tmp_path / "bad.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match="no readable"):
        load_word_vectors(str(tmp_path / "bad.npy"), 10, 20)
