"""The server whose model is measured, from the options of the command line or of a program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from diffusecli.sampling.connection import Service
from diffusecli.system.errors import InputError

Written = Callable[[str, Any], str]
"""How the caller writes an option with a value; None: its name alone."""


def measured_service(
    options: Mapping[str, Any], model: str | None, written: Written, *, exact: bool, sources: bool
) -> Service | None:
    """The server; None without options. `options`: `engine` and the fields of `Service` that are set.

    With `sources` the model may be that of a run among them; its name is then empty.

    Raises `InputError` for options that are missing or have no effect.
    """
    given = dict(options)
    if not given:
        return None
    if not exact:
        raise InputError(f"{written(next(iter(given)), None)} has no effect without {written('exact', True)}. Remove it")
    engine = written("engine", "openai")
    if given.pop("engine", None) != "openai":
        raise InputError(f"{written('engine', None)}: only openai can be measured. Use {engine}, or remove the options of servers")
    if "base_url" not in given or (model is None and not sources):
        missing = {"model": "NAME"} if "base_url" in given else {"base_url": "http://localhost:8000/v1"}
        raise InputError(f"{engine} needs {written(next(iter(missing)), None)}. Example: {written(*next(iter(missing.items())))}")
    return Service(model=model or "", **given)
