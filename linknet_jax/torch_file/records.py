"""What may occur in the pickle of a torch file, as inert records: nothing of it does anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import ml_dtypes
import numpy as np

MAX_RANK = 64

STORAGES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}


class Storage(NamedTuple):
    """Elements `start` to `start + count` of the stored `total` under `key`."""

    key: str
    dtype: np.dtype
    total: int
    start: int
    count: int


class Tensor(NamedTuple):
    """A view of a storage, in elements."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __setstate__(self, state: object) -> None:
        """Parameters of torch 0.3 set requires_grad and hooks here: nothing is kept."""


class Pairs(NamedTuple):
    """An OrderedDict of Python 2; the list is not copied, since a pickle may repeat it."""

    items: list


class StateDict(dict):
    """An OrderedDict, which is what modules save."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Module.state_dict sets `_metadata` here: nothing is kept."""


class NumpyObject:
    """Stands for anything of numpy: what a trainer kept beside the weights. Never rebuilt."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Nothing is kept."""


class _Parameter:
    """Torch 0.3 pickles a Parameter as a new object of this class around its tensor."""

    __slots__ = ()

    def __new__(cls, data: object, *_: object) -> Tensor:
        return _rebuild_parameter(data)

    def __setstate__(self, state: object) -> None:
        """Keeps BUILD from writing on the class."""


class _Function:
    """A function on which a pickle cannot set attributes."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable):
        self._call = call

    def __call__(self, *arguments: object) -> object:
        return self._call(*arguments)

    def __setstate__(self, state: object) -> None:
        raise ValueError("the pickle sets attributes of a function")


def _ordered_dict(items: list | None = None) -> StateDict | Pairs:
    if items is None:
        return StateDict()
    if type(items) is not list:
        raise ValueError("OrderedDict is called with something that is no list")
    return Pairs(items)


def _rebuild_tensor(storage, offset, size, stride, *rest) -> Tensor:
    """`rest` is (requires_grad, hooks, metadata) or less; metadata are conjugate and negative."""
    if type(storage) is not Storage or any(type(item) is not tuple for item in (size, stride)):
        raise ValueError("a tensor needs a storage, a tuple of sizes and a tuple of strides")
    if len(size) != len(stride) or len(size) > MAX_RANK:
        raise ValueError(f"{len(size)} sizes, {len(stride)} strides; both at most {MAX_RANK}")
    for number in (offset, *size, *stride):
        if type(number) is not int or number < 0:
            raise ValueError(f"offset, size or stride {short(number)} is no integer >= 0")
    if len(rest) > 2 and rest[2]:
        raise ValueError("a conjugate or negative view; resolve it before saving")
    return Tensor(storage, offset, size, stride)


def _rebuild_parameter(data: object, *_: object) -> Tensor:
    if type(data) is not Tensor:
        raise ValueError("a Parameter holds no tensor")
    return data


def _numpy_object(*_: object) -> NumpyObject:
    return NumpyObject()


GLOBALS = {
    "collections.OrderedDict": _Function(_ordered_dict),
    "torch._utils._rebuild_tensor": _Function(_rebuild_tensor),
    "torch._utils._rebuild_tensor_v2": _Function(_rebuild_tensor),
    "torch._utils._rebuild_parameter": _Function(_rebuild_parameter),
    "torch.nn.parameter.Parameter": _Parameter,
    "numpy.core.multiarray.scalar": _Function(_numpy_object),
    "numpy._core.multiarray.scalar": _Function(_numpy_object),
    "numpy.core.multiarray._reconstruct": _Function(_numpy_object),
    "numpy._core.multiarray._reconstruct": _Function(_numpy_object),
    "numpy.ndarray": _Function(_numpy_object),
    "numpy.dtype": _Function(_numpy_object),
    "_codecs.encode": _Function(_numpy_object),  # the bytes of a numpy scalar in protocol 2
}


def describe(leaf: object) -> str:
    """What a leaf is, in a few words."""
    if type(leaf) is Tensor:
        return "a tensor"
    if type(leaf) is NumpyObject:
        return "an object of numpy"
    if type(leaf) in (list, tuple, set, frozenset):
        return f"{type(leaf).__name__} of {len(leaf)}"
    return f"{type(leaf).__name__} {short(leaf)}"


def short(value: object) -> str:
    """For messages: containers of a hostile file may take forever to print."""
    if isinstance(value, str | bytes):
        return repr(value[:80])
    return repr(value) if type(value) in (int, float, bool, type(None)) else type(value).__name__
