"""tf.data and the threads give the same batches, resume, share among processes, and fail alike.

Half of the images are mirrored in training.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from itertools import islice

import jax
import numpy as np
import pytest

from linknet_jax import data
from linknet_jax.config import get_default
from linknet_jax.data import Dataset, threads
from linknet_jax.data.mirror import flips, mirror
from linknet_jax.types import Annotation, Vocabulary

SIZE = 24


class Scenes:
    """Random pictures; records which were read, fails at one if told to."""

    vocabulary = Vocabulary(("__background__", "a", "b"), ("__background__", "on", "under"))
    truth = None

    def __init__(self, count=11, fails_at=None):
        rng = np.random.default_rng(0)
        self.read, self.fails_at = [], fails_at
        self.annotations = [
            Annotation(
                image_id=i,
                width=48,
                height=40,
                boxes=rng.uniform(0, 40, (3, 4)),
                labels=rng.integers(1, 3, 3, np.int32),
                relations=np.array([(0, 1, 1), (0, 1, 2), (2, 0, 1)], np.int32),
            )
            for i in range(count)
        ]

    def example(self, index, flip=False):
        if index == self.fails_at:
            raise ValueError(f"image {index} is spoilt: replace it")
        self.read.append(index)
        pixels = np.random.default_rng(index).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        time.sleep(0.02 * (index % 4 == 0))
        pixels = pixels[:, ::-1] if flip else pixels
        return pixels, np.array([20, SIZE], np.float32), SIZE / 48


@pytest.fixture(params=["threads", "pipeline"])
def loader(request):
    if request.param == "threads":
        return threads
    pytest.importorskip("tensorflow")
    from linknet_jax.data import pipeline

    return pipeline


@pytest.fixture
def config():
    config = get_default("sgcls").data
    config.update({"image_size": SIZE, "max_objects": 4, "threads": 3, "prefetch": 2})
    config.flip = True
    return config


def assert_equal(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_array_equal(x, y)
            assert x.dtype == y.dtype and x.shape == y.shape


def joined(parts):
    """Global batches from the processes' shares."""
    return [jax.tree.map(lambda *x: np.concatenate(x), *same) for same in zip(*parts, strict=True)]


