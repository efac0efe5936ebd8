"""Tables over all prompts: drift, differences between samplers, matrices of groups; with many prompts the whole output."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from rich.console import RenderableType
from rich.text import Text

from diffusecli.evaluation.comparison import Estimate
from diffusecli.evaluation.evaluation import Difference, Evaluation, Matrix
from diffusecli.evaluation.groups import in_wordings
from diffusecli.evaluation.names import labels, prompt_names, short_names
from diffusecli.report.groups import group_legend, group_table, worst_table
from diffusecli.report.parts import Sentence, label, new_table, number
from diffusecli.report.wording import of_wordings
from diffusecli.system.errors import many, shortened
from diffusecli.system.terminal import spelled


def at_a_glance(found: Evaluation) -> Iterator[RenderableType]:
    """The output for many prompts, without the details of each."""
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
            yield Sentence(spelled(line), indent=3)


def drifts(found: Evaluation) -> Iterator[RenderableType]:
    """Drift of adapters from the base model on instructions, one line each."""
    names = short_names([run.run for run in found.runs])
    for run, drift in found.drift.items():
        yield Sentence(f"{spelled(names[run])}: drift from the base model on held-out instructions: {drift:.4f} nats per token")


def differences(
    found: Sequence[Difference], names: Mapping[tuple[str, str], str], samplers: Mapping[tuple[str, str], str]
) -> Iterator[RenderableType]:
    """Differences between two samplers of the same prompt, with bootstrap intervals."""
    if not found:
        return
    table = new_table(
        Text("difference"), Text("samplers"), ("excess TVD\n95 % interval", "right"), ("entropy\n95 % interval", "right"),
        ("exact\nKL", "right"),
    )  # fmt: skip
    for d in found:
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


def matrices(found: Evaluation) -> Iterator[RenderableType]:
    """Groups trained on by groups measured, for runs on different groups."""
    for matrix in found.matrices:
        yield from _matrix(matrix)


def _matrix(matrix: Matrix) -> Iterator[RenderableType]:
    table = new_table(Text("trained \\ measured"), *((shortened(spelled(group), 11), "right") for group in matrix.groups))
    names = short_names(matrix.runs)
    for run, values, trained in zip(matrix.runs, matrix.values, matrix.trained, strict=True):
        table.add_row(label(names[run], 20), *(f"{number(v)}{'+' if t else ' '}" for v, t in zip(values, trained, strict=True)))
    yield Text(f"\n{matrix.measure}, mean over prompts (+: trained on)", style="bold")
    yield table
