"""Tables of text: their layout, and which of the first rows name the columns.

Knows no files. Refuses what could be read in two ways, and names the option that decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from diffusecli.files.cells import Cell
from diffusecli.files.numerals import is_number
from diffusecli.files.text import canonical
from diffusecli.system.errors import InputError, did_you_mean, sentence

MOST_BYTES = 500_000_000  # of a table, unpacked
_LOOKED_AT = 1000  # rows
_SHOWN = 20  # names of columns
_MOST_LINE = 1_000_000  # characters

_SPELLED = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " ", "none": ""}
_ENCODINGS = ("utf-8", "utf-16", "cp1252", "cp1250", "cp1251", "latin-1", "mac_roman", "shift_jis", "gb18030")
_DAY = re.compile(r"\d{4}-\d\d-\d\d.*|\d{1,2}[./]\d{1,2}[./]\d{2,4}.*")
_YEARS = range(1500, 2201)


@dataclass(frozen=True)
class Layout:
    """The layout of a table, as far as the user gives it."""

    delimiter: str | None = None  # as given; a word or a character
    encoding: str | None = None
    header_rows: int | None = None
    skip_rows: int = 0
    sheet: str | None = None

    def __post_init__(self) -> None:
        """Raises `InputError` for a delimiter or encoding that does not exist."""
        if self.separator is not None and len(self.separator) > 1:
            raise InputError(f"--delimiter {self.delimiter!r}: must be one character, or one of {', '.join(_SPELLED)}")
        if self.header_rows is not None and self.header_rows < 0:
            raise InputError(f"--header-rows {self.header_rows}: must be 0 or more")
        if self.encoding is not None:
            try:
                "".encode(self.encoding)
            except LookupError as error:
                raise InputError(
                    f"--encoding {self.encoding}: unknown encoding. {sentence(did_you_mean(self.encoding, _ENCODINGS))}"
                ) from error

    @property
    def separator(self) -> str | None:
        """The delimiter of fields; "" for one target per line, None to detect it."""
        return None if self.delimiter is None else _SPELLED.get(self.delimiter.lower(), self.delimiter)

    def given(self) -> list[str]:
        """The options that differ from their defaults."""
        return [f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value != vars(_PLAIN)[name]]


_PLAIN = Layout()


@dataclass(frozen=True)
class Table:
    """Columns of text with names. Names may repeat; a column without a name has its number."""

    path: Path
    names: tuple[str, ...]
    columns: tuple[Sequence[Cell], ...] = field(repr=False)
    notices: tuple[str, ...] = ()  # what was detected
    decimal: str | None = None  # the likely decimal sign
    counts: str | None = None  # the weight column, if the format defines one
    orders: Mapping[int, Sequence[str]] = field(default_factory=dict)  # column -> its categories, in their order

    def __len__(self) -> int:
        """Rows."""
        return len(self.columns[0])

    def find(self, name: str, option: str) -> int:
        """The number of a column from 0, by its name or else by its number from 1. Raises `InputError`."""
        places = [index for index, known in enumerate(self.names) if known == canonical(name)]
        if not places and name.isascii() and name.isdigit() and 0 < int(name) <= len(self.names):
            return int(name) - 1
        if len(places) > 1:
            numbers = " and ".join(str(index + 1) for index in places)
            raise InputError(
                f"{self.path}: columns {numbers} are all named '{name}'. Choose one by its number: {option} {places[0] + 1}"
            )
        if not places:
            raise InputError(f"{self.path}: has no column '{name}' ({option}). {sentence(did_you_mean(name, self.shown_names()))}")
        return places[0]

    def shown_names(self) -> list[str]:
        """The names, up to a maximum."""
        return [*self.names[:_SHOWN], *(["…"] if len(self.names) > _SHOWN else [])]

    def texts(self, index: int, remedy: str) -> list[str]:
        """A column of text only. Raises `InputError` for a list or mapping in it."""
        for row, cell in enumerate(self.columns[index], 1):
            if not isinstance(cell, str):
                kind = "list" if isinstance(cell, list) else "mapping"
                raise InputError(f"{self.path}: row {row} of column {self.names[index]} holds a {kind}. {remedy}")
        return list(self.columns[index])  # type: ignore[arg-type]


def require_no(layout: Layout, path: Path, what: str, *names: str) -> None:
    """Raise `InputError` for an option that has no effect on such a file."""
    options = [f"--{name.replace('_', '-')}" for name in names]
    if foreign := [option for option in layout.given() if option in options]:
        raise InputError(f"{path}: is {what}: {foreign[0]} has no effect. Leave it out")


def bounded(path: Path, lines: list[str]) -> list[str]:
    """The lines. Raises `InputError` for a line that is too long for a target."""
    if (longest := max(map(len, lines), default=0)) > _MOST_LINE:
        number = next(number for number, line in enumerate(lines, 1) if len(line) == longest)
        raise InputError(f"{path}:{number}: has more than {_MOST_LINE} characters. Correct the line")
    return lines


def numbered(names: Iterable[object]) -> tuple[str, ...]:
    """Names in normal form. A column without a name gets its number."""
    return tuple(canonical(str(name)) or str(number) for number, name in enumerate(names, 1))


def with_header(path: Path, rows: Sequence[Sequence[Cell]], layout: Layout, named: Sequence[str], decimal: str | None) -> Table:
    """The rows below the header, with its names. Raises `InputError` if the first row may be data, or one of several header rows."""
    if not rows:
        raise InputError(f"{path}: contains no rows. Check the file")
    count = layout.header_rows
    if count is None:
        _require_header(path, rows, named)
    names, below = _names_of(rows, 1 if count is None else count)
    columns: tuple[Sequence[Cell], ...] = tuple(zip(*below, strict=True)) if below else tuple(() for _ in names)
    alone = count is None and len(names) == 1 and not named
    notices = (f"the first line of {path}, {names[0]!r}, names the column (--no-header if it is data)",) if alone else ()
    return Table(path, names, columns, notices, decimal)


def _names_of(rows: Sequence[Sequence[Cell]], count: int) -> tuple[tuple[str, ...], Sequence[Sequence[Cell]]]:
    """The names in the first rows, each from the first that has one, and the rows below."""
    if count == 0:
        return tuple(str(number) for number in range(1, len(rows[0]) + 1)), rows
    stacked = zip(*rows[:count], strict=True)
    return numbered(next((str(cell) for cell in cells if str(cell).strip()), "") for cells in stacked), rows[count:]


def _require_header(path: Path, rows: Sequence[Sequence[Cell]], named: Sequence[str]) -> None:
    """Raises `InputError` where the first row looks like data or like a title, or the next one like a second header."""
    first = [canonical(str(cell)) for cell in rows[0]]
    known = [name for name in named if name in first]
    confirmed = bool(known) and len(known) == len(named)
    imports = [n for n, row in enumerate(rows[:4], 1) if any(str(cell).lstrip().startswith('{"ImportId"') for cell in row)]
    if imports:
        raise InputError(f"{path}: has {imports[0]} header rows, as written by Qualtrics. Add --header-rows {imports[0]}")
    if (
        len(first) > 1
        and sum(map(bool, first)) == 1
        and first[0]
        and not confirmed
        and any(sum(map(bool, row)) > 1 for row in rows[1:])
    ):
        raise InputError(
            f"{path}: the first row names only one of {len(first)} columns: {first[0]!r}. Skip it with --skip-rows 1, or keep it with --header-rows 1"
        )
    if _is_second_header(first, rows):
        label = next(str(cell) for cell in rows[1] if str(cell).strip())
        raise InputError(
            f"{path}: the second row also looks like names ({label!r}). Add --header-rows 2, or --header-rows 1 if it is an answer"
        )
    if len(first) > 1 and (again := next((n for n, row in enumerate(rows[1:], 1) if list(row) == list(rows[0])), None)):
        raise InputError(f"{path}: row {again} repeats the header. Remove it, or add --no-header if both are data")
    if reason := _looks_like_data(first, rows[1:], known):
        raise InputError(
            f"{path}: the first row looks like data: {reason}. Add --no-header (columns are then named 1, 2, …), "
            "or --header-rows 1 if it names the columns"
        )


def _is_second_header(first: Sequence[str], rows: Sequence[Sequence[Cell]]) -> bool:
    """Whether the row below the header has no id unlike all others, and holds labels that are not answers."""
    if len(rows) < 3 or not first[0] or str(rows[1][0]).strip() or not all(str(row[0]).strip() for row in rows[2:]):
        return False
    labels = [(index, str(cell).strip()) for index, cell in enumerate(rows[1]) if str(cell).strip()]
    if not labels or any(is_number(text) for _, text in labels):
        return False
    return any(text not in {str(row[index]).strip() for row in rows[2:]} for index, text in labels)


def _looks_like_data(first: Sequence[str], rows: Sequence[Sequence[Cell]], known: Sequence[str]) -> str:
    """Why the first row is not a header: a number above numbers, a day above days, a text that occurs again below. Else ""."""
    again = ""
    for index, name in enumerate(first):
        below = [text for row in rows if (text := str(row[index]).strip())] if name else []
        if not below or set(below[:_LOOKED_AT]) == {name}:  # a tick-box column holds its own name
            continue
        if is_number(name) and all(map(is_number, below)):
            if not (known and _is_label(first, name, below)):
                return f"{name!r} is above numbers"
        elif _DAY.fullmatch(name) and all(map(_DAY.fullmatch, below)):
            return f"{name!r} is above days"
        elif (not known or name in known) and name in below:
            again = again or f"{name!r} occurs again below"
    return again


def _is_label(first: Sequence[str], name: str, below: Sequence[str]) -> bool:
    """Whether a number names a column: a year above values that are not years, or one of several consecutive numbers."""
    if name.isdigit() and int(name) in _YEARS:
        return 2 * sum(text.isdigit() and int(text) in _YEARS for text in below) < len(below)
    numbers = [int(cell) for cell in first if cell.isdigit()]
    return len(numbers) > 1 and len({b - a for a, b in pairwise(numbers)}) == 1 and numbers[0] < numbers[1]