def test_training_batches_hold_what_the_source_says(loader, config):
    source = Scenes()
    batches = list(islice(Dataset(source, loader, config).train_batches(4, seed=0), 6))
    mirrored = 0
    for number, batch in enumerate(batches):
        for row, index in enumerate(batch.image_index):
            epoch = np.array([(4 * number + row) // 11])
            flip = bool(flips(0, epoch, np.array([index]))[0])
            mirrored += flip
            image, size, scale = Scenes().example(index, flip)
            np.testing.assert_array_equal(batch.images[row], image)
            np.testing.assert_array_equal(batch.image_sizes[row], size)
            annotation = source.annotations[index]
            annotation = mirror(annotation, source.vocabulary) if flip else annotation
            boxes = np.float32(annotation.boxes * scale)
            np.testing.assert_array_equal(batch.boxes[row, :3], boxes)
        assert batch.example_mask.all() and batch.images.dtype == np.uint8
    assert 0 < mirrored < 24
    order = np.concatenate([batch.image_index for batch in batches])[:22].reshape(2, 11)
    np.testing.assert_array_equal(np.sort(order), np.tile(np.arange(11), (2, 1)))


def test_both_loaders_give_identical_batches(config):
    pytest.importorskip("tensorflow")
    from linknet_jax.data import pipeline

    for start in (0, 5):
        assert_equal(
            list(islice(Dataset(Scenes(), threads, config).train_batches(4, 1, start), 5)),
            list(islice(Dataset(Scenes(), pipeline, config).train_batches(4, 1, start), 5)),
        )
    assert_equal(
        list(Dataset(Scenes(), threads, config).evaluation_batches(4)),
        list(Dataset(Scenes(), pipeline, config).evaluation_batches(4)),
    )


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_resuming_on_any_number_of_processes(loader, config, processes):
    whole = list(islice(Dataset(Scenes(), loader, config).train_batches(4, 3), 6))
    shares = [
        list(islice(Dataset(Scenes(), loader, config).train_batches(4, 3, 2, p, processes), 4))
        for p in range(processes)
    ]
    assert_equal(whole[2:], joined(shares))


def test_threads_end_before_close_returns(config):
    config.prefetch = 20
    batches = Dataset(Scenes(count=400), threads, config).train_batches(8, 0)
    next(batches)
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("linknet-data")]


@pytest.mark.parametrize("processes", [1, 2])
def test_evaluation_covers_each_image_once(loader, config, processes):
    shares = [
        list(Dataset(Scenes(), loader, config).evaluation_batches(4, p, processes))
        for p in range(processes)
    ]
    batches = joined(shares)
    mask = np.concatenate([batch.example_mask for batch in batches])
    index = np.concatenate([batch.image_index for batch in batches])
    np.testing.assert_array_equal(index[mask], np.arange(11))
    for batch in batches:
        for row in np.flatnonzero(batch.example_mask):
            image = Scenes().example(batch.image_index[row])[0]
            np.testing.assert_array_equal(batch.images[row], image)  # never mirrored
    assert mask.sum() == 11 and len(mask) == 12
    assert not batches[-1].box_mask[-1].any() and not batches[-1].predicates[-1].any()


def test_an_error_surfaces_as_itself(loader, config):
    batches = Dataset(Scenes(fails_at=6), loader, config).evaluation_batches(2)
    with pytest.raises(ValueError, match=r"^image 6 is spoilt: replace it$"):
        list(batches)


def test_reading_ahead_is_bounded_and_stops_with_the_consumer(loader, config):
    source = Scenes(count=400)
    batches = Dataset(source, loader, config).train_batches(2, 0)
    next(batches)
    time.sleep(0.3)
    assert 2 <= len(source.read) <= 20
    batches.close()
    time.sleep(0.1)
    after = len(source.read)
    time.sleep(0.1)
    assert len(source.read) == after


def test_bad_batch_size_is_refused_at_once(loader, config):
    with pytest.raises(ValueError, match="multiple of the 2 processes"):
        Dataset(Scenes(), loader, config).train_batches(3, 0, 0, 0, 2)


def test_build_reads_real_photographs(vrd_dir):
    pytest.importorskip("tensorflow")
    config = get_default("sgcls")
    config.data.update({"name": "vrd", "dir": str(vrd_dir), "max_objects": 18, "image_size": 96})
    dataset = data.build(config, "train")
    ((batch, same),) = zip(
        islice(dataset.train_batches(6, seed=0, start_step=4), 1),
        islice(Dataset(dataset._source, threads, config.data).train_batches(6, 0, 4), 1),
        strict=True,
    )
    assert_equal([batch], [same])
    assert batch.images.shape == (6, 96, 96, 3) and batch.box_mask.any(1).all()
    limits = np.tile(batch.image_sizes[:, None, ::-1], 2) + 1
    assert (batch.boxes <= limits).all() and (batch.boxes >= 0).all()
    config.data.max_objects = 17
    with pytest.raises(ValueError, match=r"has 18 objects.*--config.data.max_objects=18"):
        data.build(config, "train")


def test_build_synthetic_without_tensorflow():
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from linknet_jax import config, data\n"
        "import linknet_jax.data.files\n"
        "tree = config.get_default('sgcls'); tree.data.val_images = 3\n"
        "batches = list(data.build(tree, 'val').evaluation_batches(2))\n"
        "print([b.example_mask.tolist() for b in batches])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[[True, True], [True, False]]", result.stderr


def test_flips_need_counterparts(config):
    class Sided(Scenes):
        vocabulary = Vocabulary(("__background__", "a", "b"), ("__background__", "on", "left of"))

    with pytest.raises(ValueError, match=r"'left of' is no class.*data.flip=False"):
        Dataset(Sided(), threads, config)
    config.flip = False
    Dataset(Sided(), threads, config)


def test_unknown_name():
    config = get_default("sgcls")
    config.data.name = "cocoo"
    with pytest.raises(ValueError, match=r"data\.name.'cocoo' must be one of synthetic, .*vrd, co"):
        data.build(config, "train")
