"""Reads a JSON list of images entry by entry: the files are larger than a laptop's memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from etils import epath

from linknet_jax.data import json_stream


def entries(path: epath.Path) -> Iterator[tuple[int, dict]]:
    """(image id, entry) of every image of a file, with a progress bar by bytes on a terminal.

    Raises ValueError for a file that is missing, no JSON list of objects or that holds no images,
    and for an image id that is missing, no integer or repeated.
    """
    if not path.exists():
        raise ValueError(f"{path} is missing; put Visual Genome's file of that name there")
    seen: set[int] = set()
    for entry in _items(path):
        place = f"{path}, entry {len(seen)}"
        if not isinstance(entry, dict):
            raise ValueError(f"{place}: {entry!r:.80} must be the JSON object of an image")
        image_id = entry.get("image_id")
        if type(image_id) is not int:
            raise ValueError(f"{place}: image_id {image_id!r} must be an integer; add it")
        if image_id in seen:
            raise ValueError(f"{place}: image {image_id} stands twice; remove one of its entries")
        seen.add(image_id)
        yield image_id, entry
    if not seen:
        raise ValueError(f"{path} holds no images: it must be a JSON list; download it again")


def _items(path: epath.Path) -> Iterator[Any]:
    count = 0
    try:
        for item in json_stream.items(path, "item", progress=True):
            yield item
            count += 1
    except json_stream.DamagedError as error:
        raise ValueError(
            f"{path} is damaged {error.place}, after {count} complete images: {error.reason}; "
            "download it again"
        ) from error
