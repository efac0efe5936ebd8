"""Charts as standalone SVG pictures: the marks, values and colours of the HTML report, at places in pixels.

From top to bottom: title, legend, column heads, rows with label, plot and figures, axis, and how to read the chart. All texts are
measured by `text_widths.py`, because no font is known here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from diffusecli.report.line_charts import LineChart
from diffusecli.report.matrix_chart import MatrixChart
from diffusecli.report.palette import LIGHT
from diffusecli.report.row_charts import Row, RowChart
from diffusecli.report.scales import Tick
from diffusecli.report.templates import engine, source, with_values
from diffusecli.report.text_widths import BOLD, fitted, width, wrapped
from diffusecli.report.views import Sampler
from diffusecli.report.wording import mark_of, sentence

WIDTH = 760
"""Pixels of a picture; one with many groups of prompts is wider."""
_PAPER = {**LIGHT, "paper": "#ffffff"}
_MARGIN, _GAP = 18, 14
_TITLE, _TEXT, _SMALL = 15, 12, 11  # sizes of texts
_LINE = 16  # from one line of text to the next
_HEAD, _LABEL, _NAME = 72, 300, 190  # widest column head, label, name of a line or a prompt
_PLOT = 230  # narrowest plot
_CELL = 36  # height of a cell
_SIGN = 14  # room at the right of a figure for "≠"


@dataclass(frozen=True)
class Words:
    """A text at a place; `strong` is its bold end."""

    x: float
    y: float
    text: str
    kind: str = ""
    anchor: str = "start"
    strong: str = ""


@dataclass(frozen=True)
class Key:
    """A sign of a legend: "weight", "noise", "thin", "reference", or "shape"."""

    x: float
    y: float
    kind: str
    colour: str = ""
    shape: str = ""


@dataclass
class Sheet:
    """What is drawn where. `y` is where the next part begins."""

    wide: float = WIDTH
    y: float = _MARGIN
    words: list[Words] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    rules: list[tuple[float, float, float, float]] = field(default_factory=list)
    strips: list[tuple[float, float, Row]] = field(default_factory=list)
    cells: list[tuple[float, float, float, float, float]] = field(default_factory=list)  # the last is the shade

    def write(self, x: float, y: float, text: str, kind: str = "", anchor: str = "start", strong: str = "") -> None:
        """A text whose base line is at `y`."""
        self.words.append(Words(round(x, 1), round(y, 1), text, kind, anchor, strong))

    def paragraph(self, x: float, text: str, size: float, room: float, kind: str, scale: float = 1.0) -> None:
        """A text on as many lines as it needs."""
        for line in wrapped(text, size * scale, room):
            self.y += _LINE
            self.write(x, self.y - 4, line, kind)

    def block(self, x: float, y: float, lines: Sequence[str], kind: str = "", anchor: str = "start") -> None:
        """Lines around `y`."""
        for place, line in enumerate(lines):
            self.write(x, y + (place - (len(lines) - 1) / 2) * _LINE, line, kind, anchor)

    @property
    def room(self) -> float:
        """The width between the margins."""
        return self.wide - 2 * _MARGIN


def of_rows(chart: RowChart, about: str, note: str) -> str:
    """A chart of rows; `about` is a line below its title, `note` a sentence below how to read it."""
    sheet = Sheet()
    _top(sheet, chart.title, about)
    _legend(sheet, chart)
    columns = _columns(chart)
    longest = max((width(row.label, _TEXT) for row in chart.rows), default=0.0)
    judged = any(row.judged for row in chart.rows)
    label = _GAP + math.ceil(min(longest, _NAME if judged else _LABEL, max(0.0, sheet.room - sum(columns) - _PLOT)))
    left, wide = _MARGIN + label, sheet.room - label - sum(columns)
    edges = [left + wide + sum(columns[: place + 1]) for place in range(len(columns))]
    _heads(sheet, chart, edges)
    top = sheet.y
    labelled = [row for row in chart.rows if not row.outside]
    for row in _tall(labelled) if longest > label - _GAP and not judged else labelled:
        _row(sheet, row, label - _GAP, left, wide, edges)
    sheet.rules += [(left + tick.at * wide / 100, top, left + tick.at * wide / 100, sheet.y) for tick in chart.ticks]
    for row in chart.rows[len(labelled) :]:
        _outside(sheet, row, left, wide, edges)
    _axis(sheet, chart.ticks, chart.across, left, wide)
    return _finished(sheet, "rows", chart, chart.reading, note, x=_pixels(wide))


def of_lines(chart: LineChart, about: str, note: str) -> str:
    """A chart of lines, whose names are at their ends."""
    sheet = Sheet()
    _top(sheet, chart.title, about)
    values = max(width(curve.value, _TEXT * BOLD) for curve in chart.curves) + 8
    names = fitted([curve.name for curve in chart.curves], _TEXT, _NAME)
    left = _MARGIN + max(width(tick.label, _SMALL) for tick in chart.y) + 8
    wide = sheet.wide - _MARGIN - left - max(width(name, _TEXT) for name in names) - values - 34
    top = sheet.y = sheet.y + 14 + max(0.0, -min(curve.top for curve in chart.curves))
    for tick in chart.y:
        y = top + tick.at * chart.height / 100
        sheet.rules.append((left, y, left + wide, y))
        sheet.write(left - 8, y + 4, tick.label, "quiet small", "end")
    for curve, name in zip(chart.curves, names, strict=True):
        x, y = left + wide + 20, top + curve.top
        sheet.keys.append(Key(x, y, "shape" if curve.shape else "reference", curve.colour, curve.shape))
        sheet.write(x + 10, y + 4, f"{name} ", strong=curve.value)
    sheet.y = top + chart.height
    _axis(sheet, chart.x, chart.across, left, wide)
    return _finished(sheet, "lines", chart, chart.reading, note, left=left, top=top, wide=wide,
                     x=_pixels(wide), y=_pixels(chart.height))  # fmt: skip


def of_cells(chart: MatrixChart, note: str) -> str:
    """Runs by groups of prompts; a picture of many groups is wider than others."""
    runs = fitted([run for run, _ in chart.rows], _TEXT, _NAME)
    label = max(width(run, _TEXT) for run in runs) + _GAP
    each = max(76.0, min(150.0, (WIDTH - 2 * _MARGIN - label) / len(chart.groups)))
    sheet = Sheet(max(WIDTH, 2 * _MARGIN + label + each * len(chart.groups)))
    _top(sheet, chart.title, "")
    left = _MARGIN + label
    heads = [wrapped(group, _TEXT, each - 8, most=3) for group in chart.groups]
    sheet.y += 8 + _LINE * max(map(len, heads))
    for place, lines in enumerate(heads):
        for up, line in enumerate(reversed(lines)):
            sheet.write(left + each * (place + 0.5), sheet.y - 6 - up * _LINE, line, "quiet", "middle")
    for run, (_, cells) in zip(runs, chart.rows, strict=True):
        sheet.write(left - _GAP, sheet.y + _CELL / 2 + 4, run, "", "end")
        for place, cell in enumerate(cells):
            x = left + each * place
            sheet.cells.append((x + 1, sheet.y + 1, each - 2, _CELL - 2, cell.shade / 100))
            sheet.write(x + each / 2, sheet.y + _CELL / 2 + (0 if cell.trained else 4), cell.text, "", "middle")
            if cell.trained:
                sheet.write(x + each / 2, sheet.y + _CELL / 2 + 13, "trained on", "tiny", "middle")
        sheet.y += _CELL
    return _finished(sheet, "cells", chart, "Darker: larger.", note)


def _top(sheet: Sheet, title: str, about: str) -> None:
    sheet.paragraph(_MARGIN, title, _TITLE, sheet.room, "title", BOLD)
    if about:
        sheet.paragraph(_MARGIN, about, _TEXT, sheet.room, "quiet")
    sheet.y += 8


def _legend(sheet: Sheet, chart: RowChart) -> None:
    """Its entries, on as many lines as they need."""
    entries: list[tuple[str, Sampler | None, str]] = [("weight", None, "target weight")] if chart.kind == "distribution" else []
    entries += [("noise", None, chart.noise)] if chart.noise else []
    entries += [("thin" if sampler in chart.thin else "shape", sampler, sampler.label) for sampler in chart.samplers]
    x, y = float(_MARGIN), sheet.y + 12
    for kind, sampler, text in entries:
        (name,) = fitted([text], _TEXT, sheet.room - 22)
        wide = 22 + width(name, _TEXT)
        if x > _MARGIN and x + wide > sheet.wide - _MARGIN:
            x, y = float(_MARGIN), y + _LINE + 2
        sheet.keys.append(_key(x + 8, y - 4, kind, sampler))
        sheet.write(x + 22, y, name)
        x += wide + 20
    sheet.y = y + 6 if entries else sheet.y


def _key(x: float, y: float, kind: str, sampler: Sampler | None) -> Key:
    return Key(x, y, kind, sampler.colour, sampler.shape) if sampler is not None else Key(x, y, kind)


def _columns(chart: RowChart) -> list[float]:
    """The widths of the columns of figures: of the widest figure, or line of its head with the sampler's sign."""
    found = []
    for place, head in enumerate(chart.heads):
        sign = 16 if head.sampler is not None else 0
        heads = [width(line, _TEXT) + sign for line in wrapped(head.name, _TEXT, _HEAD, most=3)]
        figures = [width(row.figures[place], _TEXT) for row in chart.rows if len(row.figures) > place]
        found.append(max([*heads, *figures], default=0.0) + _SIGN + 4)
    return found


