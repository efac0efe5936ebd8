"""Limits for an evaluation, so that a pipeline can stop if answers do not follow their weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from diffusecli.evaluation.evaluation import Evaluated, Evaluation
from diffusecli.evaluation.groups import Group, groups, tuned
from diffusecli.evaluation.metrics import KINDS
from diffusecli.evaluation.names import labels, marks, with_sampler
from diffusecli.prompts.groups import WHOLE
from diffusecli.system.errors import InputError, many, shortened


@dataclass(frozen=True)
class Gate:
    """One figure with a lower or an upper limit."""

    figure: str
    minimum: bool  # whether the limit is a lower one
    value: Callable[[Evaluated], float]
    share: bool = True  # between 0 and 1
    open_ended: bool = False  # judges prompts without targets too
    exact: bool = False  # judges prompts without samples too
    where: Callable[[Evaluated], str] = lambda _: ""  # names the wording, field or test with the worst figure


@dataclass(frozen=True)
class GroupGate:
    """An exact figure of a group with an upper limit; a share. Its rounding is added to it."""

    figure: str
    value: Callable[[Group], float]
    rounding: Callable[[Group], float]


def worst_wording(row: Evaluated) -> float:
    """The highest exact TVD over wordings, held-out wordings and held-out contexts, with its rounding; without these the prompt's own."""
    if row.exact is None:
        return math.nan
    return max((one.tvd for one in row.exact.wordings), default=row.exact.tvd) + row.exact.tvd_rounding


def _which_wording(row: Evaluated) -> str:
    worst = max(row.exact.wordings, key=lambda one: one.tvd) if row.exact and row.exact.wordings else None
    return (f", {KINDS[worst.kind]} {shortened(worst.name, 60)!r}" if worst else "") + _which_rounding(row, "tvd_rounding")


def _which_rounding(row: Evaluated, of: str) -> str:
    """The part of an exact figure that is the rounding of a 16-bit model."""
    rounding = getattr(row.exact, of, 0.0)
    return f", with {rounding:.2g} of 16-bit rounding" if rounding else ""


def _highest(row: Evaluated, figure: str) -> float:
    """A figure of the answers, or of the record field with a higher one."""
    if row.figures is None:
        return math.nan
    fields = row.records.fields if row.records is not None else ()
    return float(max(getattr(found, figure) for found in (row.figures, *fields)))


def _which_field(row: Evaluated, figure: str) -> str:
    """The field with the highest figure, if it is above that of the answers."""
    fields = row.records.fields if row.records is not None else ()
    worst = max(fields, key=lambda field: getattr(field, figure), default=None)
    own = getattr(row.figures, figure, math.nan)
    return f", field {worst.name!r}" if worst is not None and getattr(worst, figure) > own else ""


def _which_test(row: Evaluated) -> str:
    """The field or pair with the lowest p-value, if it is below that of the answers."""
    if row.figures is None or row.records is None or _lowest_p(row) == row.figures.p_value:
        return ""
    return f", {row.records.lowest_p[1]}"


def _finest_p(row: Evaluated) -> float:
    """The lowest p-value that the tests of a row can give."""
    found = [row.figures.least_p] if row.figures is not None else []
    return max([*found, row.records.finest_p] if row.records is not None else found, default=0.0)


def _lowest_p(row: Evaluated) -> float:
    """The p-value of the answers, or of all fields of records and their pairs together, if that is lower."""
    if row.figures is None:
        return math.nan
    found = [row.figures.p_value, *([row.records.least_p] if row.records is not None else [])]
    return min((p for p in found if not math.isnan(p)), default=math.nan)


GATES: Mapping[str, Gate] = {
    "--min-n": Gate("N", True, lambda row: float(row.tally.n), share=False),
    "--min-valid": Gate("valid share", True, lambda row: row.figures.valid if row.figures else math.nan),
    "--max-unfinished": Gate("unfinished share", False, lambda row: row.tally.unfinished_share, open_ended=True),
    "--max-tvd": Gate("TVD", False, lambda row: _highest(row, "tvd"), where=lambda row: _which_field(row, "tvd")),
    "--max-excess-tvd": Gate(
        "excess TVD", False, lambda row: _highest(row, "excess_tvd"), where=lambda row: _which_field(row, "excess_tvd")
    ),
    "--min-p": Gate("p", True, _lowest_p, where=_which_test),
    "--min-coverage": Gate(
        "seen / possible", True, lambda row: row.figures.seen / row.figures.seen_expected if row.figures else math.nan
    ),
    "--max-kl": Gate(
        "exact KL",
        False,
        lambda row: row.exact.highest_kl if row.exact else math.nan,
        share=False,
        exact=True,
        where=lambda row: _which_rounding(row, "rounding"),
    ),
    "--max-wording-tvd": Gate("worst exact TVD of a wording", False, worst_wording, exact=True, where=_which_wording),
}
"""Limits of every prompt with targets, or with samples; `--max-drift` applies to runs."""

