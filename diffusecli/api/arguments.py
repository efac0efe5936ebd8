"""Check types and ranges of arguments first: a wrong argument raises an `InputError` that names it.

Without these checks Python would fail later with an unrelated error. NumPy numbers become Python numbers.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from os import PathLike
from typing import Any, TypeVar

from diffusecli.files.text import holds_half_characters
from diffusecli.system.errors import InputError, must_be_one_of, shortened

_LONGEST = 40  # most characters of a value in a message
_MOST = 2**63  # limit of files and NumPy
_T = TypeVar("_T")


def shown(value: Any) -> str:
    """A wrong value for a message: a short text or number as it is, otherwise only its type.

    >>> shown(3), shown("x"), shown(None), shown([1])
    ('3', "'x'", 'None', 'a list')
    """
    plain = value.item() if is_numpy_scalar(value) else value
    if plain is None or isinstance(plain, str | bool | int | float):
        text = repr(plain)
        return shortened(text, _LONGEST)
    kind = type(plain).__name__
    return f"{'an' if kind[:1].lower() in 'aeiou' else 'a'} {kind}"


def wrong(name: str, must: str, value: Any) -> InputError:
    """The error for a wrong argument."""
    return InputError(f"{name}: must be {must}, not {shown(value)}")


def whole(name: str, value: Any, lowest: int | None = None) -> int:
    """Check for an integer; 10.0 is not accepted."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise wrong(name, "a whole number", value)
    if lowest is not None and value < lowest:
        raise wrong(name, f"{lowest} or more", value)
    if abs(int(value)) >= _MOST:
        raise wrong(name, "below 2**63", value)
    return int(value)


def number(name: str, value: Any, lowest: float | None = None) -> float:
    """Check for a number other than nan; infinity is accepted here. Integers stay integers."""
    if isinstance(value, bool) or not isinstance(value, Real) or is_missing(value):
        raise wrong(name, "a number", value)
    if isinstance(value, Integral) and abs(int(value)) >= _MOST:
        raise wrong(name, "below 2**63", value)
    if lowest is not None and value < lowest:
        raise wrong(name, f"{lowest:g} or more", value)
    return int(value) if isinstance(value, Integral) else float(value)


def text(name: str, value: Any) -> str:
    """Check for a text."""
    if not isinstance(value, str):
        raise wrong(name, "a text", value)
    if "\0" in value or holds_half_characters(value):
        raise wrong(name, "a text in UTF-8 without NUL", value)
    return str(value)


def texts(name: str, value: Any) -> tuple[str, ...]:
    """Check for one text or several."""
    if isinstance(value, str):
        return (text(name, value),)
    return tuple(text(name, one) for one in several(name, value, "a text or a list of texts"))


def several(name: str, value: Any, must: str) -> list[Any]:
    """The items of an ordered iterable. Raises `InputError` for sets, tables and bytes."""
    if isinstance(value, set | frozenset):
        raise InputError(f"{name}: a set has no order. Write a list")
    if isinstance(value, str | bytes | bytearray) or is_frame(value) or not isinstance(value, Iterable):
        raise wrong(name, must, value)
    try:
        return list(value)
    except TypeError as error:  # a NumPy array without dimensions
        raise wrong(name, must, value) from error


def flag(name: str, value: Any) -> bool:
    """Check for True or False."""
    if not isinstance(value, bool):
        raise wrong(name, "True or False", value)
    return value


def one_of(name: str, value: Any, known: Sequence[str]) -> str:
    """Check for one of a few words."""
    if not isinstance(value, str):
        raise wrong(name, f"one of {', '.join(known)}", value)
    if value not in known:
        raise InputError(f"{name} {shown(value)}: {must_be_one_of(value, known)}")
    return value


def function(name: str, value: Any) -> Any:
    """Check for a callable."""
    if not callable(value):
        raise wrong(name, "a function", value)
    return value


def path(name: str, value: Any) -> str:
    """Check for a path; returns it as text."""
    if is_frame(value):
        raise InputError(f"{name}: is a table in memory. Write it to a file first, e.g. with to_csv, and name the file")
    if not isinstance(value, str | PathLike):
        raise wrong(name, "a path", value)
    try:
        usable = b"\0" not in os.fsencode(value)
    except UnicodeError:
        usable = False
    if not usable:
        raise wrong(name, "a path that a file can have", value)
    return str(value)


def optional(check: Callable[..., _T], name: str, value: Any, *limits: Any) -> _T | None:
    """None if the value is None, otherwise the result of the check."""
    return None if value is None else check(name, value, *limits)


def is_frame(value: Any) -> bool:
    """Whether this is a pandas data frame."""
    return (pandas := sys.modules.get("pandas")) is not None and isinstance(value, pandas.DataFrame)


def is_series(value: Any) -> bool:
    """Whether this is a pandas Series."""
    return (pandas := sys.modules.get("pandas")) is not None and isinstance(value, pandas.Series)


def is_numpy_scalar(value: Any) -> bool:
    """Whether this is a NumPy scalar."""
    return (numpy := sys.modules.get("numpy")) is not None and isinstance(value, numpy.generic)


def is_missing(value: Any) -> bool:
    """Whether this is a missing value: None, nan, or one of pandas."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, Real) and not isinstance(value, Integral) and math.isnan(value)


def pairs_or_items(name: str, value: Any, must: str) -> tuple[list[tuple[Any, Any]] | None, list[Any]]:
    """The pairs of a mapping, or of a numeric Series with its index; otherwise None and the items."""
    if isinstance(value, Mapping):
        return list(value.items()), []
    if is_series(value):
        items = value.tolist()
        if (
            items
            and not any(isinstance(one, str) for one in items)
            and all(isinstance(one, Real) or is_missing(one) for one in items)
        ):
            return list(zip(value.index.tolist(), items, strict=True)), []
        return None, items
    return None, several(name, value, must)
