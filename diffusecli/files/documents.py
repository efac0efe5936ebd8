"""JSON and YAML files as values that remember where each part stands.

Knows nothing of prompts or configs. It is stricter than the parsers it uses: duplicate keys, `NaN`, halves of characters
and nesting without end are mistakes, not data. Line and column numbers are worked out only when something is wrong.
"""

from __future__ import annotations

import json
import re
import stat
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from diffusecli.files.paths import look_again
from diffusecli.files.text import holds_half_characters
from diffusecli.system.errors import InputError, Problem

Location = tuple[str | int, ...]
"""The way from the top of a document to a part of it, such as `("weights", 3)`."""

MOST_BYTES = 100_000_000
"""Of a prompt, a config or a manifest. 20 000 targets take one of these hundred megabytes."""

_MOST_YAML = 10_000_000  # bytes; PyYAML takes a minute for what JSON takes a second
_MOST_DEPTH = 100
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')
_HALF_CHARACTER = re.compile(r"\\(?:u|U0000)[dD][89a-fA-F]")  # spelled out: a file that is UTF-8 holds none itself
_MOST_NODES = 100_000  # of a YAML file


@dataclass(frozen=True)
class Document:
    """A file's value together with its text, so that any part of it can be pointed at."""

    path: str
    text: str = field(repr=False)
    data: Any = field(repr=False)

    def problem(self, location: Location, message: str, remedy: str = "", **more: Any) -> Problem:
        """A `Problem` at the nearest known place around `location`."""
        line, column = self.position(location)
        return Problem(self.path, message, remedy, line, column, **more)

    def position(self, location: Location) -> tuple[int | None, int | None]:
        """Line and column (from 1) of `location`; of what surrounds it when it is not there."""
        for length in range(len(location), -1, -1):
            if (offset := self._marks.get(location[:length])) is not None:
                return _line_and_column(self._lines, offset)
        return None, None

    @cached_property
    def _lines(self) -> list[int]:
        return _line_starts(self.text)

    @cached_property
    def _marks(self) -> dict[Location, int]:
        if self.path.endswith((".yaml", ".yml")):
            return {location: node.start_mark.index for location, node, _ in _yaml_parts(self.text)}
        return {location: offset for location, offset, _ in _json_parts(self.text)}


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
        return None, [Problem(name, f"byte {error.start} is not UTF-8", "save the file as UTF-8")]
    except TooLargeError as error:
        return None, [Problem(name, str(error), "name another file or take it apart")]
    except IsADirectoryError:
        return None, [Problem(name, "is a folder", "name one file in it")]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return None, [Problem(name, f"cannot be read: {reason}", look_again(path, "check the path and its permissions"))]
    data, problems = _parsed(_parse_yaml if is_yaml else _parse_json, name, text)
    return (None, problems) if problems else (Document(name, text, data), [])


def parse_json(name: str, text: str) -> tuple[Any, list[Problem]]:
    """The value of a JSON text, or what is wrong with it; problems call the text `name`."""
    return _parsed(_parse_json, name, text)


def _parsed(parse: Callable[[str, str], tuple[Any, list[Problem]]], name: str, text: str) -> tuple[Any, list[Problem]]:
    try:
        data, problems = parse(name, text)
        if not problems:
            _require_shallow(data)
    except RecursionError:
        return None, [Problem(name, "is nested too deeply", "flatten it")]
    if not problems and _HALF_CHARACTER.search(text) and holds_half_characters(data):
        problems = [Problem(name, "holds half of a character (a lone surrogate)", "write the whole character or remove it")]
    return (None, problems) if problems else (data, [])


class TooLargeError(ValueError):
    """A file is larger than such files are."""


def read_text(path: Path, most_bytes: int) -> str:
    """A UTF-8 file as text. Raises `OSError`, `ValueError`, and `TooLargeError` without reading it all; devices have no size of their own."""
    require_size(path, most_bytes)
    if stat.S_ISREG(path.stat().st_mode):
        return path.read_text(encoding="utf-8-sig")
    with path.open(encoding="utf-8-sig") as file:
        text = file.read(most_bytes + 1)
    if len(text) > most_bytes:
        raise TooLargeError(f"is larger than {most_bytes / 1e6:g} MB")
    return text


