"""Targets in a table next to the prompt, instead of a list in its file.

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
from diffusecli.prompts.placeholders import filled
from diffusecli.prompts.templates import within
from diffusecli.prompts.weighing import Reading
from diffusecli.system.errors import InputError, Problem
from diffusecli.system.notices import WARNING


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
    given: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=(),
        description="Columns that fill `{placeholders}` of the request and the system prompt: one prompt per combination of their values.",
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

    def distributions(self, beside: Path) -> dict[tuple[str, ...], Distribution]:
        """One for each combination of the `given` columns, else a single one; `beside` is the prompt's file. Raises `InputError`."""
        layout = Layout(self.delimiter, self.encoding, self.header_rows, self.skip_rows, self.sheet)
        bins = tuple(f"{name}={width}" for name, width in self.bins.items())
        reading = Reading(
            column=self.column, weight_column=self.weight_column, count=self.count, template=self.template, bins=bins, decimal=self.decimal,
            independent=self.independent, group_by=self.given, grouping="--given", layout=layout,
        )  # fmt: skip
        return distributions_in(beside.parent / self.source, reading)


def names_table(targets: Any) -> bool:
    """Whether a prompt's targets are meant as a table: a mapping with one of its keys."""
    known = {field.alias or name for name, field in TargetTable.model_fields.items()}
    return isinstance(targets, dict) and bool(known & targets.keys())


def with_table(document: Document, place: Path) -> tuple[dict[tuple[str, ...], dict[str, Any]], list[Problem]]:
    """The fields of each prompt that a document with a table describes, by the values of its given columns, and what is wrong with it.

    `place` is where the prompt's file lies.
    """
    named, data = document.data["targets"], document.data
    try:
        table = TargetTable.model_validate(named)
    except ValidationError as error:
        inside = Document(document.path, document.text, named)
        return {}, [_moved(document, problem, where) for problem, where in problems_of(inside, error, TargetTable)]
    if "%s" not in table.wrap:
        return {}, [document.problem(("targets", "wrap"), f"wrap {table.wrap!r} has no %s", "put %s in place of the target")]
    if data.get("weights"):
        return {}, [
            document.problem(
                ("weights",), "weights are given, but the targets come from a table", "use weight_column in targets instead"
            )
        ]
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    try:
        distributions = table.distributions(place)
        for key, distribution in distributions.items():
            given = dict(zip(table.given, key, strict=True))
            own = {name: _filled(data[name], given, name) for name in _WITH_PLACEHOLDERS if name in data}
            found[key] = {**data, **own, **_targets(table, distribution)}
    except InputError as error:
        return {}, [document.problem(("targets", "from"), _with_keys(str(error)))]
    first: dict[str, tuple[str, ...]] = {}
    for key, fields in found.items():
        other = first.setdefault(repr([fields.get(name) for name in _WITH_PLACEHOLDERS]), key)
        if other != key:
            column = next(name for name, one, two in zip(table.given, other, key, strict=True) if one != two)
            return {}, [
                document.problem(
                    ("request",),
                    f"{', '.join(other)} and {', '.join(key)} would have the same request",
                    f"put {{{column}}} into it",
                )
            ]
    notices = [line for distribution in distributions.values() for line in distribution.notice.splitlines()]
    return found, [
        document.problem(
            ("targets", "from"),
            _with_keys(line.removeprefix(WARNING)),
            severity="warning" if line.startswith(WARNING) else "notice",
        )
        for line in dict.fromkeys(notices)
        if not line.startswith(_ORDER)
    ]


_WITH_PLACEHOLDERS = ("request", "held_out_requests", "messages", "system")


def _filled(text: Any, given: dict[str, str], name: str) -> Any:
    """The texts of a field with their placeholders filled; without given columns as they are."""
    if isinstance(text, list):
        return [_filled(each, given, name) for each in text]
    if isinstance(text, dict):
        return {key: _filled(each, given, name) for key, each in text.items()}
    return filled(text, given, name) if isinstance(text, str) else text


def _targets(table: TargetTable, distribution: Distribution) -> dict[str, Any]:
    """The fields of a prompt that come from the table."""
    made: dict[str, Any] = {"targets": [table.wrap.replace("%s", outcome) for outcome in distribution.outcomes]}
    if distribution.weights is not None:
        made["weights"] = list(distribution.weights)
    if distribution.independent:
        made["independent"] = distribution.independent_fields
    if table.template is not None:
        made["template"] = within(table.template, table.wrap)
    return made


_ORDER = "targets in "
"""How the notice about the order begins, which is not needed for a prompt's file."""


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
        "given",
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
