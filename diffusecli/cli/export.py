"""`diffuse export`: its options, and the line that reports what was written."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from diffusecli.cli.options import BaseModel, TrustsCode, choice, require_choices
from diffusecli.cli.printing import notice, print_line, progress_console, quiet_libraries
from diffusecli.system.errors import many


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory of a finished training, or folder of an adapter.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Output folder.")],
    model: BaseModel = None,
    precision: Annotated[str | None, choice("--precision", "Precision of the written weights.  [default: the run's]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export in the output folder.")] = False,
    trust_remote_code: TrustsCode = False,
) -> None:
    """Merge an adapter into its base model (Hugging Face format)."""
    require_choices({"--precision": precision})
    quiet_libraries()
    from diffusecli.report.progress import Display
    from diffusecli.runs.run_dir import RunDir
    from diffusecli.verbs.export import export as merge

    with Display(progress_console()):
        done = merge(
            RunDir(run), output, model=model, precision=precision, force=force, notice=notice, trust_remote_code=trust_remote_code
        )
    print_line(
        f"{output}: {done.parameters:,} weights ({done.dtype}); log-probabilities of {many(done.answers, 'answer')} "
        f"differ from the adapter's by {done.gap:.1e} nats at most"
    )
    notice(f"next: load {output} with transformers, or `vllm serve {shlex.quote(str(output))}`")
