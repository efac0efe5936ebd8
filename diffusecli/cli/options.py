"""Options that more than one command has, and checks of their values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusecli.cli.groups import fields_as_options, grouped
from diffusecli.files.paths import meant
from diffusecli.sampling.engines import ENGINES
from diffusecli.system.errors import InputError

if TYPE_CHECKING:
    from diffusecli.files.tables import Layout

CHOICES = {
    "--engine": tuple(ENGINES),
    "--format": ("json", "jsonl", "counts", "csv"),
    "--mode": ("untuned", "lora"),
    "--precision": ("fp32", "bf16", "fp16"),
    "--schema": ("prompt", "config", "evaluation"),
    "--sort": ("weight", "residual", "target"),
}
"""Options that take one of a few words."""


def choice(option: str, meaning: str) -> Any:
    """An option of `CHOICES`; shells complete its words."""

    def beginning(incomplete: str) -> list[str]:
        return [word for word in CHOICES[option] if word.startswith(incomplete)]

    return typer.Option(option, metavar="|".join(CHOICES[option]), help=meaning, autocompletion=beginning)


def require_choices(given: dict[str, str | None]) -> None:
    """Raises `InputError` for a word that its option does not take."""
    for option, value in given.items():
        if value is not None and value not in CHOICES[option]:
            raise InputError(f"{option} {value}: must be one of {', '.join(CHOICES[option])}")


def meant_paths(option: str, value: Any) -> Any:
    """The value of an option with `~` replaced in every path; raises `InputError` as `paths.meant` does."""
    if isinstance(value, list):
        return [meant_paths(option, one) for one in value]
    if isinstance(value, Path):
        return Path(meant(str(value)))
    return meant(value) if option in ("model", "chat_template") and isinstance(value, str) else value


TrustsCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model, if you trust it.")
]
BaseModel = Annotated[str | None, typer.Option("--model", help="Base model by name or path, where it differs from the run's.")]


@dataclass(frozen=True)
class TableOptions:
    """The options that say how a table is written."""

    delimiter: Annotated[
        str | None,
        typer.Option(
            metavar="SIGN|tab|none", help="Sign between the fields of a table; none: one text a line.  [default: found out]"
        ),
    ] = None
    encoding: Annotated[
        str | None, typer.Option(metavar="NAME", help="Encoding of the file, e.g. cp1252.  [default: found out]")
    ] = None
    no_header: Annotated[bool, typer.Option("--no-header", help="The first row is data; columns are called 1, 2, ….")] = False
    header_rows: Annotated[int | None, typer.Option(metavar="N", help="Rows of column names.  [default: 1]")] = None
    skip_rows: Annotated[int, typer.Option(min=0, metavar="N", help="Rows above the header to leave out.")] = 0
    sheet: Annotated[str | None, typer.Option(metavar="NAME", help="Sheet of an Excel workbook.")] = None

    def layout(self) -> Layout:
        """What they say; raises `InputError` for values that contradict each other or do not exist."""
        from diffusecli.files.tables import Layout

        if self.no_header and self.header_rows:
            raise InputError(f"--no-header and --header-rows {self.header_rows} exclude each other, keep one")
        return Layout(self.delimiter, self.encoding, 0 if self.no_header else self.header_rows, self.skip_rows, self.sheet)


with_table_options = grouped("table", fields_as_options(TableOptions), TableOptions)
"""Gives a command these options, in place of its parameter `table`."""
