"""Charts as standalone SVG pictures: the marks, values and colours of the HTML report, at places in pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from diffusecli.report.line_charts import LineChart
from diffusecli.report.matrix_chart import MatrixChart
from diffusecli.report.row_charts import Row, RowChart
from diffusecli.report.sheet import GAP, LINE, MARGIN, SMALL, TEXT, WIDTH, Key, Sheet
from diffusecli.report.text_widths import BOLD, fitted, width, wrapped
from diffusecli.report.views import Sampler
from diffusecli.report.wording import mark_of, sentence

_HEAD, _LABEL, _NAME = 72, 300, 190  # widest column head, label, name of a line or a prompt
_PLOT = 230  # narrowest plot
_CELL = 36  # height of a cell
_SIGN = 14  # room at the right of a figure for "*"
_PERFECT = "A perfect sampler draws independently from the weights."


@dataclass(frozen=True)
class Columns:
    """Where the plot of a chart of rows is, and the right edges of its figures."""

    left: float
    wide: float
    edges: tuple[float, ...]

    @property
    def label(self) -> float:
        """The width of labels."""
        return self.left - GAP - MARGIN


def of_rows(chart: RowChart, about: str, note: str) -> str:
    """A chart of rows; `about` is a line below its title, `note` a sentence below how to read it."""
    sheet = Sheet()
    sheet.top(chart.title, about)
    _legend(sheet, chart)
    columns = _columns(sheet, chart)
    _heads(sheet, chart, columns)
    top, rows = sheet.y, [row for row in chart.rows if not row.outside]
    for row in _tall(rows, columns):
        _row(sheet, row, columns)
    sheet.rules += [(x, top, x, sheet.y) for tick in chart.ticks for x in [columns.left + tick.at * columns.wide / 100]]
    for row in chart.rows[len(rows) :]:
        _outside(sheet, row, columns)
    sheet.axis(chart.ticks, chart.across, columns.left, columns.wide)
    perfect = _PERFECT if chart.noise else ""
    return sheet.finished(
        "rows", chart, " ".join(filter(None, (chart.note, chart.reading, perfect))), note, x=_pixels(columns.wide)
    )


def of_lines(chart: LineChart, about: str, note: str) -> str:
    """A chart of lines, whose names are at their ends."""
    sheet = Sheet()
    sheet.top(chart.title, about)
    values = max(width(curve.value, TEXT * BOLD) for curve in chart.curves) + 8
    names = fitted([curve.name for curve in chart.curves], TEXT, _NAME)
    left = MARGIN + max(width(tick.label, SMALL) for tick in chart.y) + 8
    wide = sheet.wide - MARGIN - left - max(width(name, TEXT) for name in names) - values - 34
    top = sheet.y = sheet.y + 14
    for tick in chart.y:
        y = top + tick.at * chart.height / 100
        sheet.rules.append((left, y, left + wide, y))
        sheet.write(left - 8, y + 4, tick.label, "quiet small", "end")
    for curve, name in zip(chart.curves, names, strict=True):
        x, y = left + wide + 20, top + curve.top
        sheet.keys.append(Key(x, y, "shape" if curve.shape else "reference", curve.colour, curve.shape))
        sheet.write(x + 10, y + 4, f"{name} ", strong=curve.value)
    sheet.y = top + chart.height
    sheet.axis(chart.x, chart.across, left, wide)
    return sheet.finished("lines", chart, chart.reading, note, left=left, top=top, wide=wide,
                     x=_pixels(wide), y=_pixels(chart.height))  # fmt: skip


def of_cells(chart: MatrixChart, note: str) -> str:
    """Runs by groups of prompts; a picture of many groups is wider than others."""
    runs = fitted([run for run, _ in chart.rows], TEXT, _NAME)
    label = max(width(run, TEXT) for run in runs) + GAP
    each = max(76.0, min(150.0, (WIDTH - 2 * MARGIN - label) / len(chart.groups)))
    sheet = Sheet(max(WIDTH, 2 * MARGIN + label + each * len(chart.groups)))
    sheet.top(chart.title, "")
    left = MARGIN + label
    heads = [wrapped(group, TEXT, each - 8, most=3) for group in chart.groups]
    sheet.y += 8 + LINE * max(map(len, heads))
    for place, lines in enumerate(heads):
        for up, line in enumerate(reversed(lines)):
            sheet.write(left + each * (place + 0.5), sheet.y - 6 - up * LINE, line, "quiet", "middle")
    for run, (_, cells) in zip(runs, chart.rows, strict=True):
        sheet.write(left - GAP, sheet.y + _CELL / 2 + 4, run, "", "end")
        for place, cell in enumerate(cells):
            x = left + each * place
            sheet.cells.append((x + 1, sheet.y + 1, each - 2, _CELL - 2, cell.shade / 100))
            sheet.write(x + each / 2, sheet.y + _CELL / 2 + (0 if cell.trained else 4), cell.text, "", "middle")
            if cell.trained:
                sheet.write(x + each / 2, sheet.y + _CELL / 2 + 13, "trained on", "tiny", "middle")
        sheet.y += _CELL
    return sheet.finished("cells", chart, "Darker: larger.", note)


def _legend(sheet: Sheet, chart: RowChart) -> None:
    """Its entries, on as many lines as they need."""
    entries = [(Key(0, 0, "weight"), "target weight")] if chart.kind == "distribution" else []
    entries += [(Key(0, 0, "noise"), chart.noise)] if chart.noise else []
    entries += [(_key(0, 0, "thin" if sampler in chart.thin else "shape", sampler), sampler.label) for sampler in chart.samplers]
    entries += [(Key(0, 0, kind, "ink", chart.point), text) for kind, text in chart.points]
    x, y = float(MARGIN), sheet.y + 12
    for key, text in entries:
        (name,) = fitted([text], TEXT, sheet.room - 22)
        wide = 22 + width(name, TEXT)
        if x > MARGIN and x + wide > sheet.wide - MARGIN:
            x, y = float(MARGIN), y + LINE + 2
        sheet.keys.append(replace(key, x=x + 8, y=y - 4))
        sheet.write(x + 22, y, name)
        x += wide + 20
    sheet.y = y + 6 if entries else sheet.y


def _key(x: float, y: float, kind: str, sampler: Sampler) -> Key:
    return Key(x, y, kind, sampler.colour, sampler.shape)


def _columns(sheet: Sheet, chart: RowChart) -> Columns:
    """Figures as wide as they need, labels as wide as there is room for, and the plot between them."""
    figures = [_column(chart, place) for place in range(len(chart.heads))]
    longest = max((width(row.label, TEXT) for row in chart.rows), default=0.0)
    most = _NAME if any(row.judged for row in chart.rows) else _LABEL
    label = GAP + math.ceil(min(longest, most, max(0.0, sheet.room - sum(figures) - _PLOT)))
    right = sheet.wide - MARGIN - sum(figures)
    return Columns(
        MARGIN + label, right - MARGIN - label, tuple(right + sum(figures[: place + 1]) for place in range(len(figures)))
    )


def _column(chart: RowChart, place: int) -> float:
    """The width of its widest figure, or line of its head with the sampler's sign."""
    sign = 16 if chart.heads[place].sampler is not None else 0
    heads = [width(line, TEXT) + sign for line in wrapped(chart.heads[place].name, TEXT, _HEAD, most=3)]
    figures = [width(row.figures[place], TEXT) for row in chart.rows if len(row.figures) > place]
    return max([*heads, *figures], default=0.0) + _SIGN + 4


