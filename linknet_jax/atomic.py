"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from etils import epath


@contextlib.contextmanager
def replacing(path: epath.Path) -> Iterator[epath.Path]:
    """A name beside `path` to write to; it takes `path`'s place if the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f"{path.name}.partial"
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: epath.Path, value: dict | list) -> None:
    """A JSON file; ValueError for NaN, which JSON does not have."""
    text = json.dumps(value, indent=1, allow_nan=False)
    with replacing(path) as partial:
        partial.write_text(text)
