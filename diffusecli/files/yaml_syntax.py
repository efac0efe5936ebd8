"""The value of a YAML text, its problems, and the position of each part.

Checks the text before PyYAML builds values: nesting, number of parts, expanding aliases, duplicate keys. Knows no files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from diffusecli.files.nesting import MOST_DEPTH, require_shallow
from diffusecli.files.positions import Location
from diffusecli.files.text import holds_half_characters
from diffusecli.system.errors import Problem

_MOST_NODES = 100_000  # of a YAML file
FastLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Ten times faster if PyYAML has its C part. Text that it refuses is read again in Python, for uniform error messages."""


def load_yaml(path: str, text: str) -> tuple[Any, list[Problem]]:
    """The value, or the problems that hide it. Raises `RecursionError` for deep nesting."""
    try:
        _require_plain(text)
        parts = list(yaml_parts(text))
        problems = [
            Problem(path, f"duplicate key '{location[-1]}'", "keep one of them",
                    node.start_mark.line + 1, node.start_mark.column + 1)
            for location, node, again in parts if again
        ]  # fmt: skip
        return (None, problems) if problems else (_load(text), [])
    except yaml.MarkedYAMLError as error:
        what, remedy, mark = _in_plain_words(error)
        place = (mark.line + 1, mark.column + 1) if mark else (None, None)
        return None, [Problem(path, f"invalid YAML: {what}", remedy, *place)]
    except (yaml.YAMLError, ValueError) as error:
        what = str(error).splitlines()[0]
        return None, [Problem(path, f"invalid YAML: {what}", "correct the YAML there")]


_WORDS = (
    ("expected <block end>", "the indentation differs from that of the lines above", "give keys of the same level the same spaces"),
    ("found character '\\t'", "a tab in the indentation", "use spaces"),
    ("mapping values are not allowed", "a colon where no key can be", "check the indentation, or put text with a colon in quotes"),
    ("could not find expected ':'", "a key without a colon", "add the colon"),
    ("found character", "a character that cannot start a text", "put the text in quotes"),
)
"""How messages of PyYAML start -> what is wrong, and the fix."""


def _in_plain_words(error: yaml.MarkedYAMLError) -> tuple[str, str, yaml.Mark | None]:
    """What is wrong, the fix, and where."""
    what, mark, begun = (
        str(error.problem or error.context or "cannot be parsed"),
        error.problem_mark or error.context_mark,
        error.context_mark,
    )
    closing = "]" if "flow sequence" in str(error.context) else "}" if "flow mapping" in str(error.context) else ""
    if closing and begun and mark and (mark.line > begun.line or "<stream end>" in what):
        return f"the bracket {'[' if closing == ']' else '{'} is not closed", f"add {closing}", begun
    if closing:
        return f"expected a comma or {closing}", "add it", mark
    if "quoted scalar" in str(error.context) and begun:
        return "the text that starts here has no closing quote", "add it", begun
    plain, remedy = next(
        ((plain, remedy) for start, plain, remedy in _WORDS if what.startswith(start)), (what, "correct the YAML there")
    )
    return plain, remedy, mark


def read_value(text: str) -> Any:
    """A YAML value from the command line. Raises `ValueError` for the same errors as in a file."""
    try:
        value, problems = load_yaml("", text)
        require_shallow(value)
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    if problems or holds_half_characters(value):
        raise ValueError(problems[0].message if problems else "contains a lone surrogate (half of a character)")
    return value


def _require_plain(text: str) -> None:
    """Check the text without recursion: later code, such as PyYAML's C part, crashes the process on deep nesting.

    Raises `RecursionError` for that, `YAMLError` for too many parts.
    """
    depth = parts = 0
    try:
        for event in yaml.parse(text, Loader=FastLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            parts += isinstance(event, yaml.NodeEvent)
            if depth > MOST_DEPTH or parts > _MOST_NODES:
                break
    except yaml.YAMLError:
        return  # the parser below raises the same error with a message
    if depth > MOST_DEPTH:
        raise RecursionError
    if parts > _MOST_NODES:
        raise yaml.YAMLError(f"it has more than {_MOST_NODES} parts")


def _load(text: str) -> Any:
    try:
        return yaml.load(text, Loader=FastLoader)  # noqa: S506 - the safe loader, in C
    except yaml.YAMLError:
        return yaml.safe_load(text)
    except (AttributeError, LookupError, TypeError, ArithmeticError) as error:  # `!!int ""` and the like
        raise yaml.YAMLError("a tag does not fit its value") from error


def yaml_parts(text: str) -> Iterator[tuple[Location, yaml.Node, bool]]:
    """Every value of a YAML text, with the node to point at (its key, if any) and whether its key is a duplicate."""
    try:
        top = yaml.compose(text, Loader=FastLoader)
    except yaml.YAMLError:
        top = yaml.compose(text, Loader=yaml.SafeLoader)
    waiting: list[tuple[Location, yaml.Node, yaml.Node, bool]] = [((), top, top, False)] if top else []
    seen = 0
    while waiting:
        location, node, mark, again = waiting.pop()
        seen += 1
        if seen > _MOST_NODES:
            raise yaml.YAMLError("its aliases make it too large")
        if len(location) > MOST_DEPTH:  # an alias inside its own anchor
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
