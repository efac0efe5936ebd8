"""Options of `evaluate --exact` for a model behind a server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusecli.cli.groups import fields_as_options, grouped

if TYPE_CHECKING:
    from diffusecli.sampling.connection import Service


@dataclass(frozen=True)
class ServedOptions:
    """The server whose model is measured. None if not given."""

    engine: Annotated[str | None, typer.Option(metavar="openai", help="With --exact: measure the model of a server.")] = None
    base_url: Annotated[str | None, typer.Option(metavar="URL", help="With --engine openai: e.g. http://localhost:8000/v1.")] = None
    concurrency: Annotated[int | None, typer.Option(help="With --engine openai: requests in parallel.  [default: 8]")] = None
    requests_per_minute: Annotated[
        float | None, typer.Option(help="With --engine openai: maximum rate (0: no limit).  [default: 0]")
    ] = None
    tries: Annotated[int | None, typer.Option(help="With --engine openai: maximum attempts per request.  [default: 6]")] = None
    timeout: Annotated[float | None, typer.Option(help="With --engine openai: timeout per request in seconds.  [default: 120]")] = (
        None
    )

    def service(self, model: str | None, *, exact: bool, sources: bool) -> Service | None:
        """The server, if one is named. Raises `InputError` for options that are missing or have no effect."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        if not given:
            return None
        from diffusecli.sampling.measured_service import measured_service

        return measured_service(given, model, _written, exact=exact, sources=sources)


def _written(option: str, value: Any) -> str:
    return f"--{option.replace('_', '-')}" + (f" {value}" if value not in (None, True) else "")


with_served_options = grouped("served", fields_as_options(ServedOptions), ServedOptions)
"""Decorator: give a command these options instead of its parameter `served`."""
