"""The `diffuse` command: parse, call, render. The only place that prints or exits.

Only typer, `errors`, `exits`, `memory`, `places`, `terminal`, `distributions` and `engines` (plain Python) are imported here; each command
body imports what it needs, so that `diffuse --help` and `diffuse validate` never load torch.
"""

from __future__ import annotations

import csv
import errno
import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from diffusecli import __version__
from diffusecli.files.paths import LIBRARY, library_notices, meant
from diffusecli.prompts.catalogue import FAMILIES, catalogue
from diffusecli.sampling.engines import ENGINES
from diffusecli.system import terminal
from diffusecli.system.errors import DiffuseError, FailedGates, InputError, InterruptedRun, MachineError, many
from diffusecli.system.exits import EXIT_FOUND_PROBLEMS, EXIT_INTERRUPTED
from diffusecli.system.memory import out_of_memory

if TYPE_CHECKING:
    from diffusecli.evaluation.evaluation import Evaluation
    from diffusecli.files.tables import Layout

RESULTS = Path("results")
_SPEAKS = os.environ.get("RANK", "0") == "0"
"""Of several processes that train together the first speaks for all."""
_SPEAKS_HERE = os.environ.get("LOCAL_RANK", "0") == "0"
"""And the first of each machine for what went wrong there before they met."""

_FIRST_STEPS = """\b
First steps:
  diffuse init-prompt --list               what distributions there are
  diffuse train configs/quickstart.yaml    a small experiment
  diffuse sample                           1000 answers of the newest run
  diffuse evaluate results                 do they follow their weights?
  diffuse COMMAND --help                   everything else
"""

app = typer.Typer(
    name="diffuse",
    help="Make a language model sample from the distribution you ask for.",
    epilog=_FIRST_STEPS,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: a third of the time, clean in a pipe
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line. Signs that the terminal's encoding lacks are spelled out."""
    terminal.spell_what_is_lacking()
    if "_DIFFUSE_COMPLETE" not in os.environ:  # what shells complete with has tabs, and no word of a stranger
        terminal.guard()
    app()


def command(name: str, **settings: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a subcommand whose mistakes become one message on stderr and the documented exit code; settings are Typer's."""

    def register(body: Callable[..., None]) -> Callable[..., None]:
        """Wrap the body and hand it to Typer."""

        @functools.wraps(body)
        def run(**options: Any) -> None:
            try:
                with library_notices(_notice if _SPEAKS else lambda _: None):
                    body(**{name: _meant(name, value) for name, value in options.items()})
                sys.stdout.flush()
            except DiffuseError as error:
                if not _is_told_here(error):
                    raise typer.Exit(error.exit_code) from error
                _stop(str(error), error.exit_code)
            except KeyboardInterrupt as interrupt:
                if not _SPEAKS:
                    raise typer.Exit(EXIT_INTERRUPTED) from interrupt
                _stop("interrupted; what is not in the output folder was not saved", EXIT_INTERRUPTED)
            except BrokenPipeError:  # the reader of our output went away; there is nobody left to tell
                _forget_stdout()
            except Exception as error:
                if (told := _refused(error)) is None:
                    raise
                _stop(str(told), told.exit_code)

        return app.command(name, **settings)(run)

    return register


def _is_told_here(error: DiffuseError) -> bool:
    """Whether this process is the one to say it, of several that train together and may all have met the same."""
    if error.shared or isinstance(error, InterruptedRun):
        return _SPEAKS
    return _SPEAKS or _SPEAKS_HERE or isinstance(error, MachineError)


def _meant(option: str, value: Any) -> Any:
    """The value of an option with `~` replaced in every path; raises `InputError` as `places.meant` does."""
    if isinstance(value, list):
        return [_meant(option, one) for one in value]
    if isinstance(value, Path):
        return Path(meant(str(value)))
    return meant(value) if option in ("model", "chat_template") and isinstance(value, str) else value


def _refused(error: Exception) -> DiffuseError | None:
    """What memory, disk, a path or standard output did not give, in a sentence; None for a mistake of ours."""
    if out_of_memory(error):
        return MachineError("the memory of this machine does not suffice, ask for less at once")
    if not isinstance(error, OSError) or sys.stdout.closed:
        return None
    if error.filename is not None:
        of_the_machine = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EROFS)
        kind = MachineError if of_the_machine else InputError
        return kind(f"{error.filename}: {error.strerror or error}, check the path and the disk")
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF):
        return MachineError(f"{type(error).__name__}: {error}, see to it and start the same command again")
    _forget_stdout()
    return MachineError(f"standard output cannot be written: {error.strerror or error}, free some space")


