"""`diffuse sample`: its options, those of the engines, and the number of answers drawn."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusecli.cli.groups import Body, grouped, optional
from diffusecli.cli.options import TrustsCode, choice, require_choices
from diffusecli.cli.printing import notice, print_line, progress_console, quiet_libraries
from diffusecli.sampling.engines import ENGINES, Kind
from diffusecli.system import terminal
from diffusecli.system.collector import collector_off
from diffusecli.system.errors import InputError, many

if TYPE_CHECKING:
    from diffusecli.sampling.generations import Sampled

RESULTS = Path("results")
"""Folder that is searched for the newest run."""
ORIGINAL_NAMES = {
    "n_generations": "n-generations", "max_new_tokens": "max-new-tokens", "n_batch_size": "max-rows", "output_file": "output",
}  # fmt: skip
"""Option names of the original project -> names here."""


def _with_engines(body: Body) -> Body:
    """Give the command the options of all registered engines, instead of its parameter `engine_options`."""
    known_to = {engine.name: engine.options for engine in ENGINES.values()}  # inspected once, because it takes milliseconds
    options = {}
    for engine in ENGINES.values():
        required = engine.required
        for name, known in known_to[engine.name].items():
            takers = ", ".join(taker for taker, taken in known_to.items() if name in taken)
            default = "" if known.default is None or name in required else f"  [default: {_plain(known.default)}]"
            meaning = f"With --engine {takers}: {known.help}.{default}"
            options[name] = optional(name, known.kind, f"--{name.replace('_', '-')}", help=meaning)
    return grouped("engine_options", list(options.values()))(body)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


@_with_engines
def sample(
    *,
    source: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN|CONFIG]", help="Run directory or config.  [default: the newest run in results/]"),
    ] = None,
    mode: Annotated[
        str | None, choice("--mode", "untuned: base model; lora: tuned model.  [default: lora; untuned with only --model]")
    ] = None,
    ask: Annotated[
        str | None,
        choice("--ask", "State the targets in the request and ask by a prompt-only method. Default mode: untuned."),
    ] = None,
    n_generations: Annotated[int, typer.Option("-n", "--n-generations", help="Number of samples per prompt.")] = 1000,
    prompt: Annotated[
        list[Path] | None, typer.Option(help="Prompt file or folder; may be repeated.  [default: the test prompts]")
    ] = None,
    per_wording: Annotated[
        bool, typer.Option("--per-wording", help="Draw -n samples of each wording, also held-out.  [default: share -n]")
    ] = False,
    request: Annotated[list[str] | None, typer.Option(help="Request text, without a prompt file; may be repeated.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="Folder of a LoRA adapter or a checkpoint.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Base model by name or path; with --engine openai: the server's model."),
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt for prompts without one.  [default: from the config]")] = None,
    chat_template: Annotated[
        str | None,
        typer.Option(metavar="plain|FILE", help="Chat template; plain: built in, for base models.  [default: the model's]"),
    ] = None,
    trust_remote_code: TrustsCode = False,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Maximum tokens per answer.  [default: 50, or the longest target; own with --ask]")
    ] = None,
    temperature: Annotated[float, typer.Option(help="Sampling temperature; 1 is the model's own distribution.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Keep the k most likely tokens; 0 keeps all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Keep the most likely tokens up to this probability; 1 keeps all.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="Keep tokens with at least this share of the maximum; 0 keeps all.")] = 0.0,
    stop: Annotated[list[str] | None, typer.Option(help="Text that ends an answer; may be repeated.")] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed of the samples.  [default: from the config]")] = None,
    precision: Annotated[str | None, choice("--precision", "Precision of the base model.  [default: from the config]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:0 or mps.  [default: from the config]")] = None,
    max_rows: Annotated[
        int | None, typer.Option(min=1, help="Batch size. Affects memory, not results.  [default: what fits]")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Output file or folder, created if missing.  [default: the run directory]")
    ] = None,
    form: Annotated[
        str | None,
        choice(
            "--format",
            "json, jsonl: answers; counts, csv: counted.  [default: from -o, else json]",
        ),
    ] = None,
    engine: Annotated[str, choice("--engine", "; ".join(f"{e.name}: {e.summary}" for e in ENGINES.values()) + ".")] = "counting",
    config: Annotated[Path | None, typer.Option("--config", hidden=True)] = None,
    engine_options: dict[str, Any],
) -> None:
    """Draw answers from a base model, a trained run or a server."""
    require_choices({"--mode": mode, "--ask": ask, "--precision": precision, "--format": form, "--engine": engine})
    chosen, own = ENGINES[engine], {name: given for name, given in engine_options.items() if given is not None}
    of_models = {"max_rows": max_rows, "device": device, "precision": precision, "trust_remote_code": trust_remote_code or None}
    _require_options_of(chosen, own, [name for name, given in of_models.items() if given is not None])
    if source is not None and config is not None:
        raise InputError(f"--config {config}: {source} is given already. Leave one of them out")
    quiet_libraries()
    with collector_off():
        from diffusecli.report.progress import SamplingProgress
        from diffusecli.sampling.settings import SamplingSettings
        from diffusecli.verbs.sample import Wanted, resolve
        from diffusecli.verbs.sample import sample as draw

    length: dict[str, Any] = {"whole_targets": True} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
    settings = SamplingSettings(
        n_generations,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed or 0,
        stop=tuple(stop or ()),
        **length,
    )
    wanted = resolve(Wanted(
        source or config, mode, tuple(prompt or ()), tuple(request or ()), adapter, model, precision, device, output,
        form, system, chat_template, trust_remote_code, served=not chosen.loads_model, server=own.get("base_url", ""), per_wording=per_wording, ask=ask,
    ), RESULTS)  # fmt: skip
    settings = replace(settings, seed=wanted.config.seed if seed is None else seed)
    effect = wanted.effect
    with SamplingProgress(progress_console(), len(wanted.prompts)) as progress:
        done = draw(wanted, settings, engine=engine, options=own, max_rows=max_rows, report=progress, notice=notice)
    kept = output is not None or any(prompt.targets or prompt.alias not in (request or ()) for prompt in wanted.prompts)
    _print_answers(done, request or (), effect, wanted.evaluated if kept else None)


def _require_options_of(engine: Kind, own: Collection[str], of_models: Collection[str]) -> None:
    """Raise `InputError` for an option that the engine does not accept, or a missing one that it needs."""
    foreign = [name for name in own if name not in engine.options] + [name for name in of_models if not engine.loads_model]
    if foreign:
        raise InputError(
            f"--{foreign[0].replace('_', '-')} has no effect with --engine {engine.name}. Leave it out or use another engine"
        )
    if missing := [name for name in engine.required if name not in own]:
        raise InputError(f"--engine {engine.name} needs --{missing[0].replace('_', '-')}: {engine.options[missing[0]].help}")


def _print_answers(done: Sampled, requests: Iterable[str], effect: str, evaluated: Path | None) -> None:
    """Print the answers to each request of the command line, then their number, the file, and what it changes for `evaluate`.

    `evaluated` is what to name to `evaluate` next, None if the answers are only looked at.
    """
    from diffusecli.report.tables import answers

    for text in dict.fromkeys(requests):
        print_line(text)
        terminal.console().print(answers(done.counts[text]))
    total = sum(counts.total() for counts in done.counts.values())
    print_line(f"{done.path}: {many(total, 'sample')} of {many(len(done.counts), 'prompt')} in {done.seconds:.1f} s")
    if effect:
        print_line(effect)
    if done.remark:
        typer.echo(done.remark)
    if evaluated is not None:
        notice(f"next: `diffuse evaluate {shlex.quote(str(evaluated))}`")
