"""JSON Lines files, plain or compressed, read a line at a time."""

from __future__ import annotations

import contextlib
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

from etils import epath

from linknet_jax.atomic import replacing

LONGEST = 32 * 2**20  # bytes of a line: an image of 500 boxes with a relation for every pair fits
CHUNK = 2**20


def read_lines(path: epath.Path) -> Iterator[tuple[int, Any, str]]:
    """(number from 1, value, "") of every line that is not blank, or (number, None, what is wrong).

    ValueError for compressed files that are damaged and for lines of more than LONGEST bytes.
    """
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line.decode("utf-8-sig")), ""
        except (ValueError, RecursionError) as wrong:
            yield number, None, f"is no JSON: {wrong}; write the line again"


def _lines(path: epath.Path) -> Iterator[bytes]:
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        if path.suffix == ".gz":
            file = stack.enter_context(gzip.open(file))
        number = 0
        try:
            for number, line in enumerate(_split(file), 1):
                if len(line) > LONGEST:
                    raise ValueError(
                        f"{path}, line {number}: has more than {LONGEST} bytes, beginning with "
                        f"{line[:40]!r}; write one image a line"
                    )
                yield line
        except (EOFError, zlib.error, gzip.BadGzipFile) as wrong:
            raise ValueError(
                f"{path}, after line {number}: is no complete gzip file: {wrong}; copy it again"
            ) from wrong


def _split(file: IO[bytes]) -> Iterator[bytes]:
    """Lines, or what there is of one that is too long; files of a bucket have no readline(size)."""
    rest = b""
    while chunk := file.read(CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > LONGEST:
            break
    if rest:
        yield rest


@contextlib.contextmanager
def line_writer(path: epath.Path) -> Iterator[Callable[[Any], None]]:
    """A function that writes a value a line; the file appears when all are written.

    Compressed where the name ends in .gz; the same values give the same bytes.
    """
    with contextlib.ExitStack() as stack:
        partial = stack.enter_context(replacing(path))
        file = stack.enter_context(partial.open("wb"))
        if path.suffix == ".gz":
            file = stack.enter_context(gzip.GzipFile("", "wb", 6, file, mtime=0))
        yield lambda value: file.write((json.dumps(value, allow_nan=False) + "\n").encode())
