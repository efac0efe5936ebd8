"""An evaluation as Markdown that fits a pull request."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from diffusecli.evaluation.comparison import Estimate
from diffusecli.evaluation.evaluation import Evaluated, Evaluation, ways_of_sampling
from diffusecli.evaluation.groups import are_many, groups, has_groups, in_wordings, worst
from diffusecli.evaluation.names import labels, prompt_names, short_names
from diffusecli.evaluation.verdicts import p_value
from diffusecli.files.markdown import markdown_cell
from diffusecli.prompts.rounded_figures import with_rounding
from diffusecli.report.groups import columns, group_legend, worst_figures
from diffusecli.report.parts import format_of, nats, percent, thousandths
from diffusecli.report.wording import distinct_of_10, of_wordings
from diffusecli.system.terminal import spelled


def as_markdown(found: Evaluation) -> str:
    """Summary, differences and matrices as tables; for many prompts figures by folder and the worst ten prompts."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Evaluation) -> Iterator[str]:
    names = {key: spelled(name) for key, name in prompt_names(row.prompt for row in found.rows).items()}
    samplers = {pair: spelled(name) for pair, name in labels(found.rows).items()}
    glance, by_folder = are_many(found.rows), list(_groups(found, samplers))
    rows = worst(found.rows) if glance else found.rows
    if glance:
        heads, *figures = worst_figures(rows)
        yield from _head("furthest from the target", "sampler", *(f">{name}" for name in heads))
    else:
        yield from _head("prompt", "sampler", ">N", ">valid", ">entropy / target", ">seen / possible", ">TVD / floor", ">excess TVD",
                         ">exact KL", ">p", "verdict")  # fmt: skip
        figures = [[*_figures(row), spelled(row.verdict)] for row in rows]
    for row, cells in zip(rows, figures, strict=True):
        yield _line(names[row.prompt.key], samplers[row.run, row.mode], *cells)
    worded = [(row, line) for row in in_wordings(found.rows) if row.exact for line in of_wordings(row.exact.wordings)]
    worded += [
        (row, f"distinct of 10: {distinct_of_10(row.diversity)}") for row in found.rows if row.diversity is not None and not glance
    ]
    if worded:
        yield ""
    for row, line in worded:
        yield f"- {markdown_cell(f'{names[row.prompt.key]}, {samplers[row.run, row.mode]}: {spelled(line)}')}"
    compared = () if glance else found.differences
    if compared:
        yield from ("", *_head("difference", "samplers", ">excess TVD [95 %]", ">entropy [95 %]", ">exact KL"))
    for d in compared:
        pair = f"{samplers[d.after.run, d.after.mode]} − {samplers[d.before.run, d.before.mode]}"
        kl = "-" if math.isnan(d.exact_kl) else f"{d.exact_kl:+.4f}"
        yield _line(names[d.prompt.key], pair, _estimate(d.excess_tvd), _estimate(d.entropy), kl)
    for matrix in found.matrices:
        runs = short_names(matrix.runs)
        yield from (
            "",
            f"{matrix.measure}, mean over prompts (bold: trained on)",
            "",
            *_head("", *(f">{spelled(group)}" for group in matrix.groups)),
        )
        text = format_of(matrix.measure)
        for run, values, trained in zip(matrix.runs, matrix.values, matrix.trained, strict=True):
            yield _line(spelled(runs[run]), *(f"**{text(v)}**" if t else text(v) for v, t in zip(values, trained, strict=True)))
    yield from ("", *by_folder, "", group_legend(found, " ")) if by_folder else ()
    drifts = [f"{markdown_cell(spelled(run))}: {drift:.4f}" for run, drift in found.drift.items()]
    yield from ("", f"Drift on held-out instructions, nats per token: {', '.join(drifts)}.") if drifts else ()
    drawn = "; ".join(
        f"{samplers[pair]}: {spelled(words)}" for pair, some in ways_of_sampling(found.rows).items() for words in some
    )
    sampled = f"Sampled with {markdown_cell(drawn)}. " if drawn else ""
    yield from ("", f"valid: {markdown_cell(spelled(found.match_in_words))}. unfinished: cut at the limit of new tokens; never valid (open-ended: counted as they are). Entropy and KL in nats. floor: TVD of a perfect sampler at this N. "
                f"{sampled}Monte Carlo seed {found.seed}.")  # fmt: skip


def _groups(found: Evaluation, samplers: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """Figures by folder and sampler."""
    if not has_groups(found.rows):
        return
    parts = groups(found.rows)
    shown = columns(found)
    yield from _head("folder", "sampler", ">prompts", *(f">{' '.join(column.head)}" for column in shown))
    for folder, some in parts:
        name = spelled("all" if folder.label == "all" else folder.name)
        for group in some:
            yield _line(
                f"**{name}**" if folder.whole else name,
                samplers[group.run, group.mode],
                str(group.prompts),
                *(column.text(group) for column in shown),
            )


def _figures(row: Evaluated) -> tuple[str, ...]:
    f, kl = row.figures, "-"
    if row.exact is not None:
        kl = f"{'≈' if row.exact.kl_error else ''}{nats(row.exact.kl)}{with_rounding(row.exact.rounding)}"
    elif row.bounds is not None:
        kl = f"at least {nats(row.bounds.shown.kl_low)}"
    if f is None:
        return (str(row.tally.n), "-", "-", "-", "-", "-", kl, "-")
    cut = f", unfinished {percent(row.tally.unfinished_share)}" if f.unfinished else ""
    valid = f"{percent(f.valid)} [{100 * f.valid_low:.1f}–{100 * f.valid_high:.1f}]{cut}"
    seen = f"{f.seen} / {f.seen_expected:.1f}"
    return (
        str(f.n),
        valid,
        f"{f.entropy:.3f} / {f.target_entropy:.3f}",
        seen,
        f"{f.tvd:.3f} / {f.tvd_floor:.3f}",
        thousandths(f.excess_tvd),
        kl,
        p_value(f.p_value, f.least_p).removeprefix("p = "),
    )


def _estimate(found: Estimate) -> str:
    if math.isnan(found.value):
        return "-"
    return f"{found.value:+.3f}" + ("" if math.isnan(found.low) else f" [{found.low:+.3f}, {found.high:+.3f}]")


def _head(*names: str) -> Iterator[str]:
    """A header row; `>` marks right-aligned columns of numbers."""
    yield _line(*(name.removeprefix(">") for name in names))
    yield "|" + "|".join("---:" if name.startswith(">") else "---" for name in names) + "|"


def _line(*cells: str) -> str:
    return "| " + " | ".join(map(markdown_cell, cells)) + " |"
