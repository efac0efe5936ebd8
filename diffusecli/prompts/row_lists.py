"""Tables in which one row holds a list of options and a list of shares, as public opinion data come: a distribution per row.

Knows tables; knows nothing of prompts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from diffusecli.files.cells import as_cell, is_collection, items
from diffusecli.files.numerals import UnclearNumberError, numbers_in
from diffusecli.files.tables import Table
from diffusecli.files.text import canonical
from diffusecli.prompts.distributions import Distribution
from diffusecli.prompts.weighing import Reading, distribution, with_notices
from diffusecli.system.errors import InputError, many


def distributions_of_lists(table: Table, reading: Reading) -> dict[tuple[str, ...], Distribution]:
    """One distribution per row, or per name of a mapping in it; `fields` are the row's other cells and the name as `group`."""
    shares_at = table.find(str(reading.shares_column), "--shares-column")
    options_at = None if reading.options_column is None else table.find(reading.options_column, "--options-column")
    keys = [table.find(name, reading.grouping) for name in reading.group_by]
    texts = {
        i: column
        for i, column in enumerate(table.columns)
        if i not in (shares_at, options_at) and table.names.count(table.names[i]) == 1
    }
    made: dict[tuple[str, ...], Distribution] = {}
    came_from: dict[tuple[str, ...], int] = {}
    left_out = 0
    for row in range(len(table)):
        if table.columns[shares_at][row] in ("", [], {}):
            left_out += 1
            continue
        place = f"{table.path}: row {row + 1}"
        fields = {table.names[i]: canonical(str(column[row])) for i, column in texts.items() if not is_collection(column[row])}
        own = tuple(" ".join(canonical(str(table.columns[key][row])).split()) for key in keys) or (f"row-{row + 1}",)
        if not all(own):
            raise InputError(f"{place}: has no value in the column of {reading.grouping}. Fill it in")
        for name, totals in _row(place, table, row, shares_at, options_at, reading):
            key = (*own, *([name] if name else []))
            if key in made:
                raise InputError(
                    f"{place}: has the same group as row {came_from[key] + 1}: {', '.join(key)}. Add columns to {reading.grouping}, or leave it out"
                )
            found = distribution(table, key, totals, list(totals), reading, counted=True)
            made[key] = replace(found, fields={**fields, **({"group": name} if name else {})})
            came_from[key] = row
    if not made:
        raise InputError(f"{table.path}: contains no shares. Check the file and --shares-column")
    return with_notices(made, [*table.notices, f"skipped rows without shares: {left_out}" if left_out else ""])


def _row(
    place: str, table: Table, row: int, shares_at: int, options_at: int | None, reading: Reading
) -> Iterator[tuple[str, dict[str, float]]]:
    """The weights by option, with the name they stand under where the cell of shares is a mapping of lists."""
    place = f"{place} of column {table.names[shares_at]}"
    shares = _items(place, table.columns[shares_at][row])
    options = (
        None
        if options_at is None
        else _items(f"{table.path}: row {row + 1} of column {table.names[options_at]}", table.columns[options_at][row])
    )
    named: dict[str, object] = {"": shares}
    if isinstance(shares, dict) and any(isinstance(part, list | dict) for part in shares.values()):
        named = {canonical(str(name)): part for name, part in shares.items() if part is not None}
        if len(named) < sum(part is not None for part in shares.values()) or "" in named:
            raise InputError(f"{place}: two names are equal, or one is empty. Rename it")
    for name, part in named.items():
        yield name, _weighted(f"{place}{f', {name}' if name else ''}", part, options, reading)


def _items(place: str, cell: object) -> list[object] | dict[object, object]:
    try:
        return items(cell)  # type: ignore[arg-type]
    except ValueError as error:
        raise InputError(f"{place}: {error}. Write it like ['a', 'b'], or with | between the items") from error


def _weighted(place: str, shares: object, options: object, reading: Reading) -> dict[str, float]:
    """The weights of one list of shares, or of a mapping from options to shares."""
    if isinstance(shares, dict):
        if isinstance(options, list) and (
            unknown := [name for name in shares if canonical(str(name)) not in {canonical(str(o)) for o in options}]
        ):
            raise InputError(f"{place}: {unknown[0]!r} is not one of its options. Correct the row")
        options, shares = list(shares), list(shares.values())
    if not isinstance(shares, list):
        raise InputError(f"{place}: has no list of shares. Correct the row")
    if not isinstance(options, list):
        raise InputError(f"{place}: has shares without options. Name the column of the options with --options-column")
    if len(options) != len(shares):
        raise InputError(f"{place}: has {many(len(options), 'option')} and {many(len(shares), 'share')}. Correct the row")
    names = [canonical(str(as_cell(option))) for option in options]
    if bad := [option for option, name in zip(options, names, strict=True) if not name or isinstance(option, list | dict)]:
        raise InputError(f"{place}: the option {bad[0]!r} is not a text. Correct the row")
    try:
        numbers = numbers_in([str(as_cell(share)) for share in shares], reading.decimal, ".")
    except UnclearNumberError as error:
        raise InputError(f"{place}: the share {error.message}. {error.remedy}") from error
    if negative := [number for number in numbers if number < 0]:
        raise InputError(f"{place}: the share {negative[0]:g} is negative. Write numbers that are zero or more")
    totals: dict[str, float] = {}
    for name, number in zip(names, numbers, strict=True):
        totals[name] = totals.get(name, 0.0) + number
    return totals
