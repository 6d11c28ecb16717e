"""What is left of a checkpoint that is to predict only."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from etils import epath

from linknet_jax import parallel, restore, strip, train
from linknet_jax.checkpoints import Checkpoints
from linknet_jax.state import create_state

VOCABULARY = {"objects": [*"-abcd"], "predicates": ["-", "on", "in", "at"]}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder, state) of a run with averaged weights that differ from the last ones."""
    folder = epath.Path(tmp_path_factory.mktemp("run"))
    task = tiny.create_task(train__ema=0.9)
    create = jax.jit(lambda key: create_state(task.config, task, key, tiny.MOMENTS, {}))
    state = create(jax.random.key(0))
    state = state.replace(ema=jax.tree.map(lambda x: x + 1, state.ema))
    about = {"config": task.config.to_dict(), "vocabulary": VOCABULARY}
    with Checkpoints(folder, "R@20", keep=2) as saved:
        for step, score in ((3, 0.9), (4, 0.2)):
            saved.save(step, train.items(state, task.config), {"R@20": score}, about)
    return folder, state


def size(folder):
    return sum(x.stat().st_size for x in pathlib.Path(folder).rglob("*") if x.is_file())


def test_the_averaged_parameters_of_the_best_step_are_left(run, tmp_path):
    folder, state = run
    out = epath.Path(tmp_path / "small")
    assert strip.strip(folder, out) == 3
    mesh = parallel.create_mesh(devices=jax.devices()[:1])
    config, names, step, variables = restore.load(out, "best", mesh)
    assert step == 3 and names.objects == (*"-abcd",) and config.train.ema == 0
    expected = restore.load(folder, "3", mesh)[3]
    jax.tree.map(np.testing.assert_array_equal, variables, expected)
    moved = jax.tree.map(lambda a, b: jnp.abs(a - b).min(), variables["params"], state.params)
    assert min(jax.tree.leaves(moved)) > 0.5
    assert size(out) < size(folder) / 4  # two checkpoints, each with averages and two moments


def test_nothing_is_overwritten(run, tmp_path, capsys):
    arguments = [str(run[0]), str(tmp_path / "small"), "--step", "latest"]
    assert strip.main(arguments) == 0
    assert "step 4 written" in capsys.readouterr().out
    assert strip.main(arguments) == 2
    assert "holds checkpoints already" in capsys.readouterr().err
