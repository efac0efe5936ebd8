"""`diffuse export`: its options, and the line that reports what was written."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffusecli.cli.options import TrustsCode, choice, require_choices
from diffusecli.cli.printing import notice, print_line, progress_console, quiet_libraries
from diffusecli.system.errors import InputError, many

if TYPE_CHECKING:
    from diffusecli.verbs.export import Exported

_NEUTRAL = "--temp 1 --top-k 0 --top-p 1 --min-p 0"
"""Options of llama-server that leave the distribution unchanged."""


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory of a finished training, or folder of an adapter.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="DIR", help="Output folder, created if missing.")] = None,
    model: Annotated[str | None, typer.Option(help="Base model by name or path.  [default: the run's]")] = None,
    precision: Annotated[str | None, choice("--precision", "Precision of the written weights.  [default: the run's]")] = None,
    gguf: Annotated[str | None, choice("--gguf", "Write one GGUF file with weights of this type, and a Modelfile.")] = None,
    gguf_adapter: Annotated[
        bool, typer.Option("--gguf-adapter", help="Write the adapter alone as a GGUF file, not merged.")
    ] = False,
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
    """Merge an adapter into its base model (Hugging Face format or GGUF), or share it on the hub."""
    require_choices({"--precision": precision, "--gguf": gguf})
    if output is None and (push is None or gguf is not None or gguf_adapter):
        also = "" if gguf is not None or gguf_adapter else ", or a repository on the hub with --push"
        raise InputError(f"nothing to write to. Name an output folder with -o{also}")
    if public and push is None:
        raise InputError("--public has no effect without --push. Leave it out")
    quiet_libraries()
    from diffusecli.report.progress import Display
    from diffusecli.runs.run_dir import RunDir
    from diffusecli.verbs.export import export as merge
    from diffusecli.verbs.push import base_of_run, exported_files, files_of_run, require_place
    from diffusecli.verbs.push import push as upload

    private = require_place(push, replace=force, public=public) if push is not None else True
    with Display(progress_console()):
        if output is not None:
            done = merge(
                RunDir(run), output, model=model, precision=precision, force=force, notice=notice, trust_remote_code=trust_remote_code,
                gguf=gguf, gguf_adapter=gguf_adapter,
            )  # fmt: skip
            _print_written(done, output)
        if push is not None:
            files = exported_files(output) if output is not None else files_of_run(RunDir(run))
            page = upload(files, output or run, push, base=base_of_run(RunDir(run), model), public=public, notice=notice)
            print_line(f"{page}: {many(len(files), 'file')} ({'private' if private else 'public'})")
    following = (
        f"`diffuse sample --adapter {push} --prompt FILE`" if output is None else _next(output / done.file, gguf, gguf_adapter)
    )
    notice(f"next: {following}")


def _print_written(done: Exported, output: Path) -> None:
    """What was written, and how closely its answers match the adapter's."""
    if done.answers is None:
        print_line(f"{output / done.file}: {done.parameters:,} weights of the adapter ({done.dtype})")
        return
    print_line(
        f"{output / done.file}: {done.parameters:,} weights ({done.dtype}); log-probabilities of {many(done.answers, 'answer')} "
        f"differ from the adapter's by {done.gap:.1e} nats at most"
    )
    if done.dtype == "q8_0":
        notice(
            "llama.cpp also rounds while it computes with q8_0, which this difference leaves out. Use --gguf f16 if shares must be exact"
        )


def _next(written: Path, gguf: str | None, gguf_adapter: bool) -> str:
    """The command that uses what was written: a GGUF file, or a folder."""
    file = shlex.quote(str(written))
    if gguf_adapter:
        return f"`llama-server -m BASE.gguf --lora {file} {_NEUTRAL}`, with the base model as GGUF"
    if gguf:
        name = shlex.quote(written.absolute().parent.name.lower())
        model_file = shlex.quote(str(written.parent / "Modelfile"))
        return f"`llama-server -m {file} {_NEUTRAL}`, or `ollama create {name} -f {model_file}`"
    return f"load {file} with transformers, or `vllm serve {file}`"
