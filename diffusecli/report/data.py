"""An evaluation as machine-readable data: one JSON document with a fixed schema, or one CSV row per sampler and prompt.

The dataclasses below define the schema, and `schemas/evaluation.schema.json` is generated from them. A figure that cannot
be computed is null (JSON) or empty (CSV).
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from pydantic import TypeAdapter

from diffusecli import __version__
from diffusecli.evaluation.bounds import BoundedFigures
from diffusecli.evaluation.comparison import Estimate
from diffusecli.evaluation.evaluation import Evaluated, Evaluation, Matrix
from diffusecli.evaluation.groups import Group, groups
from diffusecli.evaluation.metrics import Cell, ExactFigures, Figures, Worded  # noqa: F401 (its comments become descriptions of the schema)
from diffusecli.evaluation.open_ended import Diversity, Line, Outcome
from diffusecli.evaluation.ordered import Ordered
from diffusecli.evaluation.records import FieldFigures, FurthestValue, PairFigures, RecordFigures  # noqa: F401 (likewise)
from diffusecli.evaluation.sdmetrics_score import Quality  # noqa: F401 (likewise)
from diffusecli.files.spreadsheets import as_cell

_MOST_TEXTS = 20


@dataclass(frozen=True)
class Sampler:
    """The sampler: a run and a mode."""

    run: str  # folder or file
    mode: str  # untuned, lora, served, or the name of a file


@dataclass(frozen=True)
class Row:
    """One prompt, one sampler."""

    run: str  # folder or file
    mode: str  # untuned, lora, served, or the name of a file
    prompt: str  # its path
    request: str  # what was asked; of several wordings the first
    requests: tuple[str, ...]  # every wording that was asked
    prompt_sha256: str  # of everything that defines the prompt
    eos: bool  # a valid answer ends with its target; false: it begins with it
    n: int  # samples
    settings: dict[str, Any]  # as sampled; empty when unknown
    examples: bool  # the targets are only examples of what is wanted
    verdict: str  # a phrase for a person; its wording may change
    figures: Figures | None  # null without targets or samples
    targets: tuple[Cell, ...]  # in the prompt's order
    off_target_distinct: int  # different texts off target
    off_target: tuple[Outcome, ...]  # the 20 commonest of them, all finished
    unfinished: int  # of the samples, cut at the limit of tokens and no target
    unfinished_top: tuple[Outcome, ...]  # the 20 commonest of their texts
    ordered: Ordered | None  # where targets are numbers or dates
    diversity: Diversity | None  # where targets are none, or examples
    lines: tuple[Line, ...]  # the same by line, for answers of several lines
    exact: ExactFigures | None  # of the model sampled, where known
    records: RecordFigures | None  # where answers are records of several fields
    bounds: BoundedFigures | None  # limits of the exact figures, where a server does not return enough for these


@dataclass(frozen=True)
class Difference:
    """`after` minus `before`, the same prompt; intervals are 95 % bootstrap."""

    prompt: str  # its path
    prompt_sha256: str  # of everything that defines the prompt
    before: Sampler  # untuned, or the first run
    after: Sampler  # tuned, or another run
    excess_tvd: Estimate  # after - before
    entropy: Estimate  # nats
    exact_kl: float  # nats


@dataclass(frozen=True)
class Document:
    """Everything. `version` changes when a field goes or changes its meaning."""

    version: Literal[1]  # of this shape
    diffuse: str  # version of the program
    matching: str  # exact, strip, casefold or regex:…
    seed: int  # of Monte Carlo and bootstrap
    rows: tuple[Row, ...]  # one per prompt and sampler
    differences: tuple[Difference, ...]  # of samplers of the same prompt
    matrices: tuple[Matrix, ...]  # trained on x measured on
    groups: tuple[Group, ...]  # prompts by folder and sampler, each split before its families
    at_n: int  # draws of the excess TVD of exact figures
    retention_kl: dict[str, float]  # run -> drift on held-out instructions, nats per token


def document(found: Evaluation) -> Document:
    """The evaluation in the documented schema."""
    return Document(
        1, __version__, found.matching.rule, found.seed, tuple(map(_row, found.rows)),
        tuple(Difference(d.prompt.alias, d.prompt.digest, Sampler(d.before.run, d.before.mode), Sampler(d.after.run, d.after.mode),
                         d.excess_tvd, d.entropy, d.exact_kl) for d in found.differences),
        found.matrices, tuple(group for _, some in groups(found.rows) for group in some), found.at_n, dict(found.drift),
    )  # fmt: skip


def as_json(found: Evaluation) -> str:
    """Indented JSON."""
    return json.dumps(_finite(asdict(document(found))), indent=2, ensure_ascii=False, allow_nan=False)


def as_csv(found: Evaluation) -> str:
    """A header and one row per sampler and prompt; no cell is a formula."""
    file = io.StringIO()
    lines = [{name: _cell(value) for name, value in line.items()} for line in flat_rows(document(found))]
    writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def flat_rows(shown: Document) -> list[dict[str, Any]]:
    """Each row's figures by CSV column; None if a figure cannot be computed or does not apply to the prompt."""
    return [{**_flat(row), "matching": shown.matching, "monte_carlo_seed": shown.seed} for row in shown.rows]


def json_schema() -> dict[str, Any]:
    """JSON Schema of `as_json`."""
    schema: dict[str, Any] = _nullable(TypeAdapter(Document).json_schema())
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "What diffuse evaluate --json prints", **schema}


def _row(row: Evaluated) -> Row:
    off, cut = row.tally.off_target, row.tally.unfinished
    return Row(
        row.run, row.mode, row.prompt.alias, row.prompt.question, row.prompt.requests or (row.prompt.question,), row.prompt.digest, row.prompt.eos, row.tally.n, dict(row.settings), row.examples,
        row.verdict, row.figures, row.cells, len(off), tuple(Outcome(text, count) for text, count in off.most_common(_MOST_TEXTS)),
        cut.total(), tuple(Outcome(text, count, count) for text, count in cut.most_common(_MOST_TEXTS)), row.ordered, row.diversity, row.lines, row.exact, row.records, row.bounds,
    )  # fmt: skip


def _flat(row: Row) -> dict[str, Any]:
    """All figures in one flat row; `exact.kl` becomes `exact_kl`."""
    line: dict[str, Any] = {"run": row.run, "mode": row.mode, "prompt": row.prompt, "prompt_sha256": row.prompt_sha256, "eos": row.eos, "n": row.n,
                            "unfinished": row.unfinished, "verdict": row.verdict, "settings": json.dumps(row.settings)}  # fmt: skip
    for kind, prefix, values in _kinds(row):
        for field in fields(kind):
            if field.name not in ("top", "q", "q_high", "n", "unfinished", "wordings"):
                line[prefix + field.name] = getattr(values, field.name, None)
    return line


def _kinds(row: Row) -> Iterator[tuple[Any, str, Any]]:
    yield from ((Figures, "", row.figures), (ExactFigures, "exact_", row.exact), (Ordered, "ordered_", row.ordered))
    yield from ((Diversity, "open_", row.diversity), (BoundedFigures, "bound_", row.bounds))


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return as_cell(value)
    return "" if value is None or (isinstance(value, float) and not math.isfinite(value)) else value


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _nullable(schema: Any) -> Any:
    """Allow null for every number; forbid additional properties."""
    if isinstance(schema, list):
        return [_nullable(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _nullable(inner) for key, inner in schema.items()}
    if found.get("type") == "number":
        found["type"] = ["number", "null"]
    if found.get("type") == "object" and "properties" in found:
        found["additionalProperties"] = False
    return found
