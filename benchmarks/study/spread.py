"""A figure of several seeds."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import mean


def spread(values: Iterable[str | float], digits: int = 3, unit: str = "") -> str:
    """Mean and range; the unit is that of the mean.

    >>> spread(["0.25", "", "0.75"]), spread([0.5]), spread([])
    ('0.500 (0.250 to 0.750)', '0.500', '-')
    """
    known = [float(value) for value in values if value != ""]
    if not known:
        return "-"
    told = f"{mean(known):.{digits}f}{unit}"
    return told if len(known) == 1 else f"{told} ({min(known):.{digits}f} to {max(known):.{digits}f})"
