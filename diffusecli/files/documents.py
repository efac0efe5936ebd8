"""JSON and YAML files as values with positions, so that messages can point at a line.

Knows nothing of prompts or configs. Checks what both formats have in common: unreadable files, lone surrogates, deep nesting.
`json_syntax.py` and `yaml_syntax.py` check the syntax.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from diffusecli.files.json_syntax import json_parts, load_json
from diffusecli.files.nesting import require_shallow
from diffusecli.files.paths import look_again
from diffusecli.files.positions import Location, line_and_column, line_starts
from diffusecli.files.reading import MOST_BYTES, TooLargeError, read_text
from diffusecli.files.text import holds_half_characters
from diffusecli.files.yaml_syntax import load_yaml, yaml_parts
from diffusecli.system.errors import InputError, Problem, why_unreadable

_MOST_YAML = 10_000_000  # bytes; PyYAML takes a minute for a file that JSON parses in a second
_HALF_CHARACTER = re.compile(r"\\(?:u|U0000)[dD][89a-fA-F]")  # escaped: a UTF-8 file cannot hold one directly


@dataclass(frozen=True)
class Document:
    """A file's value with its text, to find the position of any part."""

    path: str
    text: str = field(repr=False)
    data: Any = field(repr=False)

    def problem(self, location: Location, message: str, remedy: str = "", **more: Any) -> Problem:
        """A `Problem` at the nearest known place around `location`."""
        line, column = self.position(location)
        return Problem(self.path, message, remedy, line, column, **more)

    def written(self, location: Location) -> Location:
        """The place in the file that has the value. Differs in documents that are joined from several files."""
        return location

    def has(self, location: Location) -> bool:
        """Whether there is a value at `location`."""
        data = self.data
        for part in location:
            inside = (
                part in data if isinstance(data, dict) else isinstance(data, list) and isinstance(part, int) and part < len(data)
            )
            if not inside:
                return False
            data = data[part]
        return True

    def position(self, location: Location) -> tuple[int | None, int | None]:
        """Line and column (from 1) of `location`; of what surrounds it when it is not there."""
        for length in range(len(location), -1, -1):
            if (offset := self._marks.get(location[:length])) is not None:
                return line_and_column(self._lines, offset)
        return None, None

    @cached_property
    def _lines(self) -> list[int]:
        return line_starts(self.text)

    @cached_property
    def _marks(self) -> dict[Location, int]:
        if self.path.endswith((".yaml", ".yml")):
            return {location: node.start_mark.index for location, node, _ in yaml_parts(self.text)}
        return {location: offset for location, offset, _ in json_parts(self.text)}


def read_document(path: str | Path, most_bytes: int = MOST_BYTES, name: str = "") -> tuple[Document | None, list[Problem]]:
    """Read a `.json`, `.yaml` or `.yml` file of at most so many bytes. Returns the document, or the problems that hide it.

    Problems call the file `name`, by default its path.
    """
    name = name or str(path)
    is_yaml = name.endswith((".yaml", ".yml"))
    most_bytes = min(most_bytes, _MOST_YAML) if is_yaml else most_bytes
    try:
        text = read_text(Path(path), most_bytes)
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8", "replace")
        line, column = line_and_column(line_starts(before), len(before))
        return None, [Problem(name, why_unreadable(error), "save the file as UTF-8", line, column)]
    except TooLargeError as error:
        return None, [Problem(name, str(error), "use a smaller file or split it")]
    except IsADirectoryError:
        return None, [Problem(name, "is a folder", "name a file in it")]
    except (OSError, ValueError) as error:
        return None, [Problem(name, why_unreadable(error), look_again(path, "check the path and its permissions"))]
    data, problems = _parsed(load_yaml if is_yaml else load_json, name, text)
    return (None, problems) if problems else (Document(name, text, data), [])


def read_json_mapping(path: Path, most_bytes: int | None = None) -> dict[str, Any]:
    """A JSON file that holds a mapping; raises `InputError` when it does not."""
    document, problems = read_document(path, most_bytes or MOST_BYTES)
    if document is None:
        raise InputError.of(problems)
    if not isinstance(document.data, dict):
        raise InputError(f"{path}: must hold a mapping. Correct the file")
    return document.data


def parse_json(name: str, text: str) -> tuple[Any, list[Problem]]:
    """The value of a JSON text, or its problems. They call the text `name`."""
    return _parsed(load_json, name, text)


def _parsed(parse: Callable[[str, str], tuple[Any, list[Problem]]], name: str, text: str) -> tuple[Any, list[Problem]]:
    try:
        data, problems = parse(name, text)
        if not problems:
            require_shallow(data)
    except RecursionError:
        return None, [Problem(name, "is nested too deeply", "flatten it")]
    if not problems and _HALF_CHARACTER.search(text) and holds_half_characters(data):
        problems = [Problem(name, "contains a lone surrogate (half of a character)", "write the whole character or remove it")]
    return (None, problems) if problems else (data, [])
