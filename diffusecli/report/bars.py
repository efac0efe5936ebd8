"""Charts of one prompt: weights and shares, residuals, the most frequent answers."""

from __future__ import annotations

from typing import Any

from diffusecli.evaluation.evaluation import Evaluated
from diffusecli.report.drawing import LANE, Chart, Frame, finished, inline, points, tips
from diffusecli.report.parts import cut_in_words
from diffusecli.report.views import MOST, WEIGHT, Sampler, Section, spots
from diffusecli.report.wording import percent, short, unique
from diffusecli.system.errors import many

_STEEP = 8.0  # residuals beyond which the axis is logarithmic outside
_TOWERING = 4.0  # times the largest weight, beyond which small shares are stretched
_NOISE = 1.96
_TIPS = {
    "text": ("target", ""), "sampler": ("sampler", ""), "weight": ("weight", ".2%"), "share": ("share", ".2%"),
    "count": ("count", ",d"), "expected": ("expected", ",.1f"), "residual": ("residual", "+.2f"),
}  # fmt: skip


def paired(section: Section, frame: Frame) -> Chart:
    """Weights as grey bars, each sampler's share as a point on a stem from the weight; ticks for exact probabilities."""
    import altair as alt

    frame = frame.to((sampler for sampler, _ in section.sampled), upright=section.upright)
    rows, domain = spots(section), [*section.labels, *section.strays]
    along, base = frame.along("target", domain), alt.Chart(inline(rows))
    share = frame.across("share", title="share of answers", **_share_axis(rows))
    ticks = [_ticks(base, frame, along)] if any(row["exact"] is not None for row in rows) else []
    shares = points(base, frame, along, share, tooltip=tips(**_TIPS))
    layers = alt.layer(_weights(rows, frame, along), _stems(base, frame, along), *ticks, shares)
    return finished(
        layers, frame, frame.height(len(domain)), kind="distribution", title="Weights and shares",
        reading=_reading(section, exact=bool(ticks), stretched=_stretched(rows)), description=_in_words(section),
    )  # fmt: skip


def _stretched(rows: list[dict[str, Any]]) -> bool:
    """Whether one share is so large that all weights would be hard to see."""
    return bool(max(row["share"] for row in rows) > _TOWERING * max(row["weight"] for row in rows))


def _share_axis(rows: list[dict[str, Any]]) -> dict[str, Any]:
    import altair as alt

    if not _stretched(rows):
        return {"axis": alt.Axis(format="~%", tickCount=5)}
    top = max(row["share"] for row in rows)
    ticks = [tick for tick in (0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1) if tick <= top * 1.1 and not (tick == 0.01 and top > 0.3)]
    return {"scale": alt.Scale(type="sqrt"), "axis": alt.Axis(format="~%", values=ticks)}


def _weights(rows: list[dict[str, Any]], frame: Frame, along: Any) -> Any:
    import altair as alt

    targets = {row["target"]: row for row in rows}.values()
    base = alt.Chart(inline({key: row[key] for key in ("target", "text", "weight")} for row in targets))
    return base.mark_bar(color=frame.palette["target"]).encode(
        along, frame.across("weight"), tooltip=tips(text=("target", ""), weight=("weight", ".2%"))
    )


def _stems(base: Any, frame: Frame, along: Any) -> Any:
    import altair as alt

    colour = alt.Stroke("sampler:N", scale=frame.colours(WEIGHT))
    return base.mark_rule(strokeWidth=1.3, opacity=0.8).encode(
        along, frame.across("weight"), frame.end("share"), frame.lane(), colour
    )


def _ticks(base: Any, frame: Frame, along: Any) -> Any:
    import altair as alt

    colour = alt.Fill("sampler:N", scale=frame.colours(WEIGHT))
    lying: Any = "horizontal" if frame.upright else "vertical"
    mark = base.transform_filter("isValid(datum.exact)").mark_tick(thickness=2, size=LANE + 5, orient=lying)
    return mark.encode(along, frame.across("exact"), frame.lane(), colour,
                       tooltip=tips(text=("target", ""), sampler=("sampler", ""), exact=("exact", ".3%")))  # fmt: skip


def _reading(section: Section, *, exact: bool, stretched: bool) -> str:
    parts = ["Grey bars: target weights. Points: shares of all answers. Filled: differs from the weight after control of false "
             "discoveries. Hollow: may be sampling noise."]  # fmt: skip
    if exact:
        parts.append("Ticks: the model’s exact probabilities.")
    if stretched:
        parts.append("Small shares are stretched: the axis has a square-root scale.")
    if section.folded:
        how, verb = "evenly spaced" if section.uniform else "largest", "target is" if section.folded == 1 else "targets are"
        parts.append(
            f"The chart shows the {MOST // 2} {how} and the {MOST // 2} worst-fitting targets; {section.folded} more {verb} not shown."
        )
    return " ".join(parts)


