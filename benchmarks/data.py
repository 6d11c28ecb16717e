"""Photographs decoded, resized and padded, per core, against tf.data and Pillow; reported only.

    python -m benchmarks.data [--dir VRD]

Every thread has a core of its own, as far as others leave it. The kernel is the same everywhere
(antialiased bilinear), which is checked; what tf.data gains without antialiasing is printed too.
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from benchmarks.timing import interleaved
from linknet_jax.config import get_config
from linknet_jax.data import threads
from linknet_jax.data.batching import Draw, Example
from linknet_jax.data.transforms import PADDING, image_size, load_image
from linknet_jax.types import Annotation, Vocabulary

BATCH, GOAL = 8, 1.6
RIVAL, OTHER = "tf.data uint8", "tf.data uint8, no antialias"
PARITY = 1.0  # mean difference of a photograph's pixels, of 255


class Photographs:
    """A source of photographs without annotations."""

    vocabulary = Vocabulary(("__background__",), ("__background__",))
    truth = None

    def __init__(self, paths: list[str], size: int):
        none = (np.zeros((0, 4)), np.zeros(0, np.int32), np.zeros((0, 3), np.int32))
        self.annotations = [Annotation(path, size, size, *none) for path in paths]
        self._size = size

    def example(self, index: int, flip: bool = False) -> Example:
        return load_image(self.annotations[index].image_id, self._size, flip)


def draws(count: int) -> Iterator[Draw]:
    """Every image once, in whole batches."""
    for start in range(0, count, BATCH):
        indices = np.arange(start, start + BATCH)
        yield Draw(indices, np.zeros(BATCH, int), np.zeros(BATCH, bool))


def ours(paths: list[str], config: ConfigDict) -> dict[str, Callable[[], np.ndarray]]:
    """Our two loaders; each function reads all and returns the last batch."""
    from linknet_jax.data import pipeline

    source = Photographs(paths, config.image_size)

    def run(loader) -> np.ndarray:
        batches = loader.batches(source, config, draws(len(paths)), seed=0)
        return collections.deque(batches, maxlen=1)[0].images

    return {"ours, threads": lambda: run(threads), "ours, tf.data": lambda: run(pipeline)}


def tf_data(paths: list[str], config: ConfigDict) -> dict[str, Callable[[], np.ndarray]]:
    """The rivals as TensorFlow's guides write them, with libjpeg's exact decoder."""
    import tensorflow as tf

    size = config.image_size

    def load(path, antialias, dtype):
        image = tf.io.decode_jpeg(tf.io.read_file(path), 3, dct_method="INTEGER_ACCURATE")
        height, width = tf.shape(image)[0], tf.shape(image)[1]
        side = tf.maximum(height, width)
        shape = [tf.cast(tf.round(x * size / side), tf.int32) for x in (height, width)]
        image = tf.image.resize(image, shape, antialias=antialias)
        image = tf.cast(tf.round(image), dtype) if dtype == tf.uint8 else image / 255
        return tf.image.pad_to_bounding_box(image, 0, 0, size, size)

    def rival(antialias, dtype) -> Callable[[], np.ndarray]:
        options = tf.data.Options()
        options.threading.private_threadpool_size = config.threads
        options.threading.max_intra_op_parallelism = 1
        dataset = tf.data.Dataset.from_tensor_slices(paths)
        dataset = dataset.map(lambda path: load(path, antialias, dtype), config.threads)
        dataset = dataset.batch(BATCH).prefetch(config.prefetch).with_options(options)
        return lambda: collections.deque(dataset.as_numpy_iterator(), maxlen=1)[0]

    return {
        RIVAL: rival(True, tf.uint8),
        "tf.data float32": rival(True, tf.float32),
        OTHER: rival(False, tf.uint8),
    }


def pillow(paths: list[str], config: ConfigDict) -> dict[str, Callable[[], np.ndarray]]:
    """Pillow alone, as neural-motifs does: decode, pad to a square, resize.

    It profits from the memory that our transforms make Pillow keep.
    """

    def load(path: str) -> np.ndarray:
        with Image.open(path) as image:
            canvas = Image.new("RGB", [max(image.size)] * 2, PADDING)
            canvas.paste(image.convert("RGB"))
        size = (config.image_size, config.image_size)
        return np.asarray(canvas.resize(size, Image.Resampling.BILINEAR))

    def run() -> np.ndarray:
        with ThreadPoolExecutor(config.threads) as executor:
            images = list(executor.map(load, paths))
        return np.stack(images[-BATCH:])

    return {"Pillow": run}


def fits(path: str, size: int) -> bool:
    """Whether tf.image.resize, which rounds the shorter side, gives both axes the same scale."""
    sides = image_size(path)
    return min(sides) * size % max(sides) == 0


def check(images: dict[str, np.ndarray], paths: list[str], size: int) -> None:
    """SystemExit where the kernel of another is not ours; padding is not compared."""
    rows = [row for row, path in enumerate(paths) if fits(path, size)]
    for name, found in images.items():
        for row in rows:
            height, width = load_image(paths[row], size)[1].astype(int) - 2
            a, b = (x[row, :height, :width].astype(float) for x in (images["ours, threads"], found))
            error = abs(a - b * (255 if found.dtype == np.float32 else 1)).mean()
            if name != OTHER and not error <= PARITY:
                raise SystemExit(f"FAILED parity: {name} differs by {error:.2f} > {PARITY} of 255")
    if not rows:
        print("parity: not checked, no photograph keeps its proportions")


def measure(count: int, paths: list[str], repeats: int) -> dict[str, tuple[float, float]]:
    """(images a second, milliseconds of processor time an image) with `count` threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    config = get_config("sgcls", "full_size").data
    config.threads = count
    runs = {**ours(paths, config), **tf_data(paths, config), **pillow(paths, config)}
    check({name: run() for name, run in runs.items()}, paths[-BATCH:], config.image_size)
    processor = dict.fromkeys(runs, float("inf"))

    def timed(name: str) -> None:
        start = time.process_time()
        runs[name]()
        processor[name] = min(processor[name], time.process_time() - start)

    seconds = interleaved({name: lambda name=name: timed(name) for name in runs}, repeats)
    return {k: (len(paths) / s, 1e3 * processor[k] / len(paths)) for k, s in seconds.items()}


