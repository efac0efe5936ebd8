"""Normal form of texts, and texts that UTF-8 cannot encode."""

from __future__ import annotations

import unicodedata
from typing import Any


def canonical(text: str) -> str:
    """The form in which samples and targets are compared: NFC, white space at the ends trimmed."""
    return unicodedata.normalize("NFC", text).strip()


def holds_half_characters(data: Any) -> bool:
    """Whether any text in a value has a lone surrogate, which UTF-8 cannot encode. JSON can escape one."""
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
