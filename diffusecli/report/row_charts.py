"""Charts of rows in the HTML report: targets with weights and shares, prompts with distances, differences, frequent answers.

Plain values: positions are percent of the plot's width. `charts.html.j2` draws them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from diffusecli.evaluation.evaluation import Difference, Evaluated
from diffusecli.report.asked import Asked
from diffusecli.report.parts import cut_in_words
from diffusecli.report.scales import Scale, Tick
from diffusecli.report.views import MOST, OFF_TARGET, Pair, Sampler, Section
from diffusecli.report.wording import count, known, number, p_value, percent, short, span, unique
from diffusecli.system.errors import many

COLUMNS = 4
"""Most columns of figures beside a plot."""
Answered = tuple[Sampler, Evaluated]
_LANE, _ROW = 10, 22  # pixels of one sampler, and of the lowest row


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
    outside: str = ""  # of answers that are no target: what the figures are
    height: int = _ROW


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


def of_targets(section: Section) -> RowChart:
    """Target weights, shares among valid answers, and where 95 % of perfect samplers are."""
    main, thin = section.main, [pair for pair in section.sampled if pair not in section.main]
    k = min((row.tally.on_target for _, row in main if row.tally.on_target), default=0)
    noise = [_noise(section.prompt.probabilities[i], k) for i in section.shown]
    reached = [row.tally.counts[i] / row.tally.on_target for _, row in main if row.tally.on_target for i in section.shown]
    scale = Scale(0, max([1e-9, *(section.prompt.probabilities[i] for i in section.shown), *reached, *(high for _, high in noise)]))
    columns = [*main, *thin] if len(main) + len(thin) < COLUMNS else main[: COLUMNS - 1]
    rows = [_target(section, place, noise[place] if k else None, scale, main, thin, columns) for place in range(len(section.shown))]
    for name in section.strays:
        what = "any other answer" if name == OFF_TARGET else "cut at the limit of new tokens"
        rows.append(Row(name, what, ("", *(_outside(row, name) for _, row in columns)), outside=f"{what}, share of all answers"))
    return RowChart(
        "distribution", "Weights and shares", _reading(section), _in_words(section),
        (Head("target"), *(Head(sampler.label, sampler) for sampler, _ in columns)), tuple(rows), scale.ticks("share"), scale.at(0),
        tuple(sampler for sampler, _ in (*main, *thin)), tuple(sampler for sampler, _ in thin),
        f"95 % of perfect samplers with {many(k, 'valid answer')}" if k else "",
    )  # fmt: skip


def _target(
    section: Section, place: int, noise: tuple[float, float] | None, scale: Scale,
    main: Sequence[Answered], thin: Sequence[Answered], columns: Sequence[Answered],
) -> Row:  # fmt: skip
    """The row of one target: points of the main samplers, lines of the others."""
    i, height = section.shown[place], max(_ROW, _LANE * len(main) + 8)
    above = section.shown[place - 1] if place else None
    weight = section.prompt.probabilities[i]
    return Row(
        section.labels[place], short(section.prompt.targets[i], 200), (percent(weight), *(_share(row, i) for _, row in columns)),
        (False, *(bool(row.tally.on_target) and row.cells[i].differs for _, row in columns)), scale.length(0, weight),
        (scale.at(noise[0]), scale.length(*noise)) if noise else None,
        tuple(_mark(sampler, row, i, scale, height * (lane + 1) / (len(main) + 1))
              for lane, (sampler, row) in enumerate(main) if row.tally.on_target),
        tuple(_line(sampler, row, i, above, scale) for sampler, row in thin if row.tally.on_target), height=height,
    )  # fmt: skip


def _line(sampler: Sampler, row: Evaluated, i: int, above: int | None, scale: Scale) -> Line:
    share, k = row.tally.counts[i] / row.tally.on_target, row.tally.on_target
    before = None if above is None else scale.at(row.tally.counts[above] / k)
    return Line(sampler, scale.at(share), before, f"{sampler.label}: {percent(share)} of valid answers", scale.beyond(share))


def _noise(weight: float, k: int) -> tuple[float, float]:
    """The shares where 95 % of perfect samplers are, by the same exact binomial test that marks targets."""
    from scipy.special import bdtrik

    if not k or not 0 < weight < 1:
        return weight, weight
    low, high = (max(0.0, math.ceil(float(bdtrik(tail, k, weight)) - 1e-9)) for tail in (0.025, 0.975))
    return low / k, high / k


def _share(row: Evaluated, i: int) -> str:
    if not row.tally.on_target:
        return "–"
    return percent(row.tally.counts[i] / row.tally.on_target)


def _outside(row: Evaluated, name: str) -> str:
    some = row.tally.off_target if name == OFF_TARGET else row.tally.unfinished
    return percent(some.total() / row.tally.n)


def _mark(sampler: Sampler, row: Evaluated, i: int, scale: Scale, y: float) -> Mark:
    cell, share = row.cells[i], row.tally.counts[i] / row.tally.on_target
    text = f"{sampler.label}: {percent(share)} of valid answers, {count(cell.count)} where {number(cell.expected, 1)} are expected"
    return Mark(sampler, scale.at(share), cell.differs, text, y, scale.beyond(share))


def _reading(section: Section) -> str:
    parts = ["Shares of valid answers."]
    if any(row.tally.on_target for _, row in section.main):
        parts.append("Filled points and ≠ differ from the weight; hollow points may be sampling noise.")
    else:
        parts.append("No answer is valid, so there are no shares.")
    if section.folded:
        how = "evenly spaced" if section.uniform else "largest"
        verb = "target is" if section.folded == 1 else "targets are"
        shown = f"{MOST // 2} {how} and the {MOST // 2} worst-fitting targets"
        parts.append(f"The chart shows the {shown}; {count(section.folded)} more {verb} not shown.")
    return " ".join(parts)


def _in_words(section: Section) -> str:
    sentences = [f"Target weights and shares of valid answers, {many(len(section.prompt.targets), 'target')}."]
    for sampler, row in section.sampled:
        if row.tally.on_target:
            worst = max(row.cells, key=lambda cell: abs(cell.residual))
            sentences.append(
                f"{sampler.label}: differs at {many(sum(cell.differs for cell in row.cells), 'target')}; the furthest is "
                f"{short(worst.target)}: share {percent(worst.count / row.tally.on_target)}, weight {percent(worst.weight)}."
            )
        else:
            sentences.append(f"{sampler.label}: 0 of {many(row.tally.n, 'answer')} valid.")
    return " ".join(sentences)


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
        rows, ("valid", "TVD", "exact KL"), scale.ticks(), scale.at(0), any(f.tvd <= f.tvd_floor_95 for f in inside), tuple(seen)
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
    lines = [Line(other, scale.at(some.figures.tvd), None, f"{other.label}: TVD {number(some.figures.tvd)}", scale.beyond(some.figures.tvd))
             for other, some in thin if other != sampler and some.figures is not None]  # fmt: skip
    mark = Mark(sampler, scale.at(distance[0]), True, text, 8)
    return Row(
        "", text, (), noise=(scale.at(0), floor) if floor is not None else None, marks=(mark,), lines=tuple(lines), height=16
    )


@dataclass(frozen=True)
class Figure:
    """One of the three figures below a verdict."""

    name: str
    value: str
    note: str = ""


def three_figures(row: Evaluated) -> list[Figure]:
    """The figures that explain a verdict best: at most three."""
    f, exact, open_ended = row.figures, row.exact, row.diversity
    found: list[Figure] = []
    if open_ended is not None:
        found.append(Figure("different answers", count(open_ended.distinct), f"of {many(open_ended.n, 'answer')}"))
        found.append(Figure("of the next would be new", percent(open_ended.unseen_mass)))
        if open_ended.top:
            found.append(
                Figure("most frequent answer", percent(open_ended.top[0].count / open_ended.n), short(open_ended.top[0].text, 40))
            )
        return found
    if f is not None:
        found.append(Figure("valid", percent(f.valid), span(f.valid_low, f.valid_high, 1, 100)))
        found.append(Figure("TVD", number(f.tvd), f"perfect sampler {number(f.tvd_floor)}"))
    if exact is not None and known(exact.kl) is not None:
        found.append(Figure("exact KL", ("≈" if exact.kl_error else "") + number(exact.kl, 4), "nats; 0 is perfect"))
    elif f is not None:
        found.append(Figure("p", p_value(f), "test of fit"))
    if f is None and exact is not None:
        if known(exact.tvd) is not None:
            found.append(Figure("exact TVD", number(exact.tvd)))
        if known(exact.on_target) is not None:
            found.append(Figure("on target", percent(exact.on_target)))
    return found


def of_differences(pair: Pair, some: Sequence[Difference], names: Sequence[str]) -> RowChart | None:
    """Differences of excess TVD with their 95 % bootstrap intervals; None if no prompt has targets."""
    found = [
        (name, each.excess_tvd) for name, each in zip(unique(names), some, strict=True) if known(each.excess_tvd.value) is not None
    ]
    if not found:
        return None
    ends = [value for _, each in found for value in (0.0, each.value, each.low, each.high) if known(value) is not None]
    scale = Scale(min(ends), max(*ends, min(ends) + 1e-09))
    rows = []
    for name, each in found:
        interval = (scale.at(each.low), scale.length(each.low, each.high)) if known(each.low) is not None else None
        text = f"{number(each.value, 3, '+')}, 95 % interval {span(each.low, each.high)}"
        mark = Mark(pair.after, scale.at(each.value), each.apart, text, _ROW / 2, span=interval)
        rows.append(Row(name, name, tuple(number(value, 3, "+") for value in (each.value, each.low, each.high)), marks=(mark,)))
    described = "; ".join(f"{name} {each.value:+.3f}" for name, each in found[:60])
    return RowChart(
        "difference", f"{pair.before.label} → {pair.after.label}",
        "Difference of excess TVD. Left of zero: closer to the target. Lines: 95 % bootstrap intervals. Filled: the interval excludes zero.",
        f"Differences of excess TVD, {pair.before.label} to {pair.after.label}. {described}.",
        (Head("difference"), Head("from"), Head("to")), tuple(rows), scale.ticks("difference"), scale.at(0),
    )  # fmt: skip


def of_outcomes(row: Evaluated, sampler: Sampler) -> RowChart | None:
    """The most frequent answers to a prompt without a list of valid ones; None if no answer occurs twice."""
    top = row.diversity.top if row.diversity is not None else ()
    if not top or top[0].count == 1:
        return None
    n, scale = row.tally.n, Scale(0, top[0].count / row.tally.n)
    names = unique(short(outcome.text, 34) + cut_in_words(outcome) for outcome in top)
    rows = [Row(name, short(outcome.text, 200), (percent(outcome.count / n), count(outcome.count)), (), scale.length(0, outcome.count / n))
            for name, outcome in zip(names, top, strict=True)]  # fmt: skip
    return RowChart(
        "outcomes", f"Most frequent answers, {sampler.label}", "Whole answers, without leading and trailing white space.",
        f"The {len(names)} most frequent answers of {sampler.label}, from {percent(top[0].count / n)} to {percent(top[-1].count / n)}.",
        (Head("share"), Head("count")), tuple(rows), scale.ticks("share"), scale.at(0),
    )  # fmt: skip
