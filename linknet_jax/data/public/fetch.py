"""One file from one address: resumed, retried, and never taken for whole when it is not."""

from __future__ import annotations

import email.utils
import json
import os
import pathlib
import re
import shutil
import time
import urllib.request
from collections.abc import Callable
from urllib.parse import urlsplit

import requests
from tqdm import tqdm

CHUNK = 1 << 15  # bytes; what is lost of a connection that breaks
TIMEOUT = (10.0, 60.0)  # seconds without a connection, without a byte
LONGEST_PAUSE = 300.0  # seconds, whatever the server asks for
BUSY = (408, 425, 429)  # and 5xx: the same request may succeed later

_GONE = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


class UnavailableError(Exception):
    """This address does not give the file; another may."""


class _TransientError(Exception):
    """Another attempt may succeed, after the pause (seconds) that the server asks for."""

    def __init__(self, message: str, pause: float = 0.0):
        super().__init__(message)
        self.pause = pause


def fetch(
    url: str,
    part: pathlib.Path,
    size: int | None,
    room: Callable[[int], None],
    *,
    attempts: int,
    pause: float,
) -> None:
    """The whole body of an address in the file `part`, going on where `part` ends if it may.

    It may if `part` came from this address and the server says that its file is still the same
    (RFC 9110: If-Range with a strong ETag or a date). Attempts that get farther do not count.

    Args:
      size: of the whole in bytes, if known; an address that offers another is not read.
      room: called with the number of bytes to be written, as far as it is known.
      attempts: in a row without progress before the address is given up.
      pause: seconds before the second attempt; doubles from one to the next.

    Raises:
      UnavailableError: the message says what happened.
    """
    if url.startswith("file:"):
        return _copy(url, part, room)
    farthest, failures = length(part) if _origin(part, url) else 0, 0
    while True:
        try:
            return _attempt(url, part, size, room)
        except _TransientError as error:
            failures = 1 if length(part) > farthest else failures + 1
            farthest = max(farthest, length(part))
            if failures >= attempts:
                raise UnavailableError(
                    f"{error} (attempts without progress: {failures})"
                ) from error
            time.sleep(min(LONGEST_PAUSE, max(error.pause, pause * 2 ** (failures - 1))))


def length(part: pathlib.Path) -> int:
    """Bytes that are there already."""
    return part.stat().st_size if part.exists() else 0


def forget(part: pathlib.Path) -> None:
    """Removes a part and what is known of its origin."""
    part.unlink(missing_ok=True)
    _origin_file(part).unlink(missing_ok=True)


def keep(part: pathlib.Path, target: pathlib.Path) -> None:
    """Gives a complete part its name, which no incomplete file ever has."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)
    _origin_file(part).unlink(missing_ok=True)


def _attempt(url: str, part: pathlib.Path, size: int | None, room: Callable[[int], None]) -> None:
    origin = _origin(part, url)
    offset = length(part) if origin else 0
    if offset and offset == origin["bytes"]:
        return
    headers = {"Accept-Encoding": "identity"}  # lengths and ranges are those of the file itself
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": origin["validator"]}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            _check_status(response, part, offset)
            if response.status_code == 206:
                _check_same(response, part, origin, offset)
            else:
                origin = {"url": url, "validator": _validator(response)}
                offset, origin["bytes"] = 0, _total(response, size)
            total = origin["bytes"]
            room((total or 0) - offset)
            _write(response, part, offset, origin)
    except _GONE as error:
        raise _TransientError(f"the connection failed ({error})") from error
    except requests.RequestException as error:
        raise UnavailableError(str(error)) from error
    if total is not None and length(part) != total:
        raise _TransientError(f"the connection ended at {length(part)} of {total} bytes")


def _check_status(response: requests.Response, part: pathlib.Path, offset: int) -> None:
    code = response.status_code
    said = f"HTTP {code} {response.reason}"
    if code == 416 and offset:
        forget(part)
        raise _TransientError(f"{said}: the part does not fit the server's file")
    if code in BUSY or code >= 500:
        raise _TransientError(said, _retry_after(response))
    if code != 200 and not (code == 206 and offset):
        raise UnavailableError(said)
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise UnavailableError("the server sent a web page instead of the file")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise UnavailableError("the server sent the file in another encoding")


def _check_same(response: requests.Response, part: pathlib.Path, origin: dict, offset: int) -> None:
    """Whether the rest really continues the part: not every server heeds If-Range."""
    place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    begins = place is not None and int(place[1]) == offset
    same_size = begins and (place[2] == "*" or origin["bytes"] in (None, int(place[2])))
    if not same_size or _validator(response) not in (None, origin["validator"]):
        forget(part)
        raise _TransientError("the server's file changed between two attempts")


def _total(response: requests.Response, size: int | None) -> int | None:
    given = response.headers.get("Content-Length")
    if given is None or "Transfer-Encoding" in response.headers:
        return size
    if size is not None and int(given) != size:
        raise UnavailableError(f"the server offers {given} bytes instead of {size}")
    return int(given)


def _write(response: requests.Response, part: pathlib.Path, offset: int, origin: dict) -> None:
    if not offset:
        forget(part)
        part.touch()  # before its origin: a part is empty when it gets one
        _origin_file(part).write_text(json.dumps(origin), encoding="utf-8")
    bar = tqdm(
        desc=part.stem,
        total=origin["bytes"],
        initial=offset,
        unit="B",
        unit_scale=True,
        disable=None,  # where no terminal shows it
    )
    with bar, part.open("ab") as file:
        for chunk in response.iter_content(CHUNK):
            bar.update(file.write(chunk))


def _copy(url: str, part: pathlib.Path, room: Callable[[int], None]) -> None:
    source = pathlib.Path(urllib.request.url2pathname(urlsplit(url).path))
    if not source.is_file():
        raise UnavailableError("there is no such file")
    forget(part)
    room(length(source))
    shutil.copyfile(source, part)


def _validator(response: requests.Response) -> str | None:
    """What names this version of the file, fit for If-Range: no weak ETag."""
    tag = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified") if tag.startswith("W/") else tag


def _retry_after(response: requests.Response) -> float:
    """Seconds; the header has either their number or a date."""
    value = response.headers.get("Retry-After", "")
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


def _origin_file(part: pathlib.Path) -> pathlib.Path:
    return part.with_name(f"{part.name}.json")


def _origin(part: pathlib.Path, url: str) -> dict | None:
    """What is known of a part that this address may complete."""
    try:
        origin = json.loads(_origin_file(part).read_text(encoding="utf-8"))
        return origin if origin["url"] == url and origin["validator"] else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
