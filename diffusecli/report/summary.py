"""An evaluation as rich tables: figures and verdict of each sampler, then a histogram per prompt.

Readable at 80 columns, without colour and in a pipe. Each figure stands above what it is held against.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from diffusecli.evaluation.comparison import Estimate
from diffusecli.evaluation.evaluation import UNSAMPLED, Difference, Evaluated, Evaluation, Matrix, by_prompt
from diffusecli.evaluation.metrics import Cell, Figures, in_words
from diffusecli.evaluation.names import labels, marks, prompt_names, short_names
from diffusecli.evaluation.open_ended import Diversity, Line
from diffusecli.prompts.matching import Matching, nearly_matched, wider_rules
from diffusecli.report.parts import bar, cut_in_words, decimals, label, new_table, number, p_value, percent, shorten
from diffusecli.system.errors import many
from diffusecli.system.terminal import spelled

Sort = Literal["weight", "residual", "target"]
_WIDTHS = (11, 7, 11, 11, 6, 8, 5, 6, 7)
_HEAD = (
    "", "N", "valid\n95 % int.", "entropy\ntarget/perf", "exp(H)\ntarget", "seen\npossible", "TVD\nfloor", "excess\np", "exact\nKL",
)  # fmt: skip
_OFF_TARGET = 5
_LEGEND = (
    "N: samples. valid: {matching}; below it Wilson's 95 % interval. unfinished: cut at the limit of new tokens, never valid. entropy: nats with Miller and Madow's correction; below it "
    "the target's and a perfect sampler's. exp(H): effective number of outcomes. seen: distinct targets; below it how many a perfect "
    "sampler is expected to show. TVD: total variation distance; below it its floor, what a perfect sampler shows at this N; excess is "
    "the difference. p: goodness of fit among valid samples by G, TVD and distinct targets, Monte Carlo. exact KL: KL(target || model) in nats from the "
    "model's own probabilities, no sampling noise. *: differs from its weight, on average 5 % of such marks are false (Benjamini-Hochberg). "
    "expected: among as many valid answers. Monte Carlo seed {seed}."
)


@dataclass(frozen=True)
class Showing:
    """How much of each histogram is shown, and in which order."""

    top: int = 24  # 0: every target
    sort: Sort | None = None  # None: the prompt's order, the heaviest and the worst of large sets


def evaluation(found: Evaluation, showing: Showing | None = None) -> RenderableType:
    """Summary with verdicts, comparisons, then a histogram for each sampler of each prompt."""
    parts: list[RenderableType] = [_grid(_HEAD, bold=True), Text("─" * 80, style="dim")]
    names, samplers, marked = prompt_names(r.prompt for r in found.rows), labels(found.rows), marks(r.prompt for r in found.rows)
    for of_prompt in by_prompt(found.rows):
        key = of_prompt[0].prompt.key
        parts.append(Text(spelled(names[key]) + (": another prompt has this name, too" if marked[key] else ""), style="bold"))
        for row in of_prompt:
            parts.extend(_summary(row, samplers[row.run, row.mode]))
    drifts = short_names([run.run for run in found.runs])
    parts += [
        Text(f"{spelled(drifts[run])}: drift from the base model on held-out instructions: {drift:.4f} nats per token")
        for run, drift in found.drift.items()
    ]
    parts += _differences(found.differences, names, samplers)
    parts += [part for matrix in found.matrices for part in _matrix(matrix)]
    wider = wider_rules(row.prompt for row in found.rows) if found.matching == Matching() else []
    for row in found.rows:
        parts.extend(_detail(row, marked[row.prompt.key], samplers[row.run, row.mode], showing or Showing(), wider))
    return Group(*parts, Text("\n" + _LEGEND.format(matching=spelled(found.match_in_words), seed=found.seed), style="dim"))


def _summary(row: Evaluated, sampler: str) -> Iterator[RenderableType]:
    """Two lines of figures, the verdict, how it was sampled."""
    f, exact = row.figures, row.exact
    kl = number(exact.kl) if exact else "-"
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
        told = f"exact: {percent(exact.on_target)} on target, TVD {exact.tvd:.4f}, {seen}"
        yield Padding(Text(told), (0, 0, 0, 3), expand=False)
    if cut := row.tally.unfinished.total():
        told = f"{cut} of {many(row.tally.n, 'sample')} unfinished ({percent(row.tally.unfinished_share)}): cut at the limit of new tokens"
        yield Padding(Text(told), (0, 0, 0, 3), expand=False)
    if row.tally.n:
        yield Padding(
            Text(f"{many(row.tally.n, 'sample')}, {spelled(row.settings_in_words)}", style="dim"),
            (0, 0, 0, 3),
            expand=False,
        )


def _detail(row: Evaluated, mark: str, sampler: str, showing: Showing, wider: Sequence[str]) -> Iterator[RenderableType]:
    """The histogram, what the test says and can see, ordered and open-ended figures, texts off target."""
    if not row.tally.n:
        return
    yield Text(spelled(f"\n{row.prompt.alias}{mark}: {sampler}"), style="bold")
    if row.tally.on_target:
        yield from _histogram(row, showing)
    elif row.prompt.targets:
        yield Text(f"none of {many(row.tally.n, 'sample')} {'is' if row.prompt.eos else 'begins with'} a target")
    if row.figures is not None and row.tally.on_target:
        yield Text(_fit(row.figures), style="dim")
    if (o := row.ordered) is not None:
        unit = f" {o.unit}" if o.unit else ""
        since = f" {o.unit} after {shorten(spelled(row.prompt.targets[0]), 20)}" if o.unit else ""
        yield Text(
            f"mean {decimals(o.mean)}{since} (target {decimals(o.target_mean)}), variance {decimals(o.variance)} "
            f"({decimals(o.target_variance)}), Wasserstein distance {decimals(o.wasserstein)}{unit} "
            f"(perfect sampler {decimals(o.wasserstein_floor)})",
            style="dim",
        )
    if row.diversity is not None:
        yield from _open_ended(row.diversity, row.lines)
        return
    if row.tally.off_target:
        yield from _texts(row.tally.off_target, "text off target", "texts off target")
        if missed := nearly_matched(row.prompt, row.tally.off_target, wider):
            yield Text(f"{many(missed.samples, 'sample')} off target would count as targets with\n  --match '{missed.rule}'")
    if row.tally.unfinished:
        yield from _texts(row.tally.unfinished, "unfinished text")


def _texts(counts: Counter[str], *what: str) -> Iterator[RenderableType]:
    yield Text(f"most frequent of {many(len(counts), *what)} ({many(counts.total(), 'sample')}):")
    for text, count in counts.most_common(_OFF_TARGET):
        yield Text(f"  {count:>6} x {shorten(spelled(repr(text)), 68)}")


def _fit(f: Figures) -> str:
    test = (
        f"test of fit: p {p_value(f)}, from G = {f.g:.2f} (p {f.g_p_value:.2g}), TVD (p {f.tvd_p_value:.2g}) and distinct targets "
        f"(p {f.seen_p_value:.2g}), {f.repeats} draws; Pearson's X2 = {f.pearson:.2f}, df {f.df} (p {f.pearson_p_value:.2g})"
    )
    more = (mark.template.format(percent(value) if mark.share else f"{value:.3f}") for mark, value in in_words(f))
    return "; ".join([test, *more])


def _histogram(row: Evaluated, showing: Showing) -> Iterator[RenderableType]:
    ordered_cells, folded = shown_cells(row.cells, showing)
    n = row.tally.n
    top = max(*(max(cell.weight, cell.count / n) for cell in ordered_cells), 1e-12)
    table = new_table(
        Text("target"), ("weight", "right"), Text(""), ("share", "right"), Text(""), ("count", "right"), ("expected", "right"),
        ("residual", "right"),
    )  # fmt: skip
    for cell in ordered_cells:
        table.add_row(
            label(cell.target, 14), percent(cell.weight), bar(cell.weight / top, width=10), percent(cell.count / n),
            bar(cell.count / n / top, "cyan", width=10), str(cell.count), f"{cell.expected:.1f}",
            Text(f"{_residual(cell.residual)}{'*' if cell.differs else ' '}", style="bold" if cell.differs else ""),
        )  # fmt: skip
    yield table
    if folded:
        weight, count = sum(cell.weight for cell in folded), sum(cell.count for cell in folded)
        marked = sum(cell.differs for cell in folded)
        what = "" if showing.sort else "those that weigh most or miss most are; "
        yield Text(
            f"({many(len(folded), 'more target')} not shown: {what}they weigh {percent(weight)}, have {percent(count / n)}, {marked} with *)"
        )


def shown_cells(cells: Sequence[Cell], showing: Showing) -> tuple[list[Cell], list[Cell]]:
    """The cells of a histogram in order, and those that are folded."""
    keys = {"weight": lambda i: -cells[i].weight, "residual": lambda i: -abs(cells[i].residual), "target": lambda i: i}
    most = showing.top or len(cells)
    if showing.sort is not None:
        ranked = sorted(range(len(cells)), key=keys[showing.sort])
    else:
        heaviest, worst = (sorted(range(len(cells)), key=keys[name]) for name in ("weight", "residual"))
        mixed = dict.fromkeys(i for pair in zip(heaviest, worst, strict=True) for i in pair)
        ranked = sorted(list(mixed)[:most]) + list(mixed)[most:]
    return [cells[i] for i in ranked[:most]], [cells[i] for i in ranked[most:]]


def _residual(value: float) -> str:
    return f"{value:+z.1f}" if abs(value) < 1000 or math.isinf(value) else f"{value:+.0e}"


def _open_ended(whole: Diversity, lines: Sequence[Line]) -> Iterator[RenderableType]:
    table = new_table(
        Text("answers"), ("distinct", "right"), ("once", "right"), ("unseen mass", "right"), ("Chao1", "right"), ("beyond", "right")
    )
    for name, found in [("whole", whole), *((line.heading, line.diversity) for line in lines)]:
        table.add_row(
            label(name, 24), str(found.distinct), str(found.once), percent(found.unseen_mass), f"{found.chao1:.0f}", percent(found.beyond),
        )  # fmt: skip
    yield table
    yield Text("unseen mass: the share of the next answers that would be new (Good-Turing). Chao1: least number there are. "
               "beyond: outside the targets.", style="dim")  # fmt: skip
    yield from _commonest(whole)


def _commonest(found: Diversity) -> Iterator[RenderableType]:
    yield Text("most frequent:")
    for outcome in found.top[:_OFF_TARGET]:
        cut = cut_in_words(outcome)
        yield Text(f"  {outcome.count:>6} x {shorten(spelled(repr(outcome.text)), 68 - len(cut))}{cut}")


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
    yield Text("\ndifferences (bootstrap; * where the interval leaves zero out)", style="bold")
    yield table


def _estimate(found: Estimate) -> str:
    if math.isnan(found.value):
        return "-"
    interval = "" if math.isnan(found.low) else f"\n{found.low:+.3f} {found.high:+.3f}"
    return f"{found.value:+.3f}{'*' if found.apart else ' '}{interval}"


def _matrix(matrix: Matrix) -> Iterator[RenderableType]:
    table = new_table(Text("trained \\ measured"), *((shorten(spelled(group), 11), "right") for group in matrix.groups))
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
        Text("\n".join(shorten(line, _WIDTHS[0]) for line in lines)),
        *(Text(cell) for cell in cells[1:]),
        style="bold" if bold else "",
    )
    return grid


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else f"{value:.0f}"
