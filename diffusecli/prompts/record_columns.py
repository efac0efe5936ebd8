"""Columns derived from others: numbers in bins, and records from a template.

Knows tables; the column that it adds is read like any other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import product

from diffusecli.files.numerals import UnclearNumberError, numbers_in
from diffusecli.files.tables import Table
from diffusecli.files.text import canonical
from diffusecli.prompts.templates import Template
from diffusecli.prompts.weighing import Reading
from diffusecli.system.errors import InputError, did_you_mean, sentence

_NO_LIST = "A field must be a single value"


def with_bins(table: Table, reading: Reading) -> Table:
    """The table with the numbers of some columns as ranges, such as 30-39; empty cells stay empty."""
    columns = list(table.columns)
    fields = Template.of(reading.template).fields if reading.template else ()
    used = {reading.column, *reading.group_by, *fields}
    if idle := next((name for name in reading.widths if name not in used and len(table.names) > 1), None):
        raise InputError(f"--bins {idle}: is not a target, field or group. Leave it out")
    for name, width in reading.widths.items():
        index = table.find(name, "--bins")
        texts = [canonical(text) for text in table.texts(index, _NO_LIST)]
        rows = [row for row, text in enumerate(texts) if text]
        try:
            numbers = numbers_in([texts[row] for row in rows], reading.decimal, table.decimal)
        except UnclearNumberError as error:
            raise InputError(
                f"{table.path}: row {rows[error.index] + 1} of column {name}: {error.message}. --bins needs columns of numbers"
            ) from error
        whole = float(width).is_integer() and all(number.is_integer() for number in numbers)
        for row, number in zip(rows, numbers, strict=True):
            texts[row] = range_of(number, width, whole=whole)
        columns[index] = texts
    return replace(table, columns=tuple(columns)) if reading.widths else table


def range_of(number: float, width: float, *, whole: bool) -> str:
    """The range that a number lies in.

    >>> range_of(34, 10, whole=True), range_of(0.72, 0.25, whole=False), range_of(34, 1, whole=True)
    ('30-39', '0.5-0.75', '34')
    """
    low = math.floor(round(number / width, 9)) * width  # .3 / .1 is a little less than 3
    high = low + width - (1 if whole else 0)
    return f"{low:.10g}" if low == high else f"{low:.10g}-{high:.10g}"


def with_records(table: Table, written: str) -> tuple[Table, int]:
    """The table with a column of records, and its number. Rows with an empty field have none.

    Raises `InputError` for a placeholder that is no column and for a record that could not be taken apart again.
    """
    template = Template.of(written)
    columns = [[canonical(text) for text in table.texts(table.find(name, "--template"), _NO_LIST)] for name in template.fields]
    records = []
    for row, values in enumerate(zip(*columns, strict=True), 1):
        if (wrong := template.misread(values)) is not None and all(values):
            value = values[template.fields.index(wrong)]
            raise InputError(
                f"{table.path}: row {row}: '{wrong}' is {value!r}, and --template {written!r} would split it at another place. "
                "Put a text between the fields that is in no value, such as ' | '"
            )
        records.append(template.fill(values) if all(values) else "")
    return replace(table, names=(*table.names, "record"), columns=(*table.columns, records)), len(table.names)


_MOST_LISTED = 1_000_000  # records of a product


def made_independent(totals: Mapping[str, float], reading: Reading) -> dict[str, float]:
    """The weights of records whose `independent` fields depend on nothing: the product of each one's weights with those of all others together.

    Raises `InputError` for a name that is no field, and for more records than can be listed.
    """
    template = Template.of(reading.template or "")
    if unknown := next((name for name in reading.independent if name not in template.fields), None):
        raise InputError(
            f"--independent {unknown}: is not a field of the template. {sentence(did_you_mean(unknown, list(template.fields)))}"
        )
    free = [template.fields.index(name) for name in reading.independent]
    whole = math.fsum(totals.values())
    if not whole:
        return dict(totals)  # refused where weights are looked at
    parts: list[dict[tuple[str, ...], float]] = [{} for _ in range(1 + len(free))]  # all others together, then each free field
    for text, weight in totals.items():
        values = template.parse(text) or ()
        others = tuple(value for place, value in enumerate(values) if place not in free)
        for part, key in zip(parts, [others, *((values[place],) for place in free)], strict=True):
            part[key] = part.get(key, 0.0) + weight / whole
    if (count := math.prod(map(len, parts))) > _MOST_LISTED:
        raise InputError(
            f"--independent {','.join(reading.independent)}: gives {count} records, at most {_MOST_LISTED} are allowed. Use --bins or fewer fields"
        )
    found: dict[str, float] = {}
    for combined in product(*(part.items() for part in parts)):
        joint, *own = combined
        left = iter(joint[0])
        chosen = {place: key[0] for place, (key, _) in zip(free, own, strict=True)}
        filled = [chosen[place] if place in chosen else next(left) for place in range(len(template.fields))]
        found[template.fill(filled)] = whole * math.prod(weight for _, weight in combined)
    return found
