"""Options of `init-prompt` for the server that paraphrases a request."""

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
    """The number of paraphrases, and the server that writes them."""

    paraphrase: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Add N paraphrases of the request from a server (--engine openai).")
    ] = None
    engine: Annotated[str | None, typer.Option(metavar="openai", help="With --paraphrase: kind of server.")] = None
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="With --paraphrase: URL of the server, e.g. http://localhost:8000/v1.")
    ] = None
    model: Annotated[str | None, typer.Option(help="With --paraphrase: model of the server.")] = None

    def service(self) -> Service | None:
        """The server if paraphrases are requested. Raises `InputError` for options that are missing or have no effect."""
        given = {"--engine": self.engine, "--base-url": self.base_url, "--model": self.model}
        if self.paraphrase is None:
            if without := [option for option, value in given.items() if value is not None]:
                raise InputError(f"{without[0]} has no effect without --paraphrase. Add --paraphrase N or leave {without[0]} out")
            return None
        if self.engine not in ("openai", None):
            raise InputError(f"--engine {self.engine}: this engine cannot paraphrase. Use --engine openai")
        if self.engine is None or self.base_url is None or self.model is None:
            missing = next(option for option, value in given.items() if value is None)
            raise InputError(
                f"--paraphrase needs {missing}. Example: --engine openai --base-url http://localhost:8000/v1 --model NAME"
            )
        from diffusecli.sampling.connection import Service

        return Service(self.base_url, self.model)


with_paraphrase_options = grouped(
    "paraphrasing", fields_as_options(ParaphraseOptions, "Paraphrases of the request"), ParaphraseOptions
)
"""Decorator: give a command these options instead of its parameter `paraphrasing`."""
