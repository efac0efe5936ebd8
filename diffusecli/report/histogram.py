"""The histogram of one sampler's answers: weights and shares of targets, limited to `top` targets, in a chosen order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.text import Text

from diffusecli.evaluation.evaluation import Evaluated
from diffusecli.evaluation.metrics import Cell
from diffusecli.report.parts import Sentence, bar, new_table, percent, tenths
from diffusecli.report.widths import middle
from diffusecli.system.errors import many
from diffusecli.system.terminal import spelled

Sort = Literal["weight", "residual", "target"]
_NARROWEST_NAME = 8
_WANTED, _SHARE = "│ wanted", "of valid"
_NARROWEST_BAR, _WIDEST_BAR = 8, 60
_SHARES = 2  # the figures that are always shown


@dataclass(frozen=True)
class Showing:
    """How many targets of a histogram are shown, and in which order."""

    top: int = 24  # 0: every target
    sort: Sort | None = None  # None: the prompt's order; of large sets the largest and the worst-fitting targets


class Histogram:
    """Targets, their weights and the shares of one sampler, with bars as wide as there is room for, and a line about targets not shown."""

    def __init__(self, row: Evaluated, showing: Showing, sampler: str = "", *, full: bool = False) -> None:
        """`full`: with counts, expected counts and residuals."""
        self.row, self.showing, self.sampler, self.full = row, showing, sampler, full

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown, folded = shown_cells(self.row.cells, self.showing)
        n = self.row.tally.on_target
        figures = [
            ("wanted", "right"),
            (_SHARE, "right"),
            *([("count", "right"), ("expected", "right"), ("residual", "right")] if self.full else []),
        ]
        rows = [(percent(cell.weight), percent(cell.count / n), *(_counted(cell) if self.full else ())) for cell in shown]
        words = ["" if self.full or not cell.differs else "too often" if cell.residual > 0 else "too rarely" for cell in shown]
        texts = [spelled(cell.target).replace("\n", "\\n") for cell in shown]
        longest = max(map(cell_len, [*texts, "target"]))
        widths = [max(len(head), *(len(row[place]) for row in rows)) + 2 for place, (head, _) in enumerate(figures)]
        others = 4 + sum(widths) + (max(map(len, words)) + 2 if any(words) else 0)
        beside = options.max_width - others  # columns for names and bars
        least = min(longest, options.max_width - 4 - sum(widths[:_SHARES]) - _NARROWEST_BAR)  # of a name: as wide as without counts
        above = self.full and beside < least  # each name on a line of its own, because figures would cut it
        bars = beside - _NARROWEST_BAR >= (_NARROWEST_NAME if above else least) or not self.full
        width = _NARROWEST_NAME if above else max(_NARROWEST_NAME, min(longest, beside - (_NARROWEST_BAR if bars else 0)))
        room = max(1, min(_WIDEST_BAR, beside - width)) if bars else 0
        top = max(*(max(cell.weight, cell.count / n) for cell in shown), 1e-12)
        sampler = spelled(self.sampler)
        if sampler and cell_len(sampler) > room - len(_WANTED) - 2:
            yield Text(f"  {sampler}")
            sampler = ""
        heading = [Text("  ".join(filter(None, (sampler, _WANTED if room >= len(_WANTED) else ""))))] if bars else []
        table = new_table(Text("  target"), *figures, *heading, *([Text("")] if any(words) else []))
        names = middle(texts, options.max_width - 2 if above else width)
        apart = above and beside >= _NARROWEST_NAME  # if even the figures do not fit, the table puts names above them itself
        for name, row, cell, word in zip(names, rows, shown, words, strict=True):
            drawn = [bar(cell.count / n / top, "cyan", width=room, mark=cell.weight / top)] if bars else []
            after = [Text(word, style="bold")] if any(words) else []
            table.add_row(Text("" if apart else f"  {name}"), *row, *drawn, *after)
        if apart:
            lines = console.render_lines(table, options, pad=False)
            for place, line in enumerate(lines):
                if place >= len(lines) - len(names):
                    yield Text(f"  {names[place - len(lines) + len(names)]}")
                yield from (*line, Segment.line())
        else:
            yield table
        if folded:
            weight, count = sum(cell.weight for cell in folded), sum(cell.count for cell in folded)
            chosen = "" if self.showing.sort else "showing the largest and the worst-fitting targets; "
            marked = f", {sum(cell.differs for cell in folded)} with *" if self.full else ""
            yield Sentence(
                f"{chosen}{many(len(folded), 'more target')}: wanted {percent(weight)}, {_SHARE} {percent(count / n)}{marked}",
                indent=2,
            )


def _counted(cell: Cell) -> tuple[str, str, str]:
    return str(cell.count), tenths(cell.expected), f"{_residual(cell.residual)}{'*' if cell.differs else ' '}"


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
