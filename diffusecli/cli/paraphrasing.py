"""Options of `init-prompt` about the server that paraphrases a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from diffusecli.cli.groups import fields_as_options, grouped
from diffusecli.system.errors import InputError

if TYPE_CHECKING:
    from diffusecli.sampling.connection import Service


@dataclass(frozen=True)
class ParaphraseOptions:
    """How many paraphrases, and who makes them."""

    paraphrase: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Add N paraphrases of the request, made by a server (--engine openai).")
    ] = None
    engine: Annotated[str | None, typer.Option(metavar="openai", help="With --paraphrase: the kind of server.")] = None
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="With --paraphrase: the server, e.g. http://localhost:8000/v1.")
    ] = None
    model: Annotated[str | None, typer.Option(help="With --paraphrase: the server's model.")] = None

    def service(self) -> Service | None:
        """The server, where paraphrases are asked for; raises `InputError` for options that are missing or go with nothing."""
        given = {"--engine": self.engine, "--base-url": self.base_url, "--model": self.model}
        if self.paraphrase is None:
            if without := [option for option, value in given.items() if value is not None]:
                raise InputError(f"{without[0]} goes with --paraphrase. Add --paraphrase N or leave {without[0]} out")
            return None
        if self.engine not in ("openai", None):
            raise InputError(f"--engine {self.engine}: cannot paraphrase. Use --engine openai")
        if self.engine is None or self.base_url is None or self.model is None:
            missing = next(option for option, value in given.items() if value is None)
            raise InputError(f"--paraphrase needs {missing}, e.g. --engine openai --base-url http://localhost:8000/v1 --model NAME")
        from diffusecli.sampling.connection import Service

        return Service(self.base_url, self.model)


with_paraphrase_options = grouped("paraphrasing", fields_as_options(ParaphraseOptions), ParaphraseOptions)
"""Gives a command these options, in place of its parameter `paraphrasing`."""
