"""The chart of all prompts: each with its verdict and its distance from the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffusecli.evaluation.evaluation import Evaluated
from diffusecli.report.asked import Asked
from diffusecli.report.numbers import known, number, percent
from diffusecli.report.row_charts import Head, Mark, Row, RowChart, beyond_axis, thin_line
from diffusecli.report.scales import Scale
from diffusecli.report.views import Sampler, Section

_MOST_DESCRIBED = 60  # rows that a description has room for
_SAMPLED = "Points: TVD (total variation distance) of the answers; 0 is perfect, 1 is the largest."
_EXACT = "Points: TVD (total variation distance) of the model's own probabilities; 0 is perfect, 1 is the largest."
_KL = " Exact KL: divergence of the model's own probabilities in nats; 0 is perfect."
_EXCESS = " Excess TVD: minus the mean TVD of a perfect sampler with as many answers."
_WITHIN = " A prompt can lie in the grey range and still fail: a verdict also depends on the valid share and the test of fit."


@dataclass(frozen=True)
class Judged:
    """One prompt and one tuned sampler of the overview."""

    section: Section
    asked: Asked
    sampler: Sampler
    row: Evaluated
    first: bool  # of its prompt
    drawn: Row
    measured: bool  # whether it has a distance
    baselines: str  # in the first row of a prompt, the distances of untuned samplers, whose lines may be beyond the axis


@dataclass(frozen=True)
class Overview:
    """Every prompt with its verdict and its distance; `chart` has the same rows."""

    rows: tuple[Judged, ...]
    chart: RowChart


def of_prompts(sections: Sequence[tuple[Section, Asked]]) -> Overview:
    """A verdict for each prompt and sampler, over its TVD and the TVD that 95 % of perfect samplers do not exceed."""
    listed = [(section, asked, pair, place == 0) for section, asked in sections
              for place, pair in enumerate(_judged(section))]  # fmt: skip
    distances = [value for _, _, (_, row), _ in listed for value in _distance(row) if known(value) is not None]
    scale = Scale(0, min(1.0, max([0.02, *distances]) * 1.02))
    kl = any(_has_kl(row) for _, _, (_, row), _ in listed)
    thin = {section.prompt.key: [pair for pair in section.sampled if pair[0].untuned] for section, _ in sections}
    rows = []
    for section, asked, (sampler, row), first in listed:
        distance = _distance(row)
        measured = bool(distance) and known(distance[0]) is not None
        strip = _strip(sampler, row, thin[section.prompt.key] if measured else (), scale, section.name if first else "", kl=kl)
        others = [pair for pair in thin[section.prompt.key] if first and pair[0] != sampler and not sampler.untuned]
        rows.append(Judged(section, asked, sampler, row, first, strip, measured, in_words(others)))
    return Overview(tuple(rows), _chart(rows, scale, [sampler for some in thin.values() for sampler, _ in some]))


def _chart(rows: Sequence[Judged], scale: Scale, untuned: Sequence[Sampler]) -> RowChart:
    tuned = any(not each.sampler.untuned for each in rows)
    shown = tuple(dict.fromkeys(each.sampler for each in rows))
    kl = any(_has_kl(each.row) for each in rows)
    sampled = any(each.row.figures is not None for each in rows)
    fails = [each.row.figures for each in rows if not each.row.verdict.startswith(("follows", "close"))]
    within = any(f.tvd <= f.tvd_floor_95 for f in fails if f is not None)
    thin = tuple(dict.fromkeys(untuned)) if tuned else ()
    described = "; ".join(f"{each.section.name}, {each.drawn.hint}" for each in rows[:_MOST_DESCRIBED])
    return RowChart(
        "overview", "Distance from the target", _reading(rows, sampled=sampled, within=within, kl=kl), f"Total variation distances. {described}.",
        tuple(map(Head, (*(("valid", "TVD") if sampled else ("on target", "exact TVD")), *(["exact KL"] if kl else ["excess TVD"] if sampled else [])))),
        tuple(each.drawn for each in rows), scale.ticks(), scale.at(0), (*shown, *thin), thin,
        "95 % of perfect samplers with as many answers" if sampled else "", across="TVD",
    )  # fmt: skip


def _reading(rows: Sequence[Judged], *, sampled: bool, within: bool, kl: bool) -> str:
    beyond = beyond_axis(each.drawn for each in rows)
    return f"{_SAMPLED if sampled else _EXACT}{_KL if kl else _EXCESS if sampled else ''}{_WITHIN if within else ''}{beyond}"


def _judged(section: Section) -> list[tuple[Sampler, Evaluated]]:
    return [pair for pair in section.pairs if not pair[0].untuned] or section.pairs


def _distance(row: Evaluated) -> tuple[float, ...]:
    f = row.figures
    if f is not None:
        return f.tvd, f.tvd_floor_95
    return (row.exact.tvd,) if row.exact is not None else ()


def _strip(
    sampler: Sampler, row: Evaluated, thin: Sequence[tuple[Sampler, Evaluated]], scale: Scale, label: str, *, kl: bool
) -> Row:
    distance, f = _distance(row), row.figures
    if not distance or known(distance[0]) is None:
        return Row(label, f"{sampler.label}: no distance", _figures(row, kl=kl), height=2, judged=(sampler.label, row.verdict))
    floor = scale.length(0, f.tvd_floor_95) if f is not None and known(f.tvd_floor_95) is not None else None
    text = f"{sampler.label}: {'TVD' if f is not None else 'exact TVD'} {number(distance[0])}"
    if f is not None:
        text += f"; 95 % of perfect samplers have at most {number(f.tvd_floor_95)}"
    lines = [thin_line(other, scale, some.figures.tvd, f"TVD {number(some.figures.tvd)}")
             for other, some in thin if other != sampler and some.figures is not None]  # fmt: skip
    return Row(
        label, text, _figures(row, kl=kl), noise=(scale.at(0), floor) if floor is not None else None,
        marks=(Mark(sampler, scale.at(distance[0]), True, text, 8),), lines=tuple(lines), height=16, judged=(sampler.label, row.verdict),
    )  # fmt: skip


def in_words(untuned: Sequence[tuple[Sampler, Evaluated]]) -> str:
    """The TVD of each untuned sampler."""
    return "; ".join(f"{sampler.label}: TVD {number(row.figures.tvd)}" for sampler, row in untuned if row.figures is not None)


def _has_kl(row: Evaluated) -> bool:
    """Whether the exact KL is known."""
    return row.exact is not None and known(row.exact.kl) is not None


def _figures(row: Evaluated, *, kl: bool) -> tuple[str, ...]:
    """Of samples if there are any, otherwise exact ones; the exact KL if a row of the chart has it, otherwise the excess TVD of samples."""
    f, exact = row.figures, row.exact
    last = (number(exact.kl if exact is not None else None, 4),) if kl else ()
    if f is not None:
        return percent(f.valid), number(f.tvd), *(last if kl else (number(f.excess_tvd),))
    return (percent(exact.on_target), number(exact.tvd), *last) if exact is not None else ("", "", *([""] * kl))
