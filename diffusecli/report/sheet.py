"""The sheet of a standalone SVG picture: texts and signs at places in pixels, from the title down to how to read the chart.

All texts are measured by `text_widths.py`, because no font is known here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from diffusecli.report.line_charts import LineChart
from diffusecli.report.matrix_chart import MatrixChart
from diffusecli.report.palette import LIGHT
from diffusecli.report.row_charts import Row, RowChart
from diffusecli.report.scales import Tick
from diffusecli.report.templates import engine, source, with_values
from diffusecli.report.text_widths import BOLD, fitted, width, wrapped

if TYPE_CHECKING:
    from jinja2 import Template

WIDTH = 760
"""Pixels of a picture; one with many groups of prompts is wider."""
MARGIN, GAP = 18, 14
LINE = 16
"""Pixels from one line of text to the next."""
TITLE, TEXT, SMALL = 15, 12, 11
"""Sizes of texts."""
_PAPER = {**LIGHT, "paper": "#ffffff"}


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
    """A sign of a legend: "weight", "noise", "thin", "reference", "shape", or a "filled" or "hollow" shape."""

    x: float
    y: float
    kind: str
    colour: str = ""
    shape: str = ""


@dataclass
class Sheet:
    """What is drawn where. `y` is where the next part begins."""

    wide: float = WIDTH
    y: float = MARGIN
    words: list[Words] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    rules: list[tuple[float, float, float, float]] = field(default_factory=list)
    strips: list[tuple[float, float, Row]] = field(default_factory=list)
    cells: list[tuple[float, float, float, float, float]] = field(default_factory=list)  # the last is the shade

    def write(self, x: float, y: float, text: str, kind: str = "", anchor: str = "start", strong: str = "") -> None:
        """A text whose base line is at `y`."""
        self.words.append(Words(round(x, 1), round(y, 1), text, kind, anchor, strong))

    def paragraph(self, x: float, text: str, size: float, room: float, kind: str) -> None:
        """A text on as many lines as it needs."""
        for line in wrapped(text, size, room):
            self.y += LINE
            self.write(x, self.y - 4, line, kind)

    def block(self, x: float, y: float, lines: Sequence[str], kind: str = "", anchor: str = "start") -> None:
        """Lines around `y`."""
        for place, line in enumerate(lines):
            self.write(x, y + (place - (len(lines) - 1) / 2) * LINE, line, kind, anchor)

    @property
    def room(self) -> float:
        """The width between the margins."""
        return self.wide - 2 * MARGIN

    def top(self, title: str, about: str) -> None:
        """The title, and a line below it."""
        self.paragraph(MARGIN, title, TITLE * BOLD, self.room, "title")
        if about:
            self.paragraph(MARGIN, about, TEXT, self.room, "quiet")
        self.y += 8

    def axis(self, ticks: Sequence[Tick], across: str, left: float, wide: float) -> None:
        """Values below the plot, as many as have room, and the title of the axis."""
        widest = max((width(tick.label, SMALL) for tick in ticks), default=0.0) + 8
        apart = min((b.at - a.at for a, b in pairwise(ticks)), default=100.0) * wide / 100
        every = math.ceil(widest / max(apart, 1.0)) or 1
        for tick in ticks[::every]:
            self.write(left + tick.at * wide / 100, self.y + 15, tick.label, "quiet small", "middle")
        self.y += 20
        if across:
            (title,) = fitted([across], SMALL, self.room)
            half = width(title, SMALL) / 2
            middle = min(max(left + wide / 2, MARGIN + half), self.wide - MARGIN - half)
            self.write(middle, self.y + 12, title, "quiet small", "middle")
            self.y += 18

    def finished(self, form: str, chart: RowChart | LineChart | MatrixChart, reading: str, note: str, **more: object) -> str:
        """The picture, with how to read it and the note at its end."""
        self.y += 8
        for text in filter(None, (reading, note)):
            self.paragraph(MARGIN, text, SMALL, self.room, "quiet small")
        height = round(self.y + MARGIN - 4)
        css, described = with_values(source("marks.css"), _PAPER), f"{chart.description} {note}".strip()
        return _template().render(sheet=self, chart=chart, form=form, height=height, css=css, description=described, **more)


@cache
def _template() -> Template:
    return engine(_PAPER.__getitem__).get_template("picture.svg.j2")