def require_size(path: Path, most_bytes: int) -> None:
    """Raises `TooLargeError`, `OSError` for a file that is not there, and `ValueError` for a pipe, which might wait for ever.

    What a shell hands over as `<(command)` is a pipe as well, and has its writer.
    """
    told = path.stat()
    if stat.S_ISFIFO(told.st_mode) and path.parts[:2] not in {("/", "dev"), ("/", "proc")}:
        raise ValueError("it is a pipe and no file")
    if told.st_size > most_bytes:
        raise TooLargeError(f"is larger than {most_bytes / 1e6:g} MB")


def _require_shallow(data: Any) -> None:
    """Raises `RecursionError` before anything that works by recursion gets hold of the value."""
    level = [data]
    for _ in range(_MOST_DEPTH):
        below: list[Any] = []
        for value in level:
            inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
            if not {dict, list, tuple}.isdisjoint(map(type, inner)):  # a million texts are passed over at once
                below.extend(part for part in inner if isinstance(part, dict | list | tuple))
        if not below:
            return
        level = below
    raise RecursionError


def _parse_json(path: str, text: str) -> tuple[Any, list[Problem]]:
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
        return None, [Problem(path, "holds a number of thousands of digits", "write a smaller number")]
    return data, (list(_json_oddities(path, text)) if suspicious else [])


def _not_json(path: str, text: str, error: json.JSONDecodeError) -> Problem:
    """What is wrong there, and what to do about it."""
    what, remedy, offset = error.msg.removesuffix(" at"), "correct the JSON there", error.pos
    before, there = text[: error.pos].rstrip(), text[error.pos :]
    if not text.strip():
        remedy = "the file is empty: write the JSON"
    elif there.startswith(("//", "/*", "#")):
        what, remedy = "it has no comments", "remove the comment"
    elif re.match(r",\s*[\]}]", there) or (there.startswith(("]", "}")) and before.endswith(",")):
        what, remedy = "a comma stands before the closing bracket", "remove the comma"
        offset = error.pos if there.startswith(",") else len(before) - 1  # Python 3.13 points at the comma itself
    return Problem(path, f"is not JSON: {what}", remedy, *_line_and_column(_line_starts(text), offset))


def _json_oddities(path: str, text: str) -> Iterator[Problem]:
    seen: set[Location] = set()
    starts = _line_starts(text)
    for location, offset, token in _json_parts(text):
        line, column = _line_and_column(starts, offset)
        if location in seen and isinstance(location[-1], str):
            yield Problem(path, f"the key '{location[-1]}' is there twice", "keep one of them", line, column)
        seen.add(location)
        if token in ("NaN", "Infinity", "-Infinity"):
            yield Problem(path, f"{token} is not a JSON number", "write a finite number", line, column)


def _json_parts(text: str) -> Iterator[tuple[Location, int, str]]:
    """Every value of a valid JSON text: where it is in the tree, where in the text (its key, if it has one), its token."""
    way: list[str | int] = []
    key_offset: int | None = None
    kinds: list[str] = []
    expects_key = False
    for match in _JSON_TOKEN.finditer(text):
        token, offset = match.group(), match.start()
        if token in "}]":
            kinds.pop()
            way.pop()
            expects_key = False
        elif token == ",":
            expects_key = kinds[-1] == "{"
            if not expects_key:
                way[-1] = int(way[-1]) + 1
        elif token == ":":
            expects_key = False
        elif expects_key:
            way[-1], key_offset = json.loads(token, strict=False), offset
        else:
            yield tuple(way), offset if key_offset is None else key_offset, token
            key_offset = None
            if token in "{[":
                kinds.append(token)
                way.append(0 if token == "[" else "")
                expects_key = token == "{"


_FastLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Ten times as fast where PyYAML has its C part; what it refuses is read again in Python, for one wording of errors."""


def _parse_yaml(path: str, text: str) -> tuple[Any, list[Problem]]:
    try:
        _require_plain(text)
        parts = list(_yaml_parts(text))
        problems = [
            Problem(path, f"the key '{location[-1]}' is there twice", "keep one of them",
                    node.start_mark.line + 1, node.start_mark.column + 1)
            for location, node, again in parts if again
        ]  # fmt: skip
        return (None, problems) if problems else (_load(text), [])
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (None, None)
        what = error.problem or error.context or "cannot be parsed"
        return None, [Problem(path, f"is not YAML: {what}", "correct the YAML there", *place)]
    except (yaml.YAMLError, ValueError) as error:
        what = str(error).splitlines()[0]
        return None, [Problem(path, f"is not YAML: {what}", "correct the YAML there")]


def read_value(text: str) -> Any:
    """A YAML value as it stands on a command line. Raises `ValueError` for what a file would be refused for."""
    try:
        value, problems = _parse_yaml("", text)
        _require_shallow(value)
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    if problems or holds_half_characters(value):
        raise ValueError(problems[0].message if problems else "holds half of a character")
    return value


def _require_plain(text: str) -> None:
    """Looks through the file without recursion: what follows it, PyYAML's C part above all, ends the process on deep nesting.

    Raises `RecursionError` for that, `YAMLError` for too many parts.
    """
    depth = parts = 0
    try:
        for event in yaml.parse(text, Loader=_FastLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            parts += isinstance(event, yaml.NodeEvent)
            if depth > _MOST_DEPTH or parts > _MOST_NODES:
                break
    except yaml.YAMLError:
        return  # what follows meets the same, and has words for it
    if depth > _MOST_DEPTH:
        raise RecursionError
    if parts > _MOST_NODES:
        raise yaml.YAMLError(f"it has more than {_MOST_NODES} parts")


def _load(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_FastLoader)  # noqa: S506 - the safe loader, in C
    except yaml.YAMLError:
        return yaml.safe_load(text)
    except (AttributeError, LookupError, TypeError, ArithmeticError) as error:  # `!!int ""` and the like
        raise yaml.YAMLError("a tag does not fit its value") from error


def _yaml_parts(text: str) -> Iterator[tuple[Location, yaml.Node, bool]]:
    """Every value of a YAML text with the node to point at (its key, if it has one) and whether its key came before."""
    try:
        top = yaml.compose(text, Loader=_FastLoader)
    except yaml.YAMLError:
        top = yaml.compose(text, Loader=yaml.SafeLoader)
    waiting: list[tuple[Location, yaml.Node, yaml.Node, bool]] = [((), top, top, False)] if top else []
    seen = 0
    while waiting:
        location, node, mark, again = waiting.pop()
        seen += 1
        if seen > _MOST_NODES:
            raise yaml.YAMLError("its aliases make it too large")
        if len(location) > _MOST_DEPTH:  # of an alias that stands within what it means
            raise RecursionError
        yield location, mark, again
        if isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise yaml.MarkedYAMLError(problem="a list or mapping cannot be a key", problem_mark=key.start_mark)
                name = str(key.value)
                waiting.append(((*location, name), value, key, name in keys))
                keys.add(name)
        elif isinstance(node, yaml.SequenceNode):
            waiting.extend(((*location, index), value, value, False) for index, value in enumerate(node.value))


def _line_starts(text: str) -> list[int]:
    return [0, *(match.end() for match in re.finditer("\n", text))]


def _line_and_column(starts: list[int], offset: int) -> tuple[int, int]:
    line = bisect_right(starts, offset)
    return line, offset - starts[line - 1] + 1


def read_json_mapping(path: Path, most_bytes: int | None = None) -> dict[str, Any]:
    """A JSON file that holds a mapping; raises `InputError` when it does not."""
    document, problems = read_document(path, most_bytes or MOST_BYTES)
    if document is None:
        raise InputError.of(problems)
    if not isinstance(document.data, dict):
        raise InputError(f"{path}: must hold a mapping, correct the file")
    return document.data
