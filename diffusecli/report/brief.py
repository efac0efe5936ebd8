"""Short output of an evaluation: for each prompt the verdicts in words and colour, five figures per sampler, and a histogram.

All other figures, with a legend, are in `summary.py` (`--verbose`). Fits 60 columns and uses more if available.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from diffusecli.evaluation.evaluation import Evaluated, Evaluation, by_prompt
from diffusecli.evaluation.groups import are_many
from diffusecli.evaluation.names import labels, prompt_names
from diffusecli.prompts.matching import Matching, nearly_matched, wider_rules
from diffusecli.prompts.wording_names import split_alias
from diffusecli.report.groups import group_legend, group_table
from diffusecli.report.histogram import Showing, shown_cells
from diffusecli.report.parts import bar, cut_in_words, middle, new_table, number, percent
from diffusecli.report.summary import at_a_glance, drifts, matrices
from diffusecli.report.wording import mark_of, of_wordings, sentence, short
from diffusecli.system.errors import many
from diffusecli.system.terminal import spelled

_STYLES = {"good": "green", "near": "yellow", "open": "yellow", "bad": "red"}
_MOST_FREQUENT = 5
_MOST_FIELDS = 10
_ENOUGH_KNOWN = 0.5  # share of records with known values, below which fields say little
_MANY_OFF = 0.05  # share of samples off target from which the most frequent ones are shown
_TEXT = 48  # characters of an answer
_NARROWEST_BAR, _WIDEST_BAR = 8, 60
NARROWEST = 60
"""Columns that are enough for all output."""


def brief(found: Evaluation, showing: Showing | None = None) -> RenderableType:
    """The short output of an evaluation; figures by folder if there are many prompts."""
    if are_many(found.rows):
        return Group(*at_a_glance(found))
    parts: list[RenderableType] = []
    names, samplers = prompt_names(r.prompt for r in found.rows), labels(found.rows)
    wider = wider_rules(row.prompt for row in found.rows) if found.matching == Matching() else []
    for of_prompt in by_prompt(found.rows):
        prompt = of_prompt[0].prompt
        parts.append(Text(spelled(names[prompt.key]), style="bold"))
        if split_alias(prompt.alias)[1]:
            parts.append(Text(spelled(short(prompt.question, 80))))
        for row in of_prompt:
            parts += _verdict(row, samplers[row.run, row.mode])
        sampled = [row for row in of_prompt if row.tally.n]
        if sampled:
            tuned = [row for row in sampled if row.mode != "untuned"]
            row = (tuned or sampled)[-1]
            parts += _answers(row, samplers[row.run, row.mode] if len(sampled) > 1 else "", showing or Showing(), wider)
        parts.append(Text(""))
    parts += matrices(found)
    if of_groups := list(group_table(found)):
        parts += [*of_groups, Text(f"By folder:\n{group_legend(found)}", style="dim")]
    return Group(*parts, *drifts(found))


def _verdict(row: Evaluated, sampler: str) -> Iterator[RenderableType]:
    """A line in words and colour, and the figures behind it."""
    sign, kind = mark_of(row.verdict)
    whole = Table.grid(padding=(0, 1))  # later lines of the sentence are indented
    whole.add_row(
        Text(f"  {sign}", style=_STYLES[kind]), Text(f"{spelled(sampler)}: {spelled(sentence(row.verdict))}", style=_STYLES[kind])
    )
    yield whole
    if figures := list(_figures(row)):
        yield _Flow(figures, indent=4)
    for line in of_wordings(row.exact.wordings) if row.exact is not None else ():
        yield _indented(line)
    if row.records is not None:
        enough = row.records.known >= _ENOUGH_KNOWN
        said = "" if enough else "; too few for a verdict on fields"
        yield _indented(f"records: {percent(row.records.known)} have known values only{said}")
        fields = row.records.fields[:_MOST_FIELDS] if enough else ()
        if fields:
            more = (
                [f"and {many(len(row.records.fields) - len(fields), 'more field')}"]
                if len(row.records.fields) > len(fields)
                else []
            )
            shown = [f"{mark_of(f.verdict)[0]} {spelled(f.name)} {f.tvd:.3f} ({f.tvd_floor:.3f})" for f in fields]
            yield _Flow(["TVD by field (perfect sampler):", *shown, *more], indent=4)
        if (score := row.records.sdmetrics) is not None:
            yield _indented(f"SDMetrics quality score {number(score.score)} (perfect sampler {number(score.perfect)})")


def _indented(line: str) -> RenderableType:
    return Padding(Text(spelled(line)), (0, 0, 0, 4), expand=False)


def _figures(row: Evaluated) -> Iterator[str]:
    f, exact = row.figures, row.exact
    if row.tally.n:
        yield f"N {row.tally.n}"
    if f is not None:
        yield f"valid {percent(f.valid)}"
        yield f"TVD {f.tvd:.3f} (perfect sampler {f.tvd_floor:.3f})"
        target, perfect = f"{f.target_entropy:.2f}", f"{f.entropy_perfect:.2f}"
        yield f"entropy {f.entropy:.2f} (target {target}{f', perfect sampler {perfect}' if perfect not in (target, 'nan') else ''})"
    if row.diversity is not None:
        yield f"{many(row.diversity.distinct, 'different answer')}"
        yield f"{percent(row.diversity.unseen_mass)} of the next would be new"
    if row.tally.unfinished:
        yield f"{percent(row.tally.unfinished_share)} unfinished"
    if exact is not None:
        error = f" ± {number(1.96 * exact.kl_error)}" if exact.kl_error else ""
        yield f"{'estimated' if exact.kl_error else 'exact'} KL {number(exact.kl)}{error}"
        if f is None and not math.isnan(exact.tvd):
            yield f"exact TVD {exact.tvd:.3f}"


def _answers(row: Evaluated, sampler: str, showing: Showing, wider: Sequence[str]) -> Iterator[RenderableType]:
    """The histogram, or the most frequent answers if none is a target."""
    if row.tally.on_target:
        yield _Histogram(row, showing, sampler)
        if row.tally.off_target.total() >= _MANY_OFF * row.tally.n:
            some = (
                f"{short(spelled(repr(text)), 24)} ({count})" for text, count in row.tally.off_target.most_common(_MOST_FREQUENT)
            )
            yield _Flow(["off target:", *some], indent=2)
    elif row.prompt.targets:
        yield Text(f"  most frequent of {many(row.tally.n, 'sample')}, none a target:")
        yield from (_counted(count, text) for text, count in row.tally.off_target.most_common(_MOST_FREQUENT))
    if row.diversity is not None and not row.tally.on_target:
        for outcome in row.diversity.top[:_MOST_FREQUENT]:
            yield _counted(outcome.count, outcome.text, cut_in_words(outcome))
    if missed := nearly_matched(row.prompt, row.tally.off_target, wider):
        yield Text(f"  {many(missed.samples, 'off-target sample')} would match with --match '{missed.rule}'")


def _counted(count: int, text: str, after: str = "") -> Text:
    """An answer and how often it came."""
    return Text(f"  {count:>6} x {short(spelled(repr(text)), _TEXT)}{after}")


class _Flow:
    """Short texts side by side, on as many lines as needed; no text is split."""

    def __init__(self, parts: Sequence[str], indent: int) -> None:
        self.parts, self.indent = parts, indent

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines: list[str] = []
        for part in self.parts:
            if lines and len(lines[-1]) + 3 + len(part) <= options.max_width:
                lines[-1] += f"   {part}"
            else:
                lines.append(" " * self.indent + part)
        yield from map(Text, lines)


class _Histogram:
    """Targets, their weights, and the shares of one sampler with bars as wide as there is room for."""

    def __init__(self, row: Evaluated, showing: Showing, sampler: str) -> None:
        self.row, self.showing, self.sampler = row, showing, sampler

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown, folded = shown_cells(self.row.cells, self.showing)
        n = self.row.tally.on_target
        texts = [spelled(cell.target).replace("\n", "\\n") for cell in shown]
        share = "share" if n == self.row.tally.n else "of valid"
        others = 2 + len("wanted ") + len(f"{share} ") + 3 + len("too rarely ") + 4
        width = min(max(map(len, [*texts, "target"])), options.max_width - others - _NARROWEST_BAR)
        names = middle(texts, width)
        room = min(_WIDEST_BAR, options.max_width - width - others)
        top = max(*(max(cell.weight, cell.count / n) for cell in shown), 1e-12)
        table = new_table(Text("  target"), ("wanted", "right"), (share, "right"), Text(spelled(self.sampler)), Text(""))
        for name, cell in zip(names, shown, strict=True):
            verdict = ("too often" if cell.residual > 0 else "too rarely") if cell.differs else ""
            table.add_row(
                Text(f"  {name}"),
                percent(cell.weight),
                percent(cell.count / n),
                bar(cell.count / n / top, "cyan", width=room),
                Text(verdict, style="bold"),
            )
        yield table
        if folded:
            weight, count = sum(cell.weight for cell in folded), sum(cell.count for cell in folded)
            chosen = "" if self.showing.sort else "showing the largest and the worst-fitting targets; "
            yield Text(f"  {chosen}{many(len(folded), 'more target')}: wanted {percent(weight)}, share {percent(count / n)}")
