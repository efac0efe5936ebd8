"""Targets that stand in a table beside the prompt, in place of a list in its file.

Knows tables and the keys that name a part of one; makes lists of targets and weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from diffusecli.files.documents import Document
from diffusecli.files.schema import problems_of
from diffusecli.files.tables import Layout
from diffusecli.prompts.observations import distributions_in
from diffusecli.prompts.templates import within
from diffusecli.prompts.weighing import Reading
from diffusecli.system.errors import InputError, Problem


class TargetTable(BaseModel):
    """A table whose rows are the targets. Its path is relative to the prompt's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    source: str = Field(alias="from", min_length=1, description="The file: one target a line, or CSV, JSON, Parquet, Excel.")
    column: str | None = Field(default=None, description="The column of the targets, where there are several.")
    template: str | None = Field(default=None, description="In place of column: records of several columns, like `{name}, {age}`.")
    bins: dict[str, float] = Field(default={}, description="Columns of numbers that become ranges, with their widths.")
    weight_column: str | None = Field(
        default=None, description="The column of the weights, added up by target; none: there are none."
    )
    count: bool = Field(default=False, description="Rows are observations: count them.")
    wrap: str = Field(default="%s", description="What surrounds each target, %s in its place: {%s} puts it in braces.")
    delimiter: str | None = Field(default=None, description="Sign between the fields of the table. Default: found out.")
    encoding: str | None = Field(default=None, description="Encoding of the file. Default: found out.")
    header_rows: int | None = Field(default=None, ge=0, description="Rows of column names; 0: the first row is data.")
    skip_rows: int = Field(default=0, ge=0, description="Rows above the header to leave out.")
    sheet: str | None = Field(default=None, description="Sheet of an Excel workbook.")
    decimal: str | None = Field(default=None, description="Decimal sign of the weights: . or a comma. Default: found out.")

    def lists(self, beside: Path) -> tuple[list[str], list[float] | None, list[str]]:
        """Targets, weights and what was found out; `beside` is the prompt's file. Raises `InputError` for a table that cannot be read so."""
        layout = Layout(self.delimiter, self.encoding, self.header_rows, self.skip_rows, self.sheet)
        bins = tuple(f"{name}={width}" for name, width in self.bins.items())
        reading = Reading(
            column=self.column, weight_column=self.weight_column, count=self.count, template=self.template, bins=bins, decimal=self.decimal,
            layout=layout,
        )  # fmt: skip
        found = distributions_in(beside.parent / self.source, reading)[()]
        weights = None if found.weights is None else list(found.weights)
        return [self.wrap.replace("%s", outcome) for outcome in found.outcomes], weights, found.notice.splitlines()


def names_table(targets: Any) -> bool:
    """Whether a prompt's targets are meant as a table: a mapping with one of its keys."""
    known = {field.alias or name for name, field in TargetTable.model_fields.items()}
    return isinstance(targets, dict) and bool(known & targets.keys())


def with_table(document: Document, place: Path) -> list[Problem]:
    """Replace the table that a prompt's document names by the lists in it; returns what is wrong with it.

    `place` is where the prompt's file lies.
    """
    named = document.data["targets"]
    try:
        table = TargetTable.model_validate(named)
    except ValidationError as error:
        inside = Document(document.path, document.text, named)
        return [_moved(document, problem, where) for problem, where in problems_of(inside, error, TargetTable)]
    if "%s" not in table.wrap:
        return [document.problem(("targets", "wrap"), f"wrap {table.wrap!r} has no %s", "put %s where the target goes")]
    if document.data.get("weights"):
        return [
            document.problem(("weights",), "the targets come from a table, and weights are here", "name weight_column in targets")
        ]
    try:
        targets, weights, found = table.lists(place)
    except InputError as error:
        return [document.problem(("targets", "from"), _with_keys(str(error)))]
    document.data["targets"] = targets
    if weights is not None:
        document.data["weights"] = weights
    if table.template is not None:
        document.data["template"] = within(table.template, table.wrap)
    return [
        document.problem(("targets", "from"), _with_keys(line), severity="notice") for line in found if not line.startswith(_ORDER)
    ]


_ORDER = "targets in "
"""How the notice begins that tells the order, which a prompt's file need not tell."""


def _with_keys(text: str) -> str:
    """A message that names options of `init-prompt`, with the keys in their place."""
    text = text.replace("--no-header", "header_rows: 0")
    for key in (
        "header-rows",
        "skip-rows",
        "sheet",
        "decimal",
        "template",
        "bins",
        "weight-column",
        "column",
        "count",
        "delimiter",
        "encoding",
    ):
        text = text.replace(f"--{key}", key.replace("-", "_"))
    return text


def _moved(document: Document, problem: Problem, where: tuple[Any, ...]) -> Problem:
    """A finding about the table as one about its place in the prompt's file."""
    return document.problem(("targets", *where), problem.message, problem.remedy)
