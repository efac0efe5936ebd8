"""`diffuse export`: its options, and a line on what was written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffusecli.cli.options import BaseModel, TrustsCode, choice, require_choices
from diffusecli.cli.printing import notice, print_line, quiet_libraries
from diffusecli.system.errors import many


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run directory of a finished training, or an adapter's folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The folder to write.")],
    model: BaseModel = None,
    precision: Annotated[str | None, choice("--precision", "Of the written weights; the run's by default.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what `diffuse export` wrote there before.")] = False,
    trust_remote_code: TrustsCode = False,
) -> None:
    """Fold a run's adapter into its base model and write a plain Hugging Face folder."""
    require_choices({"--precision": precision})
    quiet_libraries()
    from diffusecli.runs.run_dir import RunDir
    from diffusecli.verbs.export import export as merge

    done = merge(
        RunDir(run), output, model=model, precision=precision, force=force, notice=notice, trust_remote_code=trust_remote_code
    )
    print_line(
        f"{output}: {done.parameters:,} weights ({done.dtype}); log-probabilities of {many(done.answers, 'answer')} "
        f"differ from the adapter's by {done.gap:.1e} nats at most"
    )
