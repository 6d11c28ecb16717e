"""Reads a large JSON file value by value: Visual Genome's are larger than a laptop's memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import ijson
import numpy as np
from etils import epath
from tqdm import tqdm

DEEPEST = 100  # ijson's memory grows with the square of the depth; data sets have a few levels
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_OTHERS = bytes(set(range(256)) - set(b'"[]{}'))
_STEPS = np.zeros(256, np.int64)  # of the depth, by byte
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1


class DamagedError(ValueError):
    """A file that is no JSON.

    Attributes:
      place: at or shortly before which byte of how many.
      reason: what is wrong there.
    """

    def __init__(self, path: epath.Path, place: str, reason: str):
        super().__init__(f"{path} is damaged {place}: {reason}")
        self.place, self.reason = place, reason


def items(path: epath.Path, prefix: str, progress: bool = False) -> Iterator[Any]:
    """The values at ijson's `prefix`, in the file's order.

    `progress` shows a bar by bytes on a terminal. Raises DamagedError.
    """
    yield from _read(path, lambda file: ijson.items(file, prefix, use_float=True), progress)


def pairs(path: epath.Path, progress: bool = False) -> Iterator[tuple[str, Any]]:
    """(key, value) of a file that is one JSON object, in its order; nothing of another file.

    `progress` shows a bar by bytes on a terminal. Raises DamagedError.
    """
    yield from _read(path, lambda file: ijson.kvitems(file, "", use_float=True), progress)


def _read(
    path: epath.Path, values: Callable[[BinaryIO], Iterator[Any]], progress: bool
) -> Iterator[Any]:
    size = path.stat().length
    hidden = None if progress else True
    with (
        path.open("rb") as file,
        tqdm.wrapattr(_Shallow(file), "read", size, desc=path.name, disable=hidden) as stream,
    ):
        try:
            yield from values(stream)
        except (ijson.JSONError, UnicodeError, RecursionError) as error:
            place = f"at or shortly before byte {file.tell()} of {size}"
            raise DamagedError(path, place, " ".join(str(error).split())) from error


class _Shallow:
    """A file whose `read` raises RecursionError where brackets are nested deeper than DEEPEST."""

    def __init__(self, file: BinaryIO):
        self._file, self._depth, self._quoted, self._escape = file, 0, 0, b""

    def read(self, size: int = -1) -> bytes:
        """As the file's."""
        data = self._file.read(size)
        text = _ESCAPE.sub(b"", self._escape + data)
        self._escape = b"\\" if text.endswith(b"\\") else b""  # of the next byte
        codes = np.frombuffer(text.translate(None, _OTHERS), np.uint8)
        quotes = self._quoted + np.cumsum(codes == ord('"'))
        depths = self._depth + np.cumsum(np.where(quotes % 2, 0, _STEPS[codes]))
        if depths.max(initial=0) > DEEPEST:
            raise RecursionError(f"it is nested deeper than {DEEPEST} levels")
        if len(codes):
            self._depth, self._quoted = int(depths[-1]), int(quotes[-1] % 2)
        return data
