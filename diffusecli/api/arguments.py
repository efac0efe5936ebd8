"""Types and ranges of arguments, checked before anything else: a wrong one is an `InputError` that names it.

Python itself would fail later, deep inside, with an error of another kind. Numbers of numpy become Python's.
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
from diffusecli.system.errors import InputError, did_you_mean, shortened

_LONGEST = 40  # signs of a value in a message
_MOST = 2**63  # what files and numpy can hold
_T = TypeVar("_T")


def shown(value: Any) -> str:
    """A wrong value in a message: a short text or number as it is, else only what kind of thing it is.

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
    """The error for an argument that is something else than it must be."""
    return InputError(f"{name}: must be {must}, not {shown(value)}")


def whole(name: str, value: Any, least: int | None = None) -> int:
    """A whole number; 10.0 is none."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise wrong(name, "a whole number", value)
    if least is not None and value < least:
        raise wrong(name, f"{least} or more", value)
    if abs(int(value)) >= _MOST:
        raise wrong(name, "below 2**63", value)
    return int(value)


def number(name: str, value: Any, least: float | None = None) -> float:
    """A number that is not nan; infinity is for others to refuse. A whole one stays whole."""
    if isinstance(value, bool) or not isinstance(value, Real) or is_missing(value):
        raise wrong(name, "a number", value)
    if isinstance(value, Integral) and abs(int(value)) >= _MOST:
        raise wrong(name, "below 2**63", value)
    if least is not None and value < least:
        raise wrong(name, f"{least:g} or more", value)
    return int(value) if isinstance(value, Integral) else float(value)


def text(name: str, value: Any) -> str:
    """A text."""
    if not isinstance(value, str):
        raise wrong(name, "a text", value)
    if "\0" in value or holds_half_characters(value):
        raise wrong(name, "a text in UTF-8 without NUL", value)
    return str(value)


def texts(name: str, value: Any) -> tuple[str, ...]:
    """One text or several."""
    if isinstance(value, str):
        return (text(name, value),)
    return tuple(text(name, one) for one in several(name, value, "a text or a list of texts"))


def several(name: str, value: Any, must: str) -> list[Any]:
    """The items of anything that has them in an order. Raises `InputError` for sets, tables and bytes too."""
    if isinstance(value, set | frozenset):
        raise InputError(f"{name}: a set has no order. Write a list")
    if isinstance(value, str | bytes | bytearray) or is_frame(value) or not isinstance(value, Iterable):
        raise wrong(name, must, value)
    try:
        return list(value)
    except TypeError as error:  # an array of numpy without dimensions
        raise wrong(name, must, value) from error


def flag(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise wrong(name, "True or False", value)
    return value


def one_of(name: str, value: Any, known: Sequence[str]) -> str:
    """One of a few words."""
    if not isinstance(value, str):
        raise wrong(name, f"one of {', '.join(known)}", value)
    if value not in known:
        near = did_you_mean(value.lower(), known)
        raise InputError(
            f"{name} {shown(value)}: must be one of {', '.join(known)}" + (f", {near}" if near.startswith("did") else "")
        )
    return value


def function(name: str, value: Any) -> Any:
    """Something that can be called."""
    if not callable(value):
        raise wrong(name, "a function", value)
    return value


def path(name: str, value: Any) -> str:
    """A path as a text."""
    if is_frame(value):
        raise InputError(f"{name}: is a table in memory. Write it to a file first, such as with to_csv, and name the file")
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
    """None, or what the check returns."""
    return None if value is None else check(name, value, *limits)


def is_frame(value: Any) -> bool:
    """Whether this is a table of pandas."""
    return (pandas := sys.modules.get("pandas")) is not None and isinstance(value, pandas.DataFrame)


def is_series(value: Any) -> bool:
    """Whether this is a column of pandas."""
    return (pandas := sys.modules.get("pandas")) is not None and isinstance(value, pandas.Series)


def is_numpy_scalar(value: Any) -> bool:
    """Whether this is a single value of numpy."""
    return (numpy := sys.modules.get("numpy")) is not None and isinstance(value, numpy.generic)


def is_missing(value: Any) -> bool:
    """Whether this stands for no value: None, nan, and those of pandas."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, Real) and not isinstance(value, Integral) and math.isnan(value)


def pairs_or_items(name: str, value: Any, must: str) -> tuple[list[tuple[Any, Any]] | None, list[Any]]:
    """The pairs of a mapping, or of a column of numbers with its index; else None and the items."""
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
