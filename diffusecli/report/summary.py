"""An evaluation on the terminal: for each prompt the verdicts in words and colour, figures of each sampler, and a histogram.

By default five figures per sampler and one histogram per prompt; verbose: all figures (`all_figures.py`), every histogram with counts, and
a legend. Fits 60 columns and uses more if available.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from diffusecli.evaluation.evaluation import Evaluated, Evaluation, by_prompt
from diffusecli.evaluation.fit import SIGNIFICANCE
from diffusecli.evaluation.groups import are_many, tuned
from diffusecli.evaluation.metrics import Figures
from diffusecli.evaluation.names import labels, marks, prompt_names
from diffusecli.evaluation.records import RecordFigures
from diffusecli.evaluation.verdicts import p_value
from diffusecli.prompts.answers import by_count
from diffusecli.prompts.matching import Matching, nearly_matched, wider_rules
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.rounded_figures import with_rounding
from diffusecli.prompts.wording_names import split_alias
from diffusecli.report.all_figures import AllFigures, once
from diffusecli.report.glance import at_a_glance, counts, differences, drifts, matrices, runs
from diffusecli.report.groups import group_legend, group_table, row_table
from diffusecli.report.histogram import Histogram, Showing
from diffusecli.report.legend import Legend
from diffusecli.report.numbers import plus_minus
from diffusecli.report.parts import CountedText, Flow, Sentence, cut_in_words, nats, new_table, percent, thousandths
from diffusecli.report.target_names import record_names
from diffusecli.report.views import strays_shown
from diffusecli.report.widths import distinguishable
from diffusecli.report.wording import (
    FEW_VALID,
    MANY_OFF,
    MERGED,
    STYLES,
    distinct_of_10,
    furthest_value,
    mark_of,
    of_wordings,
    phrase_of,
    raised_entropy,
    sentence,
    short,
)
from diffusecli.system.errors import joined, many
from diffusecli.system.terminal import spelled

_BEST_FIRST = ("good", "near", "open", "bad")  # kinds of verdicts
_MOST_NAMED = 3  # samplers whose answers are not shown
_MOST_FREQUENT, _MOST_TEXTS = 5, 20  # texts by default, and with `--verbose`
_FEW_PROMPTS = 3  # whose verdicts are counted at a glance
_MOST_FIELDS, _FIELD = 10, 20
_ENOUGH_KNOWN = 0.5  # share of records with known values, below which fields say little
_WORTH_A_RULE = 0.01  # share of samples from which a wider rule is named
_ASKED = 80  # characters of a wording
_COARSE = 0.1  # detectable TVD, from which a verdict that the target is followed says so
_SHORT_TEXT = 34  # least columns of one of several answers in a line


def evaluation(found: Evaluation, showing: Showing | None = None, *, verbose: bool = False) -> RenderableType:
    """The whole output; figures by folder if there are many prompts."""
    if are_many(found.rows):
        return Group(*at_a_glance(found), *_terms(found))
    parts: list[RenderableType] = []
    names, samplers, marked = prompt_names(r.prompt for r in found.rows), labels(found.rows), marks(r.prompt for r in found.rows)
    wider = wider_rules(row.prompt for row in found.rows) if found.matching == Matching() else []
    of_prompts = by_prompt(found.rows)
    if len(of_prompts) > _FEW_PROMPTS:
        parts += [*counts(found), *row_table(found), Text("")]
    for of_prompt in of_prompts:
        prompt = of_prompt[0].prompt
        again = ": another prompt has this name too" if marked[prompt.key] else ""
        parts.append(Text(f"{spelled(names[prompt.key])}{again}{': figures' if verbose and not again else ''}", style="bold"))
        if split_alias(prompt.alias)[1]:
            parts.append(Text(spelled(short(prompt.question, _ASKED))))
        alike = once(of_prompt)
        rows = [row for row, *_ in alike]
        named = {(some[0].run, some[0].mode): joined([samplers[row.run, row.mode] for row in some]) for some in alike}
        for row in rows:
            parts += _sampler(row, named[row.run, row.mode], verbose=verbose)
        shown, hidden = _in_detail(rows, verbose=verbose)
        if verbose and shown:
            parts.append(Text(f"\n{spelled(names[prompt.key])}: answers", style="bold"))
        for row in shown:
            several = sum(bool(row.tally.n) for row in rows) > 1
            parts += _answers(row, named[row.run, row.mode] if several else "", showing or Showing(), wider, verbose=verbose)
        parts += _not_shown([named[row.run, row.mode] for row in hidden])
        parts.append(Text(""))
    parts = parts[:-1]
    if verbose:
        parts += differences(found.differences, names, samplers)
    compared = list(runs(found))
    parts += [*compared, *matrices(found)]
    of_groups = list(group_table(found))
    below: list[RenderableType] = [Text("\nterms", style="bold"), Legend(found)] if verbose and _has_terms(found) else []
    if of_groups:
        below += [Text(""), *(Sentence(line, style="dim") for line in ("Columns by folder:", *group_legend(found).splitlines()))]
    return Group(*parts, *of_groups, *(() if compared else drifts(found)), *below, *(() if verbose else _terms(found)))


def _has_terms(found: Evaluation) -> bool:
    """Whether the legend of all figures says anything."""
    return any(row.prompt.targets for row in found.rows)


def _terms(found: Evaluation) -> Iterator[RenderableType]:
    """The terms of the default output, in one line."""
    has_tvd = any(row.figures is not None or row.bounds is not None or "TVD" in row.verdict for row in found.rows)
    has_kl = any(row.exact is not None or row.bounds is not None for row in found.rows)
    terms = ["TVD: share of all answers that would have to change"] if has_tvd else []
    has_excess = len({row.prompt.key for row in found.rows if row.figures is not None}) > _FEW_PROMPTS
    terms += ["Excess: TVD minus that of a perfect sampler"] if has_excess else []
    terms += ["KL: in nats"] if has_kl else []
    near = any(row.verdict.startswith("close to") for row in found.rows)
    if any(row.diversity is not None and not math.isnan(row.diversity.distinct_of_10) for row in found.rows):
        yield from (Text(""), Sentence("distinct of 10: different answers expected among 10", style="dim"))
    if terms:
        close = ". Close: a true TVD, without sampling noise, of at most 0.02" if near else ""
        yield from (Text(""), Sentence(f"{'. '.join(terms)}. 0 is perfect{close}", style="dim"))


def _in_detail(rows: Sequence[Evaluated], *, verbose: bool) -> tuple[Sequence[Evaluated], Sequence[Evaluated]]:
    """The samplers whose answers are shown: all, or the worst tuned one by verdict, then by TVD; and the other tuned ones."""
    sampled = [row for row in rows if row.tally.n]
    if verbose or not sampled:
        return sampled, ()
    of_interest = tuned(sampled)
    worst = max(of_interest, key=_badness)
    return (worst,), [row for row in of_interest if row is not worst]


def _badness(row: Evaluated) -> tuple[int, float]:
    return _BEST_FIRST.index(mark_of(row.verdict)[1]), row.figures.tvd if row.figures is not None else 0.0


def _not_shown(samplers: Sequence[str]) -> Iterator[RenderableType]:
    """The samplers whose answers only `--verbose` shows."""
    if samplers:
        named = joined([spelled(sampler) for sampler in samplers])
        of = named if len(samplers) <= _MOST_NAMED else f"{len(samplers)} more samplers"
        yield Sentence(f"answers of {of}: add `--verbose`", indent=2, style="dim")


def _sampler(row: Evaluated, sampler: str, *, verbose: bool) -> Iterator[RenderableType]:
    """A line in words and colour, and the figures behind it."""
    sign, kind = mark_of(row.verdict)
    whole = Table.grid(padding=(0, 1))  # later lines of the sentence are indented
    words = row.verdict if verbose else sentence(row.verdict)
    whole.add_row(Text(f"  {sign}", style=STYLES[kind]), Sentence(f"{spelled(sampler)}: {spelled(words)}", style=STYLES[kind]))
    yield whole
    if verbose:
        yield AllFigures(row)
    elif figures := list(_figures(row)):
        yield Flow(figures, indent=4)
    for line in of_wordings(row.exact.wordings) if row.exact is not None else ():
        yield Sentence(spelled(line), indent=4)
    if row.records is not None and not verbose:
        yield from _records(row)


def _figures(row: Evaluated) -> Iterator[str]:
    f, exact = row.figures, row.exact
    if row.tally.n:
        yield f"N {row.tally.n}{f' in {spelled(row.file)}' if row.file else ''}"
    if f is not None:
        yield from _sampled(row, f)
    if row.diversity is not None:
        yield f"{many(row.diversity.once, 'answer') if row.diversity.once else 'no answer'} only once"
        if row.diversity.top:
            yield f"most frequent {percent(row.diversity.top[0].count / row.diversity.n)}"
        if not math.isnan(row.diversity.distinct_of_10):
            yield f"distinct of 10: {distinct_of_10(row.diversity)}"
    if row.tally.unfinished and "unfinished" not in row.verdict:
        yield f"{percent(row.tally.unfinished_share)} unfinished"
    if exact is not None:
        yield f"{'estimated' if exact.kl_error else 'exact'} KL {plus_minus(exact.kl, exact.kl_error) if exact.kl_error else nats(exact.kl)}{with_rounding(exact.rounding)}"
        if f is not None and not math.isnan(exact.tvd):
            yield f"exact TVD {thousandths(exact.tvd)}"
        if f is None and not math.isnan(exact.on_target):  # the verdict has the TVD
            yield f"on target {percent(exact.on_target)}"
    elif row.bounds is not None:
        limits = row.bounds.shown
        yield f"KL at least {nats(limits.kl_low)}"
        if f is not None:  # otherwise the verdict has it
            yield f"TVD at least {thousandths(limits.tvd_low)}"
        yield f"on target at most {percent(limits.on_target_high)}"


def _sampled(row: Evaluated, f: Figures) -> Iterator[str]:
    """Figures of samples that are compared with targets."""
    if "off target" not in row.verdict:  # which has the same figure
        yield f"valid {percent(f.valid)}"
    yield f"TVD {thousandths(f.tvd)} (perfect sampler {thousandths(f.tvd_floor)})"
    yield _entropy(f, sum(count > 0 for count in row.tally.cells))
    if f.detectable_tvd > _COARSE and phrase_of(row.verdict).startswith("follows the target ("):
        yield f"a TVD below {thousandths(f.detectable_tvd)} could be missed"


def _entropy(f: Figures, different: int) -> str:
    """The entropy beside the target's; if almost no answer is valid, it is that of other texts, and their number says more."""
    if f.valid < FEW_VALID:
        return many(different, "different answer")
    target, perfect = f"{f.target_entropy:.2f}", f"{f.entropy_perfect:.2f}"
    beside = f"target {target}{f', perfect sampler {perfect}' if perfect not in (target, 'nan') else ''}"
    return f"entropy {f.entropy:.2f} ({beside}{raised_entropy(f)})"


