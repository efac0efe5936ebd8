"""`diffuse init-prompt`: its options, the notices and the preview."""

from __future__ import annotations

import csv
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusecli.cli.groups import Body, given_options, grouped, optional
from diffusecli.cli.options import TableOptions, with_table_options
from diffusecli.cli.paraphrasing import ParaphraseOptions, with_paraphrase_options
from diffusecli.cli.printing import is_quiet, notice
from diffusecli.prompts.catalogue import FAMILIES, catalogue
from diffusecli.system import terminal
from diffusecli.system.errors import InputError, many

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diffusecli.prompts.prompt import Prompt

_FAMILIES, _TABLE, _REQUEST, _ANSWER, _OUTPUT = (
    "Distributions",
    "Distribution from a file",
    "Request",
    "Form of the answer",
    "Output",
)
"""Titles of groups of options in the help."""
_OF_MIXTURES = ("--mixture", "--output", "--force", "--seed", "--preview")


def _with_families(body: Body) -> Body:
    """Give the command one option per registered family, instead of its parameter `families`."""
    options = []
    for family in FAMILIES.values():
        kinds = family.arguments
        kind: Any = bool if not kinds else kinds[0] if len(kinds) == 1 else tuple[kinds]  # type: ignore[valid-type]
        name = family.name.replace("-", "_")
        metavar = family.metavar or None
        options.append(
            optional(
                name, kind, f"--{family.name}", help=family.summary, show_default=False, metavar=metavar, rich_help_panel=_FAMILIES
            )
        )
    return grouped("families", options)(body)


