"""Printing: results to stdout, messages to stderr, with characters that the terminal can show."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import typer

from diffusecli.system import terminal
from diffusecli.system.errors import InputError
from diffusecli.system.notices import CHECK, ERROR, WARNING

if TYPE_CHECKING:
    from rich.console import Console

MAIN_PROCESS = os.environ.get("RANK", "0") == "0"
"""With several training processes, only the main process prints."""
LOCAL_MAIN_PROCESS = os.environ.get("LOCAL_RANK", "0") == "0"
"""The first process of each machine also prints errors that occur before the processes connect."""


_shown = {"quiet": False, "verbose": False}


def show(*, quiet: bool, verbose: bool) -> None:
    """Set what this command prints to stderr: with `quiet` only warnings and errors, with `verbose` also internal checks."""
    if quiet and verbose:
        raise InputError("--quiet and --verbose exclude each other. Keep one of them")
    _shown.update(quiet=quiet, verbose=verbose)


def is_verbose() -> bool:
    """Whether internal checks are printed."""
    return _shown["verbose"]


def is_quiet() -> bool:
    """Whether only warnings and errors are printed to stderr."""
    return _shown["quiet"]


def notice(message: str) -> None:
    """Print a message to stderr with credentials removed, unless the user does not want it."""
    if message.startswith(CHECK) and not _shown["verbose"]:
        return
    if is_quiet() and not message.startswith((WARNING, ERROR)):
        return
    terminal.notice_line(terminal.message(message))


def progress_console() -> Console:
    """Where progress is shown: stderr."""
    made = terminal.console(stderr=True, narrowest=20)  # a live display needs the real width to redraw itself
    made.quiet = is_quiet()
    return made


def print_line(line: str) -> None:
    """Print a line of the result that contains text from the user or the model."""
    typer.echo(terminal.spelled(line))


def quiet_libraries() -> None:
    """Hide warnings of libraries, which are for developers. DIFFUSE_WARNINGS=1 shows them."""
    import warnings

    if not os.environ.get("DIFFUSE_WARNINGS"):
        warnings.simplefilter("ignore")