def _heads(sheet: Sheet, chart: RowChart, edges: Sequence[float]) -> None:
    """Names of the columns, their last lines side by side."""
    lines = [wrapped(head.name, _TEXT, _HEAD, most=3) for head in chart.heads]
    sheet.y += 6 + _LINE * max(map(len, lines), default=0)
    for head, some, edge in zip(chart.heads, lines, edges, strict=True):
        for up, line in enumerate(reversed(some)):
            sheet.write(edge - _SIGN, sheet.y - 4 - up * _LINE, line, "quiet", "end")
        if head.sampler is not None:
            kind = "thin" if head.sampler in chart.thin else "shape"
            x = edge - _SIGN - max(width(line, _TEXT) for line in some) - 6
            sheet.keys.append(_key(x, sheet.y - 8 - (len(some) - 1) * _LINE, kind, head.sampler))
    sheet.y += 4


def _tall(rows: Sequence[Row]) -> list[Row]:
    """Rows with room for labels of two lines."""
    tall = max(2 * _LINE + 2, *(row.height for row in rows))
    return [
        replace(row, height=tall, marks=tuple(replace(mark, y=mark.y * tall / row.height) for mark in row.marks)) for row in rows
    ]


def _row(sheet: Sheet, row: Row, room: float, left: float, wide: float, edges: Sequence[float]) -> None:
    """Label, plot and figures; a verdict is above its plot."""
    if row.judged is None:
        base = sheet.y + row.height / 2 + 4
        label = wrapped(row.label, _TEXT, room, max(1, row.height // _LINE))
        sheet.block(left - _GAP, base, label, "strong" if row.split else "", "end")
    else:
        sampler, verdict = row.judged
        base, label, (sign, kind) = sheet.y + _LINE - 4, wrapped(row.label, _TEXT, room, 2), mark_of(verdict)
        sheet.block(left - _GAP, base + (len(label) - 1) * _LINE / 2, label, "", "end")
        sheet.paragraph(left, f"{sign}\u00a0{sampler}: {sentence(verdict)}", _TEXT, wide, kind)
    _figures(sheet, row, base, edges)
    sheet.strips.append((round(left, 1), sheet.y, row))
    sheet.y += row.height + (8 if row.judged else 0)


def _outside(sheet: Sheet, row: Row, left: float, wide: float, edges: Sequence[float]) -> None:
    """Figures of answers that are no target, with what they are in place of a plot."""
    lines = wrapped(row.outside, _TEXT, wide - 12)
    sheet.rules.append((_MARGIN, sheet.y + 1, sheet.wide - _MARGIN, sheet.y + 1))
    height = _LINE * len(lines) + 8
    base = sheet.y + height / 2 + 4
    sheet.block(left - _GAP, base, [row.label], "", "end")
    sheet.block(left + 8, base, lines, "quiet")
    _figures(sheet, row, base, edges)
    sheet.y += height


def _figures(sheet: Sheet, row: Row, base: float, edges: Sequence[float]) -> None:
    for place, (edge, figure) in enumerate(zip(edges, row.figures, strict=False)):
        sheet.write(edge - _SIGN, base, figure, "", "end")
        if row.apart and row.apart[place]:
            sheet.write(edge - _SIGN + 3, base, "≠", "strong")


def _axis(sheet: Sheet, ticks: Sequence[Tick], across: str, left: float, wide: float) -> None:
    """Values below the plot, as many as have room, and the title of the axis."""
    widest = max((width(tick.label, _SMALL) for tick in ticks), default=0.0) + 8
    apart = min((b.at - a.at for a, b in pairwise(ticks)), default=100.0) * wide / 100
    every = next(n for n in range(1, len(ticks) + 2) if n * apart >= widest or n > len(ticks))
    for tick in ticks[::every]:
        sheet.write(left + tick.at * wide / 100, sheet.y + 15, tick.label, "quiet small", "middle")
    sheet.y += 20
    if across:
        (title,) = fitted([across], _SMALL, sheet.room)
        half = width(title, _SMALL) / 2
        middle = min(max(left + wide / 2, _MARGIN + half), sheet.wide - _MARGIN - half)
        sheet.write(middle, sheet.y + 12, title, "quiet small", "middle")
        sheet.y += 18


def _finished(sheet: Sheet, form: str, chart: RowChart | LineChart | MatrixChart, reading: str, note: str, **more: object) -> str:
    """The picture, with how to read it and the note at its end."""
    sheet.y += 8
    for text in filter(None, (reading, note)):
        sheet.paragraph(_MARGIN, text, _SMALL, sheet.room, "quiet small")
    css = with_values(source("marks.css"), _PAPER)
    template = engine(_PAPER.__getitem__).get_template("picture.svg.j2")
    height = round(sheet.y + _MARGIN - 4)
    return template.render(
        sheet=sheet, chart=chart, form=form, height=height, css=css, description=f"{chart.description} {note}".strip(), **more
    )


def _pixels(size: float) -> Callable[[float], float]:
    return lambda percent: round(percent * size / 100, 1)
