"""Charts of many prompts in the HTML report: verdicts with distances, folders, differences between samplers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diffusecli.evaluation.evaluation import Difference, Evaluated
from diffusecli.evaluation.groups import Group
from diffusecli.prompts.groups import Folder
from diffusecli.report.asked import Asked
from diffusecli.report.row_charts import COLUMNS, LANE, ROW, Head, Mark, Row, RowChart, thin_line
from diffusecli.report.scales import Scale, Tick
from diffusecli.report.views import MOST, Pair, Sampler, Section
from diffusecli.report.wording import known, number, short, span, unique


@dataclass(frozen=True)
class Judged:
    """One prompt and one tuned sampler of the overview."""

    section: Section
    asked: Asked
    sampler: Sampler
    row: Evaluated
    first: bool  # of its prompt
    strip: Row | None  # its distance, if it has one


@dataclass(frozen=True)
class Overview:
    """Every prompt with its verdict and its distance."""

    rows: tuple[Judged, ...]
    heads: tuple[str, ...]
    ticks: tuple[Tick, ...]
    zero: float
    within: bool  # whether a prompt that does not follow its target is within the range of noise
    untuned: tuple[Sampler, ...]


def of_prompts(sections: Sequence[tuple[Section, Asked]]) -> Overview:
    """A verdict for each prompt and sampler, over its TVD and the TVD that 95 % of perfect samplers do not exceed."""
    listed = [(section, asked, pair, place == 0) for section, asked in sections
              for place, pair in enumerate(_judged(section))]  # fmt: skip
    distances = [value for _, _, (_, row), _ in listed for value in _distance(row) if known(value) is not None]
    scale = Scale(0, min(1.0, max([0.02, *distances]) * 1.02))
    thin = {section.prompt.key: [pair for pair in section.sampled if pair[0].untuned] for section, _ in sections}
    rows = tuple(
        Judged(section, asked, sampler, row, first, _strip(sampler, row, thin[section.prompt.key], scale))
        for section, asked, (sampler, row), first in listed
    )
    seen = dict.fromkeys(
        sampler for some in thin.values() for sampler, _ in some if any(not s.untuned for _, _, (s, _), _ in listed)
    )
    inside = [
        row.figures for _, _, (_, row), _ in listed if row.figures is not None and not row.verdict.startswith(("follows", "close"))
    ]
    return Overview(
        rows,
        ("valid", "TVD", "exact KL")
        if any(row.figures is not None for _, _, (_, row), _ in listed)
        else ("on target", "exact TVD", "exact KL"),
        scale.ticks(),
        scale.at(0),
        any(f.tvd <= f.tvd_floor_95 for f in inside),
        tuple(seen),
    )


def _judged(section: Section) -> list[tuple[Sampler, Evaluated]]:
    return [pair for pair in section.pairs if not pair[0].untuned] or section.pairs


def _distance(row: Evaluated) -> tuple[float, ...]:
    f = row.figures
    if f is not None:
        return f.tvd, f.tvd_floor_95
    return (row.exact.tvd,) if row.exact is not None else ()


def _strip(sampler: Sampler, row: Evaluated, thin: Sequence[tuple[Sampler, Evaluated]], scale: Scale) -> Row | None:
    distance = _distance(row)
    if not distance or known(distance[0]) is None:
        return None
    f = row.figures
    floor = scale.length(0, f.tvd_floor_95) if f is not None and known(f.tvd_floor_95) is not None else None
    text = f"{sampler.label}: {'TVD' if f is not None else 'exact TVD'} {number(distance[0])}"
    if f is not None:
        text += f"; 95 % of perfect samplers have at most {number(f.tvd_floor_95)}"
    lines = [thin_line(other, scale, some.figures.tvd, f"TVD {number(some.figures.tvd)}")
             for other, some in thin if other != sampler and some.figures is not None]  # fmt: skip
    mark = Mark(sampler, scale.at(distance[0]), True, text, 8)
    return Row(
        "", text, (), noise=(scale.at(0), floor) if floor is not None else None, marks=(mark,), lines=tuple(lines), height=16
    )


def of_differences(pair: Pair, some: Sequence[Difference], names: Sequence[str]) -> RowChart | None:
    """Differences of excess TVD with their 95 % bootstrap intervals; None if no prompt has targets."""
    found = [
        (name, each.excess_tvd) for name, each in zip(unique(names), some, strict=True) if known(each.excess_tvd.value) is not None
    ]
    if not found:
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
        "difference", f"{pair.before.label} → {pair.after.label}",
        "Difference of excess TVD. Left of zero: closer to the target. Lines: 95 % bootstrap intervals. Filled: the interval excludes zero.",
        f"Differences of excess TVD, {pair.before.label} to {pair.after.label}. {described}.",
        (Head("change"), Head("from"), Head("to")), tuple(rows), scale.ticks("difference"), scale.at(0),
        across="difference of excess TVD",
    )  # fmt: skip


def of_folders(by_folder: Sequence[tuple[Folder, Sequence[Group]]], named: Mapping[tuple[str, str], Sampler]) -> RowChart | None:
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
    rows = [_folder(folder, dict(some), main, thin, columns, scale) for folder, some in found]
    exact = any(known(g.tvd_90) is not None for _, some in found for _, g in some)
    reading = "Points: median TVD over the prompts of a folder" + (
        ", from exact figures. Lines: up to the 90 % quantile." if exact else ", of samples."
    )
    described = "; ".join(f"{row.hint}: {' '.join(row.figures[1:])}" for row in rows[:60])
    return RowChart(
        "folders", "Distance from the target by folder", reading, f"Median TVD by folder: {described}.",
        (Head("prompts"), *(Head(sampler.label, sampler) for sampler in columns)), tuple(rows), scale.ticks(), scale.at(0), tuple(samplers), thin,
        across="median TVD",
    )  # fmt: skip


def _folder(
    folder: Folder,
    some: Mapping[Sampler, Group],
    main: Sequence[Sampler],
    thin: Sequence[Sampler],
    columns: Sequence[Sampler],
    scale: Scale,
) -> Row:
    height = max(ROW, LANE * len(main) + 8)
    figures = (
        str(max(group.prompts for group in some.values())),
        *(number(_median(some[s])) if s in some else "–" for s in columns),
    )
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
    label = short(folder.label.strip(), 80)
    return Row(label, label, figures, marks=marks, lines=lines, split=folder.whole, height=height)


def _median(group: Group) -> float:
    return group.tvd_median if known(group.tvd_median) is not None else group.sampled_tvd_median


def _median_mark(sampler: Sampler, group: Group, scale: Scale, y: float) -> Mark:
    median, high = _median(group), known(group.tvd_90)
    text = f"{sampler.label}: median {number(median)}" + (f", 90 % quantile {number(high)}" if high is not None else "")
    return Mark(
        sampler, scale.at(median), True, text, y, span=(scale.at(median), scale.length(median, high)) if high is not None else None
    )
