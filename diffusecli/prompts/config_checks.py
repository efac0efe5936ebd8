"""Checks of settings that are valid alone but wrong or doubtful in context.

Knows settings, not paths.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from diffusecli.files.documents import Document
from diffusecli.files.positions import Location
from diffusecli.prompts.config import Config
from diffusecli.system.errors import Problem

_SET_BY_US = {
    "conversation",
    "messages",
    "chat_template",
    "tokenize",
    "add_generation_prompt",
    "continue_final_message",
    "return_dict",
}


def template_variable_problems(document: Document, config: Config) -> Iterator[Problem]:
    """Chat template variables that diffuse sets itself, or that no template can use."""
    for name, value in config.chat_template_kwargs.items():
        if name in _SET_BY_US:
            yield document.problem(("chat_template_kwargs", name), f"'{name}' is set by diffuse itself", "remove it")
        elif not name.isidentifier():
            yield document.problem(("chat_template_kwargs", name), f"'{name}' is not a variable name", "use letters, digits and _")
        elif not _is_json(value):
            yield document.problem(("chat_template_kwargs", name), f"'{name}' is not a text, number, boolean, list or mapping",
                                   "put quotes around it")  # fmt: skip


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def vary_problems(document: Document, config: Config) -> Iterator[tuple[Problem, Location]]:
    """Problems of `vary` with their locations: nothing to vary, and empty system prompts."""
    if not config.vary:
        return
    own, location = config.vary.system, ("vary", "system")
    if own == ():
        yield (
            document.problem(location, "vary.system is an empty list", "add a system prompt, or write true for the built-in ones"),
            location,
        )
    for index, text in enumerate(own if isinstance(own, tuple) else ()):
        if not text.strip():
            place = (*location, index)
            yield document.problem(place, f"vary.system[{index}] is empty", "write text or remove it"), place
    if not (own is not False or config.vary.turns or config.vary.greetings or config.vary.typing):
        yield document.problem(("vary",), "vary has nothing to vary", "set one of its keys to true, or write vary: off"), ("vary",)


def doubtful_settings(document: Document, config: Config) -> Iterator[Problem]:
    """Settings without the effect that they seem to have."""
    algorithm = document.data.get("alg_config") or {}
    if "gamma" in algorithm and not config.alg_config.early_stop:
        yield document.problem(("alg_config", "gamma"), "gamma has no effect without early_stop", "add early_stop: true or remove it",
                               severity="warning")  # fmt: skip
    if config.ckpt_dir is not None and not config.load_model:
        yield document.problem(("ckpt_dir",), "ckpt_dir has no effect without load_model", "add load_model: true or remove it",
                               severity="warning")  # fmt: skip
    if config.vary and config.vary.plain == 1:
        yield document.problem(("vary", "plain"), "vary has no effect if plain is 1", "lower plain or write vary: off",
                               severity="warning")  # fmt: skip
    yield from words_for_numbers(document)


def words_for_numbers(document: Document) -> Iterator[Problem]:
    """Notices on texts that are read as numbers."""
    for location, value in _numbers_in_words(document.data):
        yield document.problem(location, f"YAML reads {value} as text. It is used as a number", f"write {float(value):.1e}",
                               severity="notice")  # fmt: skip


def _numbers_in_words(data: Any, location: Location = ()) -> Iterator[tuple[Location, str]]:
    """Texts like `1e-4`, which YAML 1.1 does not read as a number."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _numbers_in_words(value, (*location, str(key)))
    elif isinstance(data, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", data):
        yield location, data
