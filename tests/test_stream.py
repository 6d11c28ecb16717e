"""The index stream: permutations, resuming, processes, coverage."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from linknet_jax.data.stream import evaluation_indices, train_indices


def batches(size, batch_size, steps, seed=0, start=0, processes=1):
    """Global batches [steps, batch_size], put together from the processes' slices."""
    parts = [
        [i for _, i, _ in islice(train_indices(size, batch_size, seed, start, p, processes), steps)]
        for p in range(processes)
    ]
    return np.concatenate([np.array(part) for part in parts], 1)


def test_every_epoch_is_another_permutation():
    epochs = batches(50, 8, 25).ravel()[:200].reshape(4, 50)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(50), (4, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert not np.array_equal(batches(50, 8, 3), batches(50, 8, 3, seed=1))


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("start", [0, 1, 7])
def test_resuming_on_other_processes_continues_the_same_order(processes, start):
    np.testing.assert_array_equal(
        batches(50, 8, 20)[start:], batches(50, 8, 20 - start, start=start, processes=processes)
    )


def test_steps_and_epochs_of_samples():
    steps, _, epochs = zip(*islice(train_indices(5, 4, 0, 2), 3), strict=True)
    assert steps == (2, 3, 4)
    np.testing.assert_array_equal(epochs, np.arange(8, 20).reshape(3, 4) // 5)


def test_batch_larger_than_the_data():
    np.testing.assert_array_equal(np.bincount(batches(3, 12, 1)[0]), [4, 4, 4])


@pytest.mark.parametrize("size", [1, 7, 8, 9, 100])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_evaluation_covers_each_image_once(size, processes):
    parts = [list(evaluation_indices(size, 8, p, processes)) for p in range(processes)]
    assert {len(part) for part in parts} == {-(-size // 8)}
    indices = np.concatenate([np.array(part) for part in parts], 1).ravel()
    np.testing.assert_array_equal(indices[:size], np.arange(size))
    assert (indices[size:] == -1).all()


def test_bad_sizes():
    with pytest.raises(ValueError, match="batch_size 6 must be a positive multiple of the 4 proc"):
        train_indices(10, 6, 0, 0, 0, 4)
    with pytest.raises(ValueError, match="batch_size 6"):
        evaluation_indices(10, 6, 0, 4)
    with pytest.raises(ValueError, match="0 images"):
        train_indices(0, 6, 0)
