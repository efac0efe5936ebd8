"""The value of a JSON text, its problems, and the position of each part.

Stricter than Python's parser: duplicate keys and `NaN` are errors. Positions are computed only if there is an error. Knows no files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from diffusecli.files.positions import Location, line_and_column, line_starts
from diffusecli.system.errors import Problem

_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')


def load_json(path: str, text: str) -> tuple[Any, list[Problem]]:
    """The value, or the problems that hide it. Raises `RecursionError` for deep nesting."""
    suspicious: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            suspicious.append("duplicate key")
        return found

    try:
        data = json.loads(text, object_pairs_hook=pairs, parse_constant=suspicious.append)
    except json.JSONDecodeError as error:
        return None, [_not_json(path, text, error)]
    except ValueError:  # an integer of more digits than Python converts
        return None, [Problem(path, "contains a number with thousands of digits", "write a smaller number")]
    return data, (list(_json_oddities(path, text)) if suspicious else [])


_WORDS = {
    "Expecting value": ("expected a value", "put text between double quotes"),
    "Expecting ',' delimiter": ("expected a comma or a closing bracket", "add it"),
    "Expecting ':' delimiter": ("expected a colon after the key", "add it"),
    "Expecting property name enclosed in double quotes": ("expected a key", "put it between double quotes"),
    "Extra data": ("text after the end of the value", "remove it, or write it into another file"),
    "Invalid control character": ("a line break or tab inside a text", r"write \n or \t"),
    "Unterminated string starting": ("the text that starts here has no closing quote", "add it"),
    "Invalid \\escape": ("a backslash that starts no known escape", r"write \\ for a backslash"),
    "Invalid \\uXXXX escape": (r"\u without four hexadecimal digits", r"write \\ for a backslash"),
}
"""Messages of Python's parser -> what is wrong, and the fix."""


def _not_json(path: str, text: str, error: json.JSONDecodeError) -> Problem:
    """What is wrong there, and how to fix it."""
    message, offset = error.msg.removesuffix(" at"), error.pos
    what, remedy = _WORDS.get(message, (message, "correct the JSON there"))
    before, there, starts = text[: error.pos].rstrip(), text[error.pos :], line_starts(text)
    if not text.strip():
        what, remedy = "the file is empty", "write JSON into it"
    elif there.startswith(("//", "/*", "#")):
        what, remedy = "JSON has no comments", "remove the comment"
    elif message == "Invalid control character" and there.startswith(("\n", "\r")):
        what, remedy = "the text in this line has no closing quote", r"add it, or write \n for a line break in a text"
    elif re.match(r",\s*[\]}]", there) or (there.startswith(("]", "}")) and before.endswith(",")):
        what, remedy = "trailing comma before the closing bracket", "remove the comma"
        offset = error.pos if there.startswith(",") else len(before) - 1  # Python 3.13 points at the comma itself
    elif not there.strip() and (unclosed := _unclosed(before)) is not None:
        line = line_and_column(starts, unclosed)[0]
        what, remedy = f"the bracket {before[unclosed]} of line {line} is not closed", f"add {_CLOSING[before[unclosed]]}"
    return Problem(path, f"invalid JSON: {what}", remedy, *line_and_column(starts, offset))


_CLOSING = {"[": "]", "{": "}"}


def _unclosed(text: str) -> int | None:
    """The offset of the last bracket that is not closed."""
    waiting: list[int] = []
    for match in _JSON_TOKEN.finditer(text):
        if match[0] in _CLOSING:
            waiting.append(match.start())
        elif match[0] in "]}" and waiting:
            waiting.pop()
    return waiting[-1] if waiting else None


def _json_oddities(path: str, text: str) -> Iterator[Problem]:
    seen: set[Location] = set()
    starts = line_starts(text)
    for location, offset, token in json_parts(text):
        line, column = line_and_column(starts, offset)
        if location in seen and isinstance(location[-1], str):
            yield Problem(path, f"duplicate key '{location[-1]}'", "keep one of them", line, column)
        seen.add(location)
        if token in ("NaN", "Infinity", "-Infinity"):
            yield Problem(path, f"{token} is not a JSON number", "write a finite number", line, column)


def json_parts(text: str) -> Iterator[tuple[Location, int, str]]:
    """Every value of a valid JSON text: its location in the tree, its offset in the text (of its key, if any), its token."""
    here: list[str | int] = []
    key_offset: int | None = None
    kinds: list[str] = []
    expects_key = False
    for match in _JSON_TOKEN.finditer(text):
        token, offset = match.group(), match.start()
        if token in "}]":
            kinds.pop()
            here.pop()
            expects_key = False
        elif token == ",":
            expects_key = kinds[-1] == "{"
            if not expects_key:
                here[-1] = int(here[-1]) + 1
        elif token == ":":
            expects_key = False
        elif expects_key:
            here[-1], key_offset = json.loads(token, strict=False), offset
        else:
            yield tuple(here), offset if key_offset is None else key_offset, token
            key_offset = None
            if token in "{[":
                kinds.append(token)
                here.append(0 if token == "[" else "")
                expects_key = token == "{"
