"""`diffuse init-prompt --given … -o FILE.json`: a single file that names the table, in place of a file for each combination."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffusecli.prompts.distributions import Distribution
from diffusecli.prompts.request_wording import Wording, prompt_from
from diffusecli.prompts.weighing import Reading
from diffusecli.system.errors import InputError


def table_prompt(distribution: Distribution, wording: Wording, reading: Reading, source: Path, output: Path) -> str:
    """The text of the file. `distribution` is that of one of its prompts.

    Raises `InputError` for options that such a file cannot keep.
    """
    left = {
        "--group-by": reading.grouping != "--given",
        "--top": reading.top is not None,
        "--min-count": reading.min_count > 0,
        "--alpha": reading.alpha > 0,
        "--form": wording.form,
        "--wordings": wording.wordings is not None,
        "--spellings": wording.spellings,
    }
    if unkept := next((option for option, given in left.items() if given), None):
        raise InputError(
            f"{output}: one file for all combinations cannot keep {unkept}. Leave it out, or write a folder: -o {output.with_suffix('')}"
        )
    if not source.is_file():
        raise InputError(f"--from {source}: {output} names the table, so it must be a file. Save it first")
    columns = ", ".join(f"{{{name}}}" for name in reading.group_by)
    if not wording.requests:
        raise InputError(
            f"--given with -o {output}: the request must name the combination. Write it with --request, with {columns} in it"
        )
    fields = json.loads(prompt_from(distribution, wording).to_json())
    table: dict[str, Any] = {
        "from": Path(os.path.relpath(source, output.parent)).as_posix(),
        "column": reading.column,
        "template": reading.template,
        "bins": reading.widths,
        "independent": reading.independent,
        "given": reading.group_by,
        "weight_column": reading.weight_column,
        "count": reading.count,
        "decimal": reading.decimal,
        "wrap": "%s" if wording.draws is not None else wording.wrap,
        **asdict(reading.layout),
    }
    defaults = {"wrap": "%s", "skip_rows": 0}
    kept = {name: value for name, value in table.items() if value and value != defaults.get(name)}
    if reading.layout.header_rows == 0:
        kept["header_rows"] = 0
    made = {
        name: kept if name == "targets" else value
        for name, value in fields.items()
        if name not in ("weights", "template", "independent")
    }
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"
