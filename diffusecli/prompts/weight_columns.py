"""Choose the weight column of a table: the named one, the one defined by the format, or none.

Refuses to count rows if a column looks like weights. Knows columns by name and values, not what targets are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from diffusecli.files.column_names import WEIGHT_LIKE, as_argument
from diffusecli.files.numerals import UnclearNumberError, numbers_in
from diffusecli.files.tables import Table
from diffusecli.prompts.weighing import NONE, Reading
from diffusecli.system.errors import InputError
from diffusecli.system.notices import WARNING

_ID = re.compile(r"(?i).*\bid|.*[a-z]ID|id\b.*|.*[ _-]id|index|row|nr\.?|no\.?|#|year|jahr|date|age|alter|zip|plz")


def choose_weight_column(table: Table, reading: Reading, targets: int) -> tuple[Reading, list[str]]:
    """The reading with its weight column, and notices. Raises `InputError` if --count would ignore weights."""
    if reading.weight_column is not None:
        weighted = None if reading.weight_column == NONE and NONE not in table.names else reading.weight_column
        return _require_weights(replace(reading, weight_column=weighted)), []
    if table.counts is not None:
        if reading.count:
            raise InputError(f"{table.path}: already contains counts. Leave --count out")
        return replace(reading, weight_column=table.counts), []
    taken = columns_in_use(table, reading, targets)
    likely = weight_columns(table, reading, targets)
    column = table.names[likely[0]] if likely else ""
    if reading.count and likely and any(cell != "1" for cell in table.columns[likely[0]]):
        raise InputError(
            f"{table.path}: --count counts rows, but the column '{column}' looks like weights. Add --weight-column {as_argument(column)} to sum them, "
            f"or --weight-column {NONE} to count rows"
        )
    if reading.count and len(table) > 1 and (others := _all_once(table, taken)):
        raise InputError(
            f"{table.path}: --count makes all weights equal, because no row occurs twice. Add --weight-column {as_argument(others)} if that column has the weights, "
            f"or --weight-column {NONE} to count rows"
        )
    if reading.count and (others := counts_beside(table, taken)):
        return _require_weights(reading), [
            f"{WARNING}--count counts rows and does not use the numbers in '{others}'. If each row counts that often, write "
            f"--weight-column {as_argument(others)} instead of --count"
        ]
    if not reading.count and (column := column or (_all_once(table, taken) if len(table) > 1 else "")):
        return _require_weights(reading), [
            f"{WARNING}all targets have equal weights. Use --weight-column {as_argument(column)} to read weights from that column"
        ]
    return _require_weights(reading), []


def columns_in_use(table: Table, reading: Reading, targets: int) -> set[int]:
    """The columns of targets and groups."""
    return {targets, *(table.find(name, reading.grouping) for name in reading.group_by)}


def weight_columns(table: Table, reading: Reading, targets: int) -> list[int]:
    """The numeric columns with names of weights."""
    taken = columns_in_use(table, reading, targets)
    return [i for i, name in enumerate(table.names) if i not in taken and WEIGHT_LIKE.fullmatch(name) and _are_numbers(table, i)]


def counts_beside(table: Table, taken: set[int]) -> str:
    """The name of a column with numbers, if the texts of each row occur only once, so that the numbers may be counts of such rows; else "".

    `taken` are the columns of targets and groups.
    """
    texts = {i for i in range(len(table.names)) if i in taken or not _are_numbers(table, i)}
    if len(texts) < 2 or not _differ(table, texts):
        return ""
    return next((table.names[i] for i in _may_count(table, texts) if len(set(map(str, table.columns[i]))) > 1), "")


def _require_weights(reading: Reading) -> Reading:
    if (reading.alpha or reading.min_count or reading.top) and not reading.count and reading.weight_column is None:
        raise InputError("--alpha, --min-count and --top need weights. Add --count or --weight-column")
    return reading


def _are_numbers(table: Table, index: int) -> bool:
    filled = [str(cell) for cell in table.columns[index] if cell != ""]
    try:
        return bool(filled) and bool(numbers_in(filled, likely="."))
    except UnclearNumberError:
        return False


def _all_once(table: Table, taken: set[int]) -> str:
    """The name of a numeric column if no target occurs twice in a group, else ""."""
    return next((table.names[i] for i in _may_count(table, taken)), "") if _differ(table, taken) else ""


def _differ(table: Table, columns: set[int]) -> bool:
    """Whether these columns hold texts, and no two rows the same ones."""
    rows = list(zip(*(table.columns[index] for index in sorted(columns)), strict=True))
    return all(isinstance(cell, str) for row in rows for cell in row) and len(set(rows)) == len(rows)


def _may_count(table: Table, others: set[int]) -> Iterator[int]:
    """The columns besides `others` that may be counts: numbers, but no ids, and not the number of the row."""
    for index, name in enumerate(table.names):
        if index not in others and not _ID.fullmatch(name) and _are_numbers(table, index) and not _counts_up(table.columns[index]):
            yield index


def _counts_up(cells: Sequence[object]) -> bool:
    """Whether a column numbers the rows."""
    numbers = [int(str(cell)) if str(cell).isdigit() else -1 for cell in cells]
    return all(later == earlier + 1 for earlier, later in pairwise(numbers))
