"""Tables and lists of what was observed become distributions: one per file, one per group of rows, or one per row.

Knows tables; knows nothing of prompts.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from pathlib import Path

from diffusecli.files.cells import is_collection
from diffusecli.files.column_names import WEIGHT_LIKE
from diffusecli.files.numerals import UnclearNumberError, numbers_in
from diffusecli.files.table_files import read_table
from diffusecli.files.tables import Table
from diffusecli.files.text import canonical
from diffusecli.prompts.distributions import Distribution
from diffusecli.prompts.row_lists import distributions_of_lists
from diffusecli.prompts.weighing import NONE, Reading, distribution, in_order, kept_targets, noticed
from diffusecli.system.errors import InputError, many

_LISTS = "Name the columns of lists with --options-column and --shares-column. (A target that is such text: one a line, in a .txt)"
_ID = re.compile(r"(?i).*\bid|.*[a-z]ID|id\b.*|.*[ _-]id|index|row|nr\.?|no\.?|#|year|jahr|date|age|alter|zip|plz")
_TOTAL = re.compile(r"(?i)(?:(?:grand|sub)[ -]?)?totals?|sums?|gesamt(?:summe)?|summe|insgesamt")
_LIKE_A_TOTAL = re.compile(r"(?i)all|alle|everyone|overall|base|basis|n")  # answers have these names, too
_MISSING = re.compile(r"(?i)nan|null|#n/a|#ref!|#value!|#div/0!|#name\?|<na>")
_SHOWN = 5
_COMPARED = 200  # groups


@dataclass(frozen=True)
class _Rows:
    """The rows of a table that count: a group, a target and a weight each."""

    groups: list[tuple[str, ...]]
    targets: list[str]
    weights: list[float]


def distributions_in(path: Path, reading: Reading) -> dict[tuple[str, ...], Distribution]:
    """The distribution of each group of rows; without `group_by` a single one under the key ().

    With `shares_column` it is one per row, and `fields` of each holds what the row says. Targets stand in the order of the table: observations
    that are numbers or ranges ascend, categories keep their order. Raises `InputError` when the file, a column or a weight is not what it must be.
    """
    table = read_table(path, reading.layout, reading.named)
    if reading.shares_column is not None:
        return distributions_of_lists(table, reading)
    index = _target_column(table, reading)
    reading, notices = _settled(table, reading, index)
    rows, left_out = _rows(table, index, reading)
    totals, repeated = _totals(rows)
    counted = reading.count or reading.weight_column is not None
    if repeated and not counted:
        likely = [
            f", or --weight-column {_shell(table.names[i])} to add weights up" for i in _weight_columns(table, reading, index)
        ]
        raise InputError(
            f"{path}: the target {repeated!r} is there more than once. Add --count to count observations{''.join(likely[:1])}"
        )
    if reading.weight_column is not None:
        percent = any("%" in str(cell) for cell in table.columns[table.find(reading.weight_column, "--weight-column")])
        notices += _without_sums(table, totals, percent=percent)
    order, how = in_order(dict.fromkeys(rows.targets), table.orders.get(index, ()), sort=bool(repeated))
    options = {key: [target for target in order if target in sums] for key, sums in totals.items()}
    smoothed = [""]
    if reading.alpha and reading.group_by:
        options, smoothed = _same_options(table, totals, order, reading)
    made = {key: distribution(table, key, totals[key], options[key], reading, counted=counted) for key in totals}
    notices = [*table.notices, *notices, *left_out, *(smoothed if counted else ()), how if counted else ""]
    return noticed(made, notices)


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


def _settled(table: Table, reading: Reading, targets: int) -> tuple[Reading, list[str]]:
    """The reading with its weight column settled, and a notice. Raises `InputError` where --count would pass over weights."""
    if reading.weight_column is not None:
        weighted = None if reading.weight_column == NONE and NONE not in table.names else reading.weight_column
        return _require_weights(replace(reading, weight_column=weighted)), []
    if table.counts is not None:
        if reading.count:
            raise InputError(f"{table.path}: holds counts already. Leave --count out")
        return replace(reading, weight_column=table.counts), []
    taken = {targets, *(table.find(name, "--group-by") for name in reading.group_by)}
    likely = _weight_columns(table, reading, targets)
    column = table.names[likely[0]] if likely else ""
    if reading.count and likely and any(cell != "1" for cell in table.columns[likely[0]]):
        raise InputError(
            f"{table.path}: --count counts rows, but the column '{column}' looks like weights. Add --weight-column {_shell(column)} to add them up, "
            f"or --weight-column {NONE} to count rows"
        )
    if reading.count and len(table) > 1 and (others := _all_once(table, taken)):
        raise InputError(
            f"{table.path}: --count makes all weights equal, because no row comes twice. Add --weight-column {_shell(others)} if that column has the weights, "
            f"or --weight-column {NONE} to count rows"
        )
    if not reading.count and likely:
        return _require_weights(reading), [
            f"all targets weigh the same: --weight-column {_shell(column)} takes the weights of that column"
        ]
    return _require_weights(reading), []


def _weight_columns(table: Table, reading: Reading, targets: int) -> list[int]:
    """The columns of numbers whose names say that they weigh."""
    taken = {targets, *(table.find(name, "--group-by") for name in reading.group_by)}
    return [i for i, name in enumerate(table.names) if i not in taken and WEIGHT_LIKE.fullmatch(name) and _are_numbers(table, i)]


def _without_sums(table: Table, totals: dict[tuple[str, ...], dict[str, float]], *, percent: bool) -> Iterator[str]:
    """Takes rows of sums (`Total`) out of the weights, and says so; says which may be sums, and where percentages do not make 100 %.

    A row is a sum for certain where its name says so, it weighs what all others do, and the weights make 1 or 100 only without it.
    """
    left_out, doubtful, uneven = [], [], []
    for key, sums in totals.items():
        of = f" of {', '.join(key)}" if key else ""
        for target in [name for name in sums if len(sums) > 2 and (_TOTAL.fullmatch(name) or _LIKE_A_TOTAL.fullmatch(name))]:
            others = math.fsum(sums.values()) - sums[target]
            certain = _TOTAL.fullmatch(target) and table.counts is None and not _is_whole(sums[target] + others)
            if others <= 0 or not math.isclose(sums[target], others, rel_tol=0.02):
                continue
            if certain and math.isclose(
                sums[target], others, rel_tol=0.02 if _is_whole(sums[target]) else 1e-6
            ):  # shares are rounded
                del sums[target]
                left_out.append(f"{target!r}{of}")
            elif not math.isclose(sums[target] + others, 1, abs_tol=1e-6):  # what makes 1 are shares of answers
                doubtful.append(f"{target!r}{of}")
        if percent and not math.isclose(whole := math.fsum(sums.values()), 1, abs_tol=0.02):
            uneven.append(f"{whole:.1%}{of}")
    if left_out:
        yield f"rows that are the sum of the others left out: {_some(left_out)}"
    if doubtful:
        yield f"rows that weigh as much as all others count as answers: {_some(doubtful)}. Remove them if they are sums"
    if uneven:
        yield f"percentages do not make 100% and are divided by their sum: {_some(uneven)}"


def _is_whole(weight: float) -> bool:
    """Whether it is 1 or 100, as far as rounded shares are."""
    return math.isclose(weight, 1, rel_tol=0.02) or math.isclose(weight, 100, rel_tol=0.02)


def _require_weights(reading: Reading) -> Reading:
    if (reading.alpha or reading.min_count or reading.top) and not reading.count and reading.weight_column is None:
        raise InputError("--alpha, --min-count and --top need weights: add --count or --weight-column")
    return reading


def _shell(name: str) -> str:
    return name if re.fullmatch(r"[\w.%+-]+", name) else f"'{name}'"


def _are_numbers(table: Table, index: int) -> bool:
    filled = [str(cell) for cell in table.columns[index] if cell != ""]
    try:
        return bool(filled) and bool(numbers_in(filled, likely="."))
    except UnclearNumberError:
        return False


def _all_once(table: Table, taken: set[int]) -> str:
    """The name of a column of numbers, where no target comes twice in a group; "" otherwise."""
    rows = list(zip(*(table.columns[index] for index in sorted(taken)), strict=True))
    if any(not isinstance(cell, str) for row in rows for cell in row) or len(set(rows)) < len(rows):
        return ""
    likely = (index for index, name in enumerate(table.names) if index not in taken and not _ID.fullmatch(name))
    return next((table.names[index] for index in likely if _are_numbers(table, index) and not _counts_up(table.columns[index])), "")


def _counts_up(cells: Sequence[object]) -> bool:
    """Whether a column numbers the rows."""
    numbers = [int(str(cell)) if str(cell).isdigit() else -1 for cell in cells]
    return all(later == earlier + 1 for earlier, later in pairwise(numbers))


def _rows(table: Table, index: int, reading: Reading) -> tuple[_Rows, list[str]]:
    """The rows with a target and a group, and what is said of those left out and put together."""
    cells = table.columns[index]
    if listed := next((row for row, cell in enumerate(cells, 1) if is_collection(cell)), None):
        raise InputError(f"{table.path}: row {listed} of column {table.names[index]} holds a list. {_LISTS}")
    written = table.texts(index, _LISTS)
    keys = [table.find(name, "--group-by") for name in reading.group_by]
    values = [table.texts(key, "A group must be a single value") for key in keys]
    groups = [tuple(" ".join(canonical(cell).split()) for cell in row) for row in zip(*values, strict=True)] or [()] * len(written)
    targets = [canonical(text) for text in written]
    kept = [row for row, target in enumerate(targets) if target and all(groups[row])]
    if not kept:
        raise InputError(f"{table.path}: no targets in it, check the file and --column")
    weights = _weights(table, kept, reading)
    notices = [f"empty rows left out: {empty}" if (empty := targets.count("")) else ""]
    for position, (key, column) in enumerate(zip(keys, values, strict=True)):
        if nameless := sum(1 for target, group in zip(targets, groups, strict=True) if target and not group[position]):
            notices.append(f"rows without a value in '{table.names[key]}' left out: {nameless}")
        notices += _merged(f"groups of '{table.names[key]}'", column, [group[position] for group in groups])
    notices += _merged("targets", written, targets)
    if missing := Counter(target for target in targets if _MISSING.fullmatch(target)):
        notices.append(f"{', '.join(map(repr, missing))} counts as a target. Remove such rows if nothing was answered there")
    return _Rows([groups[row] for row in kept], [targets[row] for row in kept], weights), notices


def _merged(what: str, written: Sequence[str], read: Sequence[str]) -> Iterator[str]:
    """What is said of texts that are the same once trimmed, and of those that are not quite the same."""
    spellings: dict[str, dict[str, None]] = {}
    for text, plain in zip(written, read, strict=True):
        spellings.setdefault(plain, {}).setdefault(text)
    together = [" = ".join(map(repr, texts)) for plain, texts in spellings.items() if plain and len(texts) > 1]
    if together:
        yield f"{what} that differ only in spaces count together: {_some(together)}"
    alike: dict[str, list[str]] = {}
    for plain in filter(None, spellings):
        alike.setdefault("".join(plain.casefold().split()), []).append(plain)
    if apart := [" and ".join(map(repr, texts)) for texts in alike.values() if len(texts) > 1]:
        yield f"{what} that differ in case or inner spaces are kept apart: {_some(apart)}"


def _some(listed: Sequence[str]) -> str:
    more = len(listed) - _SHOWN
    return "; ".join(listed[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _weights(table: Table, kept: Sequence[int], reading: Reading) -> list[float]:
    if reading.weight_column is None:
        return [1.0] * len(kept)
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
    return numbers


def _totals(rows: _Rows) -> tuple[dict[tuple[str, ...], dict[str, float]], str]:
    """The weight of each target in each group, groups and targets as they come; and a target that comes twice in a group, or ""."""
    totals: dict[tuple[str, ...], dict[str, float]] = {}
    repeated = ""
    for group, target, weight in zip(rows.groups, rows.targets, rows.weights, strict=True):
        sums = totals.setdefault(group, {})
        if target in sums:
            repeated = repeated or target
        sums[target] = sums.get(target, 0.0) + weight
    return totals, repeated


def _same_options(
    table: Table, totals: Mapping[tuple[str, ...], Mapping[str, float]], order: Sequence[str], reading: Reading
) -> tuple[dict[tuple[str, ...], list[str]], list[str]]:
    """The options of each group: all that any group chose, so that smoothing reaches those that it did not choose itself."""
    within = [] if reading.alpha_within == (NONE,) else [reading.group_by.index(name) for name in reading.alpha_within]
    if not reading.alpha_within:
        _require_one_question(table, totals, reading)
    pools: dict[tuple[str, ...], dict[str, float]] = {}
    for key, sums in totals.items():
        pool = pools.setdefault(tuple(key[i] for i in within), {})
        for target, weight in sums.items():
            pool[target] = pool.get(target, 0.0) + weight
    kept = {pool: kept_targets(sums, [target for target in order if target in sums], reading) for pool, sums in pools.items()}
    options = {key: kept[tuple(key[i] for i in within)] for key in totals}
    added = [(target, key) for key, pool in options.items() for target in pool if target not in totals[key]]
    if not added:
        return options, []
    example = f"{added[0][0]!r} in {', '.join(added[0][1])}"
    return options, [
        f"--alpha {reading.alpha:g}: {many(len(added), 'option')} that a group never chose got this weight, e.g. {example}"
    ]


def _require_one_question(table: Table, totals: Mapping[tuple[str, ...], Mapping[str, float]], reading: Reading) -> None:
    """Raises `InputError` where groups have no option in common, or few, as answers to different questions do."""
    for position, name in enumerate(reading.group_by):
        chosen: dict[str, set[str]] = {}
        for key, sums in totals.items():
            chosen.setdefault(key[position], set()).update(sums)
        large = [(value, options) for value, options in chosen.items() if len(options) > 1]
        for (one, first), (other, second) in combinations(large[:_COMPARED], 2):
            shared = first & second
            differ = min(len(first), len(second)) - len(shared) >= 2 and 2 * len(shared) < len(first | second)
            if not shared or differ:
                common = f"{len(shared)} of {len(first | second)} options" if shared else "no option"
                raise InputError(
                    f"{table.path}: {one!r} and {other!r} have {common} in common, and --alpha would give each the other's. "
                    f"Add --alpha-within {_shell(name)} if these are different questions, or --alpha-within {NONE}"
                )
