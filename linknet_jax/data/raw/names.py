"""Cleaning of the names that annotators typed, and the lists of names that mean the same."""

from __future__ import annotations

import string
from collections.abc import Mapping

from etils import epath

# What Xu et al. 2017 make of each character; capitals beyond ASCII stay as they are.
_SPELLINGS = {"½": "half", "¢": "cent", "°": " degree", "ç": "c", "û": "u", "é": "e", "è": "e"}
_REMOVED = dict.fromkeys("—™…" + string.punctuation, "")
_LOWER = dict(zip(string.ascii_uppercase, string.ascii_lowercase, strict=True))
_CHARACTERS = str.maketrans(_SPELLINGS | _REMOVED | _LOWER)


def clean(name: str) -> str:
    """Lower case without punctuation; spaces inside stay, as the alias lists expect them."""
    return name.strip(" ").translate(_CHARACTERS)


def read_aliases(path: epath.Path) -> dict[str, str]:
    """What each name of a comma-separated list stands for: the first one of its line.

    A first name that an earlier line explains stands for what that line says; of several lines
    that name an alias the last holds. Raises ValueError if the file is no UTF-8 text.
    """
    try:
        lines = path.read_text().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text: {error}; download the list again") from error
    meaning: dict[str, str] = {}
    for line in lines:
        names = line.split(",")
        target = meaning.get(names[0], names[0])
        meaning |= dict.fromkeys(names, target)
    meaning.pop("", None)
    return meaning


class Names:
    """Numbers the distinct cleaned names in the order of their first appearance.

    Attributes:
      spelled: the names; a number indexes it.
      explained: how many aliases are known.
    """

    def __init__(self, aliases: Mapping[str, str]):
        self.spelled: list[str] = []
        self.explained = len(aliases)
        self._aliases = aliases
        self._numbers: dict[str, int] = {}
        self._raw: dict[str, int] = {}

    def number(self, raw: str) -> int:
        """The number of a name as an annotator typed it."""
        if raw not in self._raw:
            cleaned = clean(raw)
            name = self._aliases.get(cleaned, cleaned)
            if name not in self._numbers:
                self._numbers[name] = len(self.spelled)
                self.spelled.append(name)
            self._raw[raw] = self._numbers[name]
        return self._raw[raw]
