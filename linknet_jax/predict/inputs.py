"""The photographs and videos that a command line names."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence

from etils import epath

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
WILD = "*?["


def find(arguments: Sequence[str], output: epath.Path) -> list[epath.Path]:
    """The files that arguments name, each once: files, folders, patterns (`photos/**/*.jpg`).

    Of a folder, and of the folders in it, those with a suffix of IMAGES or VIDEOS are taken, by
    name; hidden ones, linked folders and what lies in `output` are left out. ValueError for an
    argument that is nothing, for two files of which the graphs would have one name, and for a file
    in `output`.
    """
    found = {}
    for argument in arguments:
        files = list(_files(argument, output))
        if not files:
            raise ValueError(f"{argument}: no photograph or video there; the suffixes are {_kinds}")
        for path in files:
            found.setdefault(_key(path), path)
    _check_stems(found.values())
    for path in found.values():
        if os.path.dirname(_key(path)) == os.path.realpath(output):
            raise ValueError(f"{path} lies in --output {output}; name another folder for graphs")
    return list(found.values())


def is_video(path: epath.Path) -> bool:
    """Whether its name is that of a video."""
    return path.suffix.lower() in VIDEOS


def _key(path: epath.Path) -> str:
    """One for all ways to a file through linked folders; links to files are files."""
    if not _local(path):
        return str(path)
    return os.path.join(os.path.realpath(path.parent), path.name)


def _files(argument: str, output: epath.Path) -> Iterator[epath.Path]:
    path = epath.Path(argument)
    if path.is_dir():
        yield from _folder(path, output)
    elif path.exists():
        yield path
    elif not set(argument) & set(WILD):
        raise ValueError(f"{argument}: no such file or folder; check the path")
    else:
        for match in _matches(argument):
            yield from _files(match, output)


def _folder(folder: epath.Path, output: epath.Path) -> Iterator[epath.Path]:
    if os.path.realpath(folder) == os.path.realpath(output):
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.suffix.lower() in IMAGES + VIDEOS:
            yield path
        elif path.is_dir() and not os.path.islink(path):
            yield from _folder(path, output)


def _matches(pattern: str) -> list[str]:
    if _local(pattern):
        return sorted(glob.glob(pattern, recursive=True))
    folder, _, name = pattern.rpartition("/")  # of a bucket, whose folders are not searched
    return sorted(map(str, epath.Path(folder).glob(name)))


def _local(path: str | os.PathLike) -> bool:
    return "://" not in os.fspath(path)


def _check_stems(paths: Iterable[epath.Path]) -> None:
    stems: dict[str, epath.Path] = {}
    for path in paths:
        first = stems.setdefault(path.stem.casefold(), path)  # some file systems ignore case
        if first != path:
            raise ValueError(
                f"{first} and {path} have one name, by which graphs and pictures are told apart; "
                "rename one, or run them one by one with another --output each"
            )


_kinds = ", ".join(IMAGES + VIDEOS)