def _forget_stdout() -> None:
    """What still waits to be written would fail again at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stop(message: str, code: int) -> NoReturn:
    if code == EXIT_INTERRUPTED:  # what a library was just making is torn, and would say so at its end
        sys.unraisablehook = lambda _: None
    _notice(f"diffuse: {message}")
    raise typer.Exit(code)


def _notice(message: str) -> None:
    typer.echo(terminal.message(message), err=True)


def _say(line: str) -> None:
    typer.echo(terminal.spelled(line))


def _print_json(value: Any) -> None:
    typer.echo(terminal.json_text(json.dumps(value, indent=2, ensure_ascii=False)))


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"diffuse {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


_CHOICES = {
    "--engine": tuple(ENGINES),
    "--format": ("json", "jsonl", "counts", "csv"),
    "--mode": ("untuned", "lora"),
    "--precision": ("fp32", "bf16", "fp16"),
    "--schema": ("prompt", "config", "evaluation"),
    "--sort": ("weight", "residual", "target"),
}
"""Options that take one of a few words."""


def _choice(option: str, told: str) -> Any:
    """Such an option; shells complete its words."""

    def beginning(incomplete: str) -> list[str]:
        return [word for word in _CHOICES[option] if word.startswith(incomplete)]

    return typer.Option(option, metavar="|".join(_CHOICES[option]), help=told, autocompletion=beginning)


def _require_choices(given: dict[str, str | None]) -> None:
    for option, value in given.items():
        if value is not None and value not in _CHOICES[option]:
            raise InputError(f"{option} {value}: must be one of {', '.join(_CHOICES[option])}")


_TrustsCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model, if you trust it.")
]


_Base = Annotated[str | None, typer.Option("--model", help="Base model by name or path, where it differs from the run's.")]


def _with_families(body: Callable[..., None]) -> Callable[..., None]:
    """Give the command one option per registered family, in place of its `**families`."""
    added = []
    for family in FAMILIES.values():
        kinds = family.arguments
        kind: Any = bool if not kinds else kinds[0] if len(kinds) == 1 else tuple[kinds]  # type: ignore[valid-type]
        option = typer.Option(f"--{family.name}", help=family.summary, show_default=False, metavar=family.metavar or None)
        name = family.name.replace("-", "_")
        added.append(_parameter(name, kind, option))
    return _with(body, first=added)


def _with_engines(body: Callable[..., None]) -> Callable[..., None]:
    """Give the command the options of all registered engines, in place of its `**options`."""
    added = {}
    for engine in ENGINES.values():
        for name, told in engine.options.items():
            takers = ", ".join(taker.name for taker in ENGINES.values() if name in taker.options)
            default = "" if told.default is None or name in engine.required else f"  [default: {_plain(told.default)}]"
            option = typer.Option(f"--{name.replace('_', '-')}", help=f"With --engine {takers}: {told.help}.{default}")
            added[name] = _parameter(name, told.kind, option)
    return _with(body, last=added.values())


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _parameter(name: str, kind: Any, option: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option])


def _with(
    body: Callable[..., None], *, first: Iterable[inspect.Parameter] = (), last: Iterable[inspect.Parameter] = ()
) -> Callable[..., None]:
    """Further options before and after the command's own, in place of its `**keywords`."""
    own = [p for p in inspect.signature(body, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]
    signature = inspect.Signature([*first, *(p.replace(kind=p.KEYWORD_ONLY) for p in own), *last])
    body.__signature__ = signature  # type: ignore[attr-defined]
    body.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    return body


_Delimiter = Annotated[
    str | None,
    typer.Option(metavar="SIGN|tab|none", help="Sign between the fields of a table; none: one text a line.  [default: found out]"),
]
_Encoding = Annotated[str | None, typer.Option(metavar="NAME", help="Encoding of the file, e.g. cp1252.  [default: found out]")]
_NoHeader = Annotated[bool, typer.Option("--no-header", help="The first row is data; columns are called 1, 2, ….")]
_HeaderRows = Annotated[int | None, typer.Option(metavar="N", help="Rows of column names.  [default: 1]")]
_SkipRows = Annotated[int, typer.Option(min=0, metavar="N", help="Rows above the header to leave out.")]
_Sheet = Annotated[str | None, typer.Option(metavar="NAME", help="Sheet of an Excel workbook.")]


def _layout(
    delimiter: str | None, encoding: str | None, no_header: bool, header_rows: int | None, skip_rows: int, sheet: str | None
) -> Layout:
    """How a table is written."""
    from diffusecli.files.tables import Layout

    if no_header and header_rows:
        raise InputError(f"--no-header and --header-rows {header_rows} exclude each other, keep one")
    return Layout(delimiter, encoding, 0 if no_header else header_rows, skip_rows, sheet)


def _columns(listing: str) -> tuple[str, ...]:
    """Names between commas; a name with a comma stands in quotes."""
    try:
        rows = list(csv.reader([listing], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise InputError(f"--group-by {listing}: {error}. Write names between commas, one with a comma in quotes") from error
    return tuple(name.strip() for row in rows for name in row if name.strip())


@command("init-prompt")
@_with_families
def init_prompt(
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Targets from a file: one a line, or a table (CSV, JSON, Parquet, Excel)."),
    ] = None,
    column: Annotated[str | None, typer.Option(help="With --from: the column of the targets.")] = None,
    weight_column: Annotated[
        str | None, typer.Option(help="With --from: the column of the weights, added up by target; none: there are none.")
    ] = None,
    options_column: Annotated[
        str | None, typer.Option(help="With --from: a column that lists options in each cell; a prompt per row.")
    ] = None,
    shares_column: Annotated[
        str | None, typer.Option(help="With --from: the column that lists their shares, or maps names to such lists.")
    ] = None,
    count: Annotated[
        bool, typer.Option("--count", help="With --from: rows are observations, count them. A weight column needs no --count.")
    ] = False,
    top: Annotated[int | None, typer.Option(min=1, help="With --from: keep the K heaviest targets.", metavar="K")] = None,
    min_count: Annotated[float, typer.Option(min=0, help="With --from: leave out targets that weigh less.")] = 0.0,
    alpha: Annotated[float, typer.Option(min=0, help="With --from: add this to every weight (additive smoothing).")] = 0.0,
    group_by: Annotated[
        str, typer.Option(metavar="A,B,…", help="With --from: a prompt per group of rows; -o names a folder.")
    ] = "",
    alpha_within: Annotated[
        str,
        typer.Option(
            metavar="A,B,…", help="With --alpha: groups that agree in these columns share options.  [default: all groups]"
        ),
    ] = "",
    decimal: Annotated[str | None, typer.Option(metavar=".|,", help="Decimal sign of the weights.  [default: found out]")] = None,
    delimiter: _Delimiter = None,
    encoding: _Encoding = None,
    no_header: _NoHeader = False,
    header_rows: _HeaderRows = None,
    skip_rows: _SkipRows = 0,
    sheet: _Sheet = None,
    step: Annotated[str | None, typer.Option(help="With --uniform: the distance between numbers.")] = None,
    tail: Annotated[float | None, typer.Option(help="How much mass may be cut off an infinite end.  [default: 1e-6]")] = None,
    decimals: Annotated[int | None, typer.Option(help="With --scipy: round a continuous distribution to so many places.")] = None,
    date_format: Annotated[str | None, typer.Option(help="With --dates: as in strftime.  [default: %B %-d]")] = None,
    request: Annotated[
        str | None, typer.Option(help="Ask this, word for word; with --group-by, {column} takes the group's value.")
    ] = None,
    form: Annotated[bool, typer.Option("--form", help="End --request with the sentence on the form of the answer.")] = False,
    system: Annotated[str | None, typer.Option(help="A system text for the prompt; {column} as in --request.")] = None,
    wrap: Annotated[str, typer.Option(help="How a target is written around its outcome %s.")] = "{%s}",
    response: Annotated[
        list[str] | None, typer.Option(help="A beginning of the answer, put before each target; may be repeated.")
    ] = None,
    no_eos: Annotated[bool, typer.Option("--no-eos", help="The target only begins the answer.")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write to this file instead of stdout.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what exists.")] = False,
    preview: Annotated[bool, typer.Option(help="Show the distribution on stderr.")] = True,
    show_list: Annotated[bool, typer.Option("--list", help="List the families with an example each, and exit.")] = False,
    **families: Any,
) -> None:
    """Write a prompt file for any distribution you can name, or for a table of observations."""
    from diffusecli.init_prompt import choose, fields_of, prompts_from, write_prompts
    from diffusecli.prompts.file_names import name_notices
    from diffusecli.prompts.request_wording import Wording, form_doubts
    from diffusecli.prompts.weighing import Reading
    from diffusecli.report.tables import distribution_preview

    if show_list:
        for example, summary in catalogue():
            typer.echo(f"{summary}\n  diffuse init-prompt {example}")
        return
    wording = Wording(request, wrap, tuple(response or ("",)), not no_eos, system, form)
    modifiers = {"step": step, "tail": tail, "decimals": decimals, "date_format": date_format}
    groups = _columns(group_by)
    reading = Reading(
        column, weight_column, count, top, min_count, alpha, groups, _columns(alpha_within), options_column, shares_column, decimal,
        _layout(delimiter, encoding, no_header, header_rows, skip_rows, sheet),
    )  # fmt: skip
    distributions = choose(families, modifiers, source, reading)
    prompts = prompts_from(distributions, wording, groups, output)
    if output is None:
        typer.echo(terminal.json_text(prompts[None].to_json()), nl=False)
    else:
        write_prompts(prompts, force=force)
        _notice(f"wrote {output}" if list(prompts) == [output] else f"wrote {many(len(prompts), 'prompt')} into {output}")
    told = [line for d in distributions.values() for line in d.notice.splitlines()]
    if list(prompts) != [output]:
        told += name_notices(distributions, prompts)
    for notice in dict.fromkeys(told):
        _notice(notice)
    doubts = [doubt for key, d in distributions.items() for doubt in form_doubts(d, wording, fields_of(d, groups, key))]
    for doubt in dict.fromkeys(doubts[:1]):
        _notice(f"warning: {doubt}")
    if preview:
        terminal.console(stderr=True).print(distribution_preview(next(iter(prompts.values()))))


@command("validate")
def validate(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="PATH…", help="Prompts (.json), configs (.yaml) or folders of both.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Show what this model's tokenizer makes of the targets.")] = None,
    chat_template: Annotated[
        str | None, typer.Option(metavar="plain|FILE", help="With --model: a chat template in place of the model's own.")
    ] = None,
    trust_remote_code: _TrustsCode = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The findings as JSON on stdout.")] = False,
    top: Annotated[int, typer.Option(min=0, help="With --model: targets shown per prompt; 0 shows all.")] = 20,
    schema: Annotated[str | None, _choice("--schema", "Print a JSON Schema (draft 7), and exit.")] = None,
) -> None:
    """Check prompts and configs, and say what they ask for."""
    if schema is not None:
        _require_choices({"--schema": schema})
        typer.echo((LIBRARY / "schemas" / f"{schema}.schema.json").read_text(encoding="utf-8"), nl=False)
        return
    from diffusecli.report.tables import prompts_overview, token_table
    from diffusecli.validate import token_views
    from diffusecli.validate import validate as check

    if not paths:
        raise InputError("name at least one prompt, config or folder to check")
    if chat_template is not None and model is None:
        raise InputError("--chat-template has no effect without --model, name one")
    if trust_remote_code and model is None:
        raise InputError("--trust-remote-code has no effect without --model, name one")
    found = check(paths, strict=strict)
    if model is not None:
        _quiet_libraries()
        views, more = token_views(found, model, _notice, chat_template, trust_remote_code)
        found = found.with_more(more, strict=strict)
    if as_json:
        tokens = {"tokens": [asdict(view) for view in views]} if model is not None else {}
        _print_json({**found.as_json(), **tokens})
    else:
        for problem in found.problems:
            _notice(f"{problem.severity}: {problem}")
        for view in views if model is not None else ():
            terminal.console().print(token_table(view, top))
        if found.prompts:
            terminal.console().print(prompts_overview(found.prompts))
        typer.echo(str(found))
    if found.failed:
        raise typer.Exit(EXIT_FOUND_PROBLEMS)


@command("train")
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The experiment, e.g. configs/quickstart.yaml.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. alg_config.n_iters=10; may be repeated."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a finished run in the output folder.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the resolved config and the plan, and stop.")] = False,
) -> None:
    """Tune a LoRA adapter until the model's answers follow the target weights."""
    from diffusecli.prompts.config_files import read_config

    chosen = read_config(config, settings or ())
    _quiet_libraries()
    from diffusecli.report.progress import TrainingProgress
    from diffusecli.train import train as tune
    from diffusecli.training.job import plan

    if dry_run:
        from diffusecli.report.tables import training_plan

        resolved = chosen.to_yaml()
        typer.echo(resolved if terminal.fits(resolved) else chosen.to_yaml(ascii_only=True))
        terminal.console().print(training_plan(plan(chosen, _notice, force=force)))
        return
    if not _SPEAKS:
        tune(chosen, force=force, report=lambda _: None, notice=lambda _: None)
        return
    with TrainingProgress(terminal.console(stderr=True)) as progress:
        done = tune(chosen, force=force, report=progress, notice=_notice)
    trained = {prompt.digest: prompt.alias for prompt in done.after.prompts}
    for exact in (done.after, done.test):
        for prompt, (kl, on_target) in zip(exact.prompts, exact.figures, strict=True):
            copied = f" (trained on as {trained[prompt.digest]})" if prompt.digest in trained else " (not trained on)"
            note = copied if exact is done.test else ""
            _say(f"{prompt.alias}{note}: exact KL {kl:.4f} nats, {on_target:.2%} on target")
    if done.retention_kl is not None:
        typer.echo(f"drift from the base model on held-out instructions: {done.retention_kl:.4f} nats per token")
    _say(f"{done.run.path}: stopped after {done.seconds:.1f} s, {done.reason}")


