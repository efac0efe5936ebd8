"""`diffuse evaluate`: its options, and the evaluation as tables, JSON, CSV, Markdown or a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusecli.cli.limits import Limits, with_limits
from diffusecli.cli.options import TableOptions, TrustsCode, choice, require_choices, with_table_options
from diffusecli.cli.printing import notice, progress_console, quiet_libraries
from diffusecli.cli.report_files import require_place, write_report
from diffusecli.cli.served import ServedOptions, with_served_options
from diffusecli.system import terminal
from diffusecli.system.collector import collector_off
from diffusecli.system.errors import FailedGates, InputError

if TYPE_CHECKING:
    from diffusecli.evaluation.evaluation import Evaluation


@with_table_options
@with_limits
@with_served_options
def evaluate(
    *,
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="PATH…", help="Run directories, folders of run directories, or sample files.")
    ] = None,
    prompts: Annotated[
        list[Path] | None,
        typer.Option(help="Prompts to use instead of the samples' own (--exact: also held-out)."),
    ] = None,
    prompt: Annotated[Path | None, typer.Option(help="Read raw answers to this prompt (.jsonl, .csv, .json, .txt, …).")] = None,
    column: Annotated[str | None, typer.Option(help="With --prompt: column of the answers.")] = None,
    count_column: Annotated[
        str | None,
        typer.Option(help="With --prompt: column of counts, or none.  [default: count, if present]"),
    ] = None,
    table: TableOptions,
    match: Annotated[
        str, typer.Option(metavar="exact|strip|casefold|regex:…", help="Rule that decides whether an answer is a target.")
    ] = "strip",
    only: Annotated[
        list[str] | None, typer.Option(metavar="PROMPT", help="Only prompts with this text in their path; may be repeated.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Load the model and compute exact KL, TVD, coverage and drift.")] = False,
    model: Annotated[
        str | None,
        typer.Option(help="Base model by name or path, or the server's model.  [default: the run's]"),
    ] = None,
    served: ServedOptions,
    trust_remote_code: TrustsCode = False,
    top: Annotated[int, typer.Option(min=0, help="Targets to show per prompt; 0 shows all.")] = 24,
    sort: Annotated[str | None, choice("--sort", "Sort order of targets.  [default: as in the prompt]")] = None,
    sdmetrics: Annotated[
        bool, typer.Option("--sdmetrics", help="Add SDMetrics' quality score of records (extra `records`).")
    ] = False,
    at_n: Annotated[
        int, typer.Option("--at-n", min=1, metavar="N", help="Number of draws for the excess TVD of exact figures.")
    ] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Random seed for Monte Carlo and bootstrap.")] = 0,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show all figures, and what they mean.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print everything as JSON (schema: `validate --schema evaluation`).")
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: a line per prompt and sampler.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the summary as Markdown.")] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one HTML file with charts. Missing folders are created.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the charts as SVG and PNG to this folder (extra `report`).")
    ] = None,
    limits: Limits,
) -> None:
    """Compare samples with the target weights."""
    with collector_off():
        from diffusecli.evaluation.gates import check_limits, failures
        from diffusecli.prompts.matching import Matching
        from diffusecli.report.progress import Display
        from diffusecli.verbs.evaluate import Question
        from diffusecli.verbs.evaluate import evaluate as judge

    require_choices({"--sort": sort})
    if as_json + as_csv + as_markdown > 1:
        raise InputError("--json, --csv and --markdown all write to stdout. Choose one")
    service = served.service(model, exact=exact, sources=bool(paths))
    _require_use_of(paths, prompts, model, trust_remote_code, exact=exact, served=service is not None)
    if exact:
        quiet_libraries()
    require_place(html, plots)
    asked = limits.given()
    check_limits(asked)
    layout = table.layout()
    if prompt is None and (column is not None or count_column is not None or layout.given()):
        raise InputError("--column, --delimiter and similar options describe raw answers. Add the prompt they answer with --prompt")
    question = Question(
        Matching(match), tuple(prompts or ()), prompt, column, tuple(only or ()), exact, seed, trust_remote_code, model, count_column, layout,
        at_n=at_n,
        sdmetrics=sdmetrics, service=service,
    )  # fmt: skip
    with Display(progress_console()):
        found = judge(paths or (), question, notice)
    missed = failures(found, asked)
    if as_json:
        from diffusecli.report.data import as_json as in_json

        typer.echo(terminal.json_text(in_json(found)))
    elif as_csv:
        from diffusecli.report.data import as_csv as in_csv

        typer.echo(terminal.spelled(in_csv(found)), nl=False)
    elif as_markdown:
        from diffusecli.report.markdown import as_markdown as in_markdown

        typer.echo(in_markdown(found), nl=False)
    else:
        _show(found, top, sort, verbose=verbose, whole=bool(missed) or html is not None)
    if html is not None or plots is not None:
        write_report(found, html, plots, sort)
    if missed:
        raise FailedGates(missed)


def _require_use_of(
    paths: list[Path] | None, prompts: list[Path] | None, model: str | None, trust_remote_code: bool, *, exact: bool, served: bool
) -> None:  # fmt: skip
    """Raise `InputError` for an option that has no effect, or if there is nothing to evaluate."""
    if trust_remote_code and not exact:
        raise InputError("--trust-remote-code has no effect without --exact. Leave it out")
    if model is not None and not exact:
        raise InputError("--model has no effect without --exact. Leave it out")
    if trust_remote_code and served:
        raise InputError("--trust-remote-code has no effect with --engine openai. Leave it out")
    if not paths and not (served and prompts):
        more = ", or prompts with --prompts" if served else ""
        raise InputError(f"Missing argument 'PATH…'. Name a run, a folder of runs or a file of samples{more}")


def _show(found: Evaluation, top: int, sort: Any, *, verbose: bool, whole: bool) -> None:
    """Print tables, and what to do next; `whole`: there is nothing more to show."""
    from diffusecli.evaluation.groups import are_many
    from diffusecli.report.histogram import Showing
    from diffusecli.report.next_steps import next_steps
    from diffusecli.report.summary import evaluation

    terminal.console().print(evaluation(found, Showing(top, sort), verbose=verbose))
    for step in next_steps(found):
        notice(f"next: {step}")
    if not whole:
        more = ["`--html report.html` for charts"]
        if are_many(found.rows):
            more.insert(0, "`--verbose --only NAME` for all figures of a prompt")
        elif not verbose:
            more.insert(0, "`--verbose` for all figures")
        notice(f"next: add {', or '.join(more)}")
