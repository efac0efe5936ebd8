"""Printing: results to stdout, messages to stderr, with characters that the terminal can show."""

from __future__ import annotations

import os

import typer

from diffusecli.system import terminal

MAIN_PROCESS = os.environ.get("RANK", "0") == "0"
"""With several training processes, only the main process prints."""
LOCAL_MAIN_PROCESS = os.environ.get("LOCAL_RANK", "0") == "0"
"""The first process of each machine also prints errors that occur before the processes connect."""


def notice(message: str) -> None:
    """Print a message to stderr with credentials removed."""
    terminal.notice_line(terminal.message(message))


def print_line(line: str) -> None:
    """Print a line of the result that contains text from the user or the model."""
    typer.echo(terminal.spelled(line))


def quiet_libraries() -> None:
    """Hide warnings of libraries, which are for developers. DIFFUSE_WARNINGS=1 shows them."""
    import warnings

    if not os.environ.get("DIFFUSE_WARNINGS"):
        warnings.simplefilter("ignore")
