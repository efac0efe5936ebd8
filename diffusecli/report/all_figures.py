"""All figures of one sampler's answers to one prompt, one per line: name, value, and what to compare it with.

`evaluate --verbose` prints them, and the HTML report has the same lines below each verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from diffusecli.evaluation.bounds import BoundedFigures
from diffusecli.evaluation.distinctness import DRAWS
from diffusecli.evaluation.evaluation import UNSAMPLED, Evaluated
from diffusecli.evaluation.fit import SIGNIFICANCE
from diffusecli.evaluation.metrics import ExactFigures, Figures
from diffusecli.evaluation.open_ended import Diversity
from diffusecli.evaluation.ordered import Ordered
from diffusecli.evaluation.records import PAIRS_LEVEL, RecordFigures
from diffusecli.evaluation.verdicts import TOO_COARSE, p_value, too_few
from diffusecli.prompts.rounded_figures import with_rounding
from diffusecli.report.numbers import plus_minus
from diffusecli.report.parts import Sentence, nats, percent, percent_span, tenths, thousandths
from diffusecli.report.widths import start_of
from diffusecli.report.wording import FEW_VALID, distinct_of_10, furthest_value, raised_entropy
from diffusecli.system.errors import many
from diffusecli.system.terminal import spelled

_WIDEST_NAME, _VALUE, _INDENT, _BELOW = 24, 11, 4, 8
_NARROWEST_NOTE = 32  # columns of a note beside its figure; in fewer, it is below
_LONGEST_NAME = 80  # characters, on several lines
_TEXT = 20


class Line(NamedTuple):
    """One figure."""

    name: str
    value: str
    note: str = ""


class AllFigures:
    """A table of three columns; on a narrow terminal the notes are below their figures. Names and notes wrap, so it fits any width."""

    def __init__(self, row: Evaluated) -> None:
        self.row = row

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        beside = options.max_width - _WIDEST_NAME - _VALUE - 4 >= _NARROWEST_NOTE
        table = _grid(noted=beside)
        for line in lines_of(self.row):
            name = line.name.lstrip()
            indent = _INDENT + len(line.name) - len(name)
            cells: list[RenderableType] = [
                Sentence(start_of(spelled(name), _LONGEST_NAME), indent=indent),
                Text(spelled(line.value)),
            ]
            note = Sentence(spelled(line.note), indent=0 if beside else _BELOW, style="dim")
            if beside:
                table.add_row(*cells, note)
                continue
            table.add_row(*cells)
            if line.note:
                yield from (table, note)
                table = _grid(noted=False)
        yield table


def _grid(*, noted: bool) -> Table:
    """A table for names and figures, and notes."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=_WIDEST_NAME)
    table.add_column(justify="right", no_wrap=True, min_width=_VALUE)
    if noted:
        table.add_column()
    return table


def lines_of(row: Evaluated) -> Iterator[Line]:
    """All figures that are known."""
    if row.tally.n:
        yield Line("samples", str(row.tally.n), "; ".join(filter(None, (row.file, row.settings_in_words))))
    if row.figures is not None:
        yield from _of_samples(row.figures)
    if row.tally.unfinished:
        yield Line(
            "unfinished",
            percent(row.tally.unfinished_share),
            f"cut at the limit of new tokens; {'counted as they are' if row.diversity else 'never valid'}",
        )
    if row.figures is not None and row.tally.on_target:
        yield from _of_fit(row.figures, decides=row.records is None or not row.records.doubt)
    if row.exact is not None:
        yield from _of_probabilities(row.exact, row.tally.n)
    if row.bounds is not None and row.exact is None:
        yield from _of_limits(row.bounds.shown, len(row.prompt.targets))
    if row.ordered is not None:
        yield from _of_values(row.ordered, row.prompt.targets[0])
    if row.diversity is not None:
        yield from _open_ended(row.diversity, row.tally.unfinished.total())
        for part in row.lines:
            some = part.diversity
            beyond = "" if math.isnan(some.beyond) else f", beyond {percent(some.beyond)}"
            yield Line(
                part.heading,
                str(some.distinct),
                f"different; {some.once} once, unseen {percent(some.unseen_mass)}, Chao1 {some.chao1:.0f}{beyond}",
            )
    if row.records is not None:
        yield from _of_records(row.records)


def _of_samples(f: Figures) -> Iterator[Line]:
    yield Line("valid", percent(f.valid), f"95 % interval {percent_span(f.valid_low, f.valid_high)}")
    if f.seen:
        yield from _of_outcomes(f)
    without = "" if math.isnan(f.tvd_low) else f"; true TVD {thousandths(f.tvd_low)} to {thousandths(f.tvd_high)} (95 % interval)"
    yield Line(
        "TVD", thousandths(f.tvd), f"perfect sampler {thousandths(f.tvd_floor)}, excess {thousandths(f.excess_tvd)}{without}"
    )


