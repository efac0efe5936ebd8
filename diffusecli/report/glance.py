"""Tables over all prompts: drift, differences between samplers, matrices of groups; with many prompts the whole output."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from diffusecli.evaluation.comparison import are_copies
from diffusecli.evaluation.evaluation import Difference, Evaluated, Evaluation, Matrix
from diffusecli.evaluation.groups import in_wordings
from diffusecli.evaluation.names import labels, prompt_names, short_names, with_sampler
from diffusecli.report import views
from diffusecli.report.groups import group_legend, group_table, worst_table
from diffusecli.report.parts import Flow, Sentence, format_of, label, nats, new_table, percent, thousandths
from diffusecli.report.parts import labels as short_labels
from diffusecli.report.scores import scores
from diffusecli.report.widths import distinguishable
from diffusecli.report.wording import DRIFT_SCALE, STYLES, mark_of, missing_intervals, of_wordings
from diffusecli.runs.sample_files import BASELINES
from diffusecli.system.errors import many
from diffusecli.system.terminal import spelled

_WIDEST_RUN = 28
_DIFFERENCE = len("  exact KL, no sampling error")


def at_a_glance(found: Evaluation) -> Iterator[RenderableType]:
    """The output for many prompts, without the details of each."""
    yield from counts(found)
    compared = list(runs(found))
    yield from compared
    yield from matrices(found)
    yield from worst_table(found)
    yield from _worded(found)
    yield from group_table(found)
    yield from () if compared else drifts(found)
    if count := len({row.prompt.key for row in found.rows if not row.prompt.targets}):
        yield Text(f"{many(count, 'prompt')} without targets not shown. Add --only NAME to see one")
    yield Text(f"\n{group_legend(found)}", style="dim")


def counts(found: Evaluation) -> Iterator[RenderableType]:
    """How many prompts each sampler follows."""
    for score in scores(found.rows, views.samplers(found.rows)):
        if score.judged:
            verb = "does not" if score.missed == 1 else "do not"
            others = ((score.close, "close", "near"), (score.open, "undecided", "open"), (score.missed, verb, "bad"))
            rest = [Text.assemble(", ", (f"{count} {words}", STYLES[kind])) for count, words, kind in others if count]
            name, style = spelled(score.sampler.label), STYLES["good"] if score.follows else ""
            yield Text.assemble(f"{name}: ", (f"{score.follows} of {score.judged} follow their target", style), *rest)


def _worded(found: Evaluation) -> Iterator[RenderableType]:
    """Distance of wordings and contexts from their targets, for prompts that have several."""
    rows, names, samplers = in_wordings(found.rows), prompt_names(row.prompt for row in found.rows), labels(found.rows)
    if rows:
        yield Text("\nother wordings and contexts, furthest from the target first", style="bold")
    for row in rows:
        yield Text(spelled(with_sampler(names[row.prompt.key], samplers[row.run, row.mode])))
        for line in of_wordings(row.exact.wordings) if row.exact is not None else ():
            yield Sentence(spelled(line), indent=3)


def runs(found: Evaluation) -> Iterator[RenderableType]:
    """A line per run: means over its prompts of exact figures and of samples. Nothing for a single run, or if each has one prompt of its own."""
    tuned = [row for row in found.rows if row.mode not in BASELINES]
    by_run = {facts.run: [row for row in tuned if row.run == facts.run] for facts in found.runs}
    by_run = {run: rows for run, rows in by_run.items() if rows}
    everywhere = set.intersection(*({row.prompt.digest for row in rows} for rows in by_run.values())) if by_run else set()
    if everywhere:  # so that means compare
        by_run = {run: [row for row in rows if row.prompt.digest in everywhere] for run, rows in by_run.items()}
    if len(by_run) < 2 or (not everywhere and all(len(rows) < 2 for rows in by_run.values())):
        return
    names = short_names(list(by_run))
    heads = ("exact\nKL", "exact on\ntarget", "TVD of\nsamples", "perfect\nsampler", "follow\ntarget", "drift")
    lines = [_of_run(rows, found.drift.get(run)) for run, rows in by_run.items()]
    known = [place for place in range(len(heads)) if any(line[place] != "-" for line in lines)]
    table = new_table(Text("run"), *([] if everywhere else [("prompts", "right")]), *((heads[place], "right") for place in known))
    shown = short_labels([names[run] for run in by_run], _WIDEST_RUN)
    for (rows, line), name in zip(zip(by_run.values(), lines, strict=True), shown, strict=True):
        table.add_row(name, *([] if everywhere else [str(len(rows))]), *(line[place] for place in known))
    if len(everywhere) == 1 and all(len(rows) == 1 for rows in by_run.values()):
        shared = next(row.prompt for row in tuned if row.prompt.digest in everywhere)
        title = f"runs, on the prompt {spelled(prompt_names(row.prompt for row in found.rows)[shared.key])}"
    else:
        title = f"runs: means over {many(len(everywhere), 'prompt') if everywhere else 'different prompts'}"
    yield Text(f"\n{title}", style="bold")
    yield table
    if heads.index("drift") in known:
        yield Sentence(f"drift: from the base model on held-out instructions, nats per token ({DRIFT_SCALE})", style="dim")


def _of_run(rows: Sequence[Evaluated], drift: float | None) -> tuple[str, ...]:
    """The figures of one run."""
    sampled = [row.figures for row in rows if row.figures is not None and row.tally.n]
    marks = [mark_of(row.verdict) for row in rows if row.figures is not None and row.tally.n]
    good, unsure = sum(kind == "good" for _, kind in marks), sum(sign == "?" for sign, _ in marks)
    exact = [row.exact for row in rows if row.exact is not None]
    return (
        nats(_mean(e.kl for e in exact)), percent(_mean(e.on_target for e in exact)), thousandths(_mean(f.tvd for f in sampled)),
        thousandths(_mean(f.tvd_floor for f in sampled)), f"{good} of {len(sampled)}{f', {unsure} ?' if unsure else ''}" if sampled else "-",
        "-" if drift is None else nats(drift),
    )  # fmt: skip


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return fmean(known) if known else math.nan


def drifts(found: Evaluation) -> Iterator[RenderableType]:
    """Drift of adapters from the base model on instructions, one line each."""
    names = short_names([run.run for run in found.runs])
    if found.drift:
        yield Text("")
    if len(found.drift) > 1:
        yield Sentence(f"drift from the base model on held-out instructions, nats per token ({DRIFT_SCALE}):")
        yield from (Sentence(f"{spelled(names[run])}: {nats(drift)}", indent=2) for run, drift in found.drift.items())
        return
    for run, drift in found.drift.items():
        yield Sentence(
            f"{spelled(names[run])}: drift from the base model on held-out instructions: {nats(drift)} nats per token ({DRIFT_SCALE})"
        )


def differences(
    found: Sequence[Difference], names: Mapping[tuple[str, str], str], samplers: Mapping[tuple[str, str], str]
) -> Iterator[RenderableType]:
    """Differences between two samplers of the same prompt, with bootstrap intervals."""
    if not found:
        return
    yield Text("\ndifferences, with 95 % intervals (bootstrap; !: the interval excludes zero)", style="bold")
    for d in found:
        after, before = (samplers[row.run, row.mode] for row in (d.after, d.before))
        few, more = sorted((d.before.tally.n, d.after.tally.n))
        thinned = [f"{more} answers thinned to {few}"] if few < more else []
        pair = spelled(f"{names[d.prompt.key]}: {after} minus {before}")
        if are_copies(d.before.tally, d.after.tally):
            yield Flow([pair, "the same answers"], indent=0, hanging=2)
            continue
        yield Flow([pair, *thinned], indent=0, hanging=2)
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(width=_DIFFERENCE)
        table.add_column(justify="right", width=9)
        for name, some in (("excess TVD", d.excess_tvd), ("entropy", d.entropy)):
            if not math.isnan(some.value) and (name != "entropy" or d.has_entropy):
                interval = "none" if math.isnan(some.low) else f"{some.low:+.3f} to {some.high:+.3f}"
                table.add_row(f"  {name}", f"{some.value:+.3f}{'!' if some.apart else ' '}", interval)
        if not math.isnan(d.exact_kl):
            table.add_row("  exact KL, no sampling error", f"{d.exact_kl:+.4f} ")
        yield table
    if reasons := missing_intervals(found):
        yield Text("")
        yield Sentence(f'"none" in place of an interval: {reasons}', style="dim")


def matrices(found: Evaluation) -> Iterator[RenderableType]:
    """Groups trained on by groups measured, for runs on different groups."""
    for matrix in found.matrices:
        yield from _matrix(matrix)


def _matrix(matrix: Matrix) -> Iterator[RenderableType]:
    table = new_table(
        Text("trained \\ measured"), *((name, "right") for name in distinguishable([spelled(group) for group in matrix.groups], 11))
    )
    names = short_names(matrix.runs)
    for run, values, trained in zip(matrix.runs, matrix.values, matrix.trained, strict=True):
        table.add_row(
            label(names[run], 20),
            *(f"{format_of(matrix.measure)(v)}{'+' if t else ' '}" for v, t in zip(values, trained, strict=True)),
        )
    yield Text(f"\n{matrix.measure}, mean over prompts (+: trained on)", style="bold")
    yield table
