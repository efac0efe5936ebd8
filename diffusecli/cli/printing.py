"""What commands print: results on stdout, messages on stderr, both in the way the terminal can show them."""

from __future__ import annotations

import os

import typer

from diffusecli.system import terminal

MAIN_PROCESS = os.environ.get("RANK", "0") == "0"
"""Of several processes that train together only the main process prints."""
LOCAL_MAIN_PROCESS = os.environ.get("LOCAL_RANK", "0") == "0"
"""The first process of each machine also prints what failed there before the processes met."""


def notice(message: str) -> None:
    """Print a message on stderr, credentials blanked."""
    typer.echo(terminal.message(message), err=True)


def print_line(line: str) -> None:
    """Print a line of the result that holds texts of the user or the model."""
    typer.echo(terminal.spelled(line))


def quiet_libraries() -> None:
    """Hide warnings of the libraries: they are for developers. DIFFUSE_WARNINGS=1 shows them."""
    import warnings

    if not os.environ.get("DIFFUSE_WARNINGS"):
        warnings.simplefilter("ignore")
