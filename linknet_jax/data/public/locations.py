"""The list of public files: where each lies, how large it is and what it may be used for."""

from __future__ import annotations

import dataclasses
import difflib
import json
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

OWN_LIST = pathlib.Path(__file__).with_name("locations.json")


@dataclasses.dataclass(frozen=True)
class Item:
    """One file of the list.

    Attributes:
      name: what a user asks for, as group/part.
      file: where it is kept, relative to the folder of downloads.
      urls: the mirrors, in the order in which they are tried; empty = no direct link is known.
      bytes, sha256: of the whole file; None = not known.
      licence: of the contents.
      unzip: the folder that its members go to, relative likewise; None = no archive.
      flatten: the archive's own folders are dropped.
      note: where the figures come from, what to do by hand.
    """

    name: str
    file: str
    urls: tuple[str, ...]
    bytes: int | None
    sha256: str | None
    licence: str
    unzip: str | None
    flatten: bool = False
    note: str = ""


def load_locations(path: str | pathlib.Path | None = None) -> dict[str, Item]:
    """The files that a list names; None = the list of this package.

    Raises:
      ValueError: a list that cannot be read, or is malformed; the message names the field.
    """
    path = pathlib.Path(path or OWN_LIST)
    files = _read(path)
    locations = {name: _item(path, name, entry) for name, entry in files.items()}
    owners: dict[str, str] = {}
    for item in locations.values():
        if (owner := owners.setdefault(item.file, item.name)) != item.name:
            raise _malformed(path, item.name, "file", item.file, f"another file than {owner}'s")
    return locations


def choose(names: Sequence[str], locations: dict[str, Item]) -> list[Item]:
    """The files of these names, each once; the name of a group means all of its files.

    Raises:
      ValueError: a name that is not in the list; the message gives the nearest.
    """
    chosen: dict[str, Item] = {}
    for name in names:
        found = {x: item for x, item in locations.items() if f"{x}/".startswith(f"{name}/")}
        if not found:
            known = sorted({*locations, *(key.partition("/")[0] for key in locations)})
            near = difflib.get_close_matches(name, known, cutoff=0.4) or known
            raise ValueError(f"no public file is named {name!r}; nearest: {', '.join(near)}")
        chosen |= found
    return list(chosen.values())


def describe(locations: dict[str, Item]) -> str:
    """What can be downloaded: names, sizes, licences and addresses, for a user to read."""
    return "\n\n".join(_lines(item) for item in locations.values())


def readable(count: int | None) -> str:
    """A number of bytes for a user: 9731705982 to "9.73 GB"."""
    if count is None:
        return "size not known"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.2f} {unit}"
    return f"{count} bytes"


def _lines(item: Item) -> str:
    known = "with checksum" if item.sha256 else "checksum not known"
    unpacked = f", unpacked into {item.unzip}" if item.unzip else ""
    lines = [
        f"{item.name}: {readable(item.bytes)}, {known}",
        f"file: {item.file}{unpacked}",
        f"licence: {item.licence}",
        *(item.urls or ["no direct link is known"]),
        *([f"note: {item.note}"] if item.note else []),
    ]
    return "\n    ".join(lines)


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: no readable JSON ({error}); mend --locations") from error
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not files:
        raise ValueError(
            f'{path}: needs the form {{"files": {{NAME: {{"file": ..., "urls": ...}}}}}} with at '
            f"least one name; start from a copy of {OWN_LIST}"
        )
    return files


def _item(path: pathlib.Path, name: str, entry: Any) -> Item:
    if not isinstance(entry, dict):
        raise _malformed(path, name, "", entry, "an object")
    if unknown := entry.keys() - _RULES.keys():
        allowed = f"one of the fields {', '.join(_RULES)}"
        raise _malformed(path, name, min(unknown), entry[min(unknown)], allowed)
    for field, (holds, rule) in _RULES.items():
        if field not in entry and field not in ("flatten", "note"):
            raise _malformed(path, name, field, None, f"given: {rule}")
        if field in entry and not holds(entry[field]):
            raise _malformed(path, name, field, entry[field], rule)
    sha256 = entry["sha256"] and entry["sha256"].lower()
    return Item(name=name, **(entry | {"urls": tuple(entry["urls"]), "sha256": sha256}))


def _malformed(path: pathlib.Path, name: str, field: str, value: Any, rule: str) -> ValueError:
    place = ".".join(["files", name, *([field] if field else [])])
    return ValueError(f"{path}: {place} is {value!r}, must be {rule}; mend the file")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_inside(value: Any) -> bool:
    """Whether a path stays within the folder of downloads."""
    return _is_text(value) and not re.search(r"^/|[\\:\0]|(^|/)\.\.(/|$)", value)


def _is_file(value: Any) -> bool:
    return _is_inside(value) and pathlib.PurePosixPath(value).name != "" and value[-1] not in "/."


def _is_urls(value: Any) -> bool:
    pattern = r"(https?://[^/\s]|file:///)\S*"
    return isinstance(value, list) and all(_is_text(x) and re.fullmatch(pattern, x) for x in value)


def _is_count(value: Any) -> bool:
    return value is None or (type(value) is int and value > 0)


def _is_sha256(value: Any) -> bool:
    return value is None or (_is_text(value) and bool(re.fullmatch("[0-9a-fA-F]{64}", value)))


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "file": (_is_file, "a relative path without '..'"),
    "urls": (_is_urls, "a list of http://, https:// or file:/// addresses"),
    "bytes": (_is_count, "a positive whole number or null"),
    "sha256": (_is_sha256, "64 hexadecimal digits or null"),
    "licence": (_is_text, "text"),
    "unzip": (lambda value: value is None or _is_inside(value), "a relative folder or null"),
    "flatten": (lambda value: isinstance(value, bool), "true or false"),
    "note": (_is_text, "text"),
}
