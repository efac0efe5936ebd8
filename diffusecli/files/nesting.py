"""Limit on the nesting of values, for parsers and other recursive code.

Knows lists and mappings.
"""

from __future__ import annotations

from typing import Any

MOST_DEPTH = 100


def require_shallow(data: Any) -> None:
    """Raise `RecursionError` for deep nesting. Call it before recursive code reads the value."""
    level = [data]
    for _ in range(MOST_DEPTH):
        below: list[Any] = []
        for value in level:
            inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
            if not {dict, list, tuple}.isdisjoint(map(type, inner)):  # skip a million texts at once
                below.extend(part for part in inner if isinstance(part, dict | list | tuple))
        if not below:
            return
        level = below
    raise RecursionError
