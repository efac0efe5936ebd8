"""Line charts: cumulative shares, and training by iteration."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from diffusecli.report.curves import Cumulative, Training
from diffusecli.report.drawing import Chart, Frame, finished, inline, tips
from diffusecli.report.views import TARGET

_SOLID, _DASHED = (1, 0), (5, 3)
_REFERENCES = ("lowest possible", "mean of prompts not trained on")  # always dashed
_TONES = ("blue", "orange", "green", "purple", "vermilion", "sky", "muted", "target", "ink")


def summed(found: Cumulative, frame: Frame) -> Chart:
    """Cumulative shares over the band of a perfect sampler."""
    import altair as alt

    at = alt.X("x:Q", title=found.axis, scale=alt.Scale(nice=False, zero=False), axis=alt.Axis(grid=False, tickCount=6))
    up = alt.Y("y:Q", title="cumulative share", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="~%", tickCount=5))
    tooltip = tips(series=("", ""), x=(found.axis, ",.5~g"), y=("cumulative", ".1%"))
    colour = alt.Color("series:N", scale=frame.colours(TARGET))
    form: Any = "step-after" if found.steps else "linear"
    looks = {TARGET: _SOLID} | {sampler.label: _DASHED if sampler.untuned else _SOLID for sampler in frame.names}
    lines = _lines(found.points, looks, form).encode(at, up, colour, tooltip=tooltip)
    layers = alt.layer(_band(found.band, frame, form), lines)
    halves = {point["series"]: point["x"] for point in reversed(found.points) if point["y"] >= 0.5}
    described = "; ".join(f"{name} reaches one half at {x:,.5g}" for name, x in reversed(halves.items()))
    return finished(layers, frame, 230, kind="cumulative", title="Cumulative shares", reading=found.reading,
                    description=f"Cumulative shares. {described}.")  # fmt: skip


def of_training(found: Training, frame: Frame) -> Iterator[Chart]:
    """Exact KL, loss and drift, if recorded."""
    reading = "Before each step, on a logarithmic scale." + (f" Band: quartiles of {found.of}." if found.band else "")
    if found.kl:
        yield _curve(found.kl, "Exact KL", reading, frame, found.band, log=True)
    if found.loss:
        yield _curve(found.loss, "Loss", "Sum over prompts, and the lowest possible loss.", frame)
    if found.drift:
        yield _curve(found.drift, "Drift", "Drift from the base model on ordinary instructions, per token.", frame)


def _curve(
    points: list[dict[str, Any]], title: str, reading: str, frame: Frame, band: Sequence[dict[str, Any]] = (), *, log: bool = False
) -> Chart:
    import altair as alt

    names = list(dict.fromkeys(point["series"] for point in points))
    tones = alt.Scale(domain=names, range=[frame.palette[_TONES[i % len(_TONES)]] for i in range(len(names))])
    shown: dict[str, Any] = {} if len(names) > 1 else {"legend": None}
    at = alt.X(
        "x:Q", title="iteration", axis=alt.Axis(grid=False, tickCount=5, tickMinStep=1), scale=alt.Scale(nice=False, zero=False)
    )
    scale = alt.Scale(type="log") if log else alt.Scale(zero=False)
    ticks = {"values": _powers_of_ten([point["y"] for point in points])} if log else {"tickCount": 5}
    up = alt.Y("y:Q", title="nats", scale=scale, axis=alt.Axis.from_dict({"format": ",~r", **ticks}))
    tooltip = tips(series=("", ""), x=("iteration", ",d"), y=("nats", ".4~g"))
    lines = _lines(points, {name: _DASHED if name in _REFERENCES else _SOLID for name in names}, **shown).encode(
        at, up, alt.Color("series:N", scale=tones, **shown), tooltip=tooltip
    )
    layers = alt.layer(*([_band(band, frame)] if band else []), lines)
    last = {point["series"]: point["y"] for point in points}
    described = "; ".join(f"{name} ends at {value:.4g} nats" for name, value in last.items())
    return finished(layers, frame, 190, names, kind=title.lower().replace(" ", "-"), title=title, reading=reading,
                    description=f"{title} by iteration. {described}.")  # fmt: skip


def _powers_of_ten(values: Sequence[float]) -> list[float]:
    """Powers of ten that cover the values.

    >>> _powers_of_ten([0.02, 3.0])
    [0.01, 0.1, 1.0, 10.0]
    """
    return [10.0**power for power in range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)]


def _lines(points: list[dict[str, Any]], looks: Mapping[str, Sequence[int]], form: Any = "linear", **shown: Any) -> Any:
    import altair as alt

    scale = alt.Scale(domain=list(looks), range=[list(dashes) for dashes in looks.values()])
    return (
        alt.Chart(inline(points))
        .mark_line(strokeWidth=1.8, interpolate=form)
        .encode(alt.StrokeDash("series:N", scale=scale, **shown))
    )


def _band(band: Sequence[dict[str, Any]], frame: Frame, form: Any = "linear") -> Any:
    import altair as alt

    area = alt.Chart(inline(band)).mark_area(color=frame.palette["band"], opacity=0.8, interpolate=form)
    return area.encode(alt.X("x:Q"), alt.Y("low:Q"), alt.Y2("high:Q"))
