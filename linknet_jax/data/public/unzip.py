"""Unpacking an archive that came from elsewhere: all of it, or nothing."""

from __future__ import annotations

import errno
import lzma
import os
import pathlib
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable

_BROKEN = (
    zipfile.BadZipFile,  # also a member whose CRC-32 disagrees
    zlib.error,
    lzma.LZMAError,
    EOFError,
    UnicodeDecodeError,
    OSError,  # a seek before the beginning
    RuntimeError,  # encrypted, or compressed in an unknown way
)


def unzip(
    archive: pathlib.Path, folder: pathlib.Path, flatten: bool, room: Callable[[int], None]
) -> int:
    """How many files of the archive were new to the folder; all of them are there afterwards.

    They are unpacked beside the folder, checked (CRC-32), and moved when the last one is whole.

    Args:
      flatten: the archive's own folders are dropped.
      room: called with the number of bytes to be written.

    Raises:
      ValueError: an archive that is broken, or has members that lie outside or collide.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            _check_count(archive, file)
            members = _members(archive, file, flatten)
            new = {x: info for x, info in members.items() if not _is_there(folder / x, info)}
            room(sum(info.file_size for info in new.values()))
            _unpack(file, new, folder, archive.with_name(f"{archive.name}.unpacked"))
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise  # the disk's fault
        raise ValueError(
            f"{archive}: broken archive ({error}); nothing was unpacked, delete the file and "
            f"download it again"
        ) from error
    return len(new)


def _check_count(archive: pathlib.Path, file: zipfile.ZipFile) -> None:
    """zipfile does not compare its members with their number in the end record, modulo 2**16."""
    with archive.open("rb") as raw:
        raw.seek(-22 - len(file.comment), os.SEEK_END)
        told = int.from_bytes(raw.read(12)[10:], "little")
    if told not in (0xFFFF, len(file.infolist()) % 0x10000):
        raise zipfile.BadZipFile(f"{len(file.infolist())} of {told} members are listed")


def _members(
    archive: pathlib.Path, file: zipfile.ZipFile, flatten: bool
) -> dict[str, zipfile.ZipInfo]:
    """Members by the path that they get; without folders and the Macintosh's own files."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in file.infolist():
        name = info.filename
        if re.search(r"^/|[\\:]|(^|/)\.\.(/|$)", name):
            raise ValueError(
                f"{archive}: member {name!r} lies outside the archive's folder; nothing was "
                f"unpacked, do not use this file"
            )
        if info.is_dir() or name.startswith("__MACOSX/"):
            continue
        path = name.rpartition("/")[2] if flatten else name
        if path in members:
            raise ValueError(
                f"{archive}: two members would become {path!r}; nothing was unpacked, set "
                f'"flatten" to false or unpack the file by hand'
            )
        members[path] = info
    return members


def _is_there(path: pathlib.Path, info: zipfile.ZipInfo) -> bool:
    return path.is_file() and path.stat().st_size == info.file_size


def _unpack(
    file: zipfile.ZipFile,
    members: dict[str, zipfile.ZipInfo],
    folder: pathlib.Path,
    aside: pathlib.Path,
) -> None:
    shutil.rmtree(aside, ignore_errors=True)
    try:
        for name, info in members.items():
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            with file.open(info) as source, (aside / name).open("wb") as target:
                shutil.copyfileobj(source, target)
        for name in members:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (aside / name).replace(folder / name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
