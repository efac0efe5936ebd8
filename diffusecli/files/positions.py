"""Positions: in a tree of values, and in a text by line and column.

Knows no format.
"""

from __future__ import annotations

import re
from bisect import bisect_right

Location = tuple[str | int, ...]
"""The keys and indices from the top of a document to a part of it, such as `("weights", 3)`."""


def line_starts(text: str) -> list[int]:
    """The offset of each line's first character."""
    return [0, *(match.end() for match in re.finditer("\n", text))]


def line_and_column(starts: list[int], offset: int) -> tuple[int, int]:
    r"""Line and column of an offset, both from 1.

    >>> line_and_column(line_starts("ab\ncd"), 4)
    (2, 2)
    """
    line = bisect_right(starts, offset)
    return line, offset - starts[line - 1] + 1