def _of_outcomes(f: Figures) -> Iterator[Line]:
    yield Line(
        "entropy",
        thousandths(f.entropy),
        f"nats; target {thousandths(f.target_entropy)}, perfect sampler {thousandths(f.entropy_perfect)}{raised_entropy(f)}",
    )
    yield Line("effective outcomes", tenths(f.effective), f"exp(entropy); target {tenths(math.exp(f.target_entropy))}")
    yield Line("distinct targets", str(f.seen), f"of {f.targets}; perfect sampler {tenths(f.seen_expected)}")
    yield Line("weight covered", percent(f.weight_covered), "summed weight of the targets seen")


def _of_fit(f: Figures, *, decides: bool) -> Iterator[Line]:
    """`decides`: whether the verdict on the weights is that of the test."""
    if too_few(f):  # the statistics are known, but p-values say nothing
        nothing = f.detectable_tvd >= 1
        least = "no difference would be detected" if nothing else f"it could miss a true TVD below {thousandths(f.detectable_tvd)}"
        yield Line("test of fit", "-", f"too few valid answers: {least}; a verdict needs {TOO_COARSE} or less, with 80 % power")
        if f.valid >= FEW_VALID:
            yield Line("G", thousandths(f.g))
            yield Line("Pearson's X2", thousandths(f.pearson), f"df {f.df}")
            yield Line("Cohen's w", thousandths(f.cohens_w), "effect size, corrected for bias")
        return
    if not math.isnan(f.p_value):
        level = f"; {'decides on the shares: ' if decides else ''}below {SIGNIFICANCE} they do not fit"
        of = f"of valid answers: lowest of the three p below, corrected for testing three ({f.repeats} simulated samples){level}"
        yield Line("test of fit", p_value(f.p_value, f.least_p), of)
        for by, p, sides, note in (
            ("G", f.g_p_value, 2, f"two-sided; G {thousandths(f.g)}"),
            ("TVD", f.tvd_p_value, 1, "one-sided (a large TVD)"),
            ("targets seen", f.seen_p_value, 2, "two-sided"),
        ):
            lowest = f"; none of {f.repeats} simulated samples is as extreme" if p <= sides * f.least_p * 1.001 else ""
            yield Line(f"  by {by}", p_value(p, sides * f.least_p), f"{note}{lowest}")
        yield Line(
            "Pearson's X2", thousandths(f.pearson), f"df {f.df}, {p_value(f.pearson_p_value, f.least_p)}; not part of the test"
        )
        yield Line("Cohen's w", thousandths(f.cohens_w), "effect size, corrected for bias")
    if not math.isnan(f.detectable_tvd):
        least = "none" if f.detectable_tvd >= 1 else thousandths(f.detectable_tvd)
        yield Line("detectable TVD", least, "among valid answers, with 80 % power")


def _of_probabilities(exact: ExactFigures, n: int) -> Iterator[Line]:
    kind = "estimated KL" if exact.kl_error else "exact KL"
    value, _, error = plus_minus(exact.kl, exact.kl_error).partition(" ± ")
    yield Line(
        kind, value, f"{f'± {error} ' if error else ''}nats, KL(target || model){with_rounding(exact.rounding)}; 0 is perfect"
    )
    if not math.isnan(exact.on_target):
        yield Line("exact on target", percent(exact.on_target), "100 % is perfect")
    if not math.isnan(exact.tvd):
        yield Line(
            "exact TVD", thousandths(exact.tvd), f"{with_rounding(exact.tvd_rounding).strip()}; 0 is perfect".removeprefix("; ")
        )
    if not math.isnan(exact.seen_expected):
        yield Line("exact distinct", tenths(exact.seen_expected), f"targets expected in {n or UNSAMPLED} answers")


def _of_limits(limits: BoundedFigures, targets: int) -> Iterator[Line]:
    """What is known of exact figures from the most likely first tokens."""
    yield Line("KL, at least", nats(limits.kl_low), "nats, KL(target || model); a limit, not exact")
    yield Line("TVD, at least", thousandths(limits.tvd_low), f"a limit, from the {limits.listed} most likely first tokens")
    yield Line(
        "on target, at most", percent(limits.on_target_high), f"a limit; {limits.begun} of {targets} targets begin with one of them"
    )