def _records(row: Evaluated) -> Iterator[RenderableType]:
    """Fields of records, if enough answers are records."""
    found = row.records
    if found is None:
        return
    enough = found.known >= _ENOUGH_KNOWN
    hint = "" if enough or not found.fits else "`--verbose` shows each field"
    is_new = row.figures is None or percent(found.known) != percent(row.figures.valid)
    known = f"records: in {percent(found.known)} of the answers, every field has a value of a target" if is_new else ""
    said = ". ".join(filter(None, (known, found.unreadable, hint)))
    if said:
        yield Sentence(said, indent=4)
    if enough and found.fields:
        yield _fields(found)
        if more := len(found.fields) - _MOST_FIELDS:
            yield from [Text(f"    and {many(more, 'more field')}")] if more > 0 else []
    if found.sdmetrics is not None:
        score = found.sdmetrics
        yield Sentence(
            f"SDMetrics quality score {thousandths(score.score)} (perfect sampler {thousandths(score.perfect)})", indent=4
        )


def _fields(found: RecordFigures) -> RenderableType:
    """Each field with its distance and its verdict; of a field that differs, the value furthest from its weight. The verdict wraps."""
    fields = found.fields[:_MOST_FIELDS]
    table = new_table(Text("    field"), ("TVD", "right"), ("perfect\nsampler", "right"))
    table.add_column("verdict")
    for f, name in zip(fields, distinguishable([spelled(f.name) for f in fields], _FIELD), strict=True):
        sign, kind = mark_of(f.verdict)
        furthest = furthest_value(found, f)
        said = Sentence(sentence(f.verdict) + (f": {spelled(furthest)}" if furthest else ""), style=STYLES[kind])
        table.add_row(Text.assemble("  ", (sign, STYLES[kind]), f" {name}"), thousandths(f.tvd), thousandths(f.tvd_floor), said)
    return table


