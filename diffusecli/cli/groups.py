"""Several options as one parameter of a command's body.

Typer reads a command's options from its signature. Options that two commands share, or that a registry lists, are
written once. The body has one parameter for all of them; the command has the options instead.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Annotated, Any

import typer

Body = Callable[..., None]
"""The function that a command runs. Its options are keyword arguments."""


def grouped(parameter: str, options: Sequence[inspect.Parameter], join: Callable[..., Any] = dict) -> Callable[[Body], Body]:
    """Replace one parameter of the body by `options`. The body receives `join(**values)`."""

    def replace(body: Body) -> Body:
        @functools.wraps(body)
        def run(**given: Any) -> None:
            values = {option.name: given.pop(option.name) for option in options}
            body(**given, **{parameter: join(**values)})

        flat: list[inspect.Parameter] = []
        for own in inspect.signature(body, eval_str=True).parameters.values():
            flat += options if own.name == parameter else [own.replace(kind=own.KEYWORD_ONLY)]
        return with_options(run, flat)

    return replace


def with_options(run: Body, options: Sequence[inspect.Parameter]) -> Body:
    """Give a function the signature that Typer reads: keyword options."""
    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in options}
    return run


def fields_as_options(group: type, panel: str | None = None) -> Sequence[inspect.Parameter]:
    """The fields of a dataclass as options: annotated as in a signature, each with a default; in the help under the title `panel`."""
    hints = typing.get_type_hints(group, include_extras=True)
    for hint in hints.values():
        hint.__metadata__[0].rich_help_panel = panel
    return [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name])
        for field in fields(group)
    ]


def optional(name: str, kind: Any, *declarations: str, **settings: Any) -> inspect.Parameter:
    """An optional option, built from a registry entry. `settings` are those of `typer.Option`."""
    annotation = Annotated[kind | None, typer.Option(*declarations, **settings)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def given_options(context: typer.Context) -> list[str]:
    """The options given on the command line, each by its longest name."""
    sources = {p: context.get_parameter_source(p.name or "") for p in context.command.params}
    return [max(p.opts, key=len) for p, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