@command("export")
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run directory of a finished training, or an adapter's folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The folder to write.")],
    model: _Base = None,
    precision: Annotated[str | None, _choice("--precision", "Of the written weights; the run's by default.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what `diffuse export` wrote there before.")] = False,
    trust_remote_code: _TrustsCode = False,
) -> None:
    """Fold a run's adapter into its base model and write a plain Hugging Face folder."""
    _require_choices({"--precision": precision})
    _quiet_libraries()
    from diffusecli.export import export as merge
    from diffusecli.runs.run_dir import RunDir

    done = merge(
        RunDir(run), output, model=model, precision=precision, force=force, notice=_notice, trust_remote_code=trust_remote_code
    )
    _say(
        f"{output}: {done.parameters:,} weights ({done.dtype}); log-probabilities of {many(done.answers, 'answer')} "
        f"differ from the adapter's by {done.gap:.1e} nats at most"
    )


_OF_THE_ORIGINAL = {
    "n_generations": "n-generations", "max_new_tokens": "max-new-tokens", "n_batch_size": "max-rows", "output_file": "output",
}  # fmt: skip
"""What the original project calls options -> what they are called here."""


@command("sample", context_settings={"token_normalize_func": lambda option: _OF_THE_ORIGINAL.get(option, option)})
@_with_engines
def sample(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN|CONFIG]", help="A run directory or a config; without it the newest run below results/."),
    ] = None,
    mode: Annotated[
        str | None, _choice("--mode", "untuned: the base model; lora: the adapter.  [default: lora, with --model alone untuned]")
    ] = None,
    n_generations: Annotated[int, typer.Option("-n", "--n-generations", help="Samples per prompt.")] = 1000,
    prompt: Annotated[
        list[Path] | None, typer.Option(help="A prompt file or folder in place of the config's test prompts; may be repeated.")
    ] = None,
    request: Annotated[list[str] | None, typer.Option(help="Ask this; no file needed; may be repeated.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="Any LoRA adapter's folder, a checkpoint too.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Base model by name or path; alone: untuned; with --engine openai: the server's."),
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="A system text for every prompt that has none; the config's by default.")
    ] = None,
    chat_template: Annotated[
        str | None, typer.Option(metavar="plain|FILE", help="In place of the model's own; plain is built in, for base models.")
    ] = None,
    trust_remote_code: _TrustsCode = False,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="The most tokens of one answer.  [default: 50, or as many as the longest target takes]")
    ] = None,
    temperature: Annotated[float, typer.Option(help="1 is the model's own distribution.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Keep the k likeliest tokens; 0 keeps all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Keep the likeliest tokens up to this mass; 1 keeps all.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="Keep tokens at least this share of the likeliest; 0 keeps all.")] = 0.0,
    stop: Annotated[list[str] | None, typer.Option(help="An answer ends before this text; may be repeated.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same samples; the config's by default.")] = None,
    precision: Annotated[str | None, _choice("--precision", "Of the base model; the config's by default.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:0 or mps; the config's by default.")] = None,
    max_rows: Annotated[
        int | None, typer.Option(min=1, help="Prefixes fed at once: memory, not result; what fits by default.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Where to write; the run directory by default.")] = None,
    form: Annotated[
        str | None,
        _choice(
            "--format",
            "json, jsonl: every answer; counts (JSON), csv: distinct answers with counts. By default as -o ends, else json.",
        ),
    ] = None,
    engine: Annotated[str, _choice("--engine", "; ".join(f"{e.name}: {e.summary}" for e in ENGINES.values()) + ".")] = "counting",
    config: Annotated[Path | None, typer.Option("--config", hidden=True)] = None,
    **options: Any,
) -> None:
    """Draw answers from the base model, from a trained run or from a server."""
    _require_choices({"--mode": mode, "--precision": precision, "--format": form, "--engine": engine})
    chosen, own = ENGINES[engine], {name: given for name, given in options.items() if given is not None}
    of_models = {"max_rows": max_rows, "device": device, "precision": precision, "trust_remote_code": trust_remote_code or None}
    foreign = [name for name in own if name not in chosen.options]
    foreign += [name for name, given in of_models.items() if given is not None and not chosen.loads_model]
    if foreign:
        raise InputError(
            f"--{foreign[0].replace('_', '-')} has no effect with --engine {engine}, leave it out or use another engine"
        )
    if missing := [name for name in chosen.required if name not in own]:
        raise InputError(f"--engine {engine} needs --{missing[0].replace('_', '-')}, {chosen.options[missing[0]].help}")
    if source is not None and config is not None:
        raise InputError(f"--config {config}: {source} is named already, leave one of them out")
    _quiet_libraries()
    from diffusecli.report.progress import SamplingProgress
    from diffusecli.sample import Wanted, resolve
    from diffusecli.sample import sample as draw
    from diffusecli.sampling.settings import SamplingSettings

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
        form, system, chat_template, trust_remote_code, served=not chosen.loads_model,
    ), RESULTS)  # fmt: skip
    settings = replace(settings, seed=wanted.config.seed if seed is None else seed)
    _notice(wanted.told)
    with SamplingProgress(terminal.console(stderr=True), len(wanted.prompts)) as progress:
        done = draw(wanted, settings, engine=engine, options=own, max_rows=max_rows, report=progress, notice=_notice)
    if request:
        from diffusecli.report.tables import answers

        for text in dict.fromkeys(request):
            _say(text)
            terminal.console().print(answers(done.counts[text]))
    total = sum(counts.total() for counts in done.counts.values())
    _say(f"{done.path}: {many(total, 'sample')} of {many(len(done.counts), 'prompt')} in {done.seconds:.1f} s")
    if done.warning:
        typer.echo(done.warning)


