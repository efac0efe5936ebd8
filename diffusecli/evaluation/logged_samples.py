"""Answers in the files of `lm_eval --log_samples`: a JSON line for each document and filter, with its request and its answers.

Chooses the documents that ask the prompt, and refuses answers that are there twice. Does not read files; `logged_settings.py` knows settings.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusecli.evaluation.answer_rows import AnswerColumns, answer_column, count_rows
from diffusecli.evaluation.logged_settings import given_settings, translated, why_bent
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.prompt import Prompt
from diffusecli.runs.samples import is_logged
from diffusecli.system.errors import InputError, many
from diffusecli.system.notices import Notice

_RAW = "resps"
"""The column of all answers; `filtered_resps` has only the first of several repeats, unless the task has another filter."""
_TELLING = 10
"""Answers of a line from which equal ones are a copy. Fewer may be equal by chance."""

_Row = tuple[str, Any, int]
"""Place, value and count of a line."""


def count_logged(
    rows: Iterable[_Row], prompt: Prompt, wanted: AnswerColumns, file: Path, notice: Notice
) -> tuple[Answers, dict[str, Any]]:
    """The answers to a prompt, counted, and the settings of sampling.

    Raises `InputError` if no document asks the prompt, or if the file holds log-likelihoods or different settings.
    """
    column = wanted.column or _RAW
    lines = list(_of_one_filter(rows, column, file))
    given = {place: given_settings(place, row) for place, row, _ in lines}
    chosen = _of_prompt(lines, prompt, file, notice)
    for place, row, _ in chosen:
        _require_answers(place, row)
    of_all = given[chosen[0][0]]
    if different := next((place for place, _, _ in chosen if given[place] != of_all), None):
        raise InputError(f"{different}: has other generation_kwargs than {chosen[0][0]}. Keep the lines of one task")
    _require_once(chosen, file, notice)
    if reason := why_bent(of_all):
        notice(f"warning: {file}: {reason}")
    asked = {"wordings": len(_documents(chosen))} if len(prompt.wordings) > 1 else {}
    only = ((place, {column: row[answer_column(list(row), column, place)]}, count) for place, row, count in chosen)
    return count_rows(only, replace(wanted, column=column), file, notice), {**translated(of_all), **asked}


def _of_one_filter(rows: Iterable[_Row], column: str, file: Path) -> Iterator[_Row]:
    """The lines of the first filter: the lines of other filters repeat the same answers. Raises `InputError`."""
    first = None
    for place, row, count in rows:
        if not is_logged(row):
            raise InputError(f"{place}: is no line of lm-eval's --log_samples (doc_id, doc, arguments, {_RAW}). Remove the line")
        name = str(row.get("filter"))
        first = first or name
        if name == first:
            yield place, row, count
        elif column != _RAW:
            raise InputError(
                f"{file}: holds the answers of two filters, '{first}' and '{name}'. Keep the lines of one, or leave out --column"
            )


def _of_prompt(rows: list[_Row], prompt: Prompt, file: Path, notice: Notice) -> list[_Row]:
    """The lines whose document asks the prompt in one of its wordings: as a field, otherwise within the text that was sent."""
    requests = {wording.question for wording in prompt.wordings} | {prompt.question}
    asking = [row for row in rows if not requests.isdisjoint(_texts(row[1]["doc"]))]
    asking = asking or [row for row in rows if _sends(row[1]["arguments"], requests)]
    documents = _documents(rows)
    if not asking and len(documents) == 1:
        notice(
            f"warning: {file}: the request of {prompt.alias} is not in the text that was sent. Check that these answers belong to it"
        )
    elif not asking:
        raise InputError(
            f"{file}: has {many(len(documents), 'document')}, and none asks the request of {prompt.alias}. "
            "Name their prompt with --prompt, or keep the lines of one document"
        )
    return asking or rows


def _documents(rows: Iterable[_Row]) -> set[str]:
    return {json.dumps(row["doc"], sort_keys=True) for _, row, _ in rows}


def _sends(arguments: Any, requests: Iterable[str]) -> bool:
    """Whether a request is part of what was sent, which may be JSON within a text."""
    sent = "\n".join(_texts(arguments))
    return any(
        form in sent for text in requests for form in (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    )


def _texts(value: Any) -> Iterator[str]:
    """All texts in a JSON value."""
    waiting = [value]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, str):
            yield inner
        elif isinstance(inner, dict | list):
            waiting.extend(inner.values() if isinstance(inner, dict) else inner)


def _require_answers(place: str, row: Mapping[str, Any]) -> None:
    """Raises `InputError` unless the answers are lists of texts, as lm-eval writes them. Items that are not texts are found in counting."""
    lists = row[_RAW]
    if not isinstance(lists, list) or not all(isinstance(each, list) for each in lists):
        raise InputError(f"{place}: the column '{_RAW}' must be a list of lists of answers. Keep the line as lm-eval wrote it")
    if not any(lists):
        raise InputError(f"{place}: the column '{_RAW}' holds no answers. Remove the line, or run the task again")
    if wrong := next((item for each in lists for item in each if isinstance(item, int | float)), None):
        raise InputError(f"{place}: the column '{_RAW}' holds {wrong!r}. It must be the text of an answer")


def _require_once(rows: Iterable[_Row], file: Path, notice: Notice) -> None:
    """Raises `InputError` if a document has the same answers twice, as when a file was appended to itself. Runs with other seeds count together."""
    first: dict[str, str] = {}
    runs = Counter[str]()
    for place, row, count in rows:
        answers = json.dumps([row["doc_id"], row[_RAW]])
        copied = first.setdefault(answers, place)
        runs[str(row["doc_id"])] += count
        if (count > 1 or copied != place) and sum(map(len, row[_RAW])) >= _TELLING:
            repeats = f"repeats the answers of {copied}" if copied != place else f"is {count} times in the file"
            raise InputError(
                f"{place}: {repeats} (doc_id {row['doc_id']}). Remove the copy. For more answers, run lm-eval with another --seed"
            )
    name, most = runs.most_common(1)[0]
    if most > 1:
        notice(f"{file}: doc_id {name} has {most} lines, as of several runs. The answers of all lines count")
