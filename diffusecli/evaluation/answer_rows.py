"""Count answers in rows written by other tools: find the columns of texts, of counts, and of finish reasons.

Takes values by column; does not read files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffusecli.files.column_names import is_count_like
from diffusecli.files.numerals import UnclearNumberError, numbers_in
from diffusecli.files.text import canonical
from diffusecli.prompts.answers import Answers, is_cut
from diffusecli.prompts.templates import Template
from diffusecli.prompts.weighing import NONE
from diffusecli.runs.samples import MOST_COUNT
from diffusecli.system.errors import InputError, did_you_mean, many, sentence
from diffusecli.system.notices import Notice

_ANSWERS = ("text", "response", "answer", "output", "completion", "generation", "generated_text")
"""Columns used for answers if none is named; a plural holds a list of answers."""
_REASONS = ("finish_reason", "stop_reason", "done_reason")
ENDS = (*_REASONS, "unfinished", "truncated", *(f"{name}s" for name in _REASONS))
"""Columns of finish reasons; a plural holds a list."""
SHARES = ("weight", "probability", "prob", "share")
"""Columns that may look like counts and are not read. Few and spelled exactly, unlike `WEIGHT_LIKE`: rows may have many other figures, and
a notice about each would be noise."""


RECORD = "\0"
"""The column of texts that are not in one column of the file."""


@dataclass(frozen=True)
class AnswerColumns:
    """The columns of answers and counts that the user named."""

    column: str | None = None
    count_column: str | None = None


def answer_column(names: Sequence[str], column: str | None, place: str) -> str:
    """The column of the answers; spaces around its name are ignored."""
    bare = {name.strip(): name for name in reversed(names)}
    usual = (name for singular in _ANSWERS for name in (singular, f"{singular}s") if name in bare)
    chosen = column or next(usual, names[0] if len(names) == 1 else None)
    if chosen is None:
        raise InputError(f"{place}: the column of the answers is unknown. Choose one with --column: {', '.join(names)}")
    if chosen not in names and chosen.strip() not in bare:
        raise InputError(f"{place}: has no column '{chosen}'. {sentence(did_you_mean(chosen, names))}")
    return chosen if chosen in names else bare[chosen.strip()]


def joining(
    names: Iterable[str], wanted: AnswerColumns, template: str | None, place: str, cells: Callable[[str], Iterable[Any]]
) -> tuple[Template | None, AnswerColumns]:
    """The template that joins the columns of its fields to records, if no column is named or has a usual name; and the columns to count.

    A single field with `cells` that fit the template holds whole answers. Raises `InputError` if only some fields have columns.
    """
    if template is None or wanted.column is not None:
        return None, wanted
    found, there = Template.of(template), {name.strip(): name for name in names}
    fields = [name for name in found.fields if name in there]
    usual = {name for singular in _ANSWERS for name in (singular, f"{singular}s")} - set(fields)
    if not fields or there.keys() & usual:
        return None, wanted
    is_only = len(fields) == 1 and 1 in (len(there), len(found.fields))
    if is_only and any(isinstance(cell, str) and found.parse(canonical(cell)) for cell in cells(there[fields[0]])):
        return None, replace(wanted, column=fields[0])  # if any fits: the answers of an untuned model rarely do
    if missing := [name for name in found.fields if name not in there]:
        raise _lacks(place, missing[0], there)
    return found, replace(wanted, column=RECORD)


def _lacks(place: str, field: str, names: Iterable[str]) -> InputError:
    return InputError(
        f"{place}: has no field '{field}' of the prompt's template. Add it, or choose a column of whole answers with --column: {', '.join(names)}"
    )


def joined_rows(
    rows: Iterable[tuple[str, Any, int]], wanted: AnswerColumns, template: str | None, notice: Notice
) -> tuple[Iterable[tuple[str, Any, int]], AnswerColumns]:
    """Rows whose fields are joined to records in a column `RECORD`, and the columns to count; other rows as they are."""
    if template is None or wanted.column is not None:
        return rows, wanted
    rows = list(rows)
    if not rows or not isinstance(rows[0][1], dict):
        return rows, wanted
    found, columns = joining(
        map(str, rows[0][1]), wanted, template, rows[0][0],
        lambda name: (row.get(name) for _, row, _ in rows if isinstance(row, dict)),
    )  # fmt: skip
    if found is None:
        return rows, columns
    texts = records(((place, _values(place, row, found)) for place, row, _ in rows), found, notice)
    return [
        (
            place,
            {str(name).strip(): value for name, value in row.items() if str(name).strip() not in found.fields} | {RECORD: text},
            number,
        )
        for (place, row, number), text in zip(rows, texts, strict=True)
    ], columns


def _values(place: str, row: Any, template: Template) -> list[str]:
    """The values of the fields; nothing is an empty value, as in a table."""
    values = {str(name).strip(): "" if value is None else value for name, value in row.items()} if isinstance(row, dict) else {}
    if missing := next((name for name in template.fields if name not in values), None):
        raise _lacks(place, missing, values)
    texts = [[*_texts(values[name], place, f"the field '{name}'")] for name in template.fields]
    if listed := next((name for name, some in zip(template.fields, texts, strict=True) if len(some) != 1), None):
        raise InputError(f"{place}: the field '{listed}' holds a list. A field must be a single value")
    return [canonical(text) for (text,) in texts]


def records(rows: Iterable[tuple[str, Sequence[str]]], template: Template, notice: Notice) -> list[str]:
    """Records from tuples of place and values. An empty value stays empty, and is reported: without its row, the shares would be wrong."""
    texts, empty = list[str](), list[str]()
    for place, values in rows:
        texts.append(template.fill(values))
        if "" in values:
            empty.append(f"{place}: the field '{template.fields[values.index('')]}' is empty, so the answer is {texts[-1]!r}")
    if empty:
        notice(empty[0] + (f". {len(empty)} rows have an empty field" if len(empty) > 1 else ""))
    return texts


def count_rows(rows: Iterable[tuple[str, Any, int]], wanted: AnswerColumns, file: Path, notice: Notice) -> Answers:
    """Count answers by text, from tuples of place, value and count. A mapping holds the same column in every row, and may hold finish reasons."""
    counts = Answers()
    prompts: set[str] = set()
    column, counting = wanted.column, wanted.count_column or "count"
    likely: set[str] | None = None  # columns that may be counts: all their values so far are whole numbers
    number_of_rows = 0
    unread: str | None = None  # the first column that looks like counts or shares
    for place, row, number in rows:
        answer, times, ends = row, number, list[Any]()
        number_of_rows += number
        if isinstance(row, dict):
            column = answer_column([str(name) for name in row], column, place)
            prompts.add(str(row.get("prompt")))
            answer = row[column]
            ends = [row[name] for name in ENDS if name in row and name != column]
            if counting in row and column != counting:
                times *= _times(row[counting], place)
            elif wanted.count_column not in (None, NONE):
                raise InputError(
                    f"{place}: has no column '{counting}' (--count-column). {sentence(did_you_mean(counting, list(map(str, row))))}"
                )
            else:
                here = {name for name, value in row.items() if name != column and is_count_like(name) and _whole(value) is not None}
                likely = here if likely is None else likely & here
                unread = unread or next((n for n in row if n != column and (is_count_like(n) or n in SHARES)), None)
        texts = [*_texts(answer, place, "the answer" if column in (None, RECORD) else f"the column '{column}'")]
        for text, cut in zip(texts, _cuts(ends, len(texts), place), strict=True):
            counts.add(text, times, unfinished=cut)
    if len(prompts) > 1:
        raise InputError(f"{file}: holds answers to several prompts. Remove --prompt")
    if likely and wanted.count_column is None and number_of_rows == len(counts) > 1:
        name = min(likely)
        raise InputError(
            f"{file}: each answer occurs once, and the column '{name}' looks like counts. Add --count-column {name}, "
            f"or --count-column {NONE} if each row is one answer"
        )
    if unread and wanted.count_column is None:
        notice(
            f"{file}: the column '{unread}' is not used: every row counts as one answer. If it counts answers, add --count-column '{unread}'"
        )
    return counts


def _cuts(ends: Sequence[Any], answers: int, place: str) -> list[bool]:
    """Whether each answer of a row was cut, from one finish reason for all answers or a list with one for each."""
    cut = [False] * answers
    for value in ends:
        each = value if isinstance(value, list) else [value] * answers
        if len(each) != answers:
            raise InputError(
                f"{place}: has {many(answers, 'answer')} but {many(len(each), 'finish reason')}. Write one for each answer"
            )
        cut = [before or _ends_early(reason) for before, reason in zip(cut, each, strict=True)]
    return cut


def _ends_early(value: Any) -> bool:
    """Whether a value of `ENDS` means that the answer was cut: a server's finish reason, or true in JSON or a table."""
    return is_cut(value) or str(value).lower() == "true"


def _texts(answer: Any, place: str, where: str) -> Iterator[str]:
    """The answers that a value holds: one, or those of a list."""
    waiting = [answer]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(reversed(value))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield str(int(value)) if isinstance(value, int) or value.is_integer() else str(value)
        elif isinstance(value, str):
            yield value
        else:
            kind = {dict: "a mapping", bool: "true or false", type(None): "nothing"}.get(type(value), type(value).__name__)
            raise InputError(
                f"{place}: {where} holds {kind}. It must be the text of an answer. Choose another column with --column, or fix the value"
            )


def _times(count: Any, place: str) -> int:
    """A whole number, however it is written: 3, "3", 3.0 or "1,234"."""
    if (number := _whole(count)) is None:
        raise InputError(f"{place}: the count {count!r} is not a whole number. Fix it")
    return number


def _whole(count: Any) -> int | None:
    try:
        number = (
            numbers_in([str(count)], ".")[0] if isinstance(count, str | int | float) and not isinstance(count, bool) else math.nan
        )
    except UnclearNumberError:
        return None
    return int(number) if 0 <= number <= MOST_COUNT and number.is_integer() else None
