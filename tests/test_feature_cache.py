"""Stored features give what the trunk gives, and a cache of anything else is refused."""

import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from etils import epath

from linknet_jax import data, feature_cache, train, validation
from linknet_jax.config import get_default
from linknet_jax.data import feature_shards
from linknet_jax.data.batching import Draw
from linknet_jax.state import Control, TrainState, create_optimizer, split_params
from linknet_jax.tasks import create_task

IMAGES, BATCH, STEPS = 40, 8, 4


def make_config(folder="", **changes):
    """Forty drawn images, a tiny model, a frozen trunk; changes are keyed `section__leaf`."""
    config = get_default("sgcls")
    config.update_from_flattened_dict(tiny.SIZES)
    config.update_from_flattened_dict({
        "data.cache": str(folder), "data.image_size": 64, "data.train_images": IMAGES,
        "data.val_images": 11, "data.test_images": 4, "model.freeze_trunk": True,
        "train.batch_size": BATCH, "eval.batch_size": 16,
        "train.warmup": 0,
    })  # fmt: skip
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


@functools.lru_cache
def dataset(split="train"):
    return data.build(make_config(), split)


@functools.lru_cache
def task():
    return create_task(make_config(), *dataset().vocabulary.sizes)


@pytest.fixture(scope="module")
def initial():
    """Random variables."""
    rng = np.random.default_rng(0)

    def draw(x):
        fan_in = np.prod(x.shape[:-1]) if len(x.shape) > 1 else 10
        return np.float32(rng.normal(size=x.shape) * fan_in**-0.5)

    drawn = jax.tree.map(draw, jax.eval_shape(lambda: task().init(jax.random.key(0))))
    return {**drawn, "constants": tiny.MOMENTS}


@pytest.fixture
def small_shards(monkeypatch):
    """Forty images are several files, the last one not full."""
    monkeypatch.setattr(feature_shards, "SHARD", 12)


@pytest.fixture
def cache(tmp_path, initial, small_shards):
    """(configuration, cached training split)."""
    config = make_config(tmp_path / "cache")
    return config, feature_cache.cached(config, initial, dataset(), "train")


def losses(variables, split):
    """All loss terms of a few steps of gradient descent."""

    def step(params, batch, pair_mask, keys):
        def total(params):
            terms, _ = task().losses({**variables, "params": params}, batch, pair_mask, keys)
            return sum(terms.values()), terms

        gradients, terms = jax.grad(total, has_aux=True)(params)
        return jax.tree.map(lambda x, g: x - 1e-4 * g, params, gradients), terms

    run, params, found = tiny.on_host(step), variables["params"], []
    batches = split.train_batches(BATCH, 5)
    for batch in itertools.islice(batches, STEPS):
        params, terms = run(params, batch, tiny.all_pair_masks(batch), tiny.keys_of(batch))
        found.append({name: float(x) for name, x in terms.items()})
    batches.close()
    return found


def test_losses_are_those_of_the_pixels(cache, initial):
    expected, found = losses(initial, dataset()), losses(initial, cache[1])
    assert len(expected) == STEPS and expected[0].keys() >= {"object", "relation", "context"}
    assert expected[0] != expected[-1]
    for a, b in zip(expected, found, strict=True):
        assert b == pytest.approx(a, rel=1e-5)


def test_batches_differ_in_pixels_and_features_alone(cache, initial):
    """Also of the last, partly filled batch of an evaluation."""
    apply = tiny.on_host(feature_cache._apply(make_config()))
    pairs = zip(dataset().evaluation_batches(16), cache[1].evaluation_batches(16), strict=True)
    for a, b in pairs:
        assert b.images.shape == (16, 0, 0, 3) and a.features is None
        assert b.features[0].dtype == np.float32
        maps = apply(feature_cache._trunk_of(initial), a.images)
        real = a.example_mask
        np.testing.assert_allclose(b.features[0][real], maps[0][real], rtol=1e-5, atol=1e-6)
        for x, y in zip(
            jax.tree.leaves(a.replace(images=None)),
            jax.tree.leaves(b.replace(images=None, features=None)),
            strict=True,
        ):
            np.testing.assert_array_equal(x, y)


def test_predictions_are_those_of_the_pixels(tmp_path, initial, small_shards):
    config = make_config(tmp_path)
    stored = feature_cache.cached(config, initial, dataset("val"), "val")
    predict = tiny.on_host(task().predict)
    for a, b in zip(
        dataset("val").evaluation_batches(16), stored.evaluation_batches(16), strict=True
    ):
        expected, found = predict(initial, a), predict(initial, b)
        real = a.example_mask
        np.testing.assert_allclose(found.scores[real], expected.scores[real], rtol=1e-4, atol=1e-7)


def test_second_run_reads_and_computes_nothing(cache, initial, monkeypatch):
    monkeypatch.setattr(feature_cache, "_computed", None)
    again = feature_cache.cached(cache[0], initial, dataset(), "train")
    a, b = (next(iter(x.evaluation_batches(BATCH))) for x in (cache[1], again))
    np.testing.assert_array_equal(a.features[0], b.features[0])


