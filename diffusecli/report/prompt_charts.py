"""Charts of many prompts: differences between samplers, and figures by folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diffusecli.evaluation.evaluation import Difference
from diffusecli.evaluation.groups import Group
from diffusecli.prompts.groups import WHOLE, Folder
from diffusecli.report.numbers import known, number, span
from diffusecli.report.row_charts import COLUMNS, LANE, ROW, Head, Mark, Row, RowChart, thin_line
from diffusecli.report.scales import Scale
from diffusecli.report.scores import Score
from diffusecli.report.views import MOST, Pair, Sampler
from diffusecli.report.wording import short, unique

_TVD = "TVD (total variation distance from the target; 0 is perfect, 1 is the largest)"

_FOLLOW = "follow"


def of_differences(pair: Pair, some: Sequence[Difference], names: Sequence[str]) -> RowChart | None:
    """Differences of excess TVD with their 95 % bootstrap intervals; None for fewer than two prompts with targets, whose figures say all."""
    found = [
        (name, each.excess_tvd) for name, each in zip(unique(names), some, strict=True) if known(each.excess_tvd.value) is not None
    ]
    if len(found) < 2:
        return None
    ends = [value for _, each in found for value in (0.0, each.value, each.low, each.high) if known(value) is not None]
    scale = Scale(min(ends), max(*ends, min(ends) + 0.02))
    rows = []
    for name, each in found:
        interval = (scale.at(each.low), scale.length(each.low, each.high)) if known(each.low) is not None else None
        text = f"{number(each.value, 3, '+')}, 95 % interval {span(each.low, each.high)}"
        mark = Mark(pair.after, scale.at(each.value), each.apart, text, ROW / 2, span=interval)
        rows.append(Row(name, name, tuple(number(value, 3, "+") for value in (each.value, each.low, each.high)), marks=(mark,)))
    described = "; ".join(f"{name} {each.value:+.3f}" for name, each in found[:60])
    return RowChart(
        "difference", pair.name,
        "Difference of excess TVD. Left of zero: closer to the target. Lines: 95 % bootstrap intervals.",
        f"Differences of excess TVD, {pair.name}. {described}.",
        (Head("change"), Head("95 % from"), Head("95 % to")), tuple(rows), scale.ticks("difference"), scale.at(0),
        filled="the interval excludes zero", hollow="the interval includes zero", across="difference of excess TVD",
    )  # fmt: skip


def of_folders(
    by_folder: Sequence[tuple[Folder, Sequence[Group]]], named: Mapping[tuple[str, str], Sampler], follow: Mapping[tuple[Folder, Sampler], Score]
) -> RowChart | None:  # fmt: skip
    """The median TVD of each folder and sampler, with a line to its 90 % quantile where exact figures are known; None without figures."""
    listed = by_folder if len(by_folder) <= MOST else [part for part in by_folder if part[0].whole]
    found = [(folder, [(named[g.run, g.mode], g) for g in some]) for folder, some in listed[:MOST]]
    medians = [value for _, some in found for _, g in some for value in (_median(g), g.tvd_90) if known(value) is not None]
    samplers = sorted(dict.fromkeys(sampler for _, some in found for sampler, _ in some), key=lambda sampler: sampler.untuned)
    main = [sampler for sampler in samplers if not sampler.untuned] or samplers
    if not medians:
        return None
    shown = [
        value
        for _, some in found
        for sampler, g in some
        if sampler in main
        for value in (_median(g), g.tvd_90)
        if known(value) is not None
    ]
    scale, thin = Scale(0, max(0.02, *(shown or medians))), tuple(sampler for sampler in samplers if sampler not in main)
    columns = samplers if len(samplers) < COLUMNS else main[: COLUMNS - 1]
    judged = 2 * len(main) <= COLUMNS and any(follow[folder, sampler].judged for folder, _ in found for sampler in main)
    if judged:
        columns = samplers if 2 * len(main) + len(thin) <= COLUMNS else main
    heads = _heads(columns, main if judged else ())
    rows = [_folder(folder, dict(some), main, thin, heads, scale, follow) for folder, some in found]
    exact = any(known(g.tvd_90) is not None for _, some in found for _, g in some)
    reading = f"Points: median {_TVD} over the prompts of a folder" + (
        ", from exact figures. Lines: up to the 90 % quantile." if exact else ", of samples."
    )
    if judged:
        reading += " “Follow”: how many of its prompts follow their target."
    described = "; ".join(f"{row.hint}: {' '.join(row.figures[1:])}" for row in rows[:60])
    return RowChart(
        "folders", "Distance from the target by folder", reading, f"Median TVD by folder: {described}.",
        tuple(heads), tuple(rows), scale.ticks(), scale.at(0), tuple(samplers), thin,
        across="median TVD",
    )  # fmt: skip


def _folder(
    folder: Folder,
    some: Mapping[Sampler, Group],
    main: Sequence[Sampler],
    thin: Sequence[Sampler],
    heads: Sequence[Head],
    scale: Scale,
    follow: Mapping[tuple[Folder, Sampler], Score],
) -> Row:
    height = max(ROW, LANE * len(main) + 8)
    figures = tuple(_figure(head, folder, some, follow) for head in heads)
    marks = tuple(
        _median_mark(sampler, some[sampler], scale, height * (lane + 1) / (len(main) + 1))
        for lane, sampler in enumerate(main)
        if sampler in some and known(_median(some[sampler])) is not None
    )
    lines = tuple(
        thin_line(sampler, scale, value, number(value))
        for sampler in thin
        if sampler in some and known(value := _median(some[sampler])) is not None
    )
    label = short(folder_name(folder), 80)
    return Row(label, label, figures, marks=marks, lines=lines, split=folder.whole, height=height)


def _heads(columns: Sequence[Sampler], judged: Sequence[Sampler]) -> list[Head]:
    """A column of medians for each sampler, and before it how many prompts follow if that is known; otherwise the number of prompts first."""
    found = [] if judged else [Head("prompts")]
    for sampler in columns:
        found += [Head(_FOLLOW, sampler)] if sampler in judged else []
        found += [Head("TVD", sampler)]
    return found


def _figure(head: Head, folder: Folder, some: Mapping[Sampler, Group], follow: Mapping[tuple[Folder, Sampler], Score]) -> str:
    if head.sampler is None:
        return str(max(group.prompts for group in some.values()))
    score, group = follow.get((folder, head.sampler)), some.get(head.sampler)
    if head.name == _FOLLOW:
        return f"{score.follows} of {score.judged}" if score is not None and score.judged else "–"
    return number(_median(group)) if group is not None else "–"


def folder_name(folder: Folder) -> str:
    """The path of a folder from what all prompts share."""
    if folder.name == WHOLE:
        return "all prompts" if folder.whole else "in no subfolder"
    return f"{folder.name}/"


def _median(group: Group) -> float:
    return group.tvd_median if known(group.tvd_median) is not None else group.sampled_tvd_median


def _median_mark(sampler: Sampler, group: Group, scale: Scale, y: float) -> Mark:
    median, high = _median(group), known(group.tvd_90)
    text = f"{sampler.label}: median {number(median)}" + (f", 90 % quantile {number(high)}" if high is not None else "")
    return Mark(
        sampler, scale.at(median), True, text, y, span=(scale.at(median), scale.length(median, high)) if high is not None else None
    )
