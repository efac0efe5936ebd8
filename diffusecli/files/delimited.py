"""Tables from text: delimited fields, or one target per line. Detects the delimiter if it is certain, else raises an error.

A delimiter is certain if only one character separates the same number of fields in each of the first rows.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from diffusecli.files.column_names import WEIGHT_LIKE
from diffusecli.files.numerals import ending_of
from diffusecli.files.spreadsheets import COLUMNS, from_cell
from diffusecli.files.tables import Layout, Table, bounded, with_header
from diffusecli.files.text import canonical
from diffusecli.system.errors import InputError, many

_LOOKED_AT = 1000  # rows, to find a delimiter
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
OF_ENDING = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".psv": "|"}
"""Endings of tables -> their usual delimiters."""
_LINES = (".txt", ".text", ".lst", ".list", "")
_COUNTED = re.compile(r"\s+\d+ \S.*")  # as uniq -c writes
_CLOCK = re.compile(r"\s*\d{1,2}:[0-5]\d(?::[0-5]\d)?\s*")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")


def even_delimiters(text: str) -> list[str]:
    """The characters that separate the same number of fields (at least two) in each of at least two lines."""
    return [sign for sign in _DELIMITERS if _fields(text, sign) > 1]


def table_of_text(path: Path, text: str, ending: str, layout: Layout, named: Sequence[str]) -> Table:
    """A delimited table, or one target per line."""
    delimiter, notices = layout.separator, []
    if delimiter is None and (line := re.match(r"(?i)sep=(.)\r?\n", text)):  # as Excel marks its own
        delimiter, text = line[1], text[line.end() :]
    if delimiter is None:
        delimiter = _delimiter(path, text, ending, layout, named)
        if delimiter != OF_ENDING.get(ending, "") and delimiter:
            notices.append(f"fields of {path} are separated by {_DELIMITERS[delimiter]}")
        elif not delimiter and ending not in _LINES:
            notices.append(f"{path} is read as one target per line")
    if not delimiter:
        return _of_lines(path, text, layout, named, notices)
    rows, found = _rows(path, text, delimiter, layout.skip_rows)
    if layout.separator is None and layout.header_rows is None and not named and rows and len(rows[0]) == 1:
        _require_no_weights(path, [row[0] for row in rows])
    table = with_header(path, rows, layout, named, "." if delimiter == "," else None)
    if table.names == tuple(COLUMNS) and delimiter == ",":  # samples as we write them
        table = replace(table, columns=tuple([from_cell(str(cell)) for cell in column] for column in table.columns))
    return replace(table, notices=(*notices, *found, *table.notices))


def _require_plain_lines(path: Path, lines: Sequence[str]) -> None:
    """Raises `InputError` for a single line that lists targets, and for lines that all have a number like a weight."""
    listed = next((sign for sign in "\t|;," if sign in lines[0]), None) if len(lines) == 1 else None
    if listed is not None:
        raise InputError(
            f"{path}: has one line with {_DELIMITERS[listed]}. Write one target per line, or keep the line as one target with --delimiter none"
        )
    _require_no_weights(path, lines)


def _require_no_weights(path: Path, lines: Sequence[str]) -> None:
    """Raises `InputError` where each line, below a header that says so or without one, has a number like a weight."""
    words = lines[0].split() if len(lines) > 2 else []
    rows = lines[1:] if len(words) > 1 and WEIGHT_LIKE.fullmatch(words[-1]) else lines
    if len(rows) < 2 or all(map(_CLOCK.fullmatch, rows)):
        return
    where = "ends" if all(map(ending_of, rows)) else "begins" if all(map(_COUNTED.fullmatch, rows)) else ""
    if where:
        raise InputError(
            f"{path}: each line {where} with a number that looks like a weight. First line: {rows[0].strip()!r}. Separate target and weight with one character, such as a tab, "
            "and name the columns, or read one target per line with --delimiter none"
        )


def _delimiter(path: Path, text: str, ending: str, layout: Layout, named: Sequence[str]) -> str:
    """The delimiter; "" for one target per line. Raises `InputError` if it is not certain."""
    usual = OF_ENDING.get(ending)
    text = _below(text, layout.skip_rows)
    fitting = even_delimiters(text)
    of_names = [sign for sign in fitting if named and {*named} <= {canonical(cell) for cell in _first_row(text, sign)}]
    fitting = of_names or (["\t"] if "\t" in fitting else fitting)
    wants_table = bool(named) or layout.header_rows is not None
    if len(fitting) > 1:
        signs = " and by ".join(_DELIMITERS[sign] for sign in fitting)
        raise InputError(
            f"{path}: can be read as fields separated by {signs}. Choose the delimiter, e.g. --delimiter '{fitting[0]}'"
        )
    if fitting and (usual or wants_table or fitting == ["\t"]):
        return fitting[0]
    if fitting:
        row = _first_row(text, fitting[0])
        raise InputError(
            f"{path}: each line has {len(row)} fields separated by {_DELIMITERS[fitting[0]]}. First line: {', '.join(row)[:80]!r}. "
            "Choose the column of targets with --column (add --no-header if the first line is data: --no-header --column 1), "
            "or read one target per line with --delimiter none"
        )
    if usual:
        return _fallback_delimiter(path, text, usual)
    return ""


def _fallback_delimiter(path: Path, text: str, usual: str) -> str:
    """The delimiter to report if rows differ in width. The usual one for a single column."""
    header = _first_row(text, usual)
    others = [sign for sign in _DELIMITERS if sign != usual and len(_first_row(text, sign)) > 1]
    if len(header) <= 1 and others:
        return others[0]
    rest = _below(text, 1)
    for sign in ";\t|":
        if sign != usual and len(header) <= 1 and _fields(rest, sign) > 1:
            raise InputError(
                f"{path}:2: has {_fields(rest, sign)} fields separated by {_DELIMITERS[sign]}, but the header has 1. Choose the delimiter with --delimiter"
            )
    return usual


def _fields(text: str, delimiter: str) -> int:
    """Number of fields in each of the first rows. 0 if it differs or is below two."""
    try:
        widths = [len(row) for row in islice(_reader(text, delimiter), _LOOKED_AT) if row]
    except csv.Error:
        return 0
    return widths[0] if len(widths) > 1 and len(set(widths)) == 1 else 0


def _first_row(text: str, delimiter: str) -> list[str]:
    try:
        return next((row for row in _reader(text, delimiter) if row), [])
    except csv.Error:
        return []


def _reader(text: str, delimiter: str, quoting: int = csv.QUOTE_MINIMAL) -> Any:
    lines = (line[0] for line in _LINE.finditer(text))
    return csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)  # type: ignore[arg-type]


def _below(text: str, lines: int) -> str:
    """The text without its first lines."""
    return text.split("\n", lines)[-1] if lines else text


def _rows(path: Path, text: str, delimiter: str, skip: int) -> tuple[list[list[str]], list[str]]:
    """Rows of the same width, and notices on removed quotes and on blank lines that may be empty answers.

    Quotes count in every format but one with tabs: there only if each field with a quote is quoted as a whole, as spreadsheets do it.
    """
    quoting, unquoted = csv.QUOTE_MINIMAL, False
    if delimiter == "\t":
        unquoted = '"' in text and _is_quoted(text)
        quoting = csv.QUOTE_MINIMAL if unquoted else csv.QUOTE_NONE
    reader = _reader(text, delimiter, quoting)
    rows: list[list[str]] = []
    skipped = blank = waiting = 0
    for row in reader:
        if skipped < skip:
            skipped += 1
        elif row and rows and len(row) != len(rows[0]):
            hint = ", or skip the rows above the header with --skip-rows" if len(rows) <= 20 and len(rows[0]) < len(row) else ""
            raise InputError(
                f"{path}:{reader.line_num}: has {many(len(row), 'field')}, but the header has {len(rows[0])}. Correct the row, choose another --delimiter{hint}"
            )
        elif row:
            rows.append(row)
            blank, waiting = blank + waiting, 0
        elif rows:
            waiting += 1  # those at the end are no rows
    notices = [f"quotes around fields of {path} are removed"] if unquoted else []
    if blank and len(rows[0]) == 1:
        notices.append(f'skipped blank lines of {path}: {blank}. Write "" for an empty answer')
    return rows, notices


def _is_quoted(text: str) -> bool:
    whole = re.compile(r'(?:^|(?<=[\t\n]))"(?:[^"]|"")*"(?=[\t\r\n]|$)')
    return '"' not in whole.sub("", text)


def _of_lines(path: Path, text: str, layout: Layout, named: Sequence[str], notices: Sequence[str]) -> Table:
    """One target a line; a table of one column where the first line is the name that the user gives."""
    lines = [line for line in bounded(path, text.splitlines()) if line.strip()][layout.skip_rows :]
    headed = len(named) == 1 and bool(lines) and canonical(lines[0]) == named[0]
    if layout.header_rows is not None or headed:
        return with_header(path, [[line] for line in lines], layout, named, ".")
    if layout.separator is None:
        _require_plain_lines(path, lines)
    table = Table(path, ("target",), (lines,), tuple(notices), ".")
    if named and set(named) != {"target"} and lines:
        unknown = next(name for name in named if name != "target")
        raise InputError(
            f"{path}: has one target per line and no column '{unknown}'. Leave the column options out, or choose a --delimiter"
        )
    return table
