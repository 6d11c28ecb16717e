"""Tensors of a file that torch saved, read without torch and without running anything inside it.

A torch file is a pickle that names functions to call, and its storages as raw bytes: members of a
zip archive since torch 1.6, before that behind the pickles (`_legacy_save` of torch.serialization).
"""

from __future__ import annotations

import io
import math
from typing import BinaryIO, NamedTuple

import numpy as np
from etils import epath

from linknet_jax.torch_file.containers import open_legacy, open_zip
from linknet_jax.torch_file.leaves import flatten
from linknet_jax.torch_file.records import Tensor, describe, short


class TorchFile(NamedTuple):
    """The content of a file: tensors by dotted name, and what was left out, described."""

    tensors: dict[str, np.ndarray]
    ignored: dict[str, str]


def read_tensors(path: epath.Path) -> dict[str, np.ndarray]:
    """The tensors of a torch-saved file by dotted name (`state_dict.conv1.weight`).

    They are read-only; tensors that share a storage in the file share it here. NaN and infinity are
    returned as they are. Raises ValueError, as `read_file` does.
    """
    return read_file(path).tensors


def read_file(path: epath.Path) -> TorchFile:
    """Tensors and ignored leaves (numbers, strings, None, lists, numpy objects) of a torch file.

    Raises ValueError with the file, the value and the rule for whatever is no dictionary of dense
    tensors, names anything beyond what such a dictionary needs, or does not fit its own bytes.
    """
    with path.open("rb") as stream:
        try:
            return _read(stream)
        except Exception as error:  # whatever a hostile file provokes in pickle and zipfile
            rule = "" if type(error) is ValueError else "the file is damaged: "
            raise ValueError(
                f"{path}: {rule}{str(error)[:500]}; expected is a dictionary of dense tensors, "
                "as torch.save(model.state_dict(), FILE) writes it"
            ) from error


def _read(stream: BinaryIO) -> TorchFile:
    length = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    head = stream.read(512)
    stream.seek(0)
    if head[257:262] == b"ustar":
        raise ValueError("the tar format of torch 0.1 is not supported; save again with torch 0.3+")
    tree, load = (open_zip if head[:2] == b"PK" else open_legacy)(stream, length)
    tensors, ignored, buffers = {}, {}, {}
    for name, leaf in flatten(tree).items():
        if type(leaf) is not Tensor:
            ignored[name] = describe(leaf)
            continue
        try:
            key = leaf.storage.key
            if key not in buffers:
                buffers[key] = load(key)
            tensors[name] = _view(leaf, buffers[key], length)
        except ValueError as error:
            raise ValueError(f"tensor {short(name)}: {error}") from error
    return TorchFile(tensors, ignored)


def _view(tensor: Tensor, content: bytes, length: int) -> np.ndarray:
    """The read-only array that a tensor shows of its storage."""
    storage, offset, size, stride = tensor
    if 0 in size:
        return np.empty(size, storage.dtype)
    end = offset + 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if end > storage.count:
        raise ValueError(
            f"offset {offset}, size {size}, stride {stride} reach element {end} of a storage of "
            f"{storage.count}"
        )
    width = storage.dtype.itemsize
    if math.prod(size) * width > length:  # an expanded tensor, which a copy would fill
        raise ValueError(f"size {size} is more than the {length} bytes of the file")
    # The stride of a single element may be anything.
    steps = [step * width if n > 1 else 0 for n, step in zip(size, stride, strict=True)]
    start = (storage.start + offset) * width
    return np.ndarray(size, storage.dtype, content, start, steps)
