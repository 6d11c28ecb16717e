"""Where a torch file keeps its pickle and its storages: a zip archive, or one after the other."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from typing import BinaryIO

import numpy as np

from linknet_jax.torch_file.records import short
from linknet_jax.torch_file.unpickle import LEGACY_MAGIC, unpickle

MAX_PICKLE = 32 << 20  # bytes; a hundred times the pickle of a detector with its optimiser
LEGACY_PROTOCOL = 1001


def open_zip(stream: BinaryIO, length: int) -> tuple[object, Callable[[str], bytes]]:
    """What the pickle of the archive holds, and a function that loads a storage by key."""
    archive = zipfile.ZipFile(stream)
    members = {member.filename: member for member in archive.infolist()}
    _check_members(archive, length)
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"a zip archive with {len(pickles)} members */data.pkl; torch writes one")
    root = pickles[0].removesuffix("data.pkl")
    if members[pickles[0]].file_size > MAX_PICKLE:
        raise ValueError(f"a pickle of {members[pickles[0]].file_size} bytes; at most {MAX_PICKLE}")
    swap = _big_endian(archive, members.get(f"{root}byteorder"))
    tree, storages = unpickle(io.BytesIO(archive.read(pickles[0])))

    def load(key: str) -> bytes:
        dtype, total = storages[key]
        member = members.get(f"{root}data/{key}")
        if member is None:
            raise ValueError(f"storage {short(key)} is missing in the archive")
        _check_bytes(key, member.file_size, total * dtype.itemsize)
        content = archive.read(member)
        _check_bytes(key, len(content), total * dtype.itemsize)
        return _native(content, dtype, swap)

    return tree, load


def _check_members(archive: zipfile.ZipFile, length: int) -> None:
    members = archive.infolist()
    if len({member.filename for member in members}) < len(members):
        raise ValueError("two members of the archive have the same name")
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"member {short(member.filename)} is compressed; torch only stores")
    if sum(member.file_size for member in members) > length:
        raise ValueError(f"the members claim more than the {length} bytes of the file")


def _big_endian(archive: zipfile.ZipFile, member: zipfile.ZipInfo | None) -> bool:
    """Whether the archive says so; before torch 2.1 nothing was written, on little-endian hosts."""
    order = b"little" if member is None else archive.read(member)
    if order not in (b"little", b"big"):
        raise ValueError(f"byteorder {short(order)}; it is little or big")
    return order == b"big"


def open_legacy(stream: BinaryIO, length: int) -> tuple[object, Callable[[str], bytes]]:
    """As `open_zip`: magic, protocol, host, object and keys as five pickles, then the storages."""
    head = io.BytesIO(stream.read(MAX_PICKLE))
    for rule, expected in (("magic number", LEGACY_MAGIC), ("protocol", LEGACY_PROTOCOL)):
        try:
            found = unpickle(head)[0]
        except Exception as error:  # most often bytes that are no pickle
            raise ValueError(f"no file of torch: {str(error)[:200]}") from error
        if type(found) is not int or found != expected:
            raise ValueError(f"no file of torch: {rule} {short(found)} instead of {expected}")
    unpickle(head)  # sizes of C types; the storages are little-endian on every host
    tree, storages = unpickle(head)
    keys, _ = unpickle(head)
    _check_keys(keys, storages)
    places = _legacy_places(stream, head.tell(), length, {key: storages[key] for key in keys})

    def load(key: str) -> bytes:
        dtype, total = storages[key]
        stream.seek(places[key])
        content = stream.read(total * dtype.itemsize)
        _check_bytes(key, len(content), total * dtype.itemsize)
        return _native(content, dtype, swap=False)

    return tree, load


def _check_keys(keys: object, storages: dict) -> None:
    if type(keys) is not list or any(type(key) is not str for key in keys):
        raise ValueError("the keys of the storages are no list of strings")
    if len(set(keys)) < len(keys) or set(keys) != set(storages):
        odd = sorted(set(keys) ^ set(storages)) or ["twice the same key"]
        raise ValueError(f"storages referred to and stored differ: {short(odd[0])}")


def _legacy_places(
    stream: BinaryIO, at: int, length: int, storages: dict[str, tuple[np.dtype, int]]
) -> dict[str, int]:
    """Where the bytes of each storage start: each follows its number of elements (int64)."""
    places = {}
    for key, (dtype, total) in storages.items():
        stream.seek(at)
        (count,) = struct.unpack("<q", stream.read(8))
        if count != total:
            raise ValueError(f"storage {short(key)} has {count} elements, not {total} as referred")
        places[key] = at + 8
        at += 8 + total * dtype.itemsize
        if at > length:
            raise ValueError(f"storage {short(key)} ends at byte {at} of {length}: truncated")
    if at != length:
        raise ValueError(f"{length - at} bytes follow the last storage")
    return places


def _check_bytes(key: str, found: int, expected: int) -> None:
    if found != expected:
        raise ValueError(f"storage {short(key)} has {found} bytes instead of {expected}")


def _native(content: bytes, dtype: np.dtype, swap: bool) -> bytes:
    """Little-endian like the hosts that JAX runs on, and only 0 and 1 for booleans."""
    if dtype == np.bool_:
        return (np.frombuffer(content, np.uint8) != 0).tobytes()
    return np.frombuffer(content, f"u{dtype.itemsize}").byteswap().tobytes() if swap else content
