"""Stored feature maps of a split, in its order: files of SHARD images, a record an image."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from etils import epath
from jaxtyping import Float
from ml_collections import ConfigDict

from linknet_jax.atomic import replacing
from linknet_jax.data.batching import FILLER, Draw, Source, make_batch
from linknet_jax.data.detections import DetectionTable
from linknet_jax.data.transforms import covered
from linknet_jax.types import Batch

SHARD = 256  # images a file
Maps = Sequence[Float[np.ndarray, "y x k"]]


class FeatureShards:
    """The maps of every image of a split, and a loader of batches that have them."""

    def __init__(self, folder: epath.Path, images: int, maps: Sequence, seal: str):
        """`maps`: shape and dtype of the maps of an image; `seal`: what they are valid for.

        Every record has a checksum of its bytes, its position and the seal.
        """
        self._folder, self._images, self._maps, self._seal = folder, images, maps, seal
        # NumPy's files know no bfloat16: bits are stored.
        bits = [(f"map{k}", f"<u{x.dtype.itemsize}", x.shape) for k, x in enumerate(maps)]
        self._record = np.dtype([("checksum", "<u4"), ("size", "<f4", 2), *bits])
        self._open = functools.cache(self._open_shard)

    @property
    def count(self) -> int:
        """How many files there are in a whole cache."""
        return -(-self._images // SHARD)

    @property
    def bytes_of_image(self) -> int:
        """What an image takes on disk."""
        return self._record.itemsize

    def path(self, shard: int) -> epath.Path:
        """The file of a shard."""
        return self._folder / f"shard-{shard:05d}.npy"

    def images_of(self, shard: int) -> range:
        """Positions in the split of the images of a shard."""
        return range(shard * SHARD, min((shard + 1) * SHARD, self._images))

    def write(self, shard: int, images: Iterator[tuple[Float[np.ndarray, "2"], Maps]]) -> None:
        """Takes ((height, width) that the photograph covers, maps) of each image of the shard."""
        indices = self.images_of(shard)
        with replacing(self.path(shard)) as partial:
            shape = (len(indices),)
            records = np.lib.format.open_memmap(partial, "w+", self._record, shape)
            for record, index, (size, maps) in zip(records, indices, images, strict=False):
                record["size"] = size
                for k, x in enumerate(maps):
                    name = f"map{k}"
                    record[name] = np.ascontiguousarray(x).view(self._record[name].base)
                record["checksum"] = self._checksum(record.tobytes(), index)
            records.flush()

    def check(self) -> None:
        """ValueError for a file that is missing, cut or of another layout."""
        for shard in range(self.count):
            self._open(shard)

    def batches(
        self,
        source: Source,
        config: ConfigDict,
        stream: Iterator[Draw],
        seed: int,
        detections: DetectionTable | None = None,
    ) -> Iterator[Batch]:
        """The batches of a stream of draws; their images are 0 pixels wide and high.

        ValueError for a record whose checksum is wrong.
        """
        for draw in stream:
            records = [self._read(int(index), config.image_size) for index in draw.indices]
            images = np.zeros((len(records), 0, 0, 3), np.uint8)
            sizes = np.stack([record["size"] for record in records])
            scales = np.array([_scale(source, k, config.image_size) for k in draw.indices])
            places = images, sizes, scales
            batch = make_batch(source, *places, draw, config.max_objects, seed, detections)
            features = tuple(
                np.stack([record[f"map{k}"] for record in records]).view(x.dtype)
                for k, x in enumerate(self._maps)
            )
            yield batch.replace(features=features)

    def _read(self, index: int, side: int) -> np.void | np.ndarray:
        if index == FILLER:
            blank = np.zeros((), self._record)
            blank["size"] = side
            return blank
        record = self._open(index // SHARD)[index % SHARD]
        if record["checksum"] != self._checksum(record.tobytes(), index):
            raise ValueError(
                f"{self.path(index // SHARD)}: the features of image {index} of the split are "
                f"damaged or of another cache (wrong checksum); {_REMEDY}"
            )
        return record

    def _checksum(self, record: bytes, index: int) -> int:
        content = memoryview(record)[self._record.fields["size"][1] :]
        return zlib.crc32(content, zlib.crc32(f"{self._seal} {index}".encode()))

    def _open_shard(self, shard: int) -> np.ndarray:
        path, shape = self.path(shard), (len(self.images_of(shard)),)
        try:
            records = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError as error:
            raise ValueError(f"{path} is missing; {_REMEDY}") from error
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"{path} is damaged ({error}); {_REMEDY}") from error
        if records.dtype != self._record or records.shape != shape:
            raise ValueError(
                f"{path} holds {records.shape} of {records.dtype}, needed are {shape} of "
                f"{self._record}; {_REMEDY}"
            )
        return records


_REMEDY = "delete that file, if it is there, and start the run again: it writes what is missing"


def _scale(source: Source, index: int, side: int) -> float:
    """The network's pixels per annotated pixel."""
    if index == FILLER:
        return 1.0
    annotation = source.annotations[index]
    return covered(annotation.width, annotation.height, side)[1]
