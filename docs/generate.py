"""Write what is derived from the code: the JSON Schemas and the table of config fields.

`python docs/generate.py` writes them, a test checks that they are in step.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from diffusecli.config import Config
from diffusecli.report import data
from diffusecli.validate import json_schema

ROOT = Path(__file__).resolve().parent.parent

_INTRODUCTION = """# Config fields

Generated from the code by `python docs/generate.py`. Paths are taken from the working directory, else
from the config's folder, else from the library that comes with diffuse. `--set key.sub=value` overrides any field, e.g. `--set alg_config.n_iters=10`.

| field | default | meaning |
|---|---|---|
"""


def generated() -> dict[str, str]:
    """Path below the root -> text."""
    return {
        "schemas/prompt.schema.json": json.dumps(json_schema("prompt"), indent=2) + "\n",
        "schemas/config.schema.json": json.dumps(json_schema("config"), indent=2) + "\n",
        "schemas/evaluation.schema.json": json.dumps(_described(data.json_schema()), indent=2) + "\n",
        "docs/config.md": _INTRODUCTION + "".join(_rows(Config)),
    }


def _described(schema: dict[str, Any]) -> dict[str, Any]:
    """The comment behind each field of the dataclasses becomes its description."""
    for name, shape in schema["$defs"].items():
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


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


if __name__ == "__main__":
    for path, text in generated().items():
        (ROOT / path).write_text(text, encoding="utf-8")
