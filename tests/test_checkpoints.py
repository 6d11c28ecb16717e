"""Checkpoints: what is kept, found, refused, and restored elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from linknet_jax import parallel
from linknet_jax.checkpoints import Checkpoints, stored_run, vocabulary_of
from linknet_jax.config import get_default
from linknet_jax.state import Control, create_optimizer

CONFIG = get_default("sgcls")
ABOUT = {
    "config": CONFIG.to_dict(),
    "vocabulary": {"objects": ["__background__", "man"], "predicates": ["__background__", "on"]},
}


def mesh(devices):
    return parallel.create_mesh(devices=jax.devices()[:devices])


def replicated(devices):
    return NamedSharding(mesh(devices), PartitionSpec())


def make_items(value=0.0, width=3):
    """Nested like a training state: flat optimizer keys, tuples, a dataclass."""
    params = {
        "fc": {"kernel": jnp.arange(2.0 * width).reshape(2, width) + value},
        "K0": jnp.ones(2),
    }
    flat = {("fc", "kernel"): params["fc"]["kernel"], ("K0",): params["K0"]}
    train = {
        "step": jnp.asarray(7),
        "opt_state": create_optimizer(CONFIG.train).init(flat),
        "control": jax.tree.map(jnp.asarray, Control.create()),
    }
    return {"params": params, "constants": {"layout_mean": jnp.zeros(4)}, "train": train}


def shapes_of(items, devices=1):
    return parallel.placed(jax.eval_shape(lambda: items), mesh(devices))


def save(saved, step, metric=None, items=None):
    saved.save(step, items or make_items(step), metric and {"R@20": metric}, ABOUT)


@pytest.fixture
def filled(tmp_path):
    """Steps 1 to 5; the best metric at 2."""
    with Checkpoints(tmp_path, "R@20", keep=2) as saved:
        for step, metric in enumerate([0.1, 0.9, 0.3, None, 0.2], 1):
            save(saved, step, metric)
    return tmp_path


def listing(folder):
    return sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file())


def test_latest_and_best_are_kept(filled):
    assert {p.name for p in (filled / "checkpoints").iterdir()} == {"2", "4", "5"}
    with Checkpoints(filled, "R@20") as saved:
        assert saved.latest == 5 and saved.best() == 2
        found = [saved.resolve(step) for step in ("best", "latest", "4")]
        assert found == [2, 5, 4]
        for wrong in ("1", "7", "bset", "-4", "4.0"):
            with pytest.raises(
                ValueError, match=rf"'{wrong}' is none of best, latest, \[2, 4, 5\]"
            ):
                saved.resolve(wrong)


def test_of_equals_the_last_is_best_and_kept(tmp_path):
    with Checkpoints(tmp_path, "R@20", keep=1) as saved:
        for step in range(1, 5):
            save(saved, step, 0.5 if step < 4 else 0.4)
    with Checkpoints(tmp_path, "R@20") as saved:
        assert saved.best() == 3 and saved.latest == 4


def test_without_metrics_the_latest_is_best(tmp_path):
    with Checkpoints(tmp_path, "R@20", keep=3) as saved:
        assert saved.latest is None
        with pytest.raises(ValueError, match="holds no checkpoint; train first"):
            saved.resolve("latest")
        save(saved, 1)
        save(saved, 2)
    with Checkpoints(tmp_path, "R@20") as saved:
        assert saved.best() == 2


@pytest.mark.parametrize("before, after", [(8, 1), (1, 8), (8, 4)])
def test_restored_on_another_number_of_devices(tmp_path, before, after):
    items = jax.device_put(make_items(3.5), replicated(before))
    with Checkpoints(tmp_path, keep=1) as saved:
        save(saved, 3, items=items)
    with Checkpoints(tmp_path) as saved:
        restored = saved.restore(3, shapes_of(items, after))
    assert jax.tree.structure(restored) == jax.tree.structure(items)
    jax.tree.map(np.testing.assert_array_equal, restored, items)
    assert all(x.sharding == replicated(after) for x in jax.tree.leaves(restored))


def test_parameters_alone(filled):
    wanted = {"params": shapes_of(make_items())["params"]}
    with Checkpoints(filled) as saved:
        restored = saved.restore(4, wanted)
    assert restored.keys() == {"params"}
    np.testing.assert_array_equal(
        restored["params"]["fc"]["kernel"], make_items(4)["params"]["fc"]["kernel"]
    )


def test_saved_values_are_those_of_the_call(tmp_path):
    """The next step overwrites (donates) the arrays while the checkpoint is being written."""
    step = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    items = {"params": {"w": jnp.zeros((512, 1024))}}
    with Checkpoints(tmp_path, keep=9) as saved:
        for number in range(4):
            saved.save(number, items, None, ABOUT)
            for _ in range(10):
                items = step(items)
    with Checkpoints(tmp_path) as saved:
        for number in range(4):
            found = saved.restore(number, shapes_of(items))["params"]["w"]
            np.testing.assert_array_equal(found, np.full((512, 1024), 10.0 * number))


@pytest.mark.parametrize("damage", ["wider", "more", "fewer", "optimizer"])
def test_mismatch_lists_paths_and_shapes(filled, damage):
    items = make_items(width=4 if damage == "wider" else 3)
    expected = {
        "wider": r"params/fc/kernel: stored \(2, 3\), needed \(2, 4\)",
        "more": r"params/new: stored nothing, needed \(5,\)",
        "fewer": r"params/K0: stored \(2,\), needed nothing",
        "optimizer": r"train/opt_state/1/nu/\('K0',\): stored \(2,\), needed nothing",
    }[damage]
    if damage == "more":
        items["params"]["new"] = jnp.zeros(5)
    elif damage == "fewer":
        del items["params"]["K0"]
    elif damage == "optimizer":
        flat = {("fc", "kernel"): items["params"]["fc"]["kernel"]}
        items["train"]["opt_state"] = create_optimizer(CONFIG.train).init(flat)
    before = listing(filled)
    with Checkpoints(filled) as saved:
        with pytest.raises(ValueError, match=expected) as error:
            saved.restore(5, shapes_of(items))
    assert "checkpoints/5 has another architecture" in str(error.value)
    assert "params/fc/bias" not in str(error.value) and listing(filled) == before


def test_crash_during_saving_harms_nothing(filled):
    """A partial step folder is no checkpoint; the next writer removes it and may save that step."""
    partial = filled / "checkpoints" / "6.orbax-checkpoint-tmp"
    (partial / "params").mkdir(parents=True)
    (partial / "params" / "half").write_text("...")
    with Checkpoints(filled) as saved:
        assert saved.latest == 5
        assert vocabulary_of(saved.about(5)).objects == ("__background__", "man")
    assert partial.exists()  # a reader leaves what may be another process's work
    with Checkpoints(filled, "R@20", keep=2) as saved:
        assert saved.latest == 5
        save(saved, 6)
    assert not partial.exists()
    with Checkpoints(filled) as saved:
        restored = saved.restore(6, shapes_of(make_items()))
        assert saved.latest == 6
    jax.tree.map(np.testing.assert_array_equal, restored, make_items(6))


def test_reading_changes_nothing(filled, tmp_path):
    before = listing(filled)
    assert stored_run(filled, get_default).to_dict() == CONFIG.to_dict()
    with Checkpoints(filled) as saved:
        saved.restore(5, shapes_of(make_items()))
    assert listing(filled) == before
    for name in ("nothing", "nothing/deeper"):
        with pytest.raises(
            ValueError, match="holds no checkpoints; train first, or mend --workdir"
        ):
            Checkpoints(tmp_path / name)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "params", "params/_METADATA"])
def test_damage_is_named(filled, name):
    path = filled / "checkpoints" / "5" / name
    path.rename(filled / "elsewhere")
    with Checkpoints(filled) as saved:
        with pytest.raises(ValueError, match=r"checkpoints/5 is damaged: .*move this folder away"):
            saved.about(5)
            saved.restore(5, shapes_of(make_items()))
        saved.restore(4, shapes_of(make_items()))


def test_stored_configuration_survives_new_and_dropped_settings(tmp_path):
    stored = CONFIG.to_dict()
    stored["train"]["lr"] = 0.25
    stored["train"]["gone"] = 1
    del stored["train"]["patience"]
    with Checkpoints(tmp_path, keep=1) as saved:
        saved.save(1, make_items(), None, {**ABOUT, "config": stored})
    config = stored_run(tmp_path, get_default)
    assert config.train.lr == 0.25 and "gone" not in config.train
    assert config.train.patience == CONFIG.train.patience
    assert config.train.milestones == CONFIG.train.milestones  # a tuple, which JSON does not have
