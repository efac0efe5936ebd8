"""Charts of many prompts: distances from targets, differences between samplers, runs by groups of prompts."""

from __future__ import annotations

from collections.abc import Sequence

from diffusecli.evaluation.evaluation import Difference, Matrix
from diffusecli.evaluation.names import short_names
from diffusecli.report.drawing import Chart, Frame, finished, inline, tips
from diffusecli.report.views import Pair, Section
from diffusecli.report.wording import known, short, unique

_MOST_DESCRIBED = 60  # rows that a description has room for


def overview(sections: Sequence[Section], frame: Frame) -> Chart:
    """TVD of every prompt and sampler, with the TVD of a perfect sampler in grey."""
    import altair as alt

    rows = [{"prompt": section.name, "sampler": sampler.label, "tvd": f.tvd, "floor": f.tvd_floor, "high": f.tvd_floor_95, "n": f.n}
            for section in sections for sampler, row in section.sampled if (f := row.figures) is not None]  # fmt: skip
    frame = frame.to(dict.fromkeys(sampler for section in sections for sampler, _ in section.sampled))
    names = list(dict.fromkeys(str(row["prompt"]) for row in rows))
    along, base = frame.along("prompt", names), alt.Chart(inline(rows))
    described = "; ".join(
        f"{row['prompt']}, {row['sampler']}: {row['tvd']:.3f}, floor {row['floor']:.3f}" for row in rows[:_MOST_DESCRIBED]
    )
    floors = base.mark_bar(color=frame.palette["target"]).encode(along, frame.across("high"), frame.lane())
    marks = base.mark_point(filled=True, size=55, opacity=1).encode(
        along, frame.across("tvd", title="total variation distance", axis=alt.Axis(tickCount=6)), frame.lane(),
        alt.Color("sampler:N", scale=frame.colours()), alt.Shape("sampler:N", scale=frame.shapes()),
        tooltip=tips(prompt=("prompt", ""), sampler=("sampler", ""), n=("N", ",d"), tvd=("TVD", ".3f"), floor=("floor", ".3f"),
                     high=("floor, 95 %", ".3f")),
    )  # fmt: skip
    return finished(
        alt.layer(floors, marks), frame, frame.height(len(names)), kind="overview", title="Distance from the target",
        reading="Points: total variation distance between answers and target, including off-target answers. Grey: the range of 95 % of "
        "perfect samplers with as many answers.", description=f"Total variation distances. {described}.",
    )  # fmt: skip


def compared(pair: Pair, some: Sequence[Difference], names: Sequence[str], frame: Frame) -> Chart | None:
    """Differences of excess TVD between two samplers, with their intervals; None if no prompt has targets."""
    import altair as alt

    rows = [
        {"prompt": name, "value": found.value, "low": known(found.low), "high": known(found.high), "apart": found.apart}
        for name, found in zip(unique(names), (each.excess_tvd for each in some), strict=True)
        if known(found.value) is not None
    ]
    if not rows:
        return None
    along, base = frame.along("prompt", [str(row["prompt"]) for row in rows]), alt.Chart(inline(rows))
    colour = frame.palette[pair.after.colour]
    zero = alt.Chart(inline([{}])).mark_rule(color=frame.palette["muted"], strokeWidth=1).encode(alt.XDatum(0))
    spans = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=1.8, color=colour)
    marks = base.mark_point(size=55, opacity=1, fill=colour, stroke=colour, shape=pair.after.shape).encode(
        along, frame.across("value", title="difference of excess TVD", axis=alt.Axis(format="+~g", tickCount=6)),
        fillOpacity=alt.condition("datum.apart", alt.value(1), alt.value(0)),
        tooltip=tips(prompt=("prompt", ""), value=("difference", "+.3f"), low=("from", "+.3f"), high=("to", "+.3f")),
    )  # fmt: skip
    described = "; ".join(f"{row['prompt']} {row['value']:+.3f}" for row in rows[:_MOST_DESCRIBED])
    return finished(
        alt.layer(zero, spans.encode(along, frame.across("low"), frame.end("high")), marks), frame, frame.height(len(rows)),
        kind="difference", title=f"{pair.before.label} → {pair.after.label}",
        reading="Left of zero: closer to the target. Lines: 95 % bootstrap intervals. Filled: the interval excludes zero.",
        description=f"Differences of excess TVD, {pair.before.label} to {pair.after.label}. {described}.",
    )  # fmt: skip


def matrix(found: Matrix, frame: Frame) -> Chart:
    """Runs by groups of prompts as shaded cells. The HTML report has a table instead."""
    import altair as alt

    names = short_names(found.runs)
    runs, groups = unique(short(names[run]) for run in found.runs), unique(short(group) for group in found.groups)
    rows = [{"run": run, "group": group, "value": known(value), "text": _cell(value, own)}
            for run, values, trained in zip(runs, found.values, found.trained, strict=True)
            for group, value, own in zip(groups, values, trained, strict=True)]  # fmt: skip
    base = alt.Chart(inline(rows)).encode(
        alt.X("group:N", sort=None, title="measured on", axis=alt.Axis(orient="top", labelAngle=0, domain=False, ticks=False)),
        alt.Y("run:N", sort=None, title=None, axis=alt.Axis(domain=False, ticks=False)),
    )
    shade = alt.Opacity("value:Q", legend=None, scale=alt.Scale(range=[0.03, 0.6]))
    cells = alt.layer(
        base.mark_rect(color=frame.palette["vermilion"]).encode(shade),
        base.mark_text(color=frame.palette["ink"]).encode(alt.Text("text:N")),
    )
    described = "; ".join(f"{row['run']} on {row['group']}: {row['text']}" for row in rows[:_MOST_DESCRIBED])
    return finished(
        cells, frame, 32 * len(runs), kind="matrix", title=found.measure, reading="● trained on.", description=described
    )


def _cell(value: float, own: bool) -> str:
    return ("–" if known(value) is None else f"{value:.3f}") + (" ●" if own else "")
