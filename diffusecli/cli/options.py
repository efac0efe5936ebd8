"""Options that several commands share, and checks of their values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusecli.cli.groups import fields_as_options, grouped
from diffusecli.files.paths import meant
from diffusecli.runs.sample_files import ASK_METHODS, MEANT_MODES, MODES
from diffusecli.sampling.engines import ENGINES
from diffusecli.system.errors import InputError, must_be_one_of

if TYPE_CHECKING:
    from diffusecli.files.tables import Layout

CHOICES = {
    "--ask": ASK_METHODS,
    "--engine": tuple(ENGINES),
    "--format": ("json", "jsonl", "counts", "csv"),
    "--gguf": ("f16", "bf16", "q8_0"),
    "--mode": MODES,
    "--precision": ("fp32", "bf16", "fp16"),
    "--schema": ("prompt", "config", "evaluation"),
    "--sort": ("weight", "residual", "target"),
}
"""Options with a fixed set of values."""


def choice(option: str, meaning: str) -> Any:
    """An option of `CHOICES`. Shells complete its values."""

    def beginning(incomplete: str) -> list[str]:
        return [word for word in CHOICES[option] if word.startswith(incomplete)]

    return typer.Option(option, metavar="|".join(CHOICES[option]), help=meaning, autocompletion=beginning)


def require_choices(given: dict[str, str | None]) -> None:
    """Raise `InputError` for a value that its option does not accept."""
    for option, value in given.items():
        if value is not None and value not in CHOICES[option]:
            meant = MEANT_MODES if option == "--mode" else {}
            raise InputError(f"{option} {value}: {must_be_one_of(value, CHOICES[option], meant)}")


_READABLE = ("prompt", "prompts", "source", "paths")
"""Parameters of files that are read, and may be on the hub."""


def meant_paths(option: str, value: Any) -> Any:
    """The value of an option with `~` expanded in every path. Raises `InputError` as `paths.meant` does."""
    if isinstance(value, list):
        return [meant_paths(option, one) for one in value]
    if isinstance(value, Path):
        return Path(meant(str(value), readable=option in _READABLE))
    return meant(value) if option in ("model", "chat_template") and isinstance(value, str) else value


TrustsCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code from the model's repository. Only if you trust it.")
]


@dataclass(frozen=True)
class TableOptions:
    """Options that describe the layout of a table."""

    delimiter: Annotated[
        str | None,
        typer.Option(metavar="SIGN|tab|none", help="Delimiter of fields; none: one text per line.  [default: detected]"),
    ] = None
    encoding: Annotated[
        str | None, typer.Option(metavar="NAME", help="Encoding of the file, e.g. cp1252.  [default: detected]")
    ] = None
    no_header: Annotated[bool, typer.Option("--no-header", help="The first row is data; columns are named 1, 2, ….")] = False
    header_rows: Annotated[int | None, typer.Option(metavar="N", help="Rows of column names.  [default: 1]")] = None
    skip_rows: Annotated[int, typer.Option(min=0, metavar="N", help="Number of rows to skip above the header.")] = 0
    sheet: Annotated[str | None, typer.Option(metavar="NAME", help="Sheet of an Excel workbook.")] = None

    def layout(self) -> Layout:
        """The layout. Raises `InputError` for values that contradict each other or do not exist."""
        from diffusecli.files.tables import Layout

        if self.no_header and self.header_rows:
            raise InputError(f"--no-header and --header-rows {self.header_rows} exclude each other. Keep one")
        return Layout(self.delimiter, self.encoding, 0 if self.no_header else self.header_rows, self.skip_rows, self.sheet)


with_table_options = grouped("table", fields_as_options(TableOptions, "Layout of a table"), TableOptions)
"""Decorator: give a command these options instead of its parameter `table`."""
