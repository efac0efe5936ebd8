"""Charts of one prompt: weights and shares of its targets, and the most frequent answers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from diffusecli.evaluation.evaluation import Evaluated
from diffusecli.evaluation.fit import SIGNIFICANCE
from diffusecli.evaluation.verdicts import p_value
from diffusecli.report.numbers import count, number, percent
from diffusecli.report.parts import cut_in_words
from diffusecli.report.row_charts import COLUMNS, LANE, ROW, Head, Line, Mark, Row, RowChart, beyond_axis, thin_line
from diffusecli.report.scales import Scale
from diffusecli.report.views import LONGEST_LABEL, MOST, OFF_TARGET, WHOLE_TEXT, Sampler, Section, distinct
from diffusecli.report.wording import MERGED, short, signs
from diffusecli.system.errors import joined, many

_MANY = 20  # targets, of which one is outside of a 95 % range by chance
Answered = tuple[Sampler, Evaluated]


def of_targets(section: Section) -> RowChart:
    """Target weights, shares among valid answers, and where 95 % of perfect samplers are, with as many valid answers as the main sampler with most."""
    main, thin = section.main, [pair for pair in section.sampled if pair not in section.main]
    ranged = max((pair for pair in main if pair[1].tally.on_target), key=lambda pair: pair[1].tally.on_target, default=None)
    k = ranged[1].tally.on_target if ranged else 0
    noise = [_noise(section.prompt.probabilities[i], k) for i in section.shown]
    reached = [row.tally.counts[i] / row.tally.on_target for _, row in main if row.tally.on_target for i in section.shown]
    scale = Scale(0, max([1e-9, *(section.prompt.probabilities[i] for i in section.shown), *reached, *(high for _, high in noise)]))
    answered = _answered(section)
    columns, digits = _columns(main, thin, answered), 1 if scale.high >= 0.01 else 2 if scale.high >= 0.001 else 3
    rows = [
        _target(section, place, noise[place] if k else None, scale, digits, main, thin, columns)
        for place in range(len(section.shown))
    ]
    for name in section.strays:
        what = "any other answer" if name == OFF_TARGET else "cut at the limit of new tokens"
        rows.append(Row(name, what, ("", *(_outside(row, name) for _, row in columns)), outside=f"{what}, share of all answers"))
    several, control = len(section.prompt.targets) > 1, "false discoveries limited to 5 %"
    allowed = f"among {many(len(section.prompt.targets), 'target')}"
    return RowChart(
        "distribution", "Weights and shares", _reading(section) + beyond_axis(rows), _in_words(section),
        (Head("weight"), *(Head(sampler.label, sampler) for sampler, _ in columns)), tuple(rows), scale.ticks("share"), scale.at(0),
        tuple(sampler for sampler, _ in answered), tuple(sampler for sampler, _ in thin),
        f"95 % of perfect samplers with {many(k, 'valid answer')}{_whose(ranged, main)}{', for each target alone' if several else ''}" if ranged else "",
        f"differs from the weight (*{f'; {control}' if several else ''})", f"may be sampling noise{f' ({allowed}; {control})' if several else ''}",
        across="share of valid answers", note=_notes(main),
    )  # fmt: skip


def _target(
    section: Section, place: int, noise: tuple[float, float] | None, scale: Scale, digits: int,
    main: Sequence[Answered], thin: Sequence[Answered], columns: Sequence[Answered],
) -> Row:  # fmt: skip
    """The row of one target: points of the main samplers, lines of the others."""
    i, height = section.shown[place], max(ROW, LANE * len(main) + 8)
    above = section.shown[place - 1] if place else None
    weight = section.prompt.probabilities[i]
    return Row(
        section.labels[place], section.texts[place], (percent(weight, digits), *(_share(row, i, digits) for _, row in columns)),
        (False, *(bool(row.tally.on_target) and row.cells[i].differs for _, row in columns)), scale.length(0, weight),
        (scale.at(noise[0]), scale.length(*noise)) if noise else None,
        tuple(_mark(sampler, row, i, scale, height * (lane + 1) / (len(main) + 1))
              for lane, (sampler, row) in enumerate(main) if row.tally.on_target),
        tuple(_line(sampler, row, i, above, scale) for sampler, row in thin if row.tally.on_target), height=height,
        cut=section.labels[place] != section.texts[place],
    )  # fmt: skip


def together(row: Evaluated) -> str:
    """What differs from the target although all points of a sampler are hollow; empty if its points show it, or if it fits."""
    f = row.figures
    if (
        f is None
        or not f.p_value < SIGNIFICANCE
        or f.too_even
        or not row.tally.on_target
        or any(cell.differs for cell in row.cells)
    ):
        return ""
    return f"No single target stands out. All targets together differ from the weights, {signs(p_value(f.p_value, f.least_p))}."


def _notes(main: Sequence[Answered]) -> str:
    """The same of each sampler, with its name if there are several."""
    found = [(sampler.label, words) for sampler, row in main if (words := together(row))]
    return " ".join(f"{name}: {words[0].lower()}{words[1:]}" if len(main) > 1 else words for name, words in found)


def _line(sampler: Sampler, row: Evaluated, i: int, above: int | None, scale: Scale) -> Line:
    share, k = row.tally.counts[i] / row.tally.on_target, row.tally.on_target
    before = None if above is None else row.tally.counts[above] / k
    return thin_line(sampler, scale, share, f"{percent(share)} of valid answers", before)


def _noise(weight: float, k: int) -> tuple[float, float]:
    """The shares where 95 % of perfect samplers are, by the same exact binomial test that marks targets."""
    from scipy.special import bdtrik

    if not k or not 0 < weight < 1:
        return weight, weight
    low, high = (max(0.0, math.ceil(float(bdtrik(tail, k, weight)) - 1e-9)) for tail in (0.025, 0.975))
    return low / k, high / k


def _whose(ranged: Answered, main: Sequence[Answered]) -> str:
    """Whose number of valid answers the range is for, if other points have other numbers."""
    numbers = {row.tally.on_target for _, row in main if row.tally.on_target}
    return f", as many as {ranged[0].label} has" if len(numbers) > 1 else ""


def _answered(section: Section) -> Sequence[Answered]:
    """The samplers with valid answers, tuned ones first; all samplers if none has any."""
    found = [*section.main, *(pair for pair in section.sampled if pair not in section.main)]
    return [(sampler, row) for sampler, row in found if row.tally.on_target] or found


def _columns(main: Sequence[Answered], thin: Sequence[Answered], answered: Sequence[Answered]) -> Sequence[Answered]:
    """The samplers whose shares are written beside the plot, tuned ones first: all, or those with valid answers, or as many as have room.

    The answers of the others are still off target or unfinished.
    """
    for some in ([*main, *thin], answered):
        if len(some) < COLUMNS:
            return some
    return ([pair for pair in main if pair in answered] or answered)[: COLUMNS - 1]


def _share(row: Evaluated, i: int, digits: int) -> str:
    return percent(row.tally.counts[i] / row.tally.on_target, digits) if row.tally.on_target else "–"


def _outside(row: Evaluated, name: str) -> str:
    some = row.tally.off_target if name == OFF_TARGET else row.tally.unfinished
    return percent(some.total() / row.tally.n)


def _mark(sampler: Sampler, row: Evaluated, i: int, scale: Scale, y: float) -> Mark:
    cell, share = row.cells[i], row.tally.counts[i] / row.tally.on_target
    text = f"{sampler.label}: {percent(share)} of valid answers, {count(cell.count)} where {number(cell.expected, 1)} are expected"
    return Mark(sampler, scale.at(share), cell.differs, text, y, scale.beyond(share))


def _reading(section: Section) -> str:
    parts = []
    if any(row.tally.on_target for _, row in section.main) and len(section.prompt.targets) >= _MANY:
        parts.append("Of many targets, some are outside of the grey range by chance.")
    absent = [sampler.label for sampler, row in section.sampled if not row.tally.on_target]
    if len(absent) == len(section.sampled):
        parts.append("No answer is valid, so there are no shares.")
    elif absent:
        parts.append(f"Without shares, because no answer is valid: {joined(absent)}.")
    if len(section.main) >= COLUMNS:
        parts.append("The numbers of all samplers are below.")
    if section.folded:
        how = f"{MOST // 2} evenly spaced" if section.uniform else f"the {MOST // 2} largest"
        verb = "target is" if section.folded == 1 else "targets are"
        parts.append(
            f"The chart shows {how} targets and the {MOST // 2} that fit worst; {count(section.folded)} more {verb} not shown "
            f"(together weight {percent(_of_folded(section, section.prompt.probabilities))}{_shares_of_folded(section)})."
        )
    return " ".join(parts)


def _of_folded(section: Section, values: Sequence[float]) -> float:
    return math.fsum(values) - math.fsum(values[i] for i in section.shown)


def _shares_of_folded(section: Section) -> str:
    """The share of the targets that are not shown, if there is one main sampler."""
    known = [row.tally for _, row in section.main if row.tally.on_target]
    return f", share {percent(_of_folded(section, known[0].counts) / known[0].on_target)}" if len(known) == 1 else ""


def _in_words(section: Section) -> str:
    sentences = [f"Target weights and shares of valid answers, {many(len(section.prompt.targets), 'target')}."]
    for sampler, row in section.sampled:
        if row.tally.on_target:
            place, worst = max(enumerate(row.cells), key=lambda one: abs(one[1].residual))
            sentences.append(
                f"{sampler.label}: differs at {many(sum(cell.differs for cell in row.cells), 'target')}; the furthest is "
                f"{short(section.names[place])}: share {percent(worst.count / row.tally.on_target)}, weight {percent(worst.weight)}."
            )
        else:
            sentences.append(f"{sampler.label}: 0 of {many(row.tally.n, 'answer')} valid.")
    return " ".join(sentences)


def of_outcomes(row: Evaluated, sampler: Sampler) -> RowChart | None:
    """The most frequent answers to a prompt without a list of valid ones; None if no answer occurs twice."""
    top = row.diversity.top if row.diversity is not None else ()
    if not top or top[0].count == 1:
        return None
    n, scale = row.tally.n, Scale(0, top[0].count / row.tally.n)
    names, texts = (distinct([outcome.text for outcome in top], width) for width in (LONGEST_LABEL, WHOLE_TEXT))
    rows = [Row(name + cut_in_words(outcome), text + cut_in_words(outcome), (percent(outcome.count / n), count(outcome.count)), (),
                scale.length(0, outcome.count / n), cut=name != text)
            for name, text, outcome in zip(names, texts, top, strict=True)]  # fmt: skip
    more = row.diversity.distinct - len(top) if row.diversity is not None else 0
    rest = f" {many(more, 'more answer')} not shown." if more else ""
    return RowChart(
        "outcomes", f"Most frequent answers, {sampler.label}", f"{MERGED[0].upper()}{MERGED[1:]}.{rest}",
        f"The {len(names)} most frequent answers of {sampler.label}, from {percent(top[0].count / n)} to {percent(top[-1].count / n)}.",
        (Head("share"), Head("count")), tuple(rows), scale.ticks("share"), scale.at(0), tone=sampler.colour, across="share of answers",
    )  # fmt: skip
