"""Public files, fetched, checked and unpacked: `python -m linknet_jax.data download`."""

from __future__ import annotations

import functools
import hashlib
import pathlib
import shutil
import zipfile
from collections.abc import Sequence

from linknet_jax.data.public.fetch import UnavailableError, fetch, forget, keep, length
from linknet_jax.data.public.locations import Item, choose, readable
from linknet_jax.data.public.unzip import unzip


def download(
    names: Sequence[str],
    folder: str | pathlib.Path,
    locations: dict[str, Item],
    *,
    attempts: int = 5,
    pause: float = 1.0,
) -> None:
    """Public files in a local folder, complete and unpacked; what is there already is kept.

    An interrupted download goes on where it stopped when this is called again.

    Args:
      names: of files or groups of `locations`.
      attempts: in a row without progress before a mirror is given up.
      pause: seconds before the second attempt; doubles from one to the next.

    Raises:
      ValueError: an unknown name, too little disk space, or files that could not be had from any
        mirror; the others are there nevertheless.
    """
    if "://" in str(folder):
        raise ValueError(f"--dir {folder}: must be a local folder; copy the files from there")
    items = choose(names, locations)
    folder = _make(pathlib.Path(folder))
    missing = [item for item in items if not _is_finished(item, folder)]
    _check_room(folder, sum(_needs(item, folder) for item in missing), "everything asked for")
    problems = []
    for item in items:
        try:
            if item in missing:
                _obtain(item, folder, attempts, pause)
            _unpack(item, folder)
        except ValueError as error:
            problems.append(f"{item.name}: {error}")
        except OSError as error:
            problems.append(f"{item.name}: cannot write ({error}); mend the disk, then run again")
    if problems:
        raise ValueError("\n".join(problems))


def _make(folder: pathlib.Path) -> pathlib.Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--dir {folder}: cannot be made ({error}); choose another") from error
    return folder


def _is_finished(item: Item, folder: pathlib.Path) -> bool:
    target = folder / item.file
    if not target.is_file():
        return False
    if (wrong := _difference(item, target)) is None:
        print(f"{item.name}: {target} is there already")
        return True
    print(f"{item.name}: {target} {wrong}; it is fetched again")
    return False


def _needs(item: Item, folder: pathlib.Path) -> int:
    """Bytes that a file takes as far as they are known; unpacked it is at least as large."""
    size = item.bytes or 0
    return max(0, size - length(_part(item, folder))) + (size if item.unzip else 0)


def _obtain(item: Item, folder: pathlib.Path, attempts: int, pause: float) -> None:
    target, part = folder / item.file, _part(item, folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for url in item.urls:
        room = functools.partial(_check_room, folder, what=url)
        try:
            fetch(url, part, item.bytes, room, attempts=attempts, pause=pause)
            if (wrong := _difference(item, part)) is not None:
                forget(part)
                raise UnavailableError(f"what came {wrong}; it was removed")
        except UnavailableError as error:
            failures.append(f"\n    {url}: {error}")
            continue
        digest = _sha256(part)
        keep(part, target)
        print(f"{item.name}: {target}, {readable(length(target))}, sha256 {digest}")
        return
    raise ValueError(_remedy(item, target, failures))


def _remedy(item: Item, target: pathlib.Path, failures: Sequence[str]) -> str:
    tried = f"no mirror gave the file:{''.join(failures)}\n " if failures else "no link is known;"
    note = f" ({item.note})" if item.note else ""
    return (
        f"{tried} run again later (what has come is kept), add a mirror to the list "
        f"(--locations), or put the file at {target} by hand{note}"
    )


def _difference(item: Item, path: pathlib.Path) -> str | None:
    """What is wrong with a file that should be this item; None = as far as known, nothing."""
    if item.bytes is not None and length(path) != item.bytes:
        return f"has {length(path)} bytes instead of {item.bytes}"
    if item.sha256 is not None and (digest := _sha256(path)) != item.sha256:
        return f"has sha256 {digest} instead of {item.sha256}"
    if item.unzip is not None and not zipfile.is_zipfile(path):
        return "is no whole zip archive"
    return None


def _unpack(item: Item, folder: pathlib.Path) -> None:
    if item.unzip is None:
        return
    target = folder / item.unzip
    room = functools.partial(_check_room, folder, what=f"what {item.file} holds")
    try:
        new = unzip(folder / item.file, target, item.flatten, room)
    except ValueError as error:
        raise ValueError(f"{error} (it came from one of {', '.join(item.urls)})") from error
    print(f"{item.name}: {new} new files in {target}")


def _check_room(folder: pathlib.Path, needed: int, what: str) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{folder}: {what} needs {readable(needed)} more, {readable(free)} are free, "
            f"{readable(needed - free)} are missing; make room or choose another --dir"
        )


def _part(item: Item, folder: pathlib.Path) -> pathlib.Path:
    return folder / f"{item.file}.part"


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