def test_interrupted_writing_goes_on(cache, initial, tmp_path):
    """What is whole stays as it is, what is missing or half written is written."""
    folder = tmp_path / "cache" / "train"
    expected = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "shard-00001.npy").rename(folder / "shard-00001.npy.partial")
    (folder / "shard-00003.npy").unlink()
    before = (folder / "shard-00000.npy").stat().st_mtime_ns
    feature_cache.cached(cache[0], initial, dataset(), "train")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == expected
    assert (folder / "shard-00000.npy").stat().st_mtime_ns == before


def test_failure_while_writing_leaves_no_file(tmp_path, initial, small_shards, monkeypatch):
    def failing(*arguments):
        yield from itertools.islice(computed(*arguments), 15)
        raise OSError("gone")

    config, computed = make_config(tmp_path), feature_cache._computed
    monkeypatch.setattr(feature_cache, "_computed", failing)
    with pytest.raises(OSError, match="gone"):
        feature_cache.cached(config, initial, dataset(), "train")
    assert sorted(x.name for x in (tmp_path / "train").iterdir()) == ["key.json", "shard-00000.npy"]
    monkeypatch.setattr(feature_cache, "_computed", computed)
    feature_cache.cached(config, initial, dataset(), "train").evaluation_batches(BATCH)


def test_processes_share_the_work(cache, initial, tmp_path):
    """Two shares write what one process writes; each file is written by one of them."""
    config = make_config(tmp_path / "shared")
    weights = feature_cache._trunk_of(initial)
    maps = feature_cache._maps(config, weights)
    key = feature_cache._key(config, weights, maps, dataset(), "train")
    folder = epath.Path(tmp_path / "shared" / "train")
    feature_cache._claim(folder, key, 1)
    assert not (folder / "key.json").exists()  # process 0 says it
    feature_cache._claim(folder, key, 0)
    names = {}
    for process in (1, 0):
        shards = feature_shards.FeatureShards(folder, IMAGES, maps, json.dumps(key))
        feature_cache.write(config, weights, dataset(), shards, process, 2)
        names[process] = {path.name for path in folder.glob("*.npy")}
    assert names[1] == {"shard-00001.npy", "shard-00003.npy"}
    shards.check()
    for path in folder.iterdir():
        one = (tmp_path / "cache" / "train" / path.name).read_bytes()
        assert len(one) == len(path.read_bytes())
    both = next(iter(dataset().with_features(shards).evaluation_batches(IMAGES)))
    alone = next(iter(cache[1].evaluation_batches(IMAGES)))
    np.testing.assert_allclose(both.features[0], alone.features[0], rtol=1e-5, atol=1e-6)
    shares = [next(cache[1].train_batches(BATCH, 5, 0, k, 2)).features[0] for k in (0, 1)]
    whole = next(cache[1].train_batches(BATCH, 5)).features[0]
    np.testing.assert_array_equal(np.concatenate(shares), whole)


def other_weights(config, variables):
    kernel = variables["params"]["trunk"]["conv2"]["kernel"].copy()
    kernel[0, 0, 0, 0] += 1e-3
    trunk = {**variables["params"]["trunk"], "conv2": {**variables["params"]["trunk"]["conv2"]}}
    trunk["conv2"]["kernel"] = kernel
    return config, {**variables, "params": {**variables["params"], "trunk": trunk}}


def changed(**changes):
    def change(config, variables):
        config = config.copy_and_resolve_references()
        config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
        return config, variables

    return change


STALE = {
    "weights": (other_weights, ["weights"]),
    "size": (changed(data__image_size=72), ["image size", "maps"]),
    "dtype": (changed(model__dtype="bfloat16"), ["dtype", "maps"]),
    "seed": (changed(data__seed=1), ["data", "image list"]),
    "fewer": (changed(data__train_images=IMAGES - 1), ["images", "image list"]),
}


@pytest.mark.parametrize("name", STALE)
def test_cache_of_something_else_is_refused(cache, initial, name):
    change, differing = STALE[name]
    config, given = change(cache[0], initial)
    split = data.build(config, "train")
    with pytest.raises(ValueError, match="holds features for something else; delete") as caught:
        feature_cache.cached(config, given, split, "train")
    lines = str(caught.value).splitlines()[1:]
    assert [line.strip().partition(":")[0] for line in lines if "image list" not in line] == [
        x for x in differing if x != "image list"
    ]
    assert "image list" not in differing or any("image list" in line for line in lines)


def test_other_code_is_refused(cache, initial, monkeypatch):
    monkeypatch.setattr(feature_cache, "CODE", feature_cache.CODE[:-1])
    with pytest.raises(ValueError, match=r"set back:\n  code: \w+  \(now \w+\)$"):
        feature_cache.cached(cache[0], initial, dataset(), "train")


def test_weights_of_other_parts_do_not_matter(cache, initial):
    params = dict(initial["params"])
    params["K0"] = params["K0"] + 1
    feature_cache.cached(cache[0], {**initial, "params": params}, dataset(), "train")


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def another_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros((12, 3), np.float32))


