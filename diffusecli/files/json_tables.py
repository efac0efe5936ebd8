"""JSON becomes a table: a list of rows, counts by answer, lists by column, or a row per line, whatever the file is called.

Knows JSON values; not what the cells mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusecli.files.cells import Cell, as_cell
from diffusecli.files.column_names import WEIGHT_LIKE
from diffusecli.files.documents import parse_json
from diffusecli.files.numerals import is_number
from diffusecli.files.tables import Layout, Table, bounded, numbered, require_no, with_header
from diffusecli.files.text import canonical, holds_half_characters
from diffusecli.system.errors import InputError

_ENDINGS = (".json", ".jsonl", ".ndjson")
_REMEDY = 'Write a list of mappings, [{"answer": "Yes", "n": 71}], or counts, {"Yes": 71}'


def table_of_json(path: Path, text: str, ending: str, layout: Layout, named: Sequence[str]) -> Table | None:
    """The table in a JSON document or in JSON lines, whatever the file is called; None where it is neither."""
    called = ending in _ENDINGS
    if not called and text.lstrip()[:1] not in ("[", "{"):
        return None
    in_lines = ending in (".jsonl", ".ndjson")
    refused: list[InputError] = []
    for read in (_json_lines, _json_document) if in_lines else (_json_document, _json_lines):
        try:
            value = read(path, text)
        except InputError as error:
            refused.append(error)
            continue
        kinds = (dict, list) if called else dict
        certain = _holds(value, kinds) if read is _json_lines else bool(value) and isinstance(value, dict | list)
        if certain or (called and not refused):
            require_no(layout, path, "JSON", "delimiter", "skip_rows")
            if read is _json_lines and len(value) == 1 and isinstance(value[0], list):  # a document of one line
                value = value[0]
            as_what = "" if called and not refused else f"{path} is read as JSON{' lines' if read is _json_lines else ''}"
            table = _of_value(path, value, layout, named)
            return replace(table, notices=(as_what, *table.notices) if as_what else table.notices)
    if called:
        raise refused[0]
    return None


def _json_document(path: Path, text: str) -> Any:
    value, problems = parse_json(str(path), text)
    if problems:
        raise InputError.of(problems)
    return value


def _json_lines(path: Path, text: str) -> list[Any]:
    rows = []
    for number, line in enumerate(bounded(path, text.split("\n")), 1):  # not splitlines: a string may hold U+2028
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise InputError(f"{path}:{number}: invalid JSON. Correct the line") from error
            if "\\ud" in line.lower() and holds_half_characters(rows[-1]):
                raise InputError(f"{path}:{number}: contains a lone surrogate (half of a character). Correct the line")
    return rows


def _of_value(path: Path, value: Any, layout: Layout, named: Sequence[str] = ()) -> Table:
    """The table that a JSON value is: a list of rows, counts by answer, or lists by column."""
    if isinstance(value, list):
        return _of_items(path, value, layout)
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds a single value. {_REMEDY}")
    if {"request", "targets"} <= value.keys():
        raise InputError(f"{path}: is already a prompt. Use it directly")
    if {"columns", "data"} <= value.keys() and isinstance(value["data"], list) and isinstance(value["columns"], list):
        return _of_items(path, [value["columns"], *value["data"]], replace(layout, header_rows=1))
    inner = list(value.values())
    if value and all(_is_weight(part) for part in inner):
        return _counted(path, [(answer, as_cell(weight)) for answer, weight in value.items()])
    if inner and all(isinstance(part, list) for part in inner) and not (len(inner) == 1 and _holds(inner[0], dict)):
        longest = max(map(len, inner))
        columns = tuple([*map(as_cell, part), *[""] * (longest - len(part))] for part in inner)
        return Table(path, numbered(value), columns, decimal=".")
    if inner and all(isinstance(part, dict) and part for part in inner):
        return _of_mappings(path, value, named)
    wrapped = {key: part for key, part in value.items() if _holds(part, dict)}
    if len(wrapped) == 1:
        key, rows = next(iter(wrapped.items()))
        table = _of_items(path, rows, layout)
        return replace(table, notices=(f"rows are taken from '{key}' in {path}", *table.notices))
    raise InputError(f"{path}: holds neither rows nor counts. {_REMEDY}")


def _of_mappings(path: Path, value: Mapping[str, Mapping[str, Any]], named: Sequence[str]) -> Table:
    """Columns by row number, rows by name, or counts by group. If all values are numbers, names or the user decide."""
    inner = list(value.values())
    if all(list(part) == [str(number) for number in range(len(part))] for part in inner):
        return _of_value(path, {name: list(part.values()) for name, part in value.items()}, Layout())
    if not all(weight is None or _is_weight(weight) for part in inner for weight in part.values()):
        return _of_items(path, inner, Layout())
    within = list(dict.fromkeys(name for part in inner for name in part))
    if "group" in named and "group" not in within:
        rows = [(group, answer, as_cell(n)) for group, part in value.items() for answer, n in part.items() if n is not None]
        found = f"{path} holds counts by group, read as the columns group, target and weight"
        return Table(path, ("group", "target", "weight"), tuple(zip(*rows, strict=True)), (found,), ".", "weight")
    columns = {canonical(name) for name in named if name != "target"}
    chosen = [bool(columns) and columns <= {*map(canonical, names)} for names in (within, value)]
    by_name = chosen if any(chosen) else [all(map(WEIGHT_LIKE.fullmatch, names)) for names in (within, value)]
    if by_name == [False, True] and len(inner) > 1:
        value, within = {answer: {name: part.get(answer) for name, part in value.items()} for answer in within}, list(value)
    elif len(inner) == 1 and not by_name[0]:
        return _counted(path, [(answer, as_cell(weight)) for answer, weight in inner[0].items()])
    elif by_name != [True, False]:
        raise InputError(
            f"{path}: holds {len(inner)} mappings of numbers, first: {next(iter(value))!r} with {', '.join(map(repr, within))[:80]}. "
            "Add --group-by group if each is a group with its counts, or --column target --weight-column NAME if NAME names numbers"
        )
    cells = [[as_cell(part.get(name)) for part in value.values()] for name in within]
    found = f"{path} is read as the columns target, {', '.join(within)}"[:200]
    return Table(path, numbered(["target", *within]), (list(value), *cells), (found,), ".")


def _counted(path: Path, pairs: Sequence[tuple[Cell, Cell]]) -> Table:
    return Table(path, ("target", "weight"), tuple(zip(*pairs, strict=True)), decimal=".", counts="weight")


def _of_items(path: Path, rows: Sequence[Any], layout: Layout) -> Table:
    """A table of mappings, of lists, or a single column of values."""
    kinds = {dict if isinstance(row, dict) else list if isinstance(row, list) else str for row in rows}
    if len(kinds) > 1:
        raise InputError(f"{path}: some rows are mappings or lists and some are not. Use the same form for all rows")
    if kinds == {dict}:
        require_no(layout, path, "JSON with named columns", "header_rows")
        names = list(dict.fromkeys(name for row in rows for name in row))
        return Table(path, numbered(names), tuple([as_cell(row.get(name)) for row in rows] for name in names), decimal=".")
    if kinds == {list}:
        return _of_lists(path, rows, layout)
    return Table(path, ("target",), ([as_cell(row) for row in rows],), decimal=".")


def _of_lists(path: Path, rows: Sequence[Sequence[Any]], layout: Layout) -> Table:
    """JSON distinguishes numbers from text, so the first row is a header if it names columns of numbers."""
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise InputError(f"{path}: rows have {min(widths)} to {max(widths)} values. Use the same form for all rows")
    rows_of_header = layout.header_rows
    if rows_of_header is None:
        first, rest = rows[0], rows[1:]
        named = all(isinstance(value, str) for value in first) and any(_all_numbers(column) for column in zip(*rest, strict=True))
        if not named and all(isinstance(value, str) for value in first):
            raise InputError(f"{path}: has rows of text. Use --header-rows 1 if the first row names the columns, else --no-header")
        rows_of_header = int(named)
    cells = [[as_cell(value) for value in row] for row in rows]
    return with_header(path, cells, replace(layout, header_rows=rows_of_header), (), ".")


def _all_numbers(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _holds(value: Any, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(part, kind) for part in value)


def _is_weight(value: Any) -> bool:
    return (isinstance(value, int | float) and not isinstance(value, bool)) or (isinstance(value, str) and is_number(value))
