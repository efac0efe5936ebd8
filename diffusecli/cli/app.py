"""The Typer app: its commands in the order of the help, and what `diffuse` runs."""

from __future__ import annotations

from typing import Annotated

import typer

from diffusecli import __version__
from diffusecli.cli import boundary
from diffusecli.cli.evaluate import evaluate
from diffusecli.cli.export import export
from diffusecli.cli.init_prompt import init_prompt
from diffusecli.cli.missing_values import Command
from diffusecli.cli.printing import show
from diffusecli.cli.sample import ORIGINAL_NAMES, sample
from diffusecli.cli.train import train
from diffusecli.cli.validate import validate

_FIRST_STEPS = """\b
First steps:
  diffuse init-prompt --list               list the distributions
  diffuse train configs/quickstart.yaml    train a small experiment
  diffuse sample                           draw 1000 answers of the newest run
  diffuse evaluate results                 compare them with their weights
  diffuse COMMAND --help                   show all options of a command
"""

app = typer.Typer(
    name="diffuse",
    help="Make a language model sample from the distribution you ask for.",
    epilog=_FIRST_STEPS,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help takes a third of the time and is clean in a pipe
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line."""
    boundary.start(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"diffuse {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[  # noqa: ARG001 (its callback ends the command)
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print only warnings and errors to stderr.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Print more: see the help of a command.")] = False,
) -> None:
    show(quiet=quiet, verbose=verbose)


app.command("init-prompt", cls=Command)(boundary.guarded(init_prompt))
app.command("validate", cls=Command)(boundary.guarded(validate))
app.command("train", cls=Command)(boundary.guarded(train))
app.command("export", cls=Command)(boundary.guarded(export))
app.command("sample", cls=Command, context_settings={"token_normalize_func": lambda option: ORIGINAL_NAMES.get(option, option)})(
    boundary.guarded(sample)
)
app.command("evaluate", cls=Command)(boundary.guarded(evaluate))