def _of_values(o: Ordered, first: str) -> Iterator[Line]:
    unit = f"{o.unit} after {start_of(first, _TEXT)}; " if o.unit else ""
    yield Line("mean", thousandths(o.mean), f"{unit}target {thousandths(o.target_mean)}")
    yield Line("variance", thousandths(o.variance), f"target {thousandths(o.target_variance)}")
    yield Line(
        "Wasserstein distance",
        thousandths(o.wasserstein),
        f"{f'{o.unit}; ' if o.unit else ''}perfect sampler {thousandths(o.wasserstein_floor)}",
    )


def _open_ended(found: Diversity, unfinished: int) -> Iterator[Line]:
    yield Line("different", str(found.distinct), f"answers; {found.once} once")
    if found.top:
        yield Line("most frequent", percent(found.top[0].count / found.n), start_of(found.top[0].text.replace("\n", "\\n"), _TEXT))
    yield Line("unseen", percent(found.unseen_mass), "share of the next answers that would be new (Good-Turing)")
    yield Line("Chao1", f"{found.chao1:.0f}", "estimated minimum number of different answers (bias-corrected)")
    value, _, interval = distinct_of_10(found).partition(" ")
    yield Line("distinct of 10", value, f"{_about_distinct(found, interval, unfinished)} (NoveltyBench, by normalised text)")
    if not math.isnan(found.beyond):
        yield Line("beyond", percent(found.beyond), "share outside the targets")


def _about_distinct(found: Diversity, interval: str, unfinished: int) -> str:
    """The meaning of the figure, with its error and the number of unfinished answers in it."""
    if found.n < DRAWS:
        return f"needs {DRAWS} answers"
    unknown = "all answers differ" if found.distinct == found.n else "all texts are equally frequent"
    error = (
        f"{interval.strip('()')} (95 % interval); " if interval else f"error unknown: {unknown}; " if found.error_is_unknown else ""
    )
    cut = f"; {unfinished} unfinished" if unfinished else ""
    return f"{error}different texts expected in {DRAWS} answers{cut}"


def _of_records(found: RecordFigures) -> Iterator[Line]:
    yield Line("records", percent(found.fits), "of the answers fit the template")
    if not found.fits:
        return
    yield Line("  known values", percent(found.known), "of the answers: every field has a value of a target")
    yield Line("  copies", percent(found.copies), "of the answers are whole targets")
    for f in found.fields:
        furthest = furthest_value(found, f)
        yield Line(
            f"TVD of {f.name}",
            thousandths(f.tvd),
            f"{many(f.values, 'value')}; perfect sampler {thousandths(f.tvd_floor)}: {f.verdict}{f', furthest: {furthest}' if furthest else ''}; the shares differ if p < {found.field_level:.3g}",
        )
    if (worst := found.worst_pair) is not None:
        judged = worst.departure(worst.perfect) if found.pairs_p_value < PAIRS_LEVEL else "fits"
        over = " over all pairs" if len(found.pairs) > 1 else ""
        yield Line(
            f"worst of {len(found.pairs)} pairs" if over else "association", thousandths(worst.sampled),
            f"{worst.measure} of {worst.first} and {worst.second}: {judged} ({p_value(found.pairs_p_value, found.least_pairs_p)}{over}; differs if p < {PAIRS_LEVEL:.3g}); "
            f"perfect sampler {thousandths(worst.perfect)}, weights {thousandths(worst.target)}",
        )  # fmt: skip
    if (wrong := found.wrong_pair) is not None and found.wrong_fields:
        yield Line(
            "  at these shares", thousandths(wrong.sampled),
            f"{wrong.measure} of {wrong.first} and {wrong.second}: {wrong.departure(wrong.given_fields)} "
            f"({p_value(found.beyond_fields_p_value, found.least_pairs_p)}); perfect sampler with the sampled shares of fields {thousandths(wrong.given_fields)}",
        )  # fmt: skip
    if found.sdmetrics is not None:
        yield Line("SDMetrics score", thousandths(found.sdmetrics.score), f"perfect sampler {thousandths(found.sdmetrics.perfect)}")


def once(rows: Sequence[Evaluated]) -> list[list[Evaluated]]:
    """The rows to one prompt, each in a list of its own; untuned models with the same answers and figures are in one."""
    found: list[list[Evaluated]] = []
    for row in rows:
        alike = next((some for some in found if row.mode == some[0].mode == "untuned" and _looks_like(row, some[0])), None)
        if alike is None:
            found.append(alike := [])
        alike.append(row)
    return found


def _looks_like(row: Evaluated, other: Evaluated) -> bool:
    """Whether every line about the two would be the same."""
    worded = [one.exact.wordings if one.exact is not None else () for one in (row, other)]
    return row.tally == other.tally and worded[0] == worded[1] and list(lines_of(row)) == list(lines_of(other))
