"""File names for groups of answers, from the values that make a group: safe, readable, no two alike.

Knows texts, not what they name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

_MOST_NOTICES = 10
_LONGEST_NAME = 180  # bytes: what is written beside a file while it is made has a longer one


def file_names(groups: Sequence[tuple[str, ...]]) -> list[str]:
    """A file name for each group, from its values: safe, readable, no two alike.

    >>> file_names([("60",), ("60+",), ("< 18",), ("-5",), ("Köln",), ("東京",), ("9/10?",), ("9 10",)])
    ['60.json', '60-plus.json', 'under-18.json', 'minus-5.json', 'koln.json', '東京.json', '9-10.json', '9-10-2.json']
    """
    names: dict[str, None] = {}
    numbers: dict[str, int] = {}
    for values in groups:
        stem = name = _cut("_".join(_slug(value) for value in values), _LONGEST_NAME)
        while f"{name}.json" in names:
            numbers[stem] = numbers.get(stem, 1) + 1
            name = f"{stem}-{numbers[stem]}"
        names[f"{name}.json"] = None
    return list(names)


def name_notices(groups: Iterable[tuple[str, ...]], paths: Iterable[Path | None]) -> list[str]:
    """Which group a file is of, where its name only differs from another's by a number."""
    plain = [(key, path) for key, path in zip(groups, paths, strict=True) if path is not None and key]
    numbered = [
        f"{path.name}: {', '.join(key)}" for key, path in plain if path.stem != _cut("_".join(map(_slug, key)), _LONGEST_NAME)
    ]
    more = len(numbered) - _MOST_NOTICES
    return [*numbered[:_MOST_NOTICES], *([f"and {more} more files with a number"] if more > 0 else [])]


_SPOKEN = {
    "+": "plus",
    "<": "under",
    ">": "over",
    "≤": "up-to",
    "≥": "from",
    "%": "percent",
    "&": "and",
    "#": "sharp",
    "$": "dollar",
    "€": "euro",
    "=": "equals",
}


def _slug(text: str) -> str:
    """A value as a part of a file name: letters and digits, signs that distinguish values as words.

    >>> _slug("C++"), _slug("< 1 %"), _slug("-3"), _slug("18-24"), _slug("?")
    ('c-plus-plus', 'under-1-percent', 'minus-3', '18-24', 'group')
    """
    text = re.sub(r"^[-−](?=[.\d])", "minus ", text)
    spoken = "".join(f" {_SPOKEN[sign]} " if sign in _SPOKEN else sign for sign in text)
    plain = "".join(sign for sign in unicodedata.normalize("NFKD", spoken.casefold()) if not unicodedata.combining(sign))
    return _cut(re.sub(r"[\W_]+", "-", unicodedata.normalize("NFC", plain)).strip("-"), 60).strip("-") or "group"


def _cut(text: str, most: int) -> str:
    """As much of a text as fits into so many bytes."""
    return text.encode()[:most].decode(errors="ignore")
