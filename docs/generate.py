"""Write what is derived from the code: the JSON Schemas, and the pages on config fields, commands, schemas and the Python API.

`python docs/generate.py` writes them, a test checks that they are in step.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import typer
from pydantic import BaseModel

import diffusecli
from diffusecli.cli.app import app
from diffusecli.cli.missing_values import option_groups
from diffusecli.prompts.config import Config
from diffusecli.prompts.json_schema import json_schema
from diffusecli.report import data

ROOT = Path(__file__).resolve().parent.parent

_INTRODUCTION = """# Config fields

Generated from the code by `python docs/generate.py`. `--set key.sub=value` overrides any field, e.g. `--set alg_config.n_iters=10`.

Relative paths are searched in the working directory, then in the config's folder, then in the library that comes with diffuse. `~` is the home folder.
In `output_dir`, `${NAME}` is replaced by the environment variable of that name; one that is not set or empty is an error. Everywhere else, `$NAME` and `${NAME}`
are errors.

| field | default | meaning |
|---|---|---|
"""

_COMMANDS = """# Commands

Generated from the code by `python docs/generate.py`. `diffuse COMMAND --help` prints the same. Results go to stdout, messages to stderr.
[Exit codes](exit-codes.md) show how a command ended.
"""

_SCHEMAS = """# Schemas

Generated from the code by `python docs/generate.py`. The JSON Schemas are in `schemas/` of the repository, for editors and programs.
`diffuse validate --schema prompt` (or `config`, `evaluation`) prints one. [Config fields](../config.md) are on a separate page.
"""


_API = """# Python API

Generated from the code by `python docs/generate.py`. The [notebook](../tutorials/notebook.md) shows an example.

```python
import diffusecli as diffuse

die = diffuse.init_prompt("Toss a die.", uniform=(1, 6), form=True)
run = diffuse.train(model="smollm2-135m-instruct", train_prompts=die, output_dir="results/die")
samples = diffuse.sample(run, n=1000)
diffuse.evaluate(samples).to_frame()
```

To use several prompts, pass a list or the mapping that `init_prompts` returns:

```python
dice = diffuse.init_prompts("Toss a die for {who}.", from_file="tosses.csv", column="toss", count=True, group_by="who")
run = diffuse.train(model="smollm2-135m-instruct", train_prompts=dice.values(), output_dir="results/dice")
samples = diffuse.sample(run, prompts=dice["Ann",])
```

Each function works like the [command](commands.md) of its name and writes the same files. You can mix functions and commands.

- **Imports.** `import diffusecli` is fast: torch is loaded by the first call that needs it.
- **Messages.** Functions print nothing. Notices go to the logger `diffusecli` at level INFO, or to the function given as `notice`. To see
  them, call `logging.basicConfig(level=logging.INFO)`. Possible mistakes in the input are logged as warnings, which Python shows.
