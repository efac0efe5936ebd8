"""Columns derived from others: numbers in bins, and records from a template.

Knows tables; the column that it adds is read like any other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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


_MOST_LISTED = 10_000
"""Number of combinations up to which they are listed as targets. Then figures are exact, and each combination has its own count."""

Independent = dict[str, dict[str, float]]
"""Field -> value -> weight."""

Key = tuple[str, ...]


def made_independent(
    totals: Mapping[Key, Mapping[str, float]], reading: Reading
) -> tuple[dict[Key, dict[str, float]], dict[Key, Independent]]:
    """For each group, weights of records whose `independent` fields do not depend on any other.

    They are the product of each field's own weights with those of all other fields together. If a group has many combinations they are not listed in any: then the records have `{field}` in the place of independent fields, whose
    weights are returned separately. Raises `InputError` for a name that is not a field, and for options that do not apply then.
    """
    template = Template.of(reading.template or "")
    if unknown := next((name for name in reading.independent if name not in template.fields), None):
        raise InputError(
            f"--independent {unknown}: is not a field of the template. {sentence(did_you_mean(unknown, list(template.fields)))}"
        )
    free = [template.fields.index(name) for name in dict.fromkeys(reading.independent)]
    if len(free) == len(template.fields):
        free = free[1:]  # if all are independent, the first is independent of the others too
    apart = {key: _apart(sums, template, free) for key, sums in totals.items()}
    if max(len(joint) * math.prod(map(len, own.values())) for joint, own in apart.values()) <= _MOST_LISTED:
        return {key: _combined(*both, template, free) for key, both in apart.items()}, {}
    changed = {"--alpha": reading.alpha > 0, "--top": reading.top is not None, "--min-count": reading.min_count > 0}
    if option := next((name for name, given in changed.items() if given), None):
        raise InputError(
            f"{option} cannot be combined with --independent for more than {_MOST_LISTED} combinations. Leave one of them out"
        )
    if misread := next(
        (name for _, own in apart.values() for name in own if template.misread([f"{{{field}}}" for field in template.fields])), None
    ):
        raise InputError(
            f"--independent {misread}: a column name contains the text between two fields of --template. Rename the column or change the text"
        )
    names = [f"{{{name}}}" if place in free else "" for place, name in enumerate(template.fields)]
    listed = {
        key: {
            template.fill([value or name for value, name in zip(values, names, strict=True)]): weight
            for values, weight in joint.items()
        }
        for key, (joint, _) in apart.items()
    }
    return listed, {key: own for key, (_, own) in apart.items()}


def _apart(
    totals: Mapping[str, float], template: Template, free: Sequence[int]
) -> tuple[dict[tuple[str, ...], float], Independent]:
    """Weights of the values of records, "" for the fields at `free`, and the weights of those fields."""
    joint: dict[tuple[str, ...], float] = {}
    own: Independent = {template.fields[place]: {} for place in free}
    for text, weight in totals.items():
        values = list(template.parse(text) or ())
        for place in free:
            sums = own[template.fields[place]]
            sums[values[place]] = sums.get(values[place], 0.0) + weight
            values[place] = ""
        joint[tuple(values)] = joint.get(tuple(values), 0.0) + weight
    return joint, own


def _combined(
    joint: Mapping[tuple[str, ...], float], own: Independent, template: Template, free: Sequence[int]
) -> dict[str, float]:
    """All combinations, with the sum of the weights unchanged."""
    whole, found = math.fsum(joint.values()) or 1.0, dict[str, float]()
    for key, weight in joint.items():
        for chosen in product(*(sums.items() for sums in own.values())):
            values = list(key)
            for place, (value, _) in zip(free, chosen, strict=True):
                values[place] = value
            found[template.fill(values)] = weight * math.prod(share / whole for _, share in chosen)
    return found
