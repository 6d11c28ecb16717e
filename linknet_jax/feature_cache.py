"""`data.cache`: what a frozen trunk makes of every image, computed once and then read."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from linknet_jax import parallel
from linknet_jax.atomic import write_json
from linknet_jax.data import Dataset
from linknet_jax.data.feature_shards import FeatureShards, Maps
from linknet_jax.models.backbones import TRUNKS

# From a photograph or a drawn scene to the maps; another text of these is another cache.
CODE = (
    "models/trunks.py", "models/efficientnet.py", "models/resnet.py", "models/frozen_norm.py",
    "data/transforms.py", "data/synthetic/scenes.py", "data/synthetic/drawing.py",
    "data/synthetic/world.py",
)  # fmt: skip


def cached(
    config: ConfigDict,
    variables: dict,
    dataset: Dataset,
    split: str,
    process_index: int = 0,
    process_count: int = 1,
) -> Dataset:
    """The split with the trunk's maps in its batches in place of pixels.

    They lie in `data.cache`/SPLIT, a folder that all processes see, and are computed with the
    trunk of `variables` where they are missing, each process its share of the files. ValueError
    where the folder holds those of anything else, which is named, where a file is damaged, and
    where the disk has no room.
    """
    weights = _trunk_of(variables)
    maps = _maps(config, weights)
    key = _key(config, weights, maps, dataset, split)
    folder = epath.Path(config.data.cache) / split
    _claim(folder, key, process_index)
    multihost_utils.sync_global_devices(f"key of {folder}")
    shards = FeatureShards(folder, len(dataset.annotations), maps, json.dumps(key))
    write(config, weights, dataset, shards, process_index, process_count)
    multihost_utils.sync_global_devices(f"features in {folder}")
    shards.check()
    return dataset.with_features(shards)


def write(
    config: ConfigDict,
    weights: dict,
    dataset: Dataset,
    shards: FeatureShards,
    process_index: int = 0,
    process_count: int = 1,
) -> None:
    """Writes this process's missing files; one that is interrupted is written again."""
    own = range(process_index, shards.count, process_count)
    missing = [shard for shard in own if not shards.path(shard).exists()]
    if not missing:
        return
    indices = [index for shard in missing for index in shards.images_of(shard)]
    _check_room(shards, len(indices))
    size = config.eval.batch_size // process_count
    images, start, done = _computed(config, weights, dataset, indices, size), time.monotonic(), 0
    for shard in missing:
        shards.write(shard, images)
        done += len(shards.images_of(shard))
        rate = done / (time.monotonic() - start)
        if process_index == 0:
            where = shards.path(shard).parent
            print(f"features into {where}: {done} of {len(indices)} images, {rate:.1f} a second")


def _computed(
    config: ConfigDict, weights: dict, dataset: Dataset, indices: Sequence[int], size: int
) -> Iterator[tuple[np.ndarray, Maps]]:
    """((height, width) of the photograph, maps) of every image, on this process's devices."""
    mesh = parallel.create_mesh(devices=jax.local_devices())
    apply = parallel.over_images(_apply(config), mesh)
    weights = jax.device_put(weights, parallel.replicated(mesh))
    for batch in dataset.batches_of(indices, size):
        pixels = jax.device_put(batch.images, parallel.split_images(mesh))
        maps = jax.device_get(apply(weights, pixels))
        for row in np.flatnonzero(batch.example_mask):
            yield batch.image_sizes[row], [x[row] for x in maps]


def _apply(config: ConfigDict) -> Callable:
    return TRUNKS[config.model.trunk](dtype=jnp.dtype(config.model.dtype)).apply


def _trunk_of(variables: dict) -> dict:
    """The trunk's variables by collection, on the host."""
    return jax.device_get({name: x["trunk"] for name, x in variables.items() if "trunk" in x})


def _maps(config: ConfigDict, weights: dict) -> list[jax.ShapeDtypeStruct]:
    """Shape and dtype of the maps of one image."""
    side = config.data.image_size
    pixels = jax.ShapeDtypeStruct((1, side, side, 3), np.uint8)
    maps = jax.eval_shape(_apply(config), weights, pixels)
    return [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in maps]


def _key(
    config: ConfigDict, weights: dict, maps: Sequence, dataset: Dataset, split: str
) -> dict[str, str | int]:
    """Everything that the maps depend on."""
    drawn = dataset.truth is not None
    images = [
        [str(a.image_id), a.file_name, a.width, a.height]
        + ([a.boxes.tolist(), a.labels.tolist()] if drawn else [])
        for a in dataset.annotations
    ]
    arrays = sorted(flatten_dict(weights).items())
    package = importlib.resources.files("linknet_jax")
    return {
        "data": f"{config.data.name}, seed {config.data.seed}" if drawn else config.data.name,
        "split": split,
        "images": len(images),
        "image list": _digest([json.dumps(images).encode()]),
        "image size": config.data.image_size,
        "trunk": config.model.trunk,
        "dtype": config.model.dtype,
        "maps": ", ".join(f"{'x'.join(map(str, x.shape))} {x.dtype}" for x in maps),
        "weights": _digest(
            part
            for path, x in arrays
            for part in (f"{'/'.join(path)} {x.shape} {x.dtype}".encode(), np.ascontiguousarray(x))
        ),
        "code": _digest(package.joinpath(name).read_bytes() for name in CODE),
    }


def _digest(parts: Sequence | Iterator) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()[:32]


def _claim(folder: epath.Path, key: dict, process_index: int) -> None:
    """Says in key.json what the folder is for; ValueError where it is for anything else."""
    path = folder / "key.json"
    if not path.exists():
        if process_index == 0:
            write_json(path, key)
        return
    remedy = f"delete {folder}, or set another --config.data.cache"
    try:
        stored = dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); {remedy}") from error
    differing = [
        f"  {name}: {stored.get(name, 'nothing')}  (now {key.get(name, 'nothing')})"
        for name in {**key, **stored}
        if stored.get(name) != key.get(name)
    ]
    if differing:
        raise ValueError(
            f"{folder} holds features for something else; {remedy}, or set back:\n"
            + "\n".join(differing)
        )


def _check_room(shards: FeatureShards, images: int) -> None:
    """ValueError where the features of so many images do not fit on the disk."""
    folder, needed = shards.path(0).parent, images * shards.bytes_of_image
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{folder}: the features of {images} images take {needed / 1e9:.1f} GB and "
            f"{free / 1e9:.1f} GB are free; set --config.data.cache to a folder of a larger disk, "
            "or leave it empty"
        )
