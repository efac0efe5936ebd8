"""How the rounding of a 16-bit model is written after an exact figure: in reports, in output and on model cards."""

from __future__ import annotations

import math


def with_rounding(limit: float) -> str:
    """What follows an exact figure of a 16-bit model; "" for 32 bits. The limit is rounded up to two significant digits.

    >>> with_rounding(0.0), with_rounding(0.0213), with_rounding(math.nan)
    ('', ' ± 0.022 (16-bit rounding)', ' (16-bit rounding not known)')
    >>> with_rounding(math.inf)
    ' (16-bit rounding not known)'
    >>> with_rounding(0.0141), with_rounding(0.02), with_rounding(1e-6)
    (' ± 0.015 (16-bit rounding)', ' ± 0.020 (16-bit rounding)', ' ± < 0.0001 (16-bit rounding)')
    """
    if not limit:
        return ""
    if not math.isfinite(limit):
        return " (16-bit rounding not known)"
    digits = min(4, max(1, 1 - math.floor(math.log10(limit))))
    up = math.ceil(round(limit * 10**digits, 6)) / 10**digits  # .02 * 1000 may be 20.000000000000004
    return f" ± {f'{up:.{digits}f}' if limit >= 1e-4 else '< 0.0001'} (16-bit rounding)"