@pytest.mark.parametrize("damage", [cut, another_array, lambda path: path.write_bytes(b"")])
def test_damaged_file_is_refused_at_the_start(cache, initial, tmp_path, damage):
    damage(tmp_path / "cache" / "train" / "shard-00001.npy")
    with pytest.raises(ValueError, match=r"shard-00001\.npy .*delete that file"):
        feature_cache.cached(cache[0], initial, dataset(), "train")


def test_missing_file_is_refused_by_the_reader(cache, tmp_path):
    shards = feature_shards.FeatureShards(tmp_path / "cache" / "train", IMAGES, [], "")
    (tmp_path / "cache" / "train" / "shard-00000.npy").unlink()
    with pytest.raises(ValueError, match=r"shard-00000\.npy is missing; .*start the run again"):
        shards.check()


def flip_a_bit(folder):
    content = bytearray((folder / "shard-00002.npy").read_bytes())
    content[-5] ^= 1  # in the last image of the file
    (folder / "shard-00002.npy").write_bytes(content)


def swap(folder):
    first, third = (folder / f"shard-0000{k}.npy" for k in (0, 2))
    content = first.read_bytes()
    first.write_bytes(third.read_bytes())
    third.write_bytes(content)


@pytest.mark.parametrize("damage", [flip_a_bit, swap])
def test_wrong_record_is_refused_when_it_is_read(cache, initial, tmp_path, damage):
    damage(tmp_path / "cache" / "train")
    split = feature_cache.cached(cache[0], initial, dataset(), "train")
    with pytest.raises(ValueError, match=r"shard-0000\d\.npy: the features of image \d+"):
        list(split.evaluation_batches(BATCH))


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_damaged_key_is_refused(cache, initial, tmp_path, text):
    (tmp_path / "cache" / "train" / "key.json").write_text(text)
    with pytest.raises(ValueError, match=r"key\.json is damaged .*delete"):
        feature_cache.cached(cache[0], initial, dataset(), "train")


def test_full_disk_is_told_before(tmp_path, initial, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match=r"features of 40 images take .* GB and 0\.0 GB are"):
        feature_cache.cached(make_config(tmp_path), initial, dataset(), "train")


def test_bfloat16_comes_back_bit_by_bit(tmp_path):
    rng, bfloat16 = np.random.default_rng(0), jax.numpy.bfloat16
    stored = [rng.normal(size=(2, 3, 5)).astype(bfloat16) for _ in range(2)]
    maps = [jax.ShapeDtypeStruct((2, 3, 5), bfloat16)]
    shards = feature_shards.FeatureShards(epath.Path(tmp_path), 2, maps, "")
    shards.write(0, iter([(np.float32([64, 50 + k]), [x]) for k, x in enumerate(stored)]))
    draw = Draw(np.array([1, -1, 0]), np.zeros(3, int), np.zeros(3, bool))
    (batch,) = shards.batches(dataset()._source, make_config().data, iter([draw]), 0)
    assert batch.features[0].dtype == bfloat16
    np.testing.assert_array_equal(batch.features[0][[2, 0]], stored)
    np.testing.assert_array_equal(batch.image_sizes, [[64, 51], [64, 64], [64, 50]])


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"model__freeze_trunk": False}, "freeze_trunk=True"),
        ({"data__flip": True}, "flip=False"),
        ({"data__cache": "gs://bucket/cache"}, "file system"),
        ({"task": "sgdet", "train__end_to_end": True}, "end_to_end=False"),
    ],
)
def test_configurations_that_cannot_be_cached(wrong, said):
    validation.validate(make_config("somewhere"))
    with pytest.raises(ValueError, match=f"data.cache.*{said}"):
        validation.validate(make_config(**{"data__cache": "somewhere", **wrong}))


def test_training_runs_on_stored_features(tmp_path, initial, monkeypatch):
    """The loop writes both splits before it takes a batch."""
    config = make_config(tmp_path / "cache", train__steps=2, train__eval_every=2)
    seen, params = [], initial["params"]

    def create(config, *_):
        trained = split_params(params, config)[0]
        optimizer = create_optimizer(config.train).init(trained)
        constants = {"constants": initial["constants"]}
        return TrainState(0, params, constants, optimizer, {}, Control.create(), np.int32(-1))

    def step(state, batch):
        seen.append(batch)
        return state.replace(step=np.int32(state.step + 1)), {"loss": jnp.zeros(())}

    def validate(state, config, task, predict, split, *_):
        seen.append(next(split.evaluation_batches(16)))
        return state, {config.eval.metric: 0.5}

    monkeypatch.setattr(train, "create_or_restore", create)
    monkeypatch.setattr(train, "compile_train_step", lambda *_: step)
    monkeypatch.setattr(train, "validate", validate)
    monkeypatch.setattr(train, "step_flops", lambda *_: 0.0)
    monkeypatch.setattr(train.Checkpoints, "save", lambda *_: None)
    assert train.train(config, epath.Path(tmp_path / "run"))
    assert len(seen) == 3 and all(x.images.size == 0 and x.features for x in seen)
    assert sorted(x.name for x in (tmp_path / "cache").iterdir()) == ["train", "val"]
