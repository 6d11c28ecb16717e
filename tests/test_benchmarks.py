"""The deterministic claims of the benchmarks: how little is padding, that rivals agree."""

from __future__ import annotations

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import head_eval, score
from linknet_jax.config import get_config
from linknet_jax.ops.packing import packed_map


@pytest.fixture(scope="module")
def model():
    return get_config("sgcls", "full_size").model


def test_padding_at_visual_genomes_mean(model):
    counts = head_eval.lognormal_counts(6400)
    assert counts.mean() == pytest.approx(head_eval.MEAN, rel=0.05)
    assert head_eval.padding_ratio(counts, model) <= head_eval.PADDING


def test_padding_at_real_counts(model):
    if importlib.util.find_spec("h5py") is None:
        pytest.skip("h5py is not installed")
    counts = head_eval.real_counts()
    if counts is None:
        pytest.skip("no VG150 boxes (set LINKNET_SHARED_DATA)")
    assert head_eval.padding_ratio(counts, model) <= head_eval.PADDING


def test_padding_ratio_by_hand(model):
    model = model.copy_and_resolve_references()
    model.roi_chunk = 48
    flops = head_eval.row_flops(model)
    counts = np.array([4] * 15 + [7])  # 67 objects, 111 unordered pairs
    needed = 67 * (flops.object + flops.padded) + 111 * flops.pair
    computed = 72 * flops.object + 120 * flops.pair  # multiples of half a chunk
    computed += 16 * head_eval.PADDED * flops.padded
    assert head_eval.padding_ratio(counts, model) == pytest.approx(computed / needed)


def test_row_flops_are_the_budget_of_the_paper(model):
    flops = head_eval.row_flops(model)
    region = 2 * (25088 * 4096 + 4096 * 4096)
    assert flops.pair == pytest.approx(region, rel=0.06)
    relational = 6.5e9 / 64
    assert flops.object + flops.padded == pytest.approx(2 * region + relational, rel=0.04)
    assert flops.padded < 0.08 * relational


@pytest.mark.parametrize("valid", [0, 1, 4, 5, 8, 9, 13, 24])
def test_packed_rows_are_the_rows_that_packing_computes(valid):
    items = jnp.ones((40, 1))
    rows = jax.jit(lambda count: packed_map(lambda _, x: x, 8, (), items, count))(valid)
    assert int((rows != 0).sum()) == head_eval.packed_rows(np.array(valid), 8)


def test_the_published_algorithm_gives_the_same_recalls():
    graphs = list(score.images(60))
    expected = pytest.approx(score.ours(graphs), abs=1e-12)
    assert score.published(graphs) == expected and score.with_sets(graphs) == expected
    assert 0 < score.ours(graphs)[0] < 1
