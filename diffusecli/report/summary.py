"""An evaluation as rich tables: figures and verdict of each sampler, differences and matrices, then the details of each prompt.

Readable at 80 columns, without colour and in a pipe. The reference value is below each figure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from diffusecli.evaluation.comparison import Estimate
from diffusecli.evaluation.evaluation import UNSAMPLED, Difference, Evaluated, Evaluation, Matrix, by_prompt
from diffusecli.evaluation.groups import are_many, in_wordings
from diffusecli.evaluation.names import labels, marks, prompt_names, short_names
from diffusecli.evaluation.records import RecordFigures
from diffusecli.prompts.matching import Matching, wider_rules
from diffusecli.prompts.wording_names import split_alias
from diffusecli.report.details import details
from diffusecli.report.groups import group_legend, group_table, worst_table
from diffusecli.report.histogram import Showing
from diffusecli.report.parts import label, new_table, number, p_value, percent
from diffusecli.report.wording import of_wordings, plus_minus, short
from diffusecli.system.errors import many, shortened
from diffusecli.system.terminal import spelled

_ASKED = 80  # characters of a wording
_WIDTHS = (11, 7, 11, 11, 6, 8, 5, 6, 7)
_HEAD = (
    "", "N", "valid\n95 % int.", "entropy\ntarget/perf", "exp(H)\ntarget", "seen\npossible", "TVD\nfloor", "excess\np", "exact\nKL",
)  # fmt: skip
_LEGEND = """\
N: number of samples
valid: {matching}
95 % int.: Wilson's interval of the valid share
unfinished: cut at the limit of new tokens; never valid
entropy: in nats, with Miller and Madow's correction
target/perf: entropy of the target, and of a perfect sampler
exp(H): effective number of outcomes
seen: number of distinct targets
possible: number expected from a perfect sampler
TVD: total variation distance
floor: TVD of a perfect sampler at this N
excess: TVD minus floor
p: goodness of fit among valid samples (G, TVD, distinct targets; Monte Carlo)
exact KL: KL(target || model) in nats, from the model's own probabilities
expected: expected count among as many valid answers
of all: share of all answers, off-target ones included
*: differs from its weight (Benjamini-Hochberg; 5 % of marks false on average)
Monte Carlo seed: {seed}"""


def evaluation(found: Evaluation, showing: Showing | None = None) -> RenderableType:
    """Summary with verdicts, comparisons, then a histogram for each sampler of each prompt; of many prompts figures by folder."""
    if are_many(found.rows):
        return Group(*at_a_glance(found))
    parts: list[RenderableType] = [_grid(_HEAD, bold=True), Text("─" * 80, style="dim")]
    names, samplers, marked = prompt_names(r.prompt for r in found.rows), labels(found.rows), marks(r.prompt for r in found.rows)
    for of_prompt in by_prompt(found.rows):
        key = of_prompt[0].prompt.key
        parts.append(Text(spelled(names[key]) + (": another prompt has this name too" if marked[key] else ""), style="bold"))
        if split_alias(of_prompt[0].prompt.alias)[1]:
            parts.append(Text(spelled(short(of_prompt[0].prompt.question, _ASKED))))
        for row in of_prompt:
            parts.extend(_summary(row, samplers[row.run, row.mode]))
    parts += drifts(found)
    parts += _differences(found.differences, names, samplers)
    parts += matrices(found)
    wider = wider_rules(row.prompt for row in found.rows) if found.matching == Matching() else []
    for row in found.rows:
        parts.extend(details(row, marked[row.prompt.key], samplers[row.run, row.mode], showing or Showing(), wider))
    legend = _LEGEND.format(matching=spelled(found.match_in_words), seed=found.seed)
    of_groups = list(group_table(found))
    legends = [legend, *([f"By folder:\n{group_legend(found)}"] if of_groups else [])]
    return Group(*parts, *of_groups, *(Text(f"\n{words}", style="dim") for words in legends))


def at_a_glance(found: Evaluation) -> Iterator[RenderableType]:
    """The output for many prompts, without summary and details of each."""
    yield from matrices(found)
    yield from worst_table(found)
    yield from _worded(found)
    yield from group_table(found)
    yield from drifts(found)
    if count := len({row.prompt.key for row in found.rows if not row.prompt.targets}):
        yield Text(f"{many(count, 'prompt')} without targets not shown. Add --only NAME to see one")
    yield Text(f"\n{group_legend(found)}", style="dim")


def _worded(found: Evaluation) -> Iterator[RenderableType]:
    """Distance of wordings and contexts from their targets, for prompts that have several."""
    rows, names, samplers = in_wordings(found.rows), prompt_names(row.prompt for row in found.rows), labels(found.rows)
    if rows:
        yield Text("\nother wordings and contexts, furthest from the target first", style="bold")
    for row in rows:
        yield Text(f"{spelled(names[row.prompt.key])} ({spelled(samplers[row.run, row.mode])})")
        for line in of_wordings(row.exact.wordings) if row.exact is not None else ():
            yield Padding(Text(spelled(line)), (0, 0, 0, 3), expand=False)


def drifts(found: Evaluation) -> list[RenderableType]:
    """Drift of adapters from the base model on instructions, one line each."""
    names = short_names([run.run for run in found.runs])
    return [
        Text(f"{spelled(names[run])}: drift from the base model on held-out instructions: {drift:.4f} nats per token")
        for run, drift in found.drift.items()
    ]


def _summary(row: Evaluated, sampler: str) -> Iterator[RenderableType]:
    """Two lines of figures, the verdict, the sampling settings."""
    f, exact = row.figures, row.exact
    kl = f"{'≈' if exact.kl_error else ''}{number(exact.kl)}" if exact else "-"
    if f is None:
        yield _grid((sampler, str(row.tally.n), *["-"] * 6, kl))
    else:
        yield _grid((
            sampler, str(f.n), f"{percent(f.valid)}\n{100 * f.valid_low:.1f}–{100 * f.valid_high:.1f}",
            f"{f.entropy:.3f}\n{f.target_entropy:.2f}/{f.entropy_perfect:.2f}", f"{_short(f.effective)}\n{_short(math.exp(f.target_entropy))}",
            f"{f.seen}\n{f.seen_expected:.1f}", f"{f.tvd:.3f}\n{f.tvd_floor:.3f}", f"{f.excess_tvd:z.3f}\n{p_value(f)}", kl,
        ))  # fmt: skip
    yield Padding(Text(spelled(row.verdict), style="italic"), (0, 0, 0, 3), expand=False)
    if exact is not None and not math.isnan(exact.tvd):
        seen = f"{exact.seen_expected:.1f} targets expected in {row.tally.n or UNSAMPLED}"
        line = f"exact: {percent(exact.on_target)} on target, TVD {exact.tvd:.4f}, {seen}"
        yield Padding(Text(line), (0, 0, 0, 3), expand=False)
    if exact is not None and exact.kl_error:
        yield Padding(Text(spelled(f"KL estimated: {plus_minus(exact.kl, exact.kl_error)} nats")), (0, 0, 0, 3), expand=False)
    for line in of_wordings(exact.wordings) if exact is not None else ():
        yield Padding(Text(spelled(line)), (0, 0, 0, 3), expand=False)
    if row.records is not None:
        yield from _records(row.records)
    if cut := row.tally.unfinished.total():
        line = f"{cut} of {many(row.tally.n, 'sample')} unfinished ({percent(row.tally.unfinished_share)}): cut at the limit of new tokens"
        yield Padding(Text(line), (0, 0, 0, 3), expand=False)
    if row.tally.n:
        yield Padding(
            Text(f"{many(row.tally.n, 'sample')}, {spelled(row.settings_in_words)}", style="dim"),
            (0, 0, 0, 3),
            expand=False,
        )


def _records(found: RecordFigures) -> Iterator[RenderableType]:
    """Fields, and the association that is furthest from the target."""
    line = f"records: {percent(found.fits)} fit the template, {percent(found.known)} have known values only, {percent(found.copies)} are targets"
    yield Padding(Text(line), (0, 0, 0, 3), expand=False)
    for f in found.fields:
        line = f"{f.name} ({many(f.values, 'value')}): TVD {f.tvd:.3f}, floor {f.tvd_floor:.3f}: {f.verdict}"
        yield Padding(Text(spelled(line)), (0, 0, 0, 5), expand=False)
    if (worst := found.worst_pair) is not None:
        line = (
            f"worst association of {many(len(found.pairs), 'pair')}: {worst.first} and {worst.second}, {worst.measure} {worst.sampled:.3f}; "
            f"perfect sampler {worst.perfect:.3f} (p = {found.pairs_p_value:.2g} over all pairs), weights {worst.target:.3f}"
        )
        yield Padding(Text(spelled(line)), (0, 0, 0, 3), expand=False)
    if found.sdmetrics is not None:
        line = f"SDMetrics quality score {number(found.sdmetrics.score)} (perfect sampler {number(found.sdmetrics.perfect)})"
        yield Padding(Text(spelled(line)), (0, 0, 0, 3), expand=False)


def _differences(
    differences: Sequence[Difference], names: dict[tuple[str, str], str], samplers: dict[tuple[str, str], str]
) -> Iterator[RenderableType]:
    if not differences:
        return
    table = new_table(
        Text("difference"), Text("samplers"), ("excess TVD\n95 % interval", "right"), ("entropy\n95 % interval", "right"),
        ("exact\nKL", "right"),
    )  # fmt: skip
    for d in differences:
        pair = [label(samplers[row.run, row.mode], 20).plain for row in (d.after, d.before)]
        table.add_row(
            label(names[d.prompt.key], 22), Text("\n- ".join(pair)), _estimate(d.excess_tvd), _estimate(d.entropy),
            "-" if math.isnan(d.exact_kl) else f"{d.exact_kl:+.3f}",
        )  # fmt: skip
    yield Text("\ndifferences (bootstrap; *: the interval excludes zero)", style="bold")
    yield table


def _estimate(found: Estimate) -> str:
    if math.isnan(found.value):
        return "-"
    interval = "" if math.isnan(found.low) else f"\n{found.low:+.3f} {found.high:+.3f}"
    return f"{found.value:+.3f}{'*' if found.apart else ' '}{interval}"


def matrices(found: Evaluation) -> list[RenderableType]:
    """Groups trained on by groups measured, for runs on different groups."""
    return [part for matrix in found.matrices for part in _matrix(matrix)]


def _matrix(matrix: Matrix) -> Iterator[RenderableType]:
    table = new_table(Text("trained \\ measured"), *((shortened(spelled(group), 11), "right") for group in matrix.groups))
    names = short_names(matrix.runs)
    for run, values, trained in zip(matrix.runs, matrix.values, matrix.trained, strict=True):
        table.add_row(label(names[run], 20), *(f"{number(v)}{'+' if t else ' '}" for v, t in zip(values, trained, strict=True)))
    yield Text(f"\n{matrix.measure}, mean over prompts (+: trained on)", style="bold")
    yield table


def _grid(cells: Sequence[str], *, bold: bool = False) -> Table:
    grid = Table.grid(padding=(0, 1, 0, 0))
    for place, width in enumerate(_WIDTHS):
        grid.add_column(width=width, justify="right" if place else "left", no_wrap=True)
    words = spelled(cells[0])
    lines = [words] if len(words) <= _WIDTHS[0] else words.rsplit(" ", 1)  # a long run's name, its mode below
    grid.add_row(
        Text("\n".join(shortened(line, _WIDTHS[0]) for line in lines)),
        *(Text(cell) for cell in cells[1:]),
        style="bold" if bold else "",
    )
    return grid


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else f"{value:.0f}"