@_with_families
@with_table_options
@with_paraphrase_options
def init_prompt(
    *,
    context: typer.Context,
    families: dict[str, Any],
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="FILE", help="Read targets from lines or a table (CSV, JSON, Parquet, Excel).", rich_help_panel=_TABLE
        ),
    ] = None,
    column: Annotated[str | None, typer.Option(help="With --from: column of the targets.", rich_help_panel=_TABLE)] = None,
    weight_column: Annotated[
        str | None, typer.Option(help="With --from: column of weights, summed by target; none: no weights.", rich_help_panel=_TABLE)
    ] = None,
    options_column: Annotated[
        str | None, typer.Option(help="With --from: column with lists of options; one prompt per row.", rich_help_panel=_TABLE)
    ] = None,
    shares_column: Annotated[
        str | None, typer.Option(help="With --from: column with lists of shares, or {name: list} mappings.", rich_help_panel=_TABLE)
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="With --from: targets from several columns, e.g. '{name}, {age}'.", rich_help_panel=_TABLE
        ),
    ] = None,
    bins: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN=WIDTH",
            help="With --from: bin numbers into ranges, e.g. age=10; may be repeated.",
            rich_help_panel=_TABLE,
        ),
    ] = None,
    independent: Annotated[
        str,
        typer.Option(metavar="A,B,…", help="With --template: fields to make independent of all others.", rich_help_panel=_TABLE),
    ] = "",
    given: Annotated[
        str,
        typer.Option(
            metavar="A,B,…", help="With --template: columns in the request; one prompt per combination.", rich_help_panel=_TABLE
        ),
    ] = "",
    count: Annotated[
        bool,
        typer.Option("--count", help="With --from: count rows as observations (not for a weight column).", rich_help_panel=_TABLE),
    ] = False,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="With --from: keep the K targets with the largest weights.", metavar="K", rich_help_panel=_TABLE),
    ] = None,
    min_count: Annotated[
        float, typer.Option(min=0, help="With --from: drop targets with a smaller weight.", rich_help_panel=_TABLE)
    ] = 0.0,
    alpha: Annotated[
        float, typer.Option(min=0, help="With --from: add this to every weight (additive smoothing).", rich_help_panel=_TABLE)
    ] = 0.0,
    group_by: Annotated[
        str,
        typer.Option(
            metavar="A,B,…", help="With --from: one prompt per group of rows, written to the folder -o.", rich_help_panel=_TABLE
        ),
    ] = "",
    alpha_within: Annotated[
        str,
        typer.Option(
            metavar="A,B,…",
            help="With --alpha: groups equal in these columns share options.  [default: all]",
            rich_help_panel=_TABLE,
        ),
    ] = "",
    decimal: Annotated[
        str | None, typer.Option(metavar=".|,", help="Decimal sign of the weights.  [default: detected]", rich_help_panel=_TABLE)
    ] = None,
    table: TableOptions,
    step: Annotated[str | None, typer.Option(help="With --uniform: step between numbers.", rich_help_panel=_FAMILIES)] = None,
    tail: Annotated[
        float | None,
        typer.Option(help="Probability that may be cut off an infinite tail.  [default: 1e-6]", rich_help_panel=_FAMILIES),
    ] = None,
    decimals: Annotated[
        int | None,
        typer.Option(help="With --scipy: decimal places to round a continuous distribution to.", rich_help_panel=_FAMILIES),
    ] = None,
    date_format: Annotated[
        str | None, typer.Option(help="With --dates: strftime format.  [default: %B %-d]", rich_help_panel=_FAMILIES)
    ] = None,
    request: Annotated[
        list[str] | None,
        typer.Option(help="Request text; repeatable. With groups: {column}, and {{x}} for {x}.", rich_help_panel=_REQUEST),
    ] = None,
    requests: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="File with requests: lines (# comments) or a JSON list; repeatable.", rich_help_panel=_REQUEST
        ),
    ] = None,
    form: Annotated[
        bool, typer.Option("--form", help="Add the required form of the answer to each --request.", rich_help_panel=_REQUEST)
    ] = False,
    wordings: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Use N built-in wordings of the distribution's request.", rich_help_panel=_REQUEST),
    ] = None,
    held_out: Annotated[
        int,
        typer.Option(
            min=0, metavar="M", help="Hold out M more wordings, or M of the requests, from training.", rich_help_panel=_REQUEST
        ),
    ] = 0,
    seed: Annotated[
        int,
        typer.Option(min=0, help="Random seed for --wordings, --held-out, --paraphrase and --mixture.", rich_help_panel=_REQUEST),
    ] = 0,
    paraphrasing: ParaphraseOptions,
    system: Annotated[str | None, typer.Option(help="System prompt; {column} as in --request.", rich_help_panel=_REQUEST)] = None,
    draws: Annotated[
        int | None, typer.Option(min=2, max=200, metavar="N", help="Ask for N draws in one answer.", rich_help_panel=_ANSWER)
    ] = None,
    separator: Annotated[
        str, typer.Option(help="With --draws: text between draws (\\n: line break, \\t: tab).", rich_help_panel=_ANSWER)
    ] = ", ",
    replacement: Annotated[
        bool,
        typer.Option(
            "--replacement/--no-replacement", help="With --draws: draw with or without replacement.", rich_help_panel=_ANSWER
        ),
    ] = True,
    wrap: Annotated[str, typer.Option(help="Text around the outcome %s in a target.", rich_help_panel=_ANSWER)] = "{%s}",
    spellings: Annotated[
        bool,
        typer.Option("--spellings", help="Also accept other spellings of outcomes: 7, seven; Mar, March.", rich_help_panel=_ANSWER),
    ] = False,
    response: Annotated[
        list[str] | None, typer.Option(help="Text before each target in the answer; may be repeated.", rich_help_panel=_ANSWER)
    ] = None,
    no_eos: Annotated[
        bool, typer.Option("--no-eos", help="The answer may continue after the target.", rich_help_panel=_ANSWER)
    ] = False,
    mixture: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Write N training prompts of many families, and held-out splits.", rich_help_panel=_OUTPUT
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write to this file instead of stdout.", rich_help_panel=_OUTPUT)
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With -o: also write a config that trains on the prompt.", rich_help_panel=_OUTPUT),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.", rich_help_panel=_OUTPUT)] = False,
    preview: Annotated[bool, typer.Option(help="Preview the distribution on stderr.", rich_help_panel=_OUTPUT)] = True,
    show_list: Annotated[bool, typer.Option("--list", help="List all families with examples and exit.")] = False,
) -> None:
    """Write a prompt for a distribution or a table of observations."""
    from diffusecli.prompts.file_names import name_notices
    from diffusecli.prompts.request_files import read_requests
    from diffusecli.prompts.request_wording import Wording, form_doubts, wording_doubts
    from diffusecli.prompts.weighing import Reading
    from diffusecli.verbs.init_prompt import choose, config_text, fields_of, prompts_from, with_paraphrases, write_texts
    from diffusecli.verbs.init_table_prompt import table_prompt

    if show_list:
        for example, summary in catalogue():
            typer.echo(f"{summary}\n  diffuse init-prompt {example}")
        return
    if mixture is not None:
        _write_mixture(mixture, output, seed, force, context)
        return
    if config is not None and output is None:
        raise InputError("--config names its prompt by a file. Add -o FILE")
    asked = (*(request or ()), *read_requests(requests or ()))
    wording = Wording(
        asked or None,
        wrap,
        tuple(response or ("",)),
        not no_eos,
        system,
        form,
        wordings,
        0 if paraphrasing.paraphrase else held_out,
        seed,
        spellings,
        draws,
        separator.replace("\\n", "\n").replace("\\t", "\t"),
        replacement,
    )
    service = paraphrasing.service()
    modifiers = {"step": step, "tail": tail, "decimals": decimals, "date_format": date_format}
    groups = (*_columns("--group-by", group_by), *_columns("--given", given))
    reading = Reading(
        column, weight_column, count, top, min_count, alpha, groups, _columns("--alpha-within", alpha_within), options_column, shares_column, decimal,
        template, tuple(bins or ()), _columns("--independent", independent), table.layout(), _grouping(group_by, given),
    )  # fmt: skip
    distributions = choose(families, modifiers, source, reading, worded=wordings is not None)
    if paraphrasing.paraphrase is not None and service is not None:
        wording = with_paraphrases(distributions, wording, paraphrasing.paraphrase, service, notice)
        wording = replace(wording, held_out=held_out)
    as_table = bool(given) and output is not None and output.suffix == ".json"
    place = output.with_suffix("") if as_table and output else output
    prompts = prompts_from(distributions, wording, groups, place, reading.grouping)
    shown, first = min(prompts.items(), key=lambda made: str(made[0]))  # in the order of files
    if output is None:
        typer.echo(terminal.json_text(first.to_json()), nl=False)
    else:
        texts = {path: prompt.to_json() for path, prompt in prompts.items() if path is not None}
        if as_table and source is not None:
            texts = {output: table_prompt(next(iter(distributions.values())), wording, reading, source, output)}
        if config is not None:
            texts[config] = config_text(output, config, len(prompts))
        write_texts(texts, force=force)
        notice(_written(output, prompts, source if as_table else None, config))
    messages = [line for d in distributions.values() for line in d.notice.splitlines()]
    messages += name_notices(distributions, prompts) if list(prompts) != [output] and not as_table else []
    alone = "there is one target, so every answer is the same. Separate several with commas: --choices 'a, b'"
    doubts = [doubt for key, d in distributions.items() for doubt in form_doubts(d, wording, fields_of(d, groups, key))]
    messages += [
        f"warning: {doubt}"
        for doubt in [*([alone] if len(first.targets) == 1 else []), *doubts[:1], *wording_doubts(wording, first)]
    ]
    for message in dict.fromkeys(messages):
        notice(message)
    if preview and not is_quiet():
        _show(first, "" if len(prompts) == 1 else repr(first.request) if as_table else str(shown), own_request=not asked)
    if output is not None:
        notice(_next(output, config))


