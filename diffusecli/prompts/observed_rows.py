"""The rows of a table that count (group, target, weight), and notices on skipped and merged rows.

Knows the cells of a table. Distributions only need the sums of weights.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from diffusecli.files.cells import is_collection
from diffusecli.files.numerals import UnclearNumberError, doubtful_decimal, numbers_in
from diffusecli.files.tables import Table
from diffusecli.files.text import canonical
from diffusecli.prompts.weighing import Reading
from diffusecli.system.errors import InputError
from diffusecli.system.notices import some_of

_LISTS = "Name the columns of lists with --options-column and --shares-column. (For targets that are such text: one per line in a .txt file)"
_MISSING = re.compile(r"(?i)nan|null|#n/a|#ref!|#value!|#div/0!|#name\?|<na>")


@dataclass(frozen=True)
class ObservedRows:
    """The rows of a table that count: group, target and weight."""

    groups: list[tuple[str, ...]]
    targets: list[str]
    weights: list[float]


def observed_rows(table: Table, index: int, reading: Reading) -> tuple[ObservedRows, list[str]]:
    """The rows with a target and a group, and notices on skipped and merged rows."""
    cells = table.columns[index]
    if listed := next((row for row, cell in enumerate(cells, 1) if is_collection(cell)), None):
        raise InputError(f"{table.path}: row {listed} of column {table.names[index]} holds a list. {_LISTS}")
    written = table.texts(index, _LISTS)
    keys = [table.find(name, reading.grouping) for name in reading.group_by]
    values = [table.texts(key, "A group must be a single value") for key in keys]
    groups = [tuple(" ".join(canonical(cell).split()) for cell in row) for row in zip(*values, strict=True)] or [()] * len(written)
    targets = [canonical(text) for text in written]
    kept = [row for row, target in enumerate(targets) if target and all(groups[row])]
    if not kept:
        raise InputError(f"{table.path}: contains no targets. Check the file and --column")
    weights, doubt = _weights(table, kept, reading)
    empty = [f"row {row}" for row, target in enumerate(targets, 1) if not target]
    kind = "empty rows" if reading.template is None else "rows with an empty field"
    notices = [f"skipped {kind}: {len(empty)} ({some_of(empty)})"] if empty else []
    for position, (key, column) in enumerate(zip(keys, values, strict=True)):
        if nameless := sum(1 for target, group in zip(targets, groups, strict=True) if target and not group[position]):
            notices.append(f"skipped rows without a value in '{table.names[key]}': {nameless}")
        notices += _merged(f"groups of '{table.names[key]}'", column, [group[position] for group in groups])
    notices += _merged("targets", written, targets)
    if missing := Counter(target for target in targets if _MISSING.fullmatch(target)):
        notices.append(f"{', '.join(map(repr, missing))} counts as a target. Remove these rows if they have no answer")
    notices += [doubt] if doubt else []
    return ObservedRows([groups[row] for row in kept], [targets[row] for row in kept], weights), notices


def _merged(what: str, written: Sequence[str], read: Sequence[str]) -> Iterator[str]:
    """Notices on texts that are equal after trimming, and on similar texts."""
    spellings: dict[str, dict[str, None]] = {}
    for text, plain in zip(written, read, strict=True):
        spellings.setdefault(plain, {}).setdefault(text)
    together = [" = ".join(map(repr, texts)) for plain, texts in spellings.items() if plain and len(texts) > 1]
    if together:
        yield f"{what} that differ only in spaces are merged: {some_of(together)}"
    alike: dict[str, list[str]] = {}
    for plain in filter(None, spellings):
        alike.setdefault("".join(plain.casefold().split()), []).append(plain)
    if apart := [" and ".join(map(repr, texts)) for texts in alike.values() if len(texts) > 1]:
        yield f"{what} that differ in case or inner spaces are kept separate: {some_of(apart)}"


def _weights(table: Table, kept: Sequence[int], reading: Reading) -> tuple[list[float], str]:
    """The weights of these rows, and a notice if their decimal sign may separate thousands, or ""."""
    if reading.weight_column is None:
        return [1.0] * len(kept), ""
    index = table.find(reading.weight_column, "--weight-column")
    column, name = table.texts(index, _LISTS), table.names[index]
    texts = [column[row] for row in kept]
    if (listed := next((row for row in kept if is_collection(column[row])), None)) is not None:
        raise InputError(f"{table.path}: row {listed + 1} of column {name} holds a list. {_LISTS}")
    try:
        numbers = numbers_in(texts, reading.decimal, table.decimal)
    except UnclearNumberError as error:
        raise InputError(
            f"{table.path}: row {kept[error.index] + 1} of column {name}: the weight {error.message}. {error.remedy}"
        ) from error
    if (bad := next((place for place, number in enumerate(numbers) if number < 0), None)) is not None:
        raise InputError(
            f"{table.path}: row {kept[bad] + 1} of column {name}: the weight {texts[bad]!r} is negative. Write a finite number that is zero or more"
        )
    return numbers, doubtful_decimal(texts) if reading.decimal is None else ""


def totals_of(rows: ObservedRows) -> tuple[dict[tuple[str, ...], dict[str, float]], str]:
    """The weight of each target in each group, groups and targets as they come; and a target that comes twice in a group, or ""."""
    totals: dict[tuple[str, ...], dict[str, float]] = {}
    repeated = ""
    for group, target, weight in zip(rows.groups, rows.targets, rows.weights, strict=True):
        sums = totals.setdefault(group, {})
        if target in sums:
            repeated = repeated or target
        sums[target] = sums.get(target, 0.0) + weight
    return totals, repeated
