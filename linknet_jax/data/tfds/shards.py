"""Random access to the records of a prepared TFDS folder, in either of its file formats."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from etils import epath

tf.config.set_visible_devices([], "GPU")

HEADER, FOOTER = 12, 4  # bytes around a TFRecord's contents: length and checksums
RAW = tfds.decode.DeserializeMethod.RAW_BYTES


def open_shards(builder: tfds.core.DatasetBuilder, split: str) -> Iterable[bytes]:
    """The serialized examples of a split: iterated once, they can then be had by number too.

    ValueError for another file format; reading raises ValueError (TFRecord) or RuntimeError (array
    record) where a file is missing or damaged.
    """
    kind, formats = builder.info.file_format, tfds.core.FileFormat
    if kind is formats.ARRAY_RECORD:
        return builder.as_data_source(split, deserialize_method=RAW)
    if kind is formats.TFRECORD:
        return TfRecords(builder.info.splits[split].filepaths)
    raise ValueError(
        f"{builder.data_path}: examples in files of format {kind.value} cannot be read by their "
        "number; build it with --file_format=tfrecord or array_record"
    )


class TfRecords:
    """The records of uncompressed TFRecord shards.

    The first pass streams, verifies the checksums and notes where the records begin. A record by
    its number is then one seek and one read of a file that is open just then: safe in any number
    of threads, and possible on a bucket.
    """

    def __init__(self, paths: Sequence[epath.Path]):
        self._paths = [epath.Path(path) for path in paths]
        self._index = np.zeros((0, 3), np.int64)  # shard, offset, length

    def __iter__(self) -> Iterator[bytes]:
        index = []
        for shard, path in enumerate(self._paths):
            offset = 0
            for record in _stream(path):
                index.append((shard, offset + HEADER, len(record)))
                offset += HEADER + len(record) + FOOTER
                yield record
        self._index = np.array(index, np.int64).reshape(-1, 3)

    def __getitem__(self, number: int) -> bytes:
        shard, offset, length = self._index[number].tolist()
        with self._paths[shard].open("rb") as file:
            file.seek(offset)
            return file.read(length)


def _stream(path: epath.Path) -> Iterator[bytes]:
    try:
        yield from tf.data.TFRecordDataset(os.fspath(path)).as_numpy_iterator()
    except tf.errors.OpError as error:
        reason = re.sub(r"\{\{.*?\}\} | \[Op:.*", "", error.message)
        raise ValueError(f"{path}: {reason}; build or copy the file again") from error
