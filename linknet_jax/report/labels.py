"""Names of classes inside figures, in any script and of any length."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

COLUMNS = 30  # of text; East Asian letters take two
EM = 0.62 / 72  # inches of a column of text a point high, in a wide typeface


def shorten(text: str, columns: int = COLUMNS) -> str:
    """At most so many columns of text, of printable characters."""
    shown, width = "", 0
    for letter in text:
        width += _columns(letter)
        if width > columns:
            return shown.rstrip() + "…"
        shown += letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}"
    return shown


def room(labels: Iterable[str], points: float) -> float:
    """Inches for the longest label of this size; only the browser knows its typeface."""
    return 0.15 + points * EM * max(map(_columns, labels))


def _columns(text: str) -> int:
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)