- **Warnings of other libraries** are hidden during a call, unless the environment variable `DIFFUSE_WARNINGS` is set.
- **Errors.** Functions raise the [errors](#errors) below, never `SystemExit`. An argument of the wrong type is an `InputError` that names
  it. Messages name options as on the command line: `--max-new-tokens` is `max_new_tokens` here.
- **Notebooks** show every result as a table, with escaped texts.
"""


def generated() -> dict[str, str]:
    """Path below the root -> text."""
    prompt, evaluation = json_schema("prompt"), _described(data.json_schema())
    return {
        "schemas/prompt.schema.json": json.dumps(prompt, indent=2) + "\n",
        "schemas/config.schema.json": json.dumps(json_schema("config"), indent=2) + "\n",
        "schemas/evaluation.schema.json": json.dumps(evaluation, indent=2) + "\n",
        "docs/config.md": _INTRODUCTION + "".join(_rows(Config)),
        "docs/reference/commands.md": _COMMANDS + "".join(_commands()),
        "docs/reference/api.md": _API + "".join(_api()),
        "docs/reference/schemas.md": _SCHEMAS + "".join(_schemas(prompt, evaluation)),
    }


def _commands() -> Iterator[str]:
    """A section for `diffuse` itself and one for each command, from what its --help is made of: no terminal, no width."""
    top: Any = typer.main.get_command(app)
    parent = top.make_context("diffuse", [], resilient_parsing=True)
    yield from _command(top, parent)
    for name, command in top.commands.items():
        yield from _command(command, command.make_context(name, [], parent=parent, resilient_parsing=True))


def _command(command: Any, context: Any) -> Iterator[str]:
    yield f"\n## {context.command_path}\n\n{command.help}\n\n"
    yield f"    {context.command_path} {' '.join(command.collect_usage_pieces(context))}\n"
    for title, shown in option_groups(command, context).items():
        yield f"\n**{title}**\n" if title not in ("Arguments", "Options") else ""
        yield f"\n| {'argument' if title == 'Arguments' else 'option'} | default | meaning |\n|---|---|---|\n"
        yield from (_parameter(*record) for record in shown)
    if command.epilog:
        title, *lines = command.epilog.removeprefix("\b\n").splitlines()
        yield f"\n{title}\n\n" + "".join(f"  {line}\n" for line in lines)


def _parameter(names: str, text: str) -> str:
    """`text` ends with what the parameter's default and range are, in brackets, if it has any."""
    names = re.sub(r"<list\[(\w+)\]>", lambda match: f"<{match[1].lower()}>", names)
    meaning, _, extra = text.removesuffix("]").partition("  [")
    facts = extra.split("; ") if extra else []
    default = next((f"`{fact.removeprefix('default: ')}`" for fact in facts if fact.startswith("default: ")), "")
    bounds = "".join(f" ({fact})" for fact in facts if not fact.startswith("default: "))
    return f"| `{_cell(names)}` | {default} | {_cell(meaning)}{bounds} |\n"


def _api() -> Iterator[str]:
    """A section for each function, result and kind of error."""
    named = {name: getattr(diffusecli, name) for name in diffusecli.__all__}
    functions = ["init_prompt", "init_prompts", "init_mixture", "train", "sample", "evaluate", "ensure_builtin"]
    values = ["Prompt", "Config", "Trained", "TrainedPrompt", "Samples", "Evaluation"]
    errors = ["DiffuseError", "InputError", "MachineError", "InterruptedRun"]
    assert sorted(functions + values + errors) == sorted(named)  # noqa: S101 (a page that lacks a name is not written)
    for name in functions:
        yield f"\n## {name}\n\n```python\n{_signature(named[name])}\n```\n\n{_text(named[name])}"
    for name in values:
        yield from _value(named[name])
    yield "\n## Errors\n\n| error | meaning | exit code of the command |\n|---|---|---|\n"
    yield from (
        f"| `{name}` | {_text(named[name]).splitlines()[0].split(' (exit')[0]} | {named[name].exit_code} |\n" for name in errors
    )
    yield "\n`DiffuseError` is the base class of the others. Unexpected disk errors are Python's `OSError`.\n"


def _value(kind: type) -> Iterator[str]:
    """The fields of a dataclass with their comments, and its methods. The fields of prompts and configs have pages."""
    yield f"\n## {kind.__name__}\n\n{_text(kind)}"
    pages = {"Prompt": "schemas.md#prompt", "Config": "../config.md"}
    if kind.__name__ in pages:
        yield f"\nA pydantic model; its [fields]({pages[kind.__name__]}) are keyword arguments. Wrong ones raise pydantic's `ValidationError`,\nwhich is not a `DiffuseError`.\n"
    else:
        lineage = [of for of in reversed(kind.__mro__) if is_dataclass(of)]
        comments = {name: comment for of in lineage for name, comment in _comments(inspect.getsource(of))}
        yield "\n| field | type | meaning |\n|---|---|---|\n"
        yield from (f"| `{f.name}` | `{_cell(str(f.type))}` | {_cell(comments[f.name])} |\n" for f in fields(kind))
    for name, method in vars(kind).items():
        if inspect.isfunction(method) and name in _METHODS:
            yield f"\n### {kind.__name__}.{name}()\n\n{_text(method)}"


_METHODS = ("to_frame", "targets_to_frame", "to_json", "to_yaml")


def _signature(function: Any) -> str:
    """A line per parameter, types as they are in the code."""
    signature = inspect.signature(function)
    lines, starred = [], False
    for p in signature.parameters.values():
        if p.kind is p.KEYWORD_ONLY and not starred:
            lines, starred = [*lines, "*"], True
        default = "" if p.default is p.empty else f" = {p.default!r}"
        lines.append(f"{'**' if p.kind is p.VAR_KEYWORD else ''}{p.name}: {p.annotation}{default}")
    return f"{function.__name__}(\n" + "".join(f"    {line},\n" for line in lines) + f") -> {signature.return_annotation}"


def _text(documented: Any) -> str:
    """A docstring as Markdown: its examples as code."""
    text, doctest, example = (inspect.getdoc(documented) or "").partition("\n>>> ")
    return text.rstrip() + "\n" + (f"\n```pycon\n>>> {example}\n```\n" if doctest else "")


def _schemas(prompt: dict[str, Any], evaluation: dict[str, Any]) -> Iterator[str]:
    yield f"\n## Prompt\n\n{prompt['description']}\n"
    yield from _fields(prompt)
    for name, shape in prompt["definitions"].items():
        yield f"\n### {name}\n\n{shape['description']}\n"
        yield from _fields(shape)
    yield f"\n## evaluate --json\n\n{evaluation['description']} A figure that cannot be computed is null.\n"
    yield from _fields(evaluation)
    for name, shape in evaluation["$defs"].items():
        yield f"\n### {name}\n\n{shape['description']}\n"
        yield from _fields(shape)


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    yield "\n| field | kind | meaning |\n|---|---|---|\n"
    for name, shape in schema["properties"].items():
        default = "" if "default" not in shape or shape["default"] is None else f" Default: `{json.dumps(shape['default'])}`."
        meaning = _cell(shape.get("description")) + default
        needed = "" if name in schema["required"] else " (optional)"
        yield f"| `{name}` | {_kind(shape)}{needed} | {meaning} |\n"


def _kind(shape: dict[str, Any]) -> str:
    """What JSON stands there, in words."""
    if "$ref" in shape:
        name = shape["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in shape:
        return f"`{json.dumps(shape['const'])}`"
    if "enum" in shape:
        return " or ".join(f"`{json.dumps(value)}`" for value in shape["enum"])
    if "anyOf" in shape:
        return " or ".join(_kind(each) for each in shape["anyOf"])
    kinds = shape["type"] if isinstance(shape["type"], list) else [shape["type"]]
    inside = shape.get("items") or shape.get("additionalProperties")
    of = (f" of ({_kind(inside)})" if "anyOf" in inside else f" of {_kind(inside)}") if isinstance(inside, dict) and inside else ""
    return " or ".join(kinds) + of


def _described(schema: dict[str, Any]) -> dict[str, Any]:
    """The comment behind each field of the dataclasses becomes its description."""
    for name, shape in {**schema["$defs"], "Document": schema}.items():
        kind = getattr(data, name)
        comments = dict(_comments(inspect.getsource(kind)))
        for field, description in shape["properties"].items():
            if field in comments:
                description["description"] = comments[field]
    return schema


def _comments(source: str) -> Iterator[tuple[str, str]]:
    """Each field of a class with the comment behind it, on the last line where the formatter broke it."""
    (shape,) = ast.parse(source).body
    lines = source.encode().splitlines()
    for field in shape.body if isinstance(shape, ast.ClassDef) else ():
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.end_lineno is not None:
            _, _, comment = lines[field.end_lineno - 1][field.end_col_offset :].decode().partition("# ")
            if comment:
                yield field.target.id, comment


def _rows(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            if field.annotation is not type(field.default):  # it can be something else than the group, e.g. off
                yield f"| `{prefix}{name}` | as below | {_cell(field.description)} |\n"
            yield from _rows(type(field.default), f"{prefix}{name}.")
            continue
        default = "required" if field.is_required() else f"`{json.dumps(field.default)}`"
        yield f"| `{prefix}{name}` | {default} | {_cell(field.description)} |\n"
        for group in _groups(field.annotation):  # off by default
            yield from _rows(group, f"{prefix}{name}.")


def _groups(annotation: Any) -> list[type[BaseModel]]:
    return [each for each in get_args(annotation) if isinstance(each, type) and issubclass(each, BaseModel)]


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


if __name__ == "__main__":
    for path, text in generated().items():
        (ROOT / path).write_text(text, encoding="utf-8")
