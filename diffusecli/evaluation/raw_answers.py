"""Answers to one prompt from any tool: a JSON list, JSON lines, a table, or one answer per line.

Detects the file format and the column of answers. Does not read runs; `answer_rows.py` counts the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from diffusecli.evaluation.answer_rows import (
    ENDS,
    RECORD,
    SHARES,
    AnswerColumns,
    answer_column,
    count_rows,
    joined_rows,
    joining,
    records,
)
from diffusecli.evaluation.logged_samples import count_logged
from diffusecli.evaluation.run_records import read_sample_meta
from diffusecli.evaluation.sample_set import SampleSet
from diffusecli.files.column_names import is_count_like
from diffusecli.files.delimited import even_delimiters
from diffusecli.files.documents import read_document
from diffusecli.files.reading import TooLargeError, read_text
from diffusecli.files.table_files import TABULAR, holds_plain_text, read_table
from diffusecli.files.tables import Layout, Table
from diffusecli.files.text import canonical
from diffusecli.prompts.answers import Answers, with_unfinished
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.prompt_files import read_prompt
from diffusecli.prompts.templates import Template
from diffusecli.prompts.total_rows import likely_sum
from diffusecli.prompts.weighing import NONE
from diffusecli.runs.sample_files import MOST_BYTES
from diffusecli.runs.samples import distinct_lines, is_count, is_logged, unreadable
from diffusecli.system.errors import InputError
from diffusecli.system.notices import Notice


def read_answers(
    file: Path, prompt: Path, column: str | None, count_column: str | None = None, layout: Layout | None = None,
    notice: Notice = lambda _: None,
) -> SampleSet:  # fmt: skip
    """Answers to one prompt from any tool: a JSON list, a table (CSV, JSON lines, Parquet, Excel), or one answer per line.

    The default column is the only one, or one with a usual name; columns of all fields of a record are joined. A column `count` holds counts. A JSON list in a cell is several answers.
    `notice` takes findings about a table, and reports a column that looks like counts and is not used. Raises `InputError`.
    """
    asked, wanted, layout = read_prompt(prompt), AnswerColumns(column, count_column), layout or Layout()
    logged: dict[str, Any] = {}
    ending, as_lines = file.suffix.lower(), layout == Layout(delimiter="none")
    if ending in (".json", ".jsonl") and layout == Layout():
        counts, logged = (
            (_from_json(file, wanted, asked, notice), {}) if ending == ".json" else _from_json_lines(file, wanted, asked, notice)
        )
    elif ending in TABULAR or not (column is None and (as_lines or layout == Layout())) or not _is_plain(file):
        counts = _from_table(file, wanted, layout, asked, notice)
    else:
        counts = _from_lines(file, () if as_lines else asked.every_spelling)
    meta = read_sample_meta(file)
    (cut,) = meta.unfinished.values() if len(meta.unfinished) == 1 else ({},)
    return SampleSet(str(file), file.stem, asked, with_unfinished(counts, cut), meta.settings_of(*meta.prompts) or logged)


def _is_plain(file: Path) -> bool:
    try:
        return holds_plain_text(file)
    except OSError as error:
        raise unreadable(file, error) from error


def _from_table(file: Path, wanted: AnswerColumns, layout: Layout, prompt: Prompt, notice: Notice) -> Answers:
    """A table; its first line names the columns, unless the layout says otherwise."""
    named = [name for name in (wanted.column, wanted.count_column) if name not in (None, NONE)]
    table = read_table(file, layout, [str(name) for name in named])
    targets = set(map(canonical, prompt.every_spelling))
    if layout.header_rows is None and (answers := [name for name in table.names if name in targets]):
        raise InputError(
            f"{file}:1: the first line names the columns, and {answers[0]!r} is a target. Add --no-header if it is an answer, "
            "or --header-rows 1 if it is a name"
        )
    for found in table.notices:
        notice(found)
    template = None
    if table.counts is None:
        template, wanted = joining(
            table.names, wanted, prompt.template, str(file), lambda name: table.columns[table.find(name, "--column")]
        )
    if template is not None:
        table = _with_records(table, template, notice)
    names = dict.fromkeys(table.names)
    answer = (
        len(table.names) - 1
        if template is not None
        else table.find(answer_column(table.names, wanted.column, str(file)) if table.counts is None else "target", "--column")
    )
    others = {name: table.find(name, "--count-column") for name in names if is_count_like(name) and table.names.count(name) == 1}
    if wanted.count_column not in (None, NONE):
        others[str(wanted.count_column)] = table.find(str(wanted.count_column), "--count-column")
    if table.counts is not None:
        others["count"] = table.find(table.counts, "--count-column")
    others |= {name: table.names.index(name) for name in ("prompt", *ENDS, *SHARES) if table.names.count(name) == 1}
    kept = {name: table.columns[index] for name, index in others.items() if index != answer}
    rows = zip(table.columns[answer], *kept.values(), strict=True)
    places = (
        (f"{file}: row {number}", {RECORD: cells[0], **dict(zip(kept, cells[1:], strict=True))}, 1)
        for number, cells in enumerate(rows, 1)
    )
    counts = count_rows(places, replace(wanted, column=RECORD), file, notice)
    if (name := likely_sum(counts)) is not None and canonical(name) not in targets:
        notice(
            f"warning: {file}: {name!r} counts as an answer and has the count of all others together. Remove the row if it is a sum"
        )
    return counts


def _with_records(table: Table, template: Template, notice: Notice) -> Table:
    """The table with its fields joined to records in a last column, in place of the fields."""
    fields = [table.find(name, "--column") for name in template.fields]
    values = zip(*(map(canonical, table.texts(index, "A field must be a single value")) for index in fields), strict=True)
    rows = ((f"{table.path}: row {number}", row) for number, row in enumerate(values, 1))
    rest = [index for index in range(len(table.names)) if index not in fields]
    return replace(
        table, names=(*(table.names[index] for index in rest), RECORD),
        columns=(*(table.columns[index] for index in rest), records(rows, template, notice)),
    )  # fmt: skip


def _from_lines(file: Path, targets: Sequence[str]) -> Answers:
    """One answer per line; an empty line is an empty answer. Raises `InputError` for lines with several fields if one is a target."""
    try:
        text = read_text(file, MOST_BYTES)
    except TooLargeError as error:
        raise InputError(f"{file}: {error}. Split the file, or count the answers") from error
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(file, error) from error
    counts = Answers(text.removesuffix("\n").split("\n") if text else [])
    known = set(map(canonical, targets))
    if known and known.isdisjoint(map(canonical, counts)):
        for sign in even_delimiters(text):
            if any(field in known for line in counts for field in line.rstrip("\r").split(sign)):
                raise InputError(
                    f"{file}: no line is a target, but a field separated by {sign!r} is. Add --delimiter '{sign}' and --column for a table, "
                    "or --delimiter none for lines"
                )
    return counts


def _from_json_lines(file: Path, wanted: AnswerColumns, asked: Prompt, notice: Notice) -> tuple[Answers, dict[str, Any]]:
    """JSON lines: strings, lists of them, mappings with a column of answers, or lm-eval's, which hold their settings."""
    lines = distinct_lines(file)
    first = [line for line in (next(lines, None),) if line is not None]
    if not first:
        raise InputError(f"{file}: is empty. Name a file with answers")
    if is_logged(first[0][1]):
        return count_logged(chain(first, lines), asked, wanted, file, notice)
    return count_rows(*joined_rows(chain(first, lines), wanted, asked.template, notice), file, notice), {}


def _from_json(file: Path, wanted: AnswerColumns, asked: Prompt, notice: Notice) -> Answers:
    """JSON: a list of strings or of mappings, answers with their counts, or one prompt's samples."""
    document, problems = read_document(file, MOST_BYTES)
    if document is None:
        raise InputError.of(problems)
    data = document.data
    if isinstance(data, dict) and len(data) == 1 and not isinstance(next(iter(data.values())), int):
        data = next(iter(data.values()))
    if isinstance(data, list):
        rows = ((f"{file}: item {number}", row, 1) for number, row in enumerate(data, 1))
        return count_rows(*joined_rows(rows, wanted, asked.template, notice), file, notice)
    if isinstance(data, dict) and all(map(is_count, data.values())):
        return Answers(data)
    if isinstance(data, dict) and "targets" in data and ("request" in data or "messages" in data):
        raise InputError(f"{file}: is a prompt and holds no answers. Name a file of answers")
    if isinstance(data, dict) and data and all(isinstance(value, int | float) for value in data.values()):
        raise InputError(f"{file}: holds shares, not counts. Multiply them by the number of answers: the statistics depend on it")
    raise InputError(f"{file}: must be a list of answers, or answers with counts. For a file with several prompts remove --prompt")
