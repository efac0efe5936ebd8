"""A command: its options in groups in the help, and an error that says what is missing for options without their values."""

from __future__ import annotations

import re
from itertools import takewhile
from typing import Any

from typer.core import TyperCommand

from diffusecli.system.errors import InputError


class Command(TyperCommand):
    """A command with groups of options, whose errors name the values that an option needs, and the command, to point to its help."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """As Typer. Options with a `rich_help_panel` are in a section of this name, after all others."""
        for title, records in option_groups(self, ctx).items():
            with formatter.section(title):
                formatter.write_dl(records)

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
                wanted = "a value" if option.nargs == 1 else f"{option.nargs} values"
                raise InputError(f"{name} needs {wanted}{kind}. {help_of(ctx)}") from error
            if getattr(error, "ctx", ctx) is None:
                error.ctx = ctx  # type: ignore[attr-defined]
            raise


def option_groups(command: Any, context: Any) -> dict[str, list[tuple[str, str]]]:
    """Arguments and options as names and their meaning, by the title of their group; first those without a group."""
    groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    for parameter in command.get_params(context):
        kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
        if (record := parameter.get_help_record(context)) is not None:
            groups.setdefault(getattr(parameter, "rich_help_panel", None) or kind, []).append(record)
    return {title: records for title, records in groups.items() if records}


def help_of(context: Any) -> str:
    """Where the options of a command are explained."""
    return f"See `{context.command_path if context is not None else 'diffuse'} --help`"


def _may_be_value(text: str) -> bool:
    """Whether an argument may be a value: it is not an option. Negative numbers are values.

    >>> _may_be_value("-0.5"), _may_be_value("-o"), _may_be_value("--seed")
    (True, False, False)
    """
    return re.match(r"--?[A-Za-z]", text) is None
