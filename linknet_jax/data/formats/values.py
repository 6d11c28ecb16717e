"""What single values of a JSON data set must be: every function says why not, or "" if it is."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from linknet_jax.data.collection import BACKGROUND, Finding

LARGEST = 2**31 - 1  # the tables hold int32
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80
shown = _REPR.repr


def id_problem(value: Any) -> str:
    """Names of images: integers or strings."""
    known = isinstance(value, str) or type(value) is int
    return "" if known else f"image id {shown(value)} must be an integer or a string"


def integer_problem(value: Any) -> str:
    """Numbers of annotations, classes and positions: integers of 64 bits."""
    known = type(value) is int and -(2**63) <= value < 2**63
    return "" if known else f"{shown(value)} must be an integer"


def size_problem(width: Any, height: Any) -> str:
    """Pixels of an image."""
    if all(type(v) is int and 1 <= v <= LARGEST for v in (width, height)):
        return ""
    return f"width {shown(width)} and height {shown(height)} must be integers from 1 to {LARGEST}"


def box_problem(value: Any, form: str) -> str:
    """Four numbers, which may still be wrong ones; `form` says what they mean."""
    known = isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))
    return "" if known else f"{shown(value)} must be 4 numbers {form}"


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and not LARGEST < abs(value) < math.inf


def check_names(names: Sequence[Any], wrong: Callable[[str], None]) -> tuple[str, ...]:
    """A class list after the background; calls `wrong` for what is no name or stands twice."""
    known: dict[str, None] = {BACKGROUND: None}
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name:
            wrong(f"entry {number}, {shown(name)}, must be a name (the background is implied)")
        elif name in known:
            wrong(f"entry {number}, the name {name!r}, stands twice or is the implied background")
        else:
            known[name] = None
    return tuple(known)


def read_json(path: epath.Path, kind: type) -> Any:
    """A whole small JSON file; ValueError if it is none or holds another kind of value."""
    try:
        value = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON file: {error}; copy it again") from error
    if not isinstance(value, kind):
        name = {dict: "object", list: "list"}[kind]
        raise ValueError(f"{path} must hold a JSON {name}, got {shown(value)}")
    return value


def stored_name(image_id: int | str, file_name: str) -> str:
    """`Annotation.file_name` of a photograph: "" for the usual `{image_id}.jpg`."""
    return "" if file_name == f"{image_id}.jpg" else file_name


def error(path: epath.Path, where: str, message: str) -> Finding:
    """A finding because of which the image or the file is not used."""
    return Finding("error", str(path), where, message)
