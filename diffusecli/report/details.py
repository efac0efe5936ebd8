"""One sampler's answers to one prompt in detail: the histogram, the test of fit, moments, open-ended figures, texts off target.

Readable at 80 columns, without colour and in a pipe.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from diffusecli.evaluation.evaluation import Evaluated
from diffusecli.evaluation.metrics import Figures, in_words
from diffusecli.evaluation.open_ended import Diversity, Line
from diffusecli.prompts.matching import nearly_matched
from diffusecli.report.histogram import Histogram, Showing
from diffusecli.report.parts import cut_in_words, decimals, label, new_table, p_value, percent
from diffusecli.system.errors import many, shortened
from diffusecli.system.terminal import spelled

_OFF_TARGET = 5


def details(row: Evaluated, mark: str, sampler: str, showing: Showing, wider: Sequence[str]) -> Iterator[RenderableType]:
    """The histogram, the test of fit, figures of ordered and open-ended answers, texts off target."""
    if not row.tally.n:
        return
    yield Text(spelled(f"\n{row.prompt.alias}{mark}: {sampler}"), style="bold")
    if row.tally.on_target:
        yield Histogram(row, showing)
    elif row.prompt.targets:
        yield Text(f"none of {many(row.tally.n, 'sample')} {'is' if row.prompt.eos else 'begins with'} a target")
    if row.figures is not None and row.tally.on_target:
        yield Text(_fit(row.figures), style="dim")
    if (o := row.ordered) is not None:
        unit = f" {o.unit}" if o.unit else ""
        since = f" {o.unit} after {shortened(spelled(row.prompt.targets[0]), 20)}" if o.unit else ""
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
            yield Text(f"{many(missed.samples, 'off-target sample')} would match with\n  --match '{missed.rule}'")
    if row.tally.unfinished:
        yield from _texts(row.tally.unfinished, "unfinished text")


def _texts(counts: Counter[str], *what: str) -> Iterator[RenderableType]:
    yield Text(f"most frequent of {many(len(counts), *what)} ({many(counts.total(), 'sample')}):")
    for text, count in counts.most_common(_OFF_TARGET):
        yield Text(f"  {count:>6} x {shortened(spelled(repr(text)), 68)}")


def _fit(f: Figures) -> str:
    test = (
        f"test of fit: p {p_value(f)}, from G = {f.g:.2f} (p {f.g_p_value:.2g}), TVD (p {f.tvd_p_value:.2g}) and distinct targets "
        f"(p {f.seen_p_value:.2g}), {f.repeats} draws; Pearson's X2 = {f.pearson:.2f}, df {f.df} (p {f.pearson_p_value:.2g})"
    )
    more = (mark.template.format(percent(value) if mark.share else f"{value:.3f}") for mark, value in in_words(f))
    return "; ".join([test, *more])


def _open_ended(whole: Diversity, lines: Sequence[Line]) -> Iterator[RenderableType]:
    table = new_table(
        Text("answers"), ("distinct", "right"), ("once", "right"), ("unseen mass", "right"), ("Chao1", "right"), ("beyond", "right")
    )
    for name, found in [("whole", whole), *((line.heading, line.diversity) for line in lines)]:
        table.add_row(
            label(name, 24), str(found.distinct), str(found.once), percent(found.unseen_mass), f"{found.chao1:.0f}", percent(found.beyond),
        )  # fmt: skip
    yield table
    yield Text("unseen mass: the share of the next answers that would be new (Good-Turing). Chao1: estimated minimum number of different answers. "
               "beyond: outside the targets.", style="dim")  # fmt: skip
    yield from _commonest(whole)


def _commonest(found: Diversity) -> Iterator[RenderableType]:
    yield Text("most frequent:")
    for outcome in found.top[:_OFF_TARGET]:
        cut = cut_in_words(outcome)
        yield Text(f"  {outcome.count:>6} x {shortened(spelled(repr(outcome.text)), 68 - len(cut))}{cut}")
