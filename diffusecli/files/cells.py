"""Lists and mappings in one cell of a table: as values, or as text written by JSON, Python, NumPy or people.

Knows cells only. Texts are parsed, never evaluated.
"""

from __future__ import annotations

import ast
import datetime
import json
import re
from typing import Any

Cell = str | list[Any] | dict[Any, Any]

_MOST_DEPTH = 20
_SEPARATORS = ("|", ";", "\n", ",")
_NUMPY_NUMBER = re.compile(r"\b(?:np|numpy)\.\w+\(([^()]*)\)")  # np.float64(0.5)
_NUMPY_ARRAY = re.compile(r"\barray\((\[[^\[\]]*\])(?:,\s*dtype=[\w.']+)?\)")
_CALL = re.compile(r"(?:\w+\.)*(?:defaultdict|OrderedDict|Counter|dict|list)\((.*)\)", re.DOTALL)
_QUOTED = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_PRINTED_ARRAY = re.compile(rf"\[\s*(?:{_QUOTED}|[\d.eE+-]+)(?:\s+(?:{_QUOTED}|[\d.eE+-]+))+\s*\]", re.DOTALL)
_SIDE_BY_SIDE = re.compile(rf"{_QUOTED}\s+{_QUOTED}", re.DOTALL)
_NAN = re.compile(rf"({_QUOTED})|\bnan\b", re.DOTALL)
_ITEM = re.compile(rf"{_QUOTED}|[^\s\[\]]+", re.DOTALL)


def as_cell(value: Any) -> Cell:
    """A value as a cell: text as a person would write it (3.0 as 3, missing as empty), lists and mappings unchanged.

    >>> as_cell(3.0), as_cell(None), as_cell(datetime.datetime(2024, 6, 1)), as_cell(("a", 1))
    ('3', '', '2024-06-01', ['a', 1])
    """
    import pandas as pd

    if isinstance(value, str):
        return value
    if pd.api.types.is_list_like(value):
        inner: list[Any] | dict[Any, Any] = _inner(value)
        return inner
    if isinstance(value, bytes):
        return value.decode()
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return ""
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _inner(value: Any) -> Any:
    """Convert nested containers of any library to lists and mappings."""
    if isinstance(value, dict):
        return {name: _inner(part) for name, part in value.items()}
    return [_inner(part) for part in value] if hasattr(value, "__iter__") and not isinstance(value, str | bytes) else value


def collection(cell: Cell) -> list[Any] | dict[Any, Any] | None:
    """The list or mapping that a cell holds or spells out; None for plain text.

    >>> collection("['Good', 'Bad']"), collection('["Good"]'), collection("[0.5 0.3]"), collection("{heads}")
    (['Good', 'Bad'], ['Good'], ['0.5', '0.3'], None)
    >>> collection("defaultdict(<class 'list'>, {'Aland': [0.5, 0.5]})")
    {'Aland': [0.5, 0.5]}
    """
    if not isinstance(cell, str):
        return cell
    text = cell.strip()
    if text[-1:] not in ("]", "}", ")"):
        return None
    if (call := _CALL.fullmatch(text)) is not None:  # the class that a defaultdict makes is no part of what it holds
        text = re.sub(r"^\s*(?:<[^<>]*>|\w+)\s*,\s*(?=\{)", "", call[1])
    text = _NUMPY_ARRAY.sub(r"\1", _NUMPY_NUMBER.sub(r"\1", _NAN.sub(lambda found: found[1] or "None", text)))
    if text[:1] not in ("[", "{") or text[-1:] not in ("]", "}") or text.count("[") + text.count("{") > _MOST_DEPTH * 1000:
        return None
    if _PRINTED_ARRAY.fullmatch(text):
        return [ast.literal_eval(item) if item[0] in "'\"" else item for item in _ITEM.findall(text)]
    found = _parsed(text)
    if isinstance(found, list) and found and all(isinstance(pair, tuple) and len(pair) == 2 for pair in found):
        return dict(found)  # as OrderedDict prints
    return found if isinstance(found, list | dict) else None


def is_collection(cell: Cell) -> bool:
    """Whether a cell holds a list or mapping, not just text that looks similar, such as `[7]` or `{heads}`."""
    found = collection(cell)
    if not found:
        return False
    return not isinstance(cell, str) or len(found) > 1 or isinstance(found, dict) or isinstance(found[0], str)


def items(cell: Cell) -> list[Any] | dict[Any, Any]:
    """The items in a cell, also if separated only by `|`, `;`, line breaks or commas.

    Raises `ValueError` for a text that opens a bracket but is not a list.

    >>> items("Good; Bad; No opinion"), items("yes")
    (['Good', 'Bad', 'No opinion'], ['yes'])
    """
    if isinstance(cell, str) and (tuple_ := re.fullmatch(r"\s*\((.*)\)\s*", cell, re.DOTALL)):
        cell = f"[{tuple_[1]}]"
    found = collection(cell)
    if found is not None or not isinstance(cell, str):
        return found if found is not None else []
    if cell.lstrip()[:1] in ("[", "{") or re.match(r"\s*[\w.]+\(", cell):
        raise ValueError("cannot be read as a list")
    separator = next((sign for sign in _SEPARATORS if sign in cell), None)
    return [part.strip() for part in cell.split(separator)] if separator else [cell.strip()] if cell.strip() else []


def _parsed(text: str) -> Any:
    """The value of JSON or of a Python literal; None for neither."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if _SIDE_BY_SIDE.search(text) or _depth(text) > _MOST_DEPTH:  # Python would join adjacent strings
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _depth(text: str) -> int:
    deepest = depth = 0
    for sign in text:
        depth += (sign in "[{(") - (sign in "]})")
        deepest = max(deepest, depth)
    return deepest
