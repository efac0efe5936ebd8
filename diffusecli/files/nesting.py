"""How deeply values may be nested. Parsers and whatever else works by recursion meet no deeper ones.

Knows lists and mappings.
"""

from __future__ import annotations

from typing import Any

MOST_DEPTH = 100


def require_shallow(data: Any) -> None:
    """Raises `RecursionError` before anything that works by recursion gets hold of the value."""
    level = [data]
    for _ in range(MOST_DEPTH):
        below: list[Any] = []
        for value in level:
            inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
            if not {dict, list, tuple}.isdisjoint(map(type, inner)):  # a million texts are passed over at once
                below.extend(part for part in inner if isinstance(part, dict | list | tuple))
        if not below:
            return
        level = below
    raise RecursionError
