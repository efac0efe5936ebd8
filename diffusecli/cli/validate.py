"""`diffuse validate`: its options, and the findings as lines, tables or JSON."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from diffusecli.cli.options import TrustsCode, choice, require_choices
from diffusecli.cli.printing import notice, quiet_libraries
from diffusecli.files.paths import LIBRARY
from diffusecli.system import terminal
from diffusecli.system.errors import InputError
from diffusecli.system.exits import EXIT_FOUND_PROBLEMS


def validate(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="PATH…", help="Prompts (.json), configs (.yaml) or folders of both.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Show the targets as tokens of this model.")] = None,
    chat_template: Annotated[
        str | None, typer.Option(metavar="plain|FILE", help="With --model: chat template.  [default: the model's]")
    ] = None,
    trust_remote_code: TrustsCode = False,
    strict: Annotated[bool, typer.Option("--strict", help="Treat warnings as errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    top: Annotated[int, typer.Option(min=0, help="With --model: targets to show per prompt; 0 shows all.")] = 20,
    schema: Annotated[str | None, choice("--schema", "Print a JSON Schema (draft 7) and exit.")] = None,
) -> None:
    """Check prompts and configs, and show a summary of them."""
    if schema is not None:
        require_choices({"--schema": schema})
        typer.echo((LIBRARY / "schemas" / f"{schema}.schema.json").read_text(encoding="utf-8"), nl=False)
        return
    from diffusecli.report.tables import prompts_overview, token_table
    from diffusecli.verbs.validate import token_views
    from diffusecli.verbs.validate import validate as check

    if not paths:
        raise InputError("nothing to check. Name at least one prompt, config or folder")
    if chat_template is not None and model is None:
        raise InputError("--chat-template has no effect without --model. Add --model")
    if trust_remote_code and model is None:
        raise InputError("--trust-remote-code has no effect without --model. Add --model")
    found = check(paths, strict=strict)
    if model is not None:
        quiet_libraries()
        views, more = token_views(found, model, notice, chat_template, trust_remote_code)
        found = found.with_more(more, strict=strict)
    if as_json:
        tokens = {"tokens": [view.as_json() for view in views]} if model is not None else {}
        typer.echo(terminal.json_text(json.dumps({**found.as_json(), **tokens}, indent=2, ensure_ascii=False)))
    else:
        for problem in found.problems:
            notice(f"{problem.severity}: {problem}")
        for view in views if model is not None else ():
            terminal.console().print(token_table(view, top))
        if found.prompts:
            terminal.console().print(prompts_overview(found.prompts))
        typer.echo(str(found))
    configs = [path for path in paths if path.suffix in (".yaml", ".yml")]
    if len(configs) == 1 and not found.failed and any(found.together):
        command = f"diffuse train {shlex.quote(str(configs[0]))}"
        notice(f"next: `{command} --more N`, or `diffuse evaluate` its run" if found.finished else f"next: `{command}`")
    if found.failed:
        raise typer.Exit(EXIT_FOUND_PROBLEMS)
