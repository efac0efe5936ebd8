"""Line charts: cumulative shares, and training by iteration.

Plain values, positions in percent of the plot. Each kind of line has one look in all reports: targets and lowest values are grey,
untuned samplers and prompts not trained on are dashed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from diffusecli.report.curves import Cumulative, Training
from diffusecli.report.numbers import number, percent
from diffusecli.report.scales import Scale, Tick
from diffusecli.report.views import TARGET, Sampler
from diffusecli.report.wording import DRIFT_SCALE

HEIGHT = 190
"""Pixels of a plot, unless the names of its lines need more."""
Points = tuple[tuple[float, float], ...]
"""Places in percent of a plot, from its upper left corner."""
_APART = 17.0  # pixels between the names of two lines
_TONES = (
    ("blue", "circle"),
    ("green", "diamond"),
    ("purple", "triangle-up"),
    ("vermilion", "cross"),
    ("sky", "triangle-down"),
    ("orange", "square"),
)
_GREY, _DASHED = ("lowest possible", TARGET), ("mean of prompts not trained on",)


@dataclass(frozen=True)
class Curve:
    """A line with its name and last value at its right end."""

    name: str
    colour: str
    shape: str  # "" for grey lines
    dashed: bool
    points: Points
    steps: bool  # whether there are no values between the points
    top: float  # pixels: where its name is
    value: str

    @property
    def end(self) -> tuple[float, float]:
        """Its last point."""
        return self.points[-1]

    def path(self, width: float, height: float) -> str:
        """The line in a plot of this size."""
        return _path(_sized(self.points, width, height), steps=self.steps)


@dataclass(frozen=True)
class LineChart:
    """Lines, a band, and two axes."""

    kind: str
    title: str
    reading: str
    description: str
    across: str  # title of the horizontal axis
    curves: tuple[Curve, ...]
    band: tuple[Points, Points] | None  # its lower and its upper edge
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]
    height: int

    def area(self, width: float, height: float) -> str:
        """The band in a plot of this size."""
        if self.band is None:
            return ""
        low, high = (_sized(edge, width, height) for edge in self.band)
        return _stepped_area(low, high) if self.curves[0].steps else _path([*low, *reversed(high)]) + "z"


def of_cumulative(found: Cumulative, samplers: Sequence[Sampler]) -> LineChart:
    """Cumulative shares over the band of a perfect sampler."""
    looks = {sampler.label: (sampler.colour, sampler.shape, sampler.untuned) for sampler in samplers}
    halves = {point["series"]: point["x"] for point in reversed(found.points) if point["y"] >= 0.5}
    described = "; ".join(f"{name} reaches one half at {x:,.5g}" for name, x in reversed(halves.items()))
    chart = _chart(found.points, found.band, looks, y=(0.0, 1.0), form="share", steps=found.steps)
    return replace(
        chart, kind="cumulative", title="Cumulative shares", reading=found.reading, across=found.axis,
        description=f"Cumulative shares. {described}.",
    )  # fmt: skip


def of_training(found: Training) -> Iterator[LineChart]:
    """Exact KL, loss and drift, if recorded."""
    last = " The last point is the exact KL after the last step." if found.ended else ""
    band = f" Band: quartiles of {found.of}." if found.band else ""
    reading = f"Before each step, in nats, on a logarithmic scale.{last}{band}"
    if found.kl:
        yield _curves(found.kl, "Exact KL", reading, found.band, logarithmic=True)
    if found.loss:
        yield _curves(found.loss, "Loss", "Sum over prompts, and the lowest possible loss, in nats.")
    if found.drift:
        reading = f"Drift from the base model on the trained instructions, not on held-out ones, in nats per token ({DRIFT_SCALE}). The value is of the last iteration."
        yield _curves(found.drift, "Drift on trained instructions", reading)


def _curves(
    points: Sequence[Mapping[str, Any]],
    title: str,
    reading: str,
    band: Sequence[Mapping[str, Any]] = (),
    *,
    logarithmic: bool = False,
) -> LineChart:
    names = [name for name in dict.fromkeys(point["series"] for point in points) if name not in _GREY]
    looks = {name: (*_TONES[place % len(_TONES)], name in _DASHED) for place, name in enumerate(names)}
    ends = [point["y"] for point in points] + [each[side] for each in band for side in ("low", "high")]
    y = (min(ends), max(ends)) if logarithmic else (min(0.0, *ends), max(ends))
    chart = _chart(points, band, looks, y=y, logarithmic=logarithmic)
    described = "; ".join(f"{curve.name} ends at {curve.value} nats" for curve in chart.curves)
    return replace(
        chart, kind=title.lower().replace(" ", "-"), title=title, reading=reading, description=f"{title} by iteration. {described}."
    )


def _chart(
    points: Sequence[Mapping[str, Any]], band: Sequence[Mapping[str, Any]], looks: Mapping[str, tuple[str, str, bool]], *,
    y: tuple[float, float], form: str = "number", logarithmic: bool = False, steps: bool = False,
) -> LineChart:  # fmt: skip
    xs = [point["x"] for point in points]
    across, up = Scale(min(xs), max(xs)), Scale(y[0], y[1] if y[1] > y[0] else y[0] * 1.1 or 1.0, logarithmic).rounded()
    curves = []
    for name in dict.fromkeys(point["series"] for point in points):
        some = tuple((across.at(point["x"]), 100 - up.at(point["y"])) for point in points if point["series"] == name)
        colour, shape, dashed = looks.get(name, ("muted", "", False))
        last = next(point["y"] for point in reversed(points) if point["series"] == name)
        value = percent(last) if form == "share" else number(last, 4)
        curves.append(Curve(name, colour, shape, dashed, some, steps, 0.0, value))
    low, high = (tuple((across.at(each["x"]), 100 - up.at(each[side])) for each in band) for side in ("low", "high"))
    ticks = tuple(Tick(round(100 - tick.at, 2), tick.label) for tick in up.ticks(form))
    height = max(HEIGHT, round(_APART * (len(curves) - 1)))
    edges = (low, high) if band else None
    return LineChart("", "", "", "", "iteration", tuple(_spread(curves, height)), edges, across.ticks(), ticks, height)


def _sized(points: Points, width: float, height: float) -> Points:
    return tuple((x * width / 100, y * height / 100) for x, y in points)


def _path(points: Sequence[tuple[float, float]], *, steps: bool = False) -> str:
    """A path through points.

    >>> _path([(0, 50), (10, 25.04)]), _path([(0, 50), (10, 25)], steps=True)
    ('M0 50L10 25', 'M0 50H10V25')
    """
    (x, y), *rest = [(_brief(x), _brief(y)) for x, y in points]
    return f"M{x} {y}" + "".join(f"H{x}V{y}" if steps else f"L{x} {y}" for x, y in rest)


def _stepped_area(low: Points, high: Points) -> str:
    """The area between two step lines: the way back goes up or down before it goes left.

    >>> _stepped_area(((0, 9), (5, 8)), ((0, 3), (5, 2)))
    'M0 9H5V8V2V3H0z'
    """
    (_, y), *rest = [(_brief(x), _brief(y)) for x, y in reversed(high)]
    return _path(low, steps=True) + f"V{y}" + "".join(f"V{y}H{x}" for x, y in rest) + "z"


def _brief(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _spread(curves: Sequence[Curve], height: int) -> Iterator[Curve]:
    """Place the names of lines beside their ends, far enough apart to read."""
    order = sorted(range(len(curves)), key=lambda i: curves[i].end[1])
    tops, free = {}, 0.0
    for i in order:
        tops[i] = max(free, curves[i].end[1] * height / 100)
        free = tops[i] + _APART
    free = float(height)
    for i in reversed(order):
        tops[i] = min(tops[i], free)
        free = tops[i] - _APART
    yield from (replace(curve, top=round(tops[i], 1)) for i, curve in enumerate(curves))
