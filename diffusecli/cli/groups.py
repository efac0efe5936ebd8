"""Several options as one parameter of a command's body.

Typer reads a command's options from its signature. Options that two commands share, or that a registry lists, are
written once. The body has one parameter for all of them; the command has the options instead.
"""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable, Sequence
from dataclasses import fields
from itertools import takewhile
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from diffusecli.system.errors import InputError

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


def fields_as_options(group: type) -> Sequence[inspect.Parameter]:
    """The fields of a dataclass as options: annotated as in a signature, each with a default."""
    hints = typing.get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name])
        for field in fields(group)
    ]


def optional(name: str, kind: Any, *declarations: str, **settings: Any) -> inspect.Parameter:
    """An optional option, built from a registry entry. `settings` are those of `typer.Option`."""
    annotation = Annotated[kind | None, typer.Option(*declarations, **settings)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


class Command(TyperCommand):
    """A command whose errors name the values that an option needs, and the command, to point to its help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Typer. An option is no value of the option before it. Raises `InputError` if values of an option are missing."""
        options = {name: option for option in self.params for name in option.opts if option.nargs > 1}
        for place, given in enumerate(args if not ctx.resilient_parsing else ()):  # resilient: completion in the shell
            count = options[given].nargs if given in options else 0
            if (found := len(list(takewhile(_may_be_value, args[place + 1 : place + 1 + count])))) < count:
                raise InputError(f"{given} needs {count} values ({options[given].metavar}) and has {found}. {help_of(ctx)}")
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            name = getattr(error, "option_name", None)
            option = next((option for option in self.params if name in option.opts), None)
            if option is not None and not getattr(option, "is_flag", False):  # a flag takes no value
                kind = f" ({option.metavar})" if option.metavar else ""
                raise InputError(f"{name} needs a value{kind}. {help_of(ctx)}") from error
            if getattr(error, "ctx", ctx) is None:
                error.ctx = ctx  # type: ignore[attr-defined]
            raise


def help_of(context: Any) -> str:
    """Where the options of a command are explained."""
    return f"See `{context.command_path if context is not None else 'diffuse'} --help`"


def _may_be_value(text: str) -> bool:
    """Whether an argument may be a value: it is not an option. Negative numbers are values.

    >>> _may_be_value("-0.5"), _may_be_value("-o"), _may_be_value("--seed")
    (True, False, False)
    """
    return re.match(r"--?[A-Za-z]", text) is None


def given_options(context: typer.Context) -> list[str]:
    """The options given on the command line, each by its longest name."""
    sources = {p: context.get_parameter_source(p.name or "") for p in context.command.params}
    return [max(p.opts, key=len) for p, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