def _answers(row: Evaluated, sampler: str, showing: Showing, wider: Sequence[str], *, verbose: bool) -> Iterator[RenderableType]:
    """The histogram, the most frequent answers if none is a target, and those off target."""
    if verbose and sampler:
        yield Text(f"\n  {spelled(sampler)}", style="bold")
    if row.tally.on_target:
        yield Histogram(row, showing, "" if verbose else sampler, full=verbose)
        f = row.figures
        if f is not None and f.p_value < SIGNIFICANCE and not f.too_even and not any(cell.differs for cell in row.cells):
            yield Sentence(f"no single target stands out; together {p_value(f.p_value, f.least_p)}", indent=2)
    elif row.prompt.targets:
        verb = "is" if row.prompt.eos else "begins with"
        yield Sentence(f"none of {many(row.tally.n, 'sample')} {verb} a target", indent=2)
    if row.diversity is not None:
        yield Text("  most frequent:")
        if verbose:
            yield Sentence(MERGED, indent=4, style="dim")
        top = row.diversity.top if verbose else row.diversity.top[:_MOST_FREQUENT]
        yield from (CountedText(outcome.count, outcome.text, cut_in_words(outcome), whole=verbose) for outcome in top)
        yield from _left_out(row.diversity.distinct, len(top))
        return
    off, cut = row.tally.off_target, row.tally.unfinished
    if row.tally.on_target and not verbose:
        if off.total() >= MANY_OFF * row.tally.n or (off and "off target" in row.verdict):
            yield _SeveralTexts("off target:", row.prompt, by_count(off), len(cut))
    else:
        hidden = f"; the other {cut.total()} are unfinished" if off and cut and not verbose else ""
        most = strays_shown(row, _MOST_TEXTS) if verbose else _MOST_FREQUENT
        yield from _texts(off, "text off target", "texts off target", after=hidden, of=row.tally.n, whole=verbose, most=most)
        if verbose or not off:
            yield from _texts(cut, "unfinished text", of=row.tally.n, whole=verbose, most=most)
    if (missed := nearly_matched(row.prompt, off, wider)) and missed.samples >= _WORTH_A_RULE * row.tally.n:
        yield Sentence(str(missed), indent=2)