def _heads(sheet: Sheet, chart: RowChart, columns: Columns) -> None:
    """Names of the columns, their last lines side by side."""
    lines = [wrapped(head.name, TEXT, _HEAD, most=3) for head in chart.heads]
    sheet.y += 6 + LINE * max(map(len, lines), default=0)
    for head, some, edge in zip(chart.heads, lines, columns.edges, strict=True):
        for up, line in enumerate(reversed(some)):
            sheet.write(edge - _SIGN, sheet.y - 4 - up * LINE, line, "quiet", "end")
        if head.sampler is not None:
            kind = "thin" if head.sampler in chart.thin and head.sampler in chart.samplers else "shape"
            x = edge - _SIGN - max(width(line, TEXT) for line in some) - 6
            sheet.keys.append(_key(x, sheet.y - 8 - (len(some) - 1) * LINE, kind, head.sampler))
    sheet.y += 4


def _tall(rows: Sequence[Row], columns: Columns) -> Sequence[Row]:
    """The rows, with room for labels of two lines if one needs them."""
    if all(row.judged or width(row.label, TEXT) <= columns.label for row in rows):
        return rows
    tall = max(2 * LINE + 2, *(row.height for row in rows))
    marks = [tuple(replace(mark, y=mark.y * tall / row.height) for mark in row.marks) for row in rows]
    return [replace(row, height=tall, marks=some) for row, some in zip(rows, marks, strict=True)]


def _row(sheet: Sheet, row: Row, columns: Columns) -> None:
    """Label, plot and figures; a verdict is above its plot."""
    if row.judged is None:
        base = sheet.y + row.height / 2 + 4
        label = wrapped(row.label, TEXT, columns.label, max(1, row.height // LINE))
        sheet.block(columns.left - GAP, base, label, "strong" if row.split else "", "end")
    else:
        sampler, verdict = row.judged
        base, label, (sign, kind) = sheet.y + LINE - 4, wrapped(row.label, TEXT, columns.label, 2), mark_of(verdict)
        sheet.block(columns.left - GAP, base + (len(label) - 1) * LINE / 2, label, "", "end")
        sheet.paragraph(columns.left, f"{sign}\u00a0{sampler}: {sentence(verdict)}", TEXT, columns.wide, kind)
    _figures(sheet, row, base, columns)
    sheet.strips.append((round(columns.left, 1), sheet.y, row))
    sheet.y += row.height + (8 if row.judged else 0)


def _outside(sheet: Sheet, row: Row, columns: Columns) -> None:
    """Figures of answers that are no target, with what they are in place of a plot."""
    lines = wrapped(row.outside, TEXT, columns.wide - 12)
    sheet.rules.append((MARGIN, sheet.y + 1, sheet.wide - MARGIN, sheet.y + 1))
    height = LINE * len(lines) + 8
    base = sheet.y + height / 2 + 4
    sheet.block(columns.left - GAP, base, [row.label], "", "end")
    sheet.block(columns.left + 8, base, lines, "quiet")
    _figures(sheet, row, base, columns)
    sheet.y += height


def _figures(sheet: Sheet, row: Row, base: float, columns: Columns) -> None:
    for place, (edge, figure) in enumerate(zip(columns.edges, row.figures, strict=False)):
        sheet.write(edge - _SIGN, base, figure, "", "end")
        if row.apart and row.apart[place]:
            sheet.write(edge - _SIGN + 3, base, "*", "strong")


def _pixels(size: float) -> Callable[[float], float]:
    return lambda percent: round(percent * size / 100, 1)
