"""The histogram of one sampler's answers: weights and shares of targets, limited to `top` targets, in a chosen order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from diffusecli.evaluation.evaluation import Evaluated
from diffusecli.evaluation.metrics import Cell
from diffusecli.evaluation.ordered import values_in
from diffusecli.report.parts import Flow, Sentence, bar, new_table, percent, tenths
from diffusecli.report.target_names import target_names
from diffusecli.report.widths import distinguishable, start_of
from diffusecli.system.errors import many
from diffusecli.system.terminal import spelled

Sort = Literal["weight", "residual", "target"]
_NARROWEST_NAME = 8
_MARK, _WANTED, _GAP = "│ ", "wanted", "⋮"
_NARROWEST_BAR, _WIDEST_BAR = 8, 60
_HEADING = 16  # columns that the heading of names may take if all names are shorter
FEW = 20  # valid answers, below which bars would show noise


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
        few = n < FEW
        narrowest = 0 if few else _NARROWEST_BAR
        figures = [
            (_WANTED, "right"),
            (f"of {n} valid" if few else "of valid", "right"),
            *([("count", "right"), ("expected", "right"), ("residual", "right")] if self.full else []),
        ]
        rows = [(percent(cell.weight), percent(cell.count / n), *(_counted(cell) if self.full else ())) for cell in shown]
        words = ["" if self.full or not cell.differs else "too often" if cell.residual > 0 else "too rarely" for cell in shown]
        places = {cell.target: place for place, cell in enumerate(self.row.cells)}
        heading, names = target_names(self.row.prompt)
        texts = [spelled(names[places[cell.target]]).replace("\n", "\\n") for cell in shown]
        longest = max(*map(cell_len, texts), min(cell_len(heading), _HEADING))  # a longer heading is cut
        widths = [max(len(head), *(len(row[place]) for row in rows)) + 2 for place, (head, _) in enumerate(figures)]
        others = 4 + sum(widths) + (max(map(len, words)) + 2 if any(words) else 0)
        beside = options.max_width - others  # columns for names and bars
        drawn = [(cell.count / n, cell.weight) for cell in shown]
        gaps = self._gaps([places[cell.target] for cell in shown])
        if self.full and beside - narrowest < longest:
            yield from _in_two_lines(heading, texts, gaps, figures, rows, drawn, options.max_width, narrowest)
        else:
            width = max(_NARROWEST_NAME, min(longest, beside - narrowest))
            room = 0 if few else max(1, min(_WIDEST_BAR, beside - width))
            sampler = spelled(self.sampler)
            if sampler and cell_len(sampler) > room - len(_MARK + _WANTED) - 2:
                yield Text(f"  {sampler}")
                sampler = ""
            above = Text("  ".join(filter(None, (sampler, _MARK + _WANTED if room >= len(_MARK + _WANTED) else ""))))
            table = new_table(
                Text(f"  {start_of(heading, width)}"), *figures, *([] if few else [above]), *([Text("")] if any(words) else [])
            )
            for gap, name, row, one, word in zip(gaps, distinguishable(texts, width), rows, _bars(drawn, room), words, strict=True):
                first = Text(f"{_GAP if gap else ' '} {name}")
                table.add_row(first, *row, *([] if few else [one]), *([Text(word, style="bold")] if any(words) else []))
            yield table
        if few:
            yield Sentence(f"no bars for fewer than {FEW} valid answers", indent=2)
        if folded:
            weight, count = sum(cell.weight for cell in folded), sum(cell.count for cell in folded)
            left_out = f" ({_GAP}: some are left out here)" if any(gaps) else ""
            kind = "first" if len({cell.weight for cell in [*shown, *folded]}) == 1 else "largest"
            chosen = "" if self.showing.sort else f"showing the {kind} and the worst-fitting targets{left_out}; "
            differ = sum(cell.differs for cell in folded)
            marked = (
                f", {differ} with *" if self.full else f"; {many(differ, 'differs', 'differ')} from the weight" if differ else ""
            )
            yield Sentence(
                f"{chosen}{many(len(folded), 'more target')} (`--top 0`): wanted {percent(weight)}, {figures[1][0]} {percent(count / n)}{marked}",
                indent=2,
            )

    def _gaps(self, places: Sequence[int]) -> Sequence[bool]:
        """Before which of these targets some are left out, if they are shown in the order of their values."""
        known = values_in(self.row.prompt.spellings) if self.showing.sort is None and len(places) < len(self.row.cells) else None
        if known is None or any(after <= before for before, after in pairwise(known[0])):
            return [False] * len(places)
        return [place != before + 1 for before, place in pairwise([-1, *places])]


def _in_two_lines(
    heading: str, texts: Sequence[str], gaps: Sequence[bool], figures: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]], drawn: Sequence[tuple[float, float]], most: int,
    narrowest: int,
) -> Iterator[RenderableType]:  # fmt: skip
    """Each target beside its bar, which may be left out, and below them its figures. If a target is too long for that, it has its own lines."""
    heads = [head for head, _ in figures]
    name = max(*map(cell_len, texts), min(cell_len(heading), _HEADING))
    heading = start_of(heading, name)
    beside = name <= most - 4 - narrowest
    room = 0 if not narrowest else min(_WIDEST_BAR, most - 4 - (name if beside else 0))
    columns = [(f"{_MARK if narrowest else ''}{heads[0]}", *(row[0] for row in rows))]
    columns += [(head, *column) for head, *column in zip(heads[1:], *(row[1:] for row in rows), strict=True)]
    widths = [max(map(len, column)) + 2 for column in columns]
    fits = 2 + sum(widths) <= most
    yield Text(
        f"  {heading}{'' if fits or not narrowest else ' ' * (name - cell_len(heading) + 2) + _MARK + _WANTED if beside else ''}",
        style="table.header",
    )
    if fits:
        yield Text("  " + "".join(map(str.rjust, next(zip(*columns, strict=True)), widths)), style="table.header")
    yield Text("─" * min(most, max(4 + name + room if beside else 4 + room, 2 + sum(widths) if fits else 0)))
    for text, gap, row, one in zip(texts, gaps, rows, _bars(drawn, room), strict=True):
        if beside:
            yield Text.assemble(f"{_GAP if gap else ' '} ", text, " " * (name - cell_len(text) + 2), one)
        else:
            yield Sentence(text, indent=2)
            yield from [Text.assemble("    ", one)] if room else []
        if fits:
            yield Text("  " + "".join(map(str.rjust, row, widths)))
        else:
            yield Flow([f"{head} {value.strip()}" for head, value in zip(heads, row, strict=True)], indent=4)


def _bars(drawn: Sequence[tuple[float, float]], room: int) -> list[Text]:
    """Bars of shares with marks at the weights, as wide as there is room for the largest."""
    top = max(*(max(both) for both in drawn), 1e-12)
    return [bar(share / top, "cyan", width=room, mark=weight / top) for share, weight in drawn]


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
