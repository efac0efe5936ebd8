"""Tables and lists of what was observed become distributions: one per file, one per group of rows, or one per row.

Puts together what `weight_columns.py`, `observed_rows.py`, `total_rows.py` and `shared_options.py` know; knows nothing of prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from diffusecli.files.column_names import as_argument
from diffusecli.files.table_files import read_table
from diffusecli.files.tables import Table
from diffusecli.prompts.distributions import Distribution
from diffusecli.prompts.observed_rows import observed_rows, totals_of
from diffusecli.prompts.record_columns import Independent, made_independent, with_bins, with_records
from diffusecli.prompts.row_lists import distributions_of_lists
from diffusecli.prompts.shared_options import shared_options
from diffusecli.prompts.templates import Template
from diffusecli.prompts.total_rows import remove_totals
from diffusecli.prompts.weighing import NONE, Reading, distribution, in_order, with_notices
from diffusecli.prompts.weight_columns import choose_weight_column, columns_in_use, counts_beside, weight_columns
from diffusecli.system.errors import InputError


def distributions_in(path: Path, reading: Reading) -> dict[tuple[str, ...], Distribution]:
    """The distribution of each group of rows; without `group_by` a single one under the key ().

    With `shares_column` it is one per row, and `fields` of each are the columns of the row. Targets are in the order of the table: observations
    that are numbers or ranges ascend, categories keep their order. Raises `InputError` when the file, a column or a weight is not what it must be.
    """
    if reading.count and reading.weight_column not in (None, NONE):
        raise InputError(f"--count and --weight-column {reading.weight_column} exclude each other. Keep one of them")
    table = read_table(path, reading.layout, reading.named)
    if reading.shares_column is not None:
        return distributions_of_lists(table, reading)
    table = with_bins(table, reading)
    if reading.template is not None:
        fields = Template.of(reading.template).fields
        _require_weights_said(table, reading, fields)
        table, index = with_records(table, reading.template)
        weights = None if reading.weight_column == NONE else reading.weight_column
        reading, notices = replace(reading, count=weights is None, weight_column=weights), list[str]()
    else:
        index = _target_column(table, reading)
        reading, notices = choose_weight_column(table, reading, index)
    rows, left_out = observed_rows(table, index, reading)
    totals, repeated = totals_of(rows)
    own: dict[tuple[str, ...], Independent] = {}
    if reading.independent:
        totals, own = made_independent(totals, reading)
    counted = reading.count or reading.weight_column is not None
    if repeated and not counted:
        named = [table.names[i] for i in weight_columns(table, reading, index)]
        likely = next(iter(named), counts_beside(table, columns_in_use(table, reading, index)))
        summed = (
            f"Add --weight-column {as_argument(likely)} if '{likely}' has their numbers, or --count" if likely else "Add --count"
        )
        raise InputError(f"{path}: the target {repeated!r} occurs more than once. {summed} if each row is one observation")
    if reading.weight_column is not None:
        percent = any("%" in str(cell) for cell in table.columns[table.find(reading.weight_column, "--weight-column")])
        notices += remove_totals(table, totals, percent=percent)
    order, how = in_order(
        dict.fromkeys(target for sums in totals.values() for target in sums)
        if reading.independent
        else dict.fromkeys(rows.targets),
        table.orders.get(index, ()),
        sort=bool(repeated),
    )
    options = {key: [target for target in order if target in sums] for key, sums in totals.items()}
    smoothed = [""]
    if reading.alpha and reading.group_by:
        options, smoothed = shared_options(table, totals, order, reading)
    made = {key: distribution(table, key, totals[key], options[key], reading, counted=counted) for key in totals}
    used = {reading.weight_column, *(Template.of(reading.template).fields if reading.template else ())}
    taken = columns_in_use(table, reading, index)
    unused = tuple(name for place, name in enumerate(table.names) if place not in taken and name not in used)
    made = {key: replace(each, unused=unused) for key, each in made.items()}
    notices = [*table.notices, *notices, *left_out, *(smoothed if counted else ()), how if counted else ""]
    if reading.template is not None:
        record = Template.of(reading.template)
        request = f"Make up a record at random, with these fields: {', '.join(record.fields)}."
        made = {
            key: replace(
                each, template=reading.template, request=request, noun=record.shown, answer="record", independent=own.get(key, {})
            )
            for key, each in made.items()
        }
    return with_notices(made, notices)


def _require_weights_said(table: Table, reading: Reading, fields: Sequence[str]) -> None:
    """Raises `InputError` where rows would count once each although a column that is no field looks like weights."""
    likely = [name for i in weight_columns(table, reading, -1) if (name := table.names[i]) not in fields]
    if reading.weight_column is None and likely and not reading.count:
        raise InputError(
            f"{table.path}: the column '{likely[0]}' looks like weights. Add --weight-column {as_argument(likely[0])} to weigh rows by it, or "
            f"--weight-column {NONE} to count rows"
        )


def _target_column(table: Table, reading: Reading) -> int:
    if reading.column is not None:
        return table.find(reading.column, "--column")
    if table.counts is not None:
        return len(table.names) - 2
    if len(table.names) == 1:
        return 0
    raise InputError(
        f"{table.path}: has {len(table.names)} columns. Choose the column of targets with --column: {', '.join(table.shown_names())}"
    )
