"""Targets that stand in a table beside the prompt, in place of a list in its file.

Knows tables and the keys that name a part of one; makes lists of targets and weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from diffusecli.files.documents import Document
from diffusecli.files.schema import problems_of
from diffusecli.files.tables import Layout
from diffusecli.prompts.distributions import Distribution
from diffusecli.prompts.observations import distributions_in
from diffusecli.prompts.templates import within
from diffusecli.prompts.weighing import Reading
from diffusecli.system.errors import InputError, Problem


class TargetTable(BaseModel):
    """A table whose rows are the targets. Its path is relative to the prompt's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    source: str = Field(alias="from", min_length=1, description="The file: one target per line, or CSV, JSON, Parquet, Excel.")
    column: str | None = Field(default=None, description="Column of the targets, if there are several.")
    template: str | None = Field(default=None, description="Instead of column: records of several columns, like `{name}, {age}`.")
    bins: dict[str, float] = Field(default={}, description="Columns of numbers to bin into ranges, with the widths.")
    independent: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=(), description="Fields of the template that do not depend on the others."
    )
    weight_column: str | None = Field(default=None, description="Column of the weights, summed by target. none: no weights.")
    count: bool = Field(default=False, description="Count rows as observations.")
    wrap: str = Field(default="%s", description="Text around each target, with %s in its place: {%s} adds braces.")
    delimiter: str | None = Field(default=None, description="Delimiter of the fields. Default: detected.")
    encoding: str | None = Field(default=None, description="Encoding of the file. Default: detected.")
    header_rows: int | None = Field(default=None, ge=0, description="Number of header rows. 0: the first row is data.")
    skip_rows: int = Field(default=0, ge=0, description="Number of rows to skip above the header.")
    sheet: str | None = Field(default=None, description="Sheet of an Excel workbook.")
    decimal: str | None = Field(default=None, description="Decimal sign of the weights: . or a comma. Default: detected.")

    def distribution(self, beside: Path) -> Distribution:
        """Its rows; `beside` is the prompt's file. Raises `InputError` for a table that cannot be read so."""
        layout = Layout(self.delimiter, self.encoding, self.header_rows, self.skip_rows, self.sheet)
        bins = tuple(f"{name}={width}" for name, width in self.bins.items())
        reading = Reading(
            column=self.column, weight_column=self.weight_column, count=self.count, template=self.template, bins=bins, decimal=self.decimal,
            independent=self.independent, layout=layout,
        )  # fmt: skip
        return distributions_in(beside.parent / self.source, reading)[()]


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
        return [document.problem(("targets", "wrap"), f"wrap {table.wrap!r} has no %s", "put %s in place of the target")]
    if document.data.get("weights"):
        return [
            document.problem(
                ("weights",), "weights are given, but the targets come from a table", "use weight_column in targets instead"
            )
        ]
    try:
        found = table.distribution(place)
    except InputError as error:
        return [document.problem(("targets", "from"), _with_keys(str(error)))]
    document.data["targets"] = [table.wrap.replace("%s", outcome) for outcome in found.outcomes]
    if found.weights is not None:
        document.data["weights"] = list(found.weights)
    if found.independent:
        document.data["independent"] = found.independent_fields
    if table.template is not None:
        document.data["template"] = within(table.template, table.wrap)
    return [
        document.problem(("targets", "from"), _with_keys(line), severity="notice")
        for line in found.notice.splitlines()
        if not line.startswith(_ORDER)
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
        "independent",
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
