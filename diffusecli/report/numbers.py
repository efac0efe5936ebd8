"""Format figures for reports: thin spaces, real minus signs, dashes for unknown values."""

from __future__ import annotations

import math

from diffusecli.evaluation.metrics import Figures
from diffusecli.evaluation.verdicts import too_few

ROUNDING = 1e-9  # error of a sum of shares, or of a figure that is zero


def known(value: float | None) -> float | None:
    """None if the value is not a finite number, which JSON cannot represent."""
    return value if value is not None and math.isfinite(value) else None


def percent(share: float | None, digits: int = 1) -> str:
    r"""A share as a percentage; a dash if unknown. A share that is not zero, or not all, never looks like it.

    >>> percent(0.1234), percent(float("nan")), percent(0.0001), percent(0.9997), percent(1 - 1e-12)
    ('12.3\u202f%', '–', '<0.1\u202f%', '>99.9\u202f%', '100.0\u202f%')
    """
    found = known(share)
    if found is None:
        return "–"
    step = 10**-digits  # in percent
    if 0 < found < 0.005 * step:
        return f"<{step:.{digits}f}\u202f%"
    if 1 - 0.005 * step <= found < 1 - ROUNDING:
        return f">{100 - step:.{digits}f}\u202f%"
    return f"{100 * found:.{digits}f}\u202f%"


def number(value: float | None, digits: int = 3, sign: str = "") -> str:
    r"""A number with thin spaces between thousands and a real minus sign; a dash if unknown.

    A number above zero never looks like it, and one below never has a minus sign before zeros.

    >>> number(-1234.5, 1), number(0.0000123, 4), number(-0.0000123, 4), number(math.inf), number(0.5, 2, "+")
    ('−1\u202f234.5', '<0.0001', '0.0000', '–', '+0.50')
    """
    found = known(value)
    if found is None:
        return "–"
    if ROUNDING < found < 0.5 * 10**-digits and not sign:
        return f"<{10**-digits:.{digits}f}"
    return f"{found:{sign}z,.{digits}f}".replace(",", "\u202f").replace("-", "−")


def plus_minus(value: float, error: float, digits: int = 4) -> str:
    """A value with the half-width of its 95 % interval, from its standard error; only the value if it is exact.

    The half-width has two significant digits if `digits` decimals allow it, and the value as many decimals.

    >>> plus_minus(13.5004, 0.1), plus_minus(0.5, 0), plus_minus(0.0279, 0.001)
    ('13.50 ± 0.20', '0.5000', '0.0279 ± 0.0020')
    """
    half = 1.96 * error
    if half:
        digits = max(0, min(digits, 1 - math.floor(math.log10(half))))
    return f"{value:.{digits}f}" + (f" ± {half:.{digits}f}" if half else "")


def count(value: float | None) -> str:
    """A whole number."""
    return number(value, 0)


def span(low: float | None, high: float | None, digits: int = 3, factor: float = 1) -> str:
    """An interval.

    >>> span(0.1, 0.25, 2), span(-0.1, 0.2, 1), span(math.nan, 1)
    ('0.10 to 0.25', '−0.1 to 0.2', '–')
    >>> span(0.99982, 1, 1, 100)  # ends that would look the same
    '99.982 to 100.000'
    """
    bounds = known(low), known(high)
    if bounds[0] is None or bounds[1] is None:
        return "–"
    if low != high and f"{factor * bounds[0]:.{digits}f}" == f"{factor * bounds[1]:.{digits}f}":
        digits += 2
    first, last = (
        f"{factor * bound:,.{digits}f}".replace(",", "\u202f").replace("-", "−") for bound in bounds if bound is not None
    )
    return f"{first} to {last}"


def brief(value: float) -> str:
    """A level of significance, with three significant digits.

    >>> brief(0.05 / 2 / 2), brief(0.05 / 2 / 7)
    ('0.0125', '0.00357')
    """
    return f"{value:.3g}"


def key(value: float | None) -> str:
    """Sort key of a column; empty if unknown."""
    found = known(value)
    return "" if found is None else f"{found:.9g}"


def p_value(found: Figures) -> str:
    """The p-value of a test of fit; a dash if too few answers are valid for it to say anything."""
    return "–" if too_few(found) else p_from(found.p_value, found.least_p)


def p_from(value: float, least: float) -> str:
    r"""A Monte Carlo p-value; it cannot be below `least`, which is 1 / (B + 1) or twice that.

    >>> p_from(0.001, 0.001), p_from(0.0021, 0.0002), p_from(0.43, 0.0002), p_from(math.nan, 0.0002)
    ('≤\u202f0.001', '0.0021', '0.430', '–')
    """
    return f"≤\u202f{least:.2g}" if value <= least * 1.001 else number(value, 4 if value < 0.01 else 3)
