"""`diffuse export`: its options, and the line that reports what was written."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from diffusecli.cli.options import BaseModel, TrustsCode, choice, require_choices
from diffusecli.cli.printing import notice, print_line, progress_console, quiet_libraries
from diffusecli.system.errors import many

_NEUTRAL = "--temp 1 --top-k 0 --top-p 1 --min-p 0"
"""Options of llama-server that leave the distribution unchanged."""


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory of a finished training, or folder of an adapter.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Output folder.")],
    model: BaseModel = None,
    precision: Annotated[str | None, choice("--precision", "Precision of the written weights.  [default: the run's]")] = None,
    gguf: Annotated[str | None, choice("--gguf", "Write one GGUF file with weights of this type, and a Modelfile.")] = None,
    gguf_adapter: Annotated[
        bool, typer.Option("--gguf-adapter", help="Write the adapter alone as a GGUF file, not merged.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export in the output folder.")] = False,
    trust_remote_code: TrustsCode = False,
) -> None:
    """Merge an adapter into its base model (Hugging Face format or GGUF)."""
    require_choices({"--precision": precision, "--gguf": gguf})
    quiet_libraries()
    from diffusecli.report.progress import Display
    from diffusecli.runs.run_dir import RunDir
    from diffusecli.verbs.export import export as merge

    with Display(progress_console()):
        done = merge(
            RunDir(run), output, model=model, precision=precision, force=force, notice=notice, trust_remote_code=trust_remote_code,
            gguf=gguf, gguf_adapter=gguf_adapter,
        )  # fmt: skip
    file = shlex.quote(str(output / done.file))
    if gguf_adapter:
        print_line(f"{output / done.file}: {done.parameters:,} weights of the adapter ({done.dtype})")
        notice(f"next: `llama-server -m BASE.gguf --lora {file} {_NEUTRAL}`, with the base model as GGUF")
        return
    print_line(
        f"{output / done.file}: {done.parameters:,} weights ({done.dtype}); log-probabilities of {many(done.answers, 'answer')} "
        f"differ from the adapter's by {done.gap:.1e} nats at most"
    )
    if gguf:
        name = shlex.quote(output.absolute().name.lower())
        notice(f"next: `llama-server -m {file} {_NEUTRAL}`, or `ollama create {name} -f {shlex.quote(str(output / 'Modelfile'))}`")
        return
    notice(f"next: load {output} with transformers, or `vllm serve {shlex.quote(str(output))}`")
