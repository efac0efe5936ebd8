"""Settings of a config given on the command line, `--set key.sub=value` or one value of `--sweep`, and problems reported at that option.

Knows documents, not what their keys mean.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

from diffusecli.files.documents import Document
from diffusecli.files.positions import Location
from diffusecli.files.yaml_syntax import read_value
from diffusecli.system.errors import InputError, Problem


class Swept(str):
    """A setting `key=value` with one of the values of `--sweep`."""

    __slots__ = ()


def apply_overrides(document: Document, overrides: Sequence[str]) -> tuple[Document, dict[Location, str]]:
    """The document with `key.sub=value` put in (values read as YAML), and the option of each value."""
    if not overrides:
        return document, {}
    data = copy.deepcopy(document.data) if isinstance(document.data, dict) else {}
    options: dict[Location, str] = {}
    for option in overrides:
        key, separator, text = option.partition("=")
        location = tuple(key.strip().split("."))
        if not separator or not all(location):
            raise InputError(f"{_named(option)}: write KEY=VALUE, e.g. --set alg_config.n_iters=10")
        try:
            value = read_value(text)
        except ValueError as error:
            raise InputError(f"{_named(option)}: the value cannot be read. Put quotes around it") from error
        inside = data
        for part in location[:-1]:
            inside = inside.setdefault(part, {})
            if not isinstance(inside, dict):
                raise InputError(f"{_named(option)}: '{part}' has no keys")
        inside[location[-1]] = value
        options[location] = option
    return replace(document, data=data), options


def at_its_option(problem: Problem, location: Location, overridden: dict[Location, str]) -> Problem:
    """A problem of an overridden value, reported at the option instead of the file."""
    for place, option in overridden.items():
        if location[: len(place)] == place:
            return replace(problem, path=f"{_named(option)}", line=None, column=None)
    return problem


def _named(option: str) -> str:
    """The option as on the command line."""
    return f"{'--sweep' if isinstance(option, Swept) else '--set'} {option}"
