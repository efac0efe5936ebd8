"""The histogram of one sampler's answers: weights and shares of targets, limited to `top` targets, in a chosen order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from diffusecli.evaluation.evaluation import Evaluated
from diffusecli.evaluation.metrics import Cell
from diffusecli.report.parts import bar, labels, new_table, percent
from diffusecli.system.errors import many

Sort = Literal["weight", "residual", "target"]
_NARROWEST_NAME, _FIGURES = 14, 66  # columns of a name at least, and of the figures beside it


@dataclass(frozen=True)
class Showing:
    """How many targets of a histogram are shown, and in which order."""

    top: int = 24  # 0: every target
    sort: Sort | None = None  # None: the prompt's order; of large sets the largest and the worst-fitting targets


class Histogram:
    """The table of targets, and one line about the targets not shown. Names are as wide as the terminal allows."""

    def __init__(self, row: Evaluated, showing: Showing) -> None:
        self.row, self.showing = row, showing

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown, folded = shown_cells(self.row.cells, self.showing)
        n = self.row.tally.n
        top = max(*(max(cell.weight, cell.count / n) for cell in shown), 1e-12)
        table = new_table(
            Text("target"), ("weight", "right"), Text(""), ("of all", "right"), Text(""), ("count", "right"), ("expected", "right"),
            ("residual", "right"),
        )  # fmt: skip
        names = labels([cell.target for cell in shown], max(_NARROWEST_NAME, options.max_width - _FIGURES))
        for name, cell in zip(names, shown, strict=True):
            table.add_row(
                name, percent(cell.weight), bar(cell.weight / top, width=10), percent(cell.count / n),
                bar(cell.count / n / top, "cyan", width=10), str(cell.count), f"{cell.expected:.1f}",
                Text(f"{_residual(cell.residual)}{'*' if cell.differs else ' '}", style="bold" if cell.differs else ""),
            )  # fmt: skip
        yield table
        if folded:
            weight, count = sum(cell.weight for cell in folded), sum(cell.count for cell in folded)
            marked = sum(cell.differs for cell in folded)
            what = "" if self.showing.sort else "showing the largest and the worst-fitting targets; "
            yield Text(
                f"({what}{many(len(folded), 'more target')}: weight {percent(weight)}, of all {percent(count / n)}, {marked} with *)"
            )


def shown_cells(cells: Sequence[Cell], showing: Showing) -> tuple[list[Cell], list[Cell]]:
    """The cells of a histogram in order, and the cells not shown."""
    keys = {"weight": lambda i: -cells[i].weight, "residual": lambda i: -abs(cells[i].residual), "target": lambda i: i}
    most = showing.top or len(cells)
    if showing.sort is not None:
        ranked = sorted(range(len(cells)), key=keys[showing.sort])
    else:
        heaviest, worst = (sorted(range(len(cells)), key=keys[name]) for name in ("weight", "residual"))
        mixed = dict.fromkeys(i for pair in zip(heaviest, worst, strict=True) for i in pair)
        ranked = sorted(list(mixed)[:most]) + list(mixed)[most:]
    return [cells[i] for i in ranked[:most]], [cells[i] for i in ranked[most:]]


def _residual(value: float) -> str:
    return f"{value:+z.1f}" if abs(value) < 1000 or math.isinf(value) else f"{value:+.0e}"