def _texts(counts: Counter[str], *what: str, after: str = "", of: int, whole: bool, most: int) -> Iterator[RenderableType]:
    """The `most` frequent texts, cut unless `whole`; their number of samples, unless they are all `of` them."""
    if counts:
        samples = f" ({many(counts.total(), 'sample')}{after})" if counts.total() < of else ""
        yield Sentence(f"{many(len(counts), *what)}{samples}:", indent=2)
        yield from (CountedText(count, text, whole=whole) for text, count in by_count(counts)[:most])
        yield from _left_out(len(counts), most)


def _left_out(texts: int, shown: int) -> Iterator[RenderableType]:
    """How many texts are not shown."""
    if texts > shown:
        yield Text(f"         and {many(texts - shown, 'more text')}")


class _SeveralTexts:
    """The most frequent texts with their counts side by side, each in at most half of the width, and how many there are besides."""

    def __init__(self, heading: str, prompt: Prompt, texts: Sequence[tuple[str, int]], unfinished: int) -> None:
        """`unfinished`: the number of unfinished texts, which are not shown. Records to the prompt are their values."""
        self.heading, self.prompt, self.texts, self.unfinished = heading, prompt, texts, unfinished

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        most = max(_SHORT_TEXT, options.max_width // 2 - 12)
        texts = self.texts[:_MOST_FREQUENT]
        records = record_names(self.prompt, [text for text, _ in texts])
        whole = [spelled(repr(text)) for text, _ in texts]
        quotes = ["" if record is not None else text[0] for record, text in zip(records, whole, strict=True)]
        bare = [
            text[1:-1] if record is None else spelled(record).replace("\n", "\\n")
            for record, text in zip(records, whole, strict=True)
        ]
        cut = distinguishable(bare, most - 2)
        shown = [f"{quote}{middle}{quote} ({count})" for quote, middle, (_, count) in zip(quotes, cut, texts, strict=True)]
        more = [f"and {many(len(self.texts) - len(shown), 'more text')}"] if len(self.texts) > len(shown) else []
        cut_short = [f"and {many(self.unfinished, 'unfinished text')}"] if self.unfinished else []
        yield Flow([self.heading, *shown, *more, *cut_short], indent=2, hanging=2)
