"""The limits of `diffuse evaluate`: a figure beyond one ends the command with exit code 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from diffusecli.cli.groups import fields_as_options, grouped


@dataclass(frozen=True)
class Limits:
    """One field per limit. None if not given."""

    min_n: Annotated[float | None, typer.Option(help="Exit with 1 if a prompt has fewer samples.")] = None
    min_valid: Annotated[float | None, typer.Option(help="Exit with 1 if a prompt has a lower share of valid answers.")] = None
    max_unfinished: Annotated[
        float | None, typer.Option(help="Exit with 1 if a prompt has a higher share of unfinished answers.")
    ] = None
    max_tvd: Annotated[float | None, typer.Option(help="Exit with 1 if a prompt has a higher TVD.")] = None
    max_excess_tvd: Annotated[float | None, typer.Option(help="Exit with 1 if a prompt has a higher excess TVD.")] = None
    min_p: Annotated[float | None, typer.Option(help="Exit with 1 if a goodness-of-fit test has a lower p-value.")] = None
    min_coverage: Annotated[float | None, typer.Option(help="Exit with 1 if coverage of the possible targets is lower.")] = None
    max_kl: Annotated[float | None, typer.Option(help="Exit with 1 if a prompt has a higher exact KL.")] = None
    max_wording_tvd: Annotated[
        float | None, typer.Option(help="Exit with 1 if a wording or held-out context has a higher exact TVD.")
    ] = None
    max_median_tvd: Annotated[float | None, typer.Option(help="Exit with 1 if a top folder has a higher median exact TVD.")] = None
    max_median_excess_tvd: Annotated[
        float | None, typer.Option(help="Exit with 1 if a top folder has a higher median excess TVD (--at-n).")
    ] = None
    max_drift: Annotated[float | None, typer.Option(help="Exit with 1 if a run has a higher drift.")] = None

    def given(self) -> dict[str, float]:
        """Map each given option to its limit."""
        return {f"--{name.replace('_', '-')}": limit for name, limit in vars(self).items() if limit is not None}


with_limits = grouped("limits", fields_as_options(Limits, "Limits for pipelines"), Limits)
"""Decorator: give a command these options instead of its parameter `limits`."""