def _show(prompt: Prompt, name: str, *, own_request: bool) -> None:
    """Preview a distribution, with its name if there are several, and with its request if that is the program's own."""
    from diffusecli.report.tables import distribution_preview

    if name:
        notice(f"preview of the first prompt, {name}")
    if own_request:
        notice(f"request: {prompt.requests[0]}")
    terminal.console(stderr=True).print(distribution_preview(prompt))


def _next(output: Path, config: Path | None) -> str:
    """The command that trains on what was written."""
    if config is not None:
        return f"next: `diffuse train {shlex.quote(str(config))}`"
    run = shlex.quote(str(Path("results", output.stem)))
    return f"next: `diffuse train --model smollm2-135m-instruct --prompt {shlex.quote(str(output))} -o {run}`"


def _grouping(group_by: str, given: str) -> str:
    """The options that name the groups, for messages."""
    return "/".join(name for name, some in (("--group-by", group_by), ("--given", given)) if some) or "--group-by"


def _written(output: Path, prompts: Mapping[Path | None, Prompt], table: Path | None, config: Path | None) -> str:
    """Report the written files, and the number of prompts, or of requests if there are several."""
    more = f" and the config {config}" if config is not None else ""
    if table is not None:
        return f"wrote {output}{more}: {many(len(prompts), 'prompt')}, made from {table} when the file is read"
    if list(prompts) != [output]:
        return f"wrote {many(len(prompts), 'prompt')} into {output}{more}"
    prompt = prompts[output]
    asked, apart = prompt.trained_wordings, len(prompt.held_out_requests)
    several = f": {many(asked, 'request')}{f' and {apart} more held out' if apart else ''}" if asked + apart > 1 else ""
    return f"wrote {output}{more}{several}"


def _write_mixture(count: int, output: Path | None, seed: int, force: bool, context: typer.Context) -> None:
    """Write the folder and report the number of prompts in each split."""
    from diffusecli.verbs.init_mixture import write_mixture

    if foreign := next((name for name in given_options(context) if name not in _OF_MIXTURES), None):
        raise InputError(f"{foreign} cannot be combined with --mixture, which draws its own distributions. Leave it out")
    if output is None:
        raise InputError("--mixture writes a folder of prompts. Name the folder with -o")
    written = write_mixture(count, output, seed=seed, force=force)
    for split, prompts in written.items():
        notice(f"wrote {many(prompts, 'prompt')} into {output / split}")
    notice(
        f"next: set train_prompts to {output / 'train'} in a config. Then measure with `evaluate RUN --exact --prompts {output / 'held-out'}`"
    )


def _columns(option: str, listing: str) -> tuple[str, ...]:
    """Split a comma-separated list of names. A name with a comma is in quotes."""
    try:
        rows = list(csv.reader([listing], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise InputError(f"{option} {listing}: {error}. Separate names with commas, and quote a name that contains one") from error
    return tuple(name.strip() for row in rows for name in row if name.strip())
