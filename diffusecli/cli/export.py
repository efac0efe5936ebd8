"""`diffuse export`: its options, and the line that reports what was written."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from diffusecli.cli.options import BaseModel, TrustsCode, choice, require_choices
from diffusecli.cli.printing import notice, print_line, progress_console, quiet_libraries
from diffusecli.system.errors import InputError, many


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory of a finished training, or folder of an adapter.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="DIR", help="Output folder.")] = None,
    model: BaseModel = None,
    precision: Annotated[str | None, choice("--precision", "Precision of the written weights.  [default: the run's]")] = None,
    push: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="Upload to the Hugging Face hub: with -o what was written, otherwise the adapter."),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="With --push: a public repository.  [default: private]")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an earlier export in the output folder; add to an existing repository.")
    ] = False,
    trust_remote_code: TrustsCode = False,
) -> None:
    """Merge an adapter into its base model (Hugging Face format), or share it on the hub."""
    require_choices({"--precision": precision})
    if output is None and push is None:
        raise InputError("nothing to do. Name an output folder with -o, or a repository on the hub with --push")
    if public and push is None:
        raise InputError("--public has no effect without --push. Leave it out")
    quiet_libraries()
    from diffusecli.report.progress import Display
    from diffusecli.runs.run_dir import RunDir
    from diffusecli.verbs.export import export as merge
    from diffusecli.verbs.push import base_of_run, exported_files, files_of_run, require_place
    from diffusecli.verbs.push import push as upload

    if push is not None:
        require_place(push, replace=force)
    with Display(progress_console()):
        if output is not None:
            done = merge(
                RunDir(run),
                output,
                model=model,
                precision=precision,
                force=force,
                notice=notice,
                trust_remote_code=trust_remote_code,
            )
            print_line(
                f"{output}: {done.parameters:,} weights ({done.dtype}); log-probabilities of {many(done.answers, 'answer')} "
                f"differ from the adapter's by {done.gap:.1e} nats at most"
            )
        if push is not None:
            files = exported_files(output) if output is not None else files_of_run(RunDir(run))
            page = upload(files, output or run, push, base=base_of_run(RunDir(run), model), public=public, notice=notice)
            print_line(f"{page}: {many(len(files), 'file')} ({'public' if public else 'private'})")
    if output is not None:
        notice(f"next: load {output} with transformers, or `vllm serve {shlex.quote(str(output))}`")
    else:
        notice(f"next: `diffuse sample --adapter {push} --prompt FILE`")