@command("evaluate")
def evaluate(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Run directories, folders of them, or files of samples.")],
    prompts: Annotated[
        list[Path] | None,
        typer.Option(
            help="Prompt files or folders in place of those that samples name; with --exact also held-out ones to measure."
        ),
    ] = None,
    prompt: Annotated[
        Path | None, typer.Option(help="The files hold raw answers to this prompt (.jsonl, .csv, .json, .txt, …).")
    ] = None,
    column: Annotated[str | None, typer.Option(help="With --prompt: the column of the answers.")] = None,
    count_column: Annotated[
        str | None,
        typer.Option(help="With --prompt: the column that counts them; none: each row is one.  [default: count, if there]"),
    ] = None,
    delimiter: _Delimiter = None,
    encoding: _Encoding = None,
    no_header: _NoHeader = False,
    header_rows: _HeaderRows = None,
    skip_rows: _SkipRows = 0,
    sheet: _Sheet = None,
    match: Annotated[str, typer.Option(metavar="exact|strip|casefold|regex:…", help="When an answer is a target.")] = "strip",
    only: Annotated[
        list[str] | None, typer.Option(metavar="PROMPT", help="Only prompts with this in their path; may be repeated.")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Load the model: exact KL, TVD and coverage of every prompt, drift.")
    ] = False,
    model: _Base = None,
    trust_remote_code: _TrustsCode = False,
    top: Annotated[int, typer.Option(min=0, help="Targets shown of each prompt; 0 shows all.")] = 24,
    sort: Annotated[str | None, _choice("--sort", "Their order; the prompt's by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of Monte Carlo and bootstrap.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Everything as JSON on stdout (`diffuse validate --schema evaluation`).")
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="A line per prompt and sampler as CSV on stdout.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="The summary as Markdown on stdout.")] = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a report in one HTML file.")] = None,
    plots: Annotated[Path | None, typer.Option(metavar="DIR", help="Write its charts as SVG and PNG.")] = None,
    min_n: Annotated[float | None, typer.Option(help="Exit with 1 when a prompt has fewer samples.")] = None,
    min_valid: Annotated[float | None, typer.Option(help="Exit with 1 when a prompt has a lower share of valid answers.")] = None,
    max_unfinished: Annotated[
        float | None, typer.Option(help="Exit with 1 when a prompt has a higher share of unfinished answers.")
    ] = None,
    max_tvd: Annotated[float | None, typer.Option(help="Exit with 1 when a prompt has a higher TVD.")] = None,
    max_excess_tvd: Annotated[float | None, typer.Option(help="Exit with 1 when a prompt has a higher excess TVD.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Exit with 1 when a test of fit has a lower p-value.")] = None,
    min_coverage: Annotated[float | None, typer.Option(help="Exit with 1 when less of the possible targets was seen.")] = None,
    max_kl: Annotated[float | None, typer.Option(help="Exit with 1 when a prompt has a higher exact KL.")] = None,
    max_drift: Annotated[float | None, typer.Option(help="Exit with 1 when a run drifted further.")] = None,
) -> None:
    """Compare samples with the target weights."""
    from diffusecli.evaluate import Question
    from diffusecli.evaluate import evaluate as judge
    from diffusecli.evaluation.gates import check_limits, failures
    from diffusecli.prompts.matching import Matching

    _require_choices({"--sort": sort})
    if as_json + as_csv + as_markdown > 1:
        raise InputError("--json, --csv and --markdown all write to stdout, choose one of them")
    if trust_remote_code and not exact:
        raise InputError("--trust-remote-code has no effect without --exact, leave it out")
    if model is not None and not exact:
        raise InputError("--model has no effect without --exact, leave it out")
    if exact:
        _quiet_libraries()
    _require_place(html, plots)
    limits: dict[str, float | None] = {
        "--min-n": min_n, "--min-valid": min_valid, "--max-unfinished": max_unfinished, "--max-tvd": max_tvd,
        "--max-excess-tvd": max_excess_tvd, "--min-p": min_p, "--min-coverage": min_coverage, "--max-kl": max_kl, "--max-drift": max_drift,
    }  # fmt: skip
    asked = {option: limit for option, limit in limits.items() if limit is not None}
    check_limits(asked)
    layout = _layout(delimiter, encoding, no_header, header_rows, skip_rows, sheet)
    if prompt is None and (column is not None or count_column is not None or layout.given()):
        raise InputError("--column, --delimiter and the like describe raw answers: name what they answer with --prompt")
    question = Question(
        Matching(match),
        tuple(prompts or ()),
        prompt,
        column,
        tuple(only or ()),
        exact,
        seed,
        trust_remote_code,
        model,
        count_column,
        layout,
    )
    found = judge(paths, question, _notice)
    missed = failures(found, asked)
    if as_json or as_csv:
        from diffusecli.report import data

        typer.echo(terminal.json_text(data.as_json(found)) if as_json else terminal.spelled(data.as_csv(found)), nl=as_json)
    elif as_markdown:
        from diffusecli.report.markdown import as_markdown as in_markdown

        typer.echo(in_markdown(found), nl=False)
    else:
        from diffusecli.report.histogram import Showing
        from diffusecli.report.summary import evaluation

        terminal.console().print(evaluation(found, Showing(top, sort)))  # type: ignore[arg-type]
    if html is not None or plots is not None:
        _write_report(found, html, plots)
    if missed:
        raise FailedGates(missed)