GROUP_GATES: Mapping[str, GroupGate] = {
    "--max-median-tvd": GroupGate("median exact TVD", lambda group: group.tvd_median, lambda group: group.rounding),
    "--max-median-excess-tvd": GroupGate(
        "median excess TVD", lambda group: group.excess_tvd_median, lambda group: group.excess_rounding
    ),
}
"""Limits of every split, and of folders outside the splits."""


def check_limits(limits: Mapping[str, float]) -> None:
    """Raises `InputError` for limits that have no meaning."""
    for option, limit in limits.items():
        share = option in GROUP_GATES or (option in GATES and GATES[option].share)
        if not (math.isfinite(limit) and limit >= 0) or (share and limit > 1):
            raise InputError(f"{option} {limit:g}: must be {'between 0 and 1' if share else 'zero or more'}")


def failures(found: Evaluation, limits: Mapping[str, float]) -> list[str]:
    """Missed limits, one phrase each. Untuned models are only judged if there is nothing else.

    An unknown figure misses every limit. Prompts with exact figures only have no samples to judge. Raises `InputError`
    for limits that have no meaning.
    """
    check_limits(limits)
    if "--min-p" in limits and (weak := [p for row in found.rows if row.figures and limits["--min-p"] <= (p := _finest_p(row))]):
        raise InputError(f"--min-p {limits['--min-p']:g}: must be above {weak[0]:.2g}, the lowest p-value that the test can give")
    missed = [list(_missed(found, GATES[option], limit)) for option, limit in limits.items() if option in GATES]
    missed += [
        list(_missed_by_groups(found, GROUP_GATES[option], limit)) for option, limit in limits.items() if option in GROUP_GATES
    ]
    missed += [list(_drifted(found, limits["--max-drift"]))] if "--max-drift" in limits else []
    # one of each limit first, because only the first ones are shown if many are missed
    return [phrase for some in missed for phrase in some[:1]] + [phrase for some in missed for phrase in some[1:]]


def _missed(found: Evaluation, gate: Gate, limit: float) -> Iterator[str]:
    samplers, marked = labels(found.rows), marks(row.prompt for row in found.rows)
    known = [row for row in found.rows if row.prompt.targets or gate.open_ended]
    judged = [row for row in known if gate.exact or row.tally.n or row.exact is None]
    for row in tuned(judged):
        value, who = gate.value(row), with_sampler(f"{row.prompt.alias}{marked[row.prompt.key]}", samplers[row.run, row.mode])
        if math.isnan(value):
            hint = (" (add --exact)" if row.bounds is None else " (the server gives only limits)") if gate.exact else ""
            unsure = gate.exact and row.exact is not None and math.isnan(row.exact.rounding + row.exact.tvd_rounding)
            yield f"{who}: {gate.figure} is not known{' because of 16-bit rounding' if unsure else ''}{hint}"
        elif value < limit if gate.minimum else value > limit:
            yield f"{who}: {gate.figure} {value:.4g} {'<' if gate.minimum else '>'} {limit:g}{gate.where(row)}"
    if not judged:
        yield f"{gate.figure}: there are no samples{'' if gate.open_ended else ' of a prompt with targets'}"


def _missed_by_groups(found: Evaluation, gate: GroupGate, limit: float) -> Iterator[str]:
    """A group misses its limit if the exact TVD of a prompt is unknown."""
    samplers, judged = labels(found.rows), [group for folder, some in groups(tuned(found.rows)) if folder.top for group in some]
    for group in judged:
        folder = "all prompts" if group.folder == WHOLE else group.folder
        rounding, who = gate.rounding(group), with_sampler(folder, samplers[group.run, group.mode])
        value = gate.value(group) + rounding
        if group.exact < group.prompts:
            yield f"{who}: {gate.figure} is not known, {group.exact} of {many(group.prompts, 'prompt')} measured (add --exact)"
        elif math.isnan(value):
            yield f"{who}: {gate.figure} is not known because of 16-bit rounding"
        elif value > limit:
            yield f"{who}: {gate.figure} {value:.4g} > {limit:g}{f', with {rounding:.2g} of 16-bit rounding' if rounding else ''}"
    if not judged:
        yield f"{gate.figure}: there is no prompt with targets"


def _drifted(found: Evaluation, limit: float) -> Iterator[str]:
    for run in found.runs:
        drift = found.drift.get(run.run)
        if drift is None:
            yield f"{run.run}: drift is not known (add --exact)"
        elif drift > limit:
            yield f"{run.run}: drift {drift:.4g} > {limit:g}"
    if not found.runs:
        yield "drift: there is no run to measure"
