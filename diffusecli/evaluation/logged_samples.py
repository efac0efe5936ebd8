"""Answers in the files of `lm_eval --log_samples`: a JSON line for each document and filter, with its request and its answers.

Chooses the documents that ask the prompt, and translates the settings of the request. Does not read files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusecli.evaluation.answer_rows import AnswerColumns, answer_column, count_rows
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.prompt import Prompt
from diffusecli.system.errors import InputError, many
from diffusecli.system.notices import Notice

_RAW = "resps"
"""The column of all answers; `filtered_resps` has only the first of several repeats, unless the task has another filter."""
_NAMES = {"max_gen_toks": "max_new_tokens", "max_tokens": "max_new_tokens", "max_completion_tokens": "max_new_tokens"}
_NUMBERS = ("temperature", "top_k", "top_p", "min_p", "max_new_tokens")
_NEEDED = ("temperature", "top_k", "top_p")
"""Settings that a generation config or a server sets if the task does not."""

_Row = tuple[str, Any, int]
"""Place, value and count of a line."""


def is_logged(value: Any) -> bool:
    """Whether a JSON line is one of lm-eval's."""
    return isinstance(value, dict) and {"doc_id", "doc", "arguments", _RAW} <= value.keys()


def count_logged(
    rows: Iterable[_Row], prompt: Prompt, wanted: AnswerColumns, file: Path, notice: Notice
) -> tuple[Answers, dict[str, Any]]:
    """The answers to a prompt, counted, and the settings of sampling.

    Raises `InputError` if no document asks the prompt, or if the file holds log-likelihoods or different settings.
    """
    column = wanted.column or _RAW
    lines = list(_of_one_filter(rows, column, file))
    settings = {place: _settings(place, row) for place, row, _ in lines}
    chosen = _of_prompt(lines, prompt, file, notice)
    of_all = settings[chosen[0][0]]
    if different := next((place for place, _, _ in chosen if settings[place] != of_all), None):
        raise InputError(f"{different}: has other generation_kwargs than {chosen[0][0]}. Keep the lines of one task")
    if missing := [name for name in _NEEDED if name not in of_all]:
        notice(
            f"warning: {file}: the task does not set {' and '.join(missing)}, so the model's generation config or the server decides. "
            "Set temperature: 1, top_k: 0 and top_p: 1 in generation_kwargs to sample from the model's own distribution"
        )
    asked = {"wordings": len(_documents(chosen))} if len(prompt.wordings) > 1 else {}
    only = ((place, {column: row[answer_column(list(row), column, place)]}, count) for place, row, count in chosen)
    return count_rows(only, replace(wanted, column=column), file, notice), {**of_all, **asked}


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


def _settings(place: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of sampling in this project's names, from the keyword arguments of the request. Raises `InputError` if there are none.

    >>> row = {"arguments": {"gen_args_0": {"arg_0": "Toss.", "arg_1": {"do_sample": True, "temperature": 1.0, "max_gen_toks": 8, "until": []}}}}
    >>> _settings("s.jsonl:1", row)
    {'temperature': 1.0, 'max_new_tokens': 8, 'stop': []}
    """
    request = row["arguments"].get("gen_args_0") if isinstance(row["arguments"], dict) else None
    given = request.get("arg_1") if isinstance(request, dict) else None
    if not isinstance(given, dict):
        raise InputError(f"{place}: holds log-likelihoods of choices, not answers. Use a task with `output_type: generate_until`")
    found: dict[str, Any] = {
        _NAMES.get(str(name), str(name)): value for name, value in given.items() if name not in ("do_sample", "until")
    }
    if wrong := next((name for name in _NUMBERS if not isinstance(found.get(name, 0), int | float)), None):
        raise InputError(f"{place}: {wrong} of generation_kwargs is {found[wrong]!r}. It must be a number")
    if given.get("do_sample", "temperature" in given) is False:
        found["temperature"] = 0.0  # greedy, whatever the temperature
    until = given.get("until") or []
    if not isinstance(until, str | list):
        raise InputError(f"{place}: until of generation_kwargs is {until!r}. It must be a text or a list of texts")
    return {**found, "stop": [until] if isinstance(until, str) else [str(text) for text in until]}
