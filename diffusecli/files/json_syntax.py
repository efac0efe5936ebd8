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


def _not_json(path: str, text: str, error: json.JSONDecodeError) -> Problem:
    """What is wrong there, and how to fix it."""
    what, remedy, offset = error.msg.removesuffix(" at"), "correct the JSON there", error.pos
    before, there = text[: error.pos].rstrip(), text[error.pos :]
    if not text.strip():
        remedy = "the file is empty: write JSON into it"
    elif there.startswith(("//", "/*", "#")):
        what, remedy = "JSON has no comments", "remove the comment"
    elif re.match(r",\s*[\]}]", there) or (there.startswith(("]", "}")) and before.endswith(",")):
        what, remedy = "trailing comma before the closing bracket", "remove the comma"
        offset = error.pos if there.startswith(",") else len(before) - 1  # Python 3.13 points at the comma itself
    return Problem(path, f"invalid JSON: {what}", remedy, *line_and_column(line_starts(text), offset))


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
