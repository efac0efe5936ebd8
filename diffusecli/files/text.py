"""Texts as they are compared, and those that UTF-8 cannot hold."""

from __future__ import annotations

import unicodedata
from typing import Any


def canonical(text: str) -> str:
    """What is compared when samples are matched with targets: NFC, white space at the ends trimmed."""
    return unicodedata.normalize("NFC", text).strip()


def holds_half_characters(data: Any) -> bool:
    """Whether any text in a value is not to be written in UTF-8: JSON can spell out one half of a surrogate pair."""
    waiting = [data]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value)
            waiting.extend(value.values())
        elif isinstance(value, list | tuple | set):
            waiting.extend(value)
        elif isinstance(value, str) and any("\ud800" <= sign <= "\udfff" for sign in value):
            return True
    return False
