"""Several options as one parameter of a command's body."""

from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from diffusecli.cli.groups import fields_as_options, grouped, optional


@dataclass(frozen=True)
class Size:
    width: Annotated[int, typer.Option(min=1, help="How wide.")] = 2
    no_height: Annotated[bool, typer.Option("--no-height")] = False


def ran(body, *words):
    """What the command printed, and the names of its options in the order of its help."""
    app = typer.Typer(add_completion=False)
    app.command()(body)
    command = typer.main.get_command(app)
    names = [option.opts[0] for option in command.get_params(command.make_context("x", [], resilient_parsing=True))]
    return CliRunner().invoke(app, words), names


@grouped("size", fields_as_options(Size), Size)
def sized(*, first: int = 1, size: Size, last: Annotated[int, typer.Option("-l", "--last")] = 3) -> None:
    """Print what the body gets."""
    typer.echo(f"{first} {size} {last}")


def test_the_fields_of_a_group_are_options_in_place_of_its_parameter():
    done, names = ran(sized, "--width", "5", "-l", "4")
    assert names == ["--first", "--width", "--no-height", "-l", "--help"]
    assert done.stdout == "1 Size(width=5, no_height=False) 4\n"
    assert ran(sized)[0].stdout == "1 Size(width=2, no_height=False) 3\n"
    assert ran(sized, "--width", "0")[0].exit_code == 2


def test_two_groups_go_with_one_body_and_a_registrys_options_come_as_a_dict():
    @grouped("known", [optional("a", int, "--a"), optional("b", tuple[int, str], "--b")])
    @grouped("size", fields_as_options(Size), Size)
    def body(*, size: Size, known: dict) -> None:
        typer.echo(f"{size.width} {known}")

    done, names = ran(body, "--b", "1", "x")
    assert names == ["--width", "--no-height", "--a", "--b", "--help"]
    assert done.stdout == "2 {'a': None, 'b': (1, 'x')}\n"