def _require_place(html: Path | None, plots: Path | None) -> None:
    """Find out before the work what would stop its writing."""
    from diffusecli.files.endings import require_ending
    from diffusecli.files.writing import require_writable
    from diffusecli.report.charts import require_extra

    if html is None and plots is None:
        return
    if html is not None:
        require_ending(html, "--html", "a report is written as HTML", ".html", ".htm")
    if plots is not None:
        require_ending(plots, "--plots", "charts are written into a folder as SVG and PNG")
    require_extra()
    if html is not None:
        if html.exists() and not html.is_file():
            raise InputError(f"--html {html}: is no ordinary file, name another one")
        require_writable(html.parent)
    if plots is not None:
        if plots.exists() and not plots.is_dir():
            raise InputError(f"--plots {plots}: is a file, name a folder")
        require_writable(plots)


def _write_report(found: Evaluation, html: Path | None, plots: Path | None) -> None:
    """The report that opens in a browser, and its charts as pictures."""
    if html is not None:
        from diffusecli.files.writing import write_text
        from diffusecli.report.html import html_report

        write_text(html, html_report(found))
        _notice(f"wrote {html}")
    if plots is not None:
        from diffusecli.report.charts import write_plots

        _notice(f"wrote {many(len(write_plots(found, plots)), 'picture')} into {plots}")


def _quiet_libraries() -> None:
    """Warnings of the libraries underneath are for developers; set DIFFUSE_WARNINGS=1 to see them."""
    import warnings

    if not os.environ.get("DIFFUSE_WARNINGS"):
        warnings.simplefilter("ignore")