def report(count: int, results: dict[str, tuple[float, float]]) -> None:
    rate, processor = results["ours, threads"]
    print(f"\n{count} thread{'s' * (count > 1)}             img/s   ours x   cpu ms/img   ours x")
    for name, (images, cost) in results.items():
        print(
            f"{name:27s} {images:6.0f}  {rate / images:6.2f}  {cost:9.2f}  {cost / processor:7.2f}"
        )
    ratio = rate / results[RIVAL][0]
    print(f"goal {GOAL} x {RIVAL}: {'met' if ratio >= GOAL else 'MISSED (times only warn)'}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shared = pathlib.Path(__file__).parents[2] / "shared" / "data"
    shared = os.environ.get("LINKNET_SHARED_DATA", shared)
    parser.add_argument("--dir", default=f"{shared}/vrd", help="folder that holds images/")
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--repeats", type=int, default=5)
    flags = parser.parse_args()
    folder = pathlib.Path(flags.dir, "images")
    paths = sorted(map(str, folder.glob("*.jpg")))[: flags.images // BATCH * BATCH]
    if not paths:
        raise SystemExit(f"no {BATCH} photographs *.jpg in {folder}; set --dir")
    print(f"{len(paths)} photographs, interleaved, fastest of {flags.repeats}")
    for count in (1, 2):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
            report(count, executor.submit(measure, count, paths, flags.repeats).result())
    return 0


if __name__ == "__main__":
    sys.exit(main())
