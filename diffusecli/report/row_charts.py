"""The parts of a chart of rows, as plain values: positions are percent of the plot's width.

`marks.svg.j2` draws them, in the HTML report and in pictures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from diffusecli.report.scales import Scale, Tick
from diffusecli.report.views import Sampler

COLUMNS = 4
"""Most columns of figures beside a plot."""
LANE, ROW = 10, 22
"""Pixels of one sampler, and of the lowest row."""
_SHORT = 14  # characters of a label that has room beside the figures on a phone
_EDGE = 99.4  # percent: where a line that is beyond the axis is drawn


@dataclass(frozen=True)
class Head:
    """A column of figures: its name, or the sampler it belongs to."""

    name: str
    sampler: Sampler | None = None


@dataclass(frozen=True)
class Mark:
    """A point of one sampler."""

    sampler: Sampler
    at: float
    filled: bool
    text: str
    y: float  # pixels
    beyond: bool = False
    span: tuple[float, float] | None = None  # start and length of its interval


@dataclass(frozen=True)
class Line:
    """A thin line of an untuned sampler: its place in this row and in the one above."""

    sampler: Sampler
    at: float
    above: float | None
    text: str
    beyond: bool


@dataclass(frozen=True)
class Row:
    """One row: label, bar, range of sampling noise, points, and figures."""

    label: str
    hint: str  # the whole text
    figures: tuple[str, ...]
    apart: tuple[bool, ...] = ()  # which of the figures differ from the weight
    bar: float | None = None  # length
    noise: tuple[float, float] | None = None  # start and length
    marks: tuple[Mark, ...] = ()
    lines: tuple[Line, ...] = ()
    split: bool = False  # a folder of folders
    outside: str = ""  # of answers that are no target: what the figures are
    height: int = ROW
    cut: bool = False  # whether the label is shorter than the hint
    judged: tuple[str, str] | None = None  # a sampler and its verdict, above the plot


@dataclass(frozen=True)
class RowChart:
    """A chart of rows with one axis."""

    kind: str
    title: str
    reading: str
    description: str
    heads: tuple[Head, ...]
    rows: tuple[Row, ...]
    ticks: tuple[Tick, ...]
    zero: float
    samplers: tuple[Sampler, ...] = ()  # in the legend
    thin: tuple[Sampler, ...] = ()  # of these the ones that are drawn as lines
    noise: str = ""  # what the range of noise is
    filled: str = ""  # what filled points mean
    hollow: str = ""  # what hollow points mean
    tone: str = "target"  # colour of the bars
    across: str = ""  # title of the axis
    note: str = ""  # below a picture: what its marks alone do not show; the HTML report has it below the verdict

    @property
    def above(self) -> bool:
        """Whether a label is cut, so that the whole texts are above their bars where there is room."""
        return any(row.cut for row in self.rows)

    @property
    def long(self) -> bool:
        """Whether a label is so long that all have lines of their own on a phone."""
        return any(len(row.label) > _SHORT for row in self.rows if not row.outside)

    @property
    def point(self) -> str:
        """The shape of its first point, for the legend of filled and hollow points."""
        return next((mark.sampler.shape for row in self.rows for mark in row.marks), "circle")

    @property
    def points(self) -> list[tuple[str, str]]:
        """Legend entries of the filled and hollow points that the chart has: the kind and its text."""
        there = {mark.filled for row in self.rows for mark in row.marks}
        kinds = (("filled", self.filled, True), ("hollow", self.hollow, False))
        return [(kind, f"{kind}: {text}") for kind, text, filled in kinds if text and filled in there]


def beyond_axis(rows: Iterable[Row]) -> str:
    """What the sign of values beyond the axis means, if a row has one."""
    there = any(any(mark.beyond for mark in row.marks) or any(line.beyond for line in row.lines) for row in rows)
    return " “›”: beyond the end of the axis." if there else ""


def thin_line(sampler: Sampler, scale: Scale, value: float, text: str, above: float | None = None) -> Line:
    """The line of an untuned sampler; beyond the axis it is at the edge of the plot."""
    before = None if above is None else _place(scale, above)
    return Line(sampler, _place(scale, value), before, f"{sampler.label}: {text}", scale.beyond(value))


def _place(scale: Scale, value: float) -> float:
    return _EDGE if scale.beyond(value) else scale.at(value)