def _in_words(section: Section) -> str:
    sentences = [f"Target weights and shares of answers, {many(len(section.prompt.targets), 'target')}."]
    for sampler, row in section.sampled:
        worst = max(row.cells, key=lambda cell, n=row.tally.n: abs(cell.count / n - cell.weight))  # type: ignore[misc]
        sentences.append(
            f"{sampler.label}: differs at {many(sum(cell.differs for cell in row.cells), 'target')}; the furthest is {short(worst.target)}: "
            f"share {percent(worst.count / row.tally.n)}, weight {percent(worst.weight)}."
        )
    return " ".join(sentences)


def residuals(section: Section, frame: Frame) -> Chart:
    """Standardised residuals in the order of `paired`, over the band of sampling noise."""
    import altair as alt

    frame = frame.to((sampler for sampler, _ in section.sampled), upright=section.upright)
    rows = [row for row in spots(section) if row["residual"] is not None]
    seen = [row["residual"] for row in rows] or [0.0]
    low, high = (alt.YDatum, alt.Y2Datum) if section.upright else (alt.XDatum, alt.X2Datum)
    noise = alt.Chart(inline([{}])).mark_rect(color=frame.palette["band"], opacity=0.6).encode(low(-_NOISE), high(_NOISE))
    along = frame.along("target", section.labels)
    residual = frame.across("residual", title="residual, standard deviations", **_residual_axis(min(seen), max(seen)))
    shares = points(alt.Chart(inline(rows)), frame, along, residual, legend=False, tooltip=tips(**_TIPS))
    sentences = [f"{sampler.label}: the largest is {max((abs(cell.residual) for cell in row.cells), default=0):.1f}"
                 for sampler, row in section.sampled]  # fmt: skip
    far = " The axis is logarithmic far from zero." if max(map(abs, seen)) > _STEEP else ""
    return finished(
        alt.layer(noise, shares), frame, frame.height(len(section.labels), 190), kind="residuals", title="Residuals",
        reading=f"Distance of counts from the expected counts among valid answers. Grey: ± 1.96, where 95 % of a perfect sampler’s "
        f"residuals are.{far}", description=f"Standardised residuals. {'; '.join(sentences)}.",
    )  # fmt: skip


def _residual_axis(lowest: float, highest: float) -> dict[str, Any]:
    import altair as alt

    far = max(-lowest, highest)
    if far > _STEEP:
        steps = (5, 10, 20) if far < 30 else (10, 100, 1000, 10_000)
        ticks = [tick for step in steps for tick in (-step, step) if lowest <= tick <= highest]
        axis = alt.Axis(format=",d", values=sorted([0, *ticks]), labelOverlap=False)
        return {"scale": alt.Scale(type="symlog", constant=3, domain=[min(1.3 * lowest, -4), max(1.3 * highest, 4)]), "axis": axis}
    end = max(3.2, far * 1.05)
    return {"scale": alt.Scale(domain=[-end, end], nice=False), "axis": alt.Axis(format="~g", values=[-6, -4, -2, 0, 2, 4, 6])}


def outcomes(row: Evaluated, sampler: Sampler, frame: Frame) -> Chart | None:
    """The most frequent answers to a prompt without a list of valid ones; None if no answer occurs twice."""
    import altair as alt

    top = row.diversity.top if row.diversity is not None else ()
    if not top or top[0].count == 1:
        return None
    names, n = unique(short(outcome.text, 34) + cut_in_words(outcome) for outcome in top), row.tally.n
    rows = [{"answer": name, "text": short(outcome.text, 200), "count": outcome.count, "share": outcome.count / n}
            for name, outcome in zip(names, top, strict=True)]  # fmt: skip
    share = frame.across("share", title="share of answers", axis=alt.Axis(format="~%", tickCount=5))
    chart = alt.Chart(inline(rows)).mark_bar(color=frame.palette[sampler.colour]).encode(
        frame.along("answer", names), share, tooltip=tips(text=("answer", ""), count=("count", ",d"), share=("share", ".2%"))
    )  # fmt: skip
    return finished(
        chart, frame, frame.height(len(names)), kind="outcomes", title=f"Most frequent answers, {sampler.label}",
        reading="Whole answers, without leading and trailing white space.",
        description=f"The {len(names)} most frequent answers of {sampler.label}, from {percent(top[0].count / n)} to {percent(top[-1].count / n)}.",
    )  # fmt: skip
