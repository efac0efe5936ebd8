"""The figures of runs by groups of prompts, as shaded cells."""

from __future__ import annotations

import math
from dataclasses import dataclass

from diffusecli.evaluation.evaluation import Matrix
from diffusecli.evaluation.names import short_names
from diffusecli.report.numbers import known, number
from diffusecli.report.views import distinct

_SHADE = 60  # percent of the largest value's cell
_MOST_DESCRIBED = 60  # cells that a description has room for


@dataclass(frozen=True)
class Shaded:
    """A figure and its shade in percent."""

    text: str
    shade: float
    trained: bool  # whether the run was trained on the group


@dataclass(frozen=True)
class MatrixChart:
    """A row of cells for each run."""

    kind: str
    title: str
    description: str
    groups: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Shaded, ...]], ...]


def of_matrix(found: Matrix) -> MatrixChart:
    """Cells in the order of the runs and groups."""
    names = short_names(found.runs)
    runs, groups = distinct([names[run] for run in found.runs], 60), tuple(distinct(found.groups, 40))
    top = max((some for values in found.values for some in values if known(some) is not None), default=0.0)
    rows = tuple(
        (run, tuple(Shaded(number(value), _shade(value, top), own) for value, own in zip(values, trained, strict=True)))
        for run, values, trained in zip(runs, found.values, found.trained, strict=True)
    )
    cells = [f"{run} on {group}: {cell.text}" for run, some in rows for group, cell in zip(groups, some, strict=True)]
    return MatrixChart("matrix", found.measure, f"{found.measure}. {'; '.join(cells[:_MOST_DESCRIBED])}.", groups, rows)


def _shade(value: float, top: float) -> float:
    return round(_SHADE * max(0.0, value) / top) if math.isfinite(value) and top > 0 else 0
